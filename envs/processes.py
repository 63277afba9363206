"""Lanes in processes of their own, a block of lanes in each: they play beside each other and the learner.

What a lane shows is the same as with `Lanes`, whose state is also theirs, for any number of processes.
"""

import builtins
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from wn_rl.envs.base import Environments, InvalidOutput, Lane, Lanes, Rules, Step, check_actions

ANSWER_SECONDS = 300.0  # a lane that takes longer hangs
RESTORE_SECONDS = 3600.0  # playing saved episodes again takes longer
CLOSE_SECONDS = 5.0


def make_lanes(
    make_lane: Callable[[int], Lane], rules: Rules, num_envs: int, seed: int, *, processes: int = 0
) -> Environments:
    """Lanes in as many processes as the rules say. processes: how many where they leave it open; 0: this one."""
    processes = min(rules.processes or processes, num_envs)
    if not processes:
        return Lanes(make_lane, num_envs, seed)
    return LanesInProcesses(make_lane, num_envs, seed, processes)


class LanesInProcesses(Environments):
    """Each process has `Lanes` of a block of lanes, and answers one message after another.

    make_lane is as in `Lanes`; it is pickled, classes of the main program included. ValueError: that fails.
    ChildProcessError: a process has died or hangs. This, or a signal in a call, ends all processes.
    """

    def __init__(self, make_lane: Callable[[int], Lane], num_envs: int, seed: int, num_processes: int) -> None:
        self.num_envs = num_envs
        self._started = self._sent = False
        self._blocks: list[NDArray[np.int64]] = np.array_split(np.arange(num_envs), num_processes)
        self._workers: list[_Worker] = []
        try:
            for block in self._blocks:
                make = partial(Lanes, make_lane, len(block), seed, first_lane=int(block[0]))
                self._workers.append(_Worker(make, " to ".join(map(str, dict.fromkeys(block[[0, -1]])))))
            self.spec = self._ask("spec")[0]
        except BaseException:
            self.close()
            raise

    def reset(self) -> Step:
        if self._sent:
            self.recv()
        self._started = True
        return _joined(self._ask("reset"))

    def send(self, actions: NDArray[np.int64]) -> None:
        if not self._started or self._sent:
            raise RuntimeError("send comes after reset, load_state_dict or recv")
        check_actions(actions, self.num_envs, self.spec.num_actions)
        self._tell("step", [(actions[block],) for block in self._blocks])
        self._sent = True

    def recv(self) -> Step:
        if not self._sent:
            raise RuntimeError("send comes before recv")
        return _joined(self._answers(ANSWER_SECONDS))

    def render(self) -> NDArray[np.uint8]:
        return np.asarray(self._ask("render")[0])

    def state_dict(self) -> dict[str, Any]:
        states = self._ask("state_dict")
        return {name: [value for state in states for value in state[name]] for name in states[0]}

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        self._tell(
            "load_state_dict",
            [({name: [values[i] for i in block] for name, values in state.items()},) for block in self._blocks],
        )
        lost = self._answers(RESTORE_SECONDS)
        self._started = True
        return [int(block[lane]) for block, lanes in zip(self._blocks, lost, strict=True) for lane in lanes]

    def close(self) -> None:
        workers, self._workers, self._sent = self._workers, [], False
        for worker in workers:
            worker.pipe.close()  # it ends after the step that it plays
        until = time.monotonic() + CLOSE_SECONDS
        for worker in workers:
            worker.end(until)

    def _ask(self, name: str) -> list[Any]:
        """What the lanes of each process have, or answer, under a name."""
        self._tell(name, [()] * len(self._workers))
        return self._answers(ANSWER_SECONDS)

    def _tell(self, name: str, arguments: list[tuple[Any, ...]]) -> None:
        if not self._workers:
            raise RuntimeError("the environments are closed")
        for worker, own in zip(self._workers, arguments, strict=True):
            worker.tell(name, *own)

    def _answers(self, seconds: float) -> list[Any]:
        """One answer of each; the first error is raised when all have answered."""
        try:
            answers = [worker.answer(seconds) for worker in self._workers]
        except BaseException:  # an answer that is left in a pipe would be taken for that of the next message
            for worker in self._workers:
                worker.process.kill()
            self.close()
            raise
        self._sent = False
        for failure, _ in answers:
            if failure is not None:
                raise failure
        return [value for _, value in answers]


