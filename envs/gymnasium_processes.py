"""Lanes of a Gymnasium environment in processes of their own, by `gymnasium.vector.AsyncVectorEnv`.

They are for environments slower than a message between processes, and run beside each other and the learner.
What a lane shows is the same as with `Lanes` of `GymnasiumLane`.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from numpy.typing import NDArray

from wn_rl.envs.base import Environments, Lanes, Rules, Step, check_actions, first_step
from wn_rl.envs.gymnasium_lanes import Description, GymnasiumLane

# An error comes through; Gymnasium warns of its traceback too, which is for errors of the environment's own.
_SAID_TWICE = r"(?s).*ERROR: (Received the following|Raising the last|.*(InvalidOutput|FloatingPointError): )"
LANE_SECONDS = 300.0  # for an answer; a lane that takes longer hangs
RESTORE_SECONDS = 3600.0  # for playing a saved episode again


class GymnasiumProcesses(Environments):
    """One process a lane. Observations come through shared memory."""

    def __init__(self, description: Description, rules: Rules, num_envs: int, seed: int) -> None:
        self.spec = description.spec
        self.num_envs = num_envs
        warnings.filterwarnings("ignore", _SAID_TWICE)
        make_lane = partial(_LaneOfMany, description, rules.max_episode_frames, seed, os.getpid())
        # A server without threads is forked, since torch and the sinks of metrics have some. What it has imported
        # is there in each lane, which starts in a tenth of the time.
        multiprocessing.get_context("forkserver").set_forkserver_preload([__name__])
        self._vector: Any = AsyncVectorEnv(
            [partial(make_lane, lane) for lane in range(num_envs)],
            context="forkserver",
            autoreset_mode=AutoresetMode.NEXT_STEP,
        )
        self._over = np.ones(num_envs, dtype=bool)
        self._started = self._sent = False

    def reset(self) -> Step:
        self._ask(self._vector.reset_async, options={"anew": True})
        observation, _ = self._ask(self._vector.reset_wait, timeout=LANE_SECONDS)
        self._over[:] = False
        self._started = True
        return first_step(observation)

    def send(self, actions: NDArray[np.int64]) -> None:
        if not self._started or self._sent:
            raise RuntimeError("send comes after reset, load_state_dict or recv")
        check_actions(actions, self.num_envs, self.spec.num_actions)
        self._ask(self._vector.step_async, actions)
        self._sent = True

    def recv(self) -> Step:
        if not self._sent:
            raise RuntimeError("send comes before recv")
        self._sent = False
        observation, reward, terminated, truncated, _ = self._ask(self._vector.step_wait, timeout=LANE_SECONDS)
        first, self._over = self._over, terminated | truncated
        return Step(observation, reward.astype(np.float32), (~terminated).astype(np.float32), first)

    def render(self) -> NDArray[np.uint8]:
        picture: NDArray[np.uint8] = self._call("picture", 0)[0]
        return picture

    def state_dict(self) -> dict[str, Any]:
        return {"lanes": list(self._call("state_dict"))}

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        lost = self._call("load_one_of", state["lanes"], seconds=RESTORE_SECONDS)
        self._over = np.array(self._call("over"))
        self._started = True
        return [lane for lane, is_lost in enumerate(lost) if is_lost]

    def close(self) -> None:
        if self._vector.closed:
            return
        with contextlib.suppress(RuntimeError):  # a lane has died, and with it all
            if self._sent:
                self.recv()
            self._ask(self._vector.close)

    def _call(self, name: str, *arguments: Any, seconds: float = LANE_SECONDS) -> Any:
        """What the lanes have, or answer, under a name."""
        self._ask(self._vector.call_async, name, *arguments)
        return self._ask(self._vector.call_wait, timeout=seconds)

    def _ask(self, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What the vector class answers. RuntimeError: a lane has died or hangs; the others are ended too."""
        try:
            return question(*arguments, **named)
        except (EOFError, OSError, multiprocessing.TimeoutError) as error:
            if isinstance(error, multiprocessing.TimeoutError):
                hung = [str(lane) for lane, pipe in enumerate(self._vector.parent_pipes) if not pipe.poll()]
                words = f"lane {' and '.join(hung)} gave no answer within {named['timeout']:g} seconds"
            else:
                deadline = time.monotonic() + 1  # the pipe may close before the process has ended
                while not (deaths := _deaths(self._vector.processes)) and time.monotonic() < deadline:
                    time.sleep(0.01)
                if not deaths:  # an error of the environment's own
                    raise
                words = f"the process of lane {' and '.join(deaths)} has died"
            # Gymnasium would wait for answers that never come, and ask dead processes to close.
            for process in self._vector.processes:
                process.kill()
                process.join()
            self._vector.closed = True
            raise RuntimeError(words) from error


def _end_with_the_run() -> None:
    """Let the system kill this process when the run, whose pipe this is, has ended; only Linux can."""
    run = multiprocessing.parent_process()
    if run is not None and hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(run.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(run.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(run.sentinel, fcntl.F_SETFL, fcntl.fcntl(run.sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _deaths(processes: Sequence[Any]) -> list[str]:
    """The lanes whose processes have ended, but not by being closed."""
    return [f"{lane} (exit code {p.exitcode})" for lane, p in enumerate(processes) if p.exitcode]


class _LaneOfMany(gymnasium.Env[NDArray[Any], np.int64]):
    """One lane, in its process, as the vector class steps it. Its seeds are its own."""

    def __init__(
        self, description: Description, max_episode_frames: int, seed: int, parent: int, lane: int
    ) -> None:
        if os.getpid() != parent:
            os.setsid()  # the terminal's signals are for the run, which saves and then ends us
            _end_with_the_run()
        self._lane = lane
        self._lanes = Lanes(lambda _: GymnasiumLane(description, max_episode_frames), 1, seed, first_lane=lane)
        spec = description.spec
        low, high = (0, 255) if spec.dtype == "uint8" else (-np.inf, np.inf)
        self.observation_space = spaces.Box(low, high, spec.frame_shape, np.dtype(spec.dtype).type)
        self.action_space = spaces.Discrete(spec.num_actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start the lane anew where the options say so, else its next episode."""
        if options:
            return self._lanes.reset().observation[0], {}
        return self.step(np.int64(0))[0], {}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Play one step, or start the next episode."""
        try:
            self._lanes.send(np.array([action]))
            step = self._lanes.recv()
        except SystemExit as stop:  # the process would end as if it were closed
            raise RuntimeError(f"the environment raised SystemExit {stop}") from stop
        over, terminated = self.over, not step.discount[0]
        return step.observation[0], float(step.reward[0]), terminated, over and not terminated, {}

    @property
    def over(self) -> bool:
        """Whether the next step starts an episode."""
        return self._lanes.over[0]

    def picture(self, of_lane: int) -> NDArray[np.uint8] | None:
        """The lane's picture, if it is that one."""
        return self._lanes.render() if self._lane == of_lane else None

    def state_dict(self) -> dict[str, Any]:
        return self._lanes.state_dict()

    def load_one_of(self, states: Sequence[dict[str, Any]]) -> bool:
        """Load the state of this lane. Returns whether its episode is lost."""
        return bool(self._lanes.load_state_dict(states[self._lane]))

    def close(self) -> None:
        self._lanes.close()