def _joined(steps: list[Step]) -> Step:
    """The steps of blocks as one of all lanes."""
    return Step(*map(np.concatenate, zip(*steps, strict=True)))


class _Worker:
    """A process with a block of lanes. It is a fresh interpreter: what runs here, CUDA included, is not in it."""

    def __init__(self, make: Callable[[], Lanes], lanes: str) -> None:
        try:
            program = cloudpickle.dumps(make)
        except Exception as error:  # whatever an object of the user's may raise
            raise ValueError(f"--environment.processes: the environment cannot be pickled: {error}") from error
        self._lanes = lanes
        self.pipe, theirs = Pipe()
        ends, self._life = Pipe(duplex=False)  # the system closes our end when we end, however that happens
        own = theirs.fileno(), ends.fileno()
        paths = [path for path in sys.path if isinstance(path, str)]  # Python passes over others
        code = f"import sys; sys.path[:] = {paths}; from wn_rl.envs.processes import serve; serve(*{own})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=own,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # the terminal's signals are for the run, which saves and then ends the lanes
        )
        theirs.close()
        ends.close()
        with contextlib.suppress(OSError):  # it has died, which the first answer says
            self.pipe.send_bytes(program)

    def tell(self, name: str, *arguments: Any) -> None:
        """Ask for an attribute or the answer of a method."""
        with contextlib.suppress(OSError):
            self.pipe.send((name, arguments))

    def answer(self, seconds: float) -> tuple[Exception | None, Any]:
        """The error or the value that the process answers. ChildProcessError: it has died or hangs."""
        waited = 0
        with contextlib.suppress(EOFError, OSError):
            while not self.pipe.poll(1):
                waited += 1
                if waited >= seconds or self.process.poll() is not None:  # its own children may hold the pipe
                    break
            else:
                answer: tuple[Exception | None, Any] = self.pipe.recv()
                return answer
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # the pipe closes before the process has ended
        if (code := self.process.returncode) is None:
            raise ChildProcessError(f"lane {self._lanes} gave no answer within {waited} seconds")
        raise ChildProcessError(f"the process of lane {self._lanes} has died (exit code {code})")

    def end(self, until: float) -> None:
        """Wait for the process, whose pipe is closed, to end; kill it if that takes longer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0, until - time.monotonic()))
        self.process.kill()
        self.process.wait()
        self._life.close()


def serve(pipe: int, life: int) -> None:
    """The program of a process: make the lanes by the function that comes first, then answer messages.

    pipe: descriptor of a connection. life: of a pipe whose other end closes when the run ends.
    """
    _end_with(life)
    connection = Connection(pipe)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            lanes = connection.recv()()
        except BaseException as error:
            connection.send((_portable(error), None))
            return
        with contextlib.closing(lanes):
            while True:
                name, arguments = connection.recv()
                try:
                    answer: tuple[Exception | None, Any] = None, _answer(lanes, name, arguments)
                except BaseException as error:
                    answer = _portable(error), None
                connection.send(answer)


def _answer(lanes: Lanes, name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "step":
        lanes.send(*arguments)
        return lanes.recv()
    value = getattr(lanes, name)
    return value(*arguments) if callable(value) else value


def _portable(error: BaseException) -> Exception:
    """The error as the run can raise it, with a note of where it came from; of an unknown class only the words."""
    known = type(error) in (InvalidOutput, *vars(builtins).values()) and not vars(error)
    if isinstance(error, Exception) and known and {*map(type, error.args)} <= {str, int, type(None)}:
        portable = error
    else:
        words = " ".join("".join(traceback.format_exception_only(error)).split())
        portable = RuntimeError(f"the environment raised {words}")
    portable.add_note("".join(traceback.format_exception(error)))
    return portable


def _end_with(life: int) -> None:
    """Let the system kill this process, even one that hangs, when the other end closes; only Linux can."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
