"""Atari, several lanes: ale-py's C++ vector class, which plays in its own threads between send and recv.

It has no state to save. But a seeded reset and the actions since then replay a lane bit for bit, for any
number of threads. So that the log of actions stays short, every lane starts from a new seed at its first
episode in each window of WINDOW steps, whether or not anybody saves its state.
"""

from typing import Any

import cv2
import numpy as np
from ale_py import AtariVectorEnv
from numpy.typing import NDArray

from wn_rl.envs import atari
from wn_rl.envs.base import Environments, Rules, Step, check_actions, first_step, lane_seed

WINDOW = 25_000  # steps; longer: fewer slow resets (some 90 ms, a plain one 9 ms), but slower restores
PICTURE_SIZE = (160, 210)  # width and height of the real screen


class AtariVector(Environments):
    """Lanes of one Atari game. Row t is what the t-th recv gives; reset gives row 0."""

    def __init__(self, game: str, rules: Rules, num_envs: int, seed: int) -> None:
        if rules.resize != "area":
            raise ValueError(f"resize {rules.resize!r} needs one lane: with several it is always 'area'")
        self.num_envs = num_envs
        self._seed = seed
        self._window = WINDOW
        self._life_loss_terminates = rules.life_loss_terminates
        self._emulators = AtariVectorEnv(
            game,
            num_envs,
            num_threads=rules.emulator_threads,
            max_num_frames_per_episode=rules.max_episode_frames,
            repeat_action_probability=rules.repeat_action_probability,
            full_action_space=rules.full_action_set,
            img_height=atari.FRAME_SIZE,
            img_width=atari.FRAME_SIZE,
            stack_num=1,
            frameskip=atari.FRAME_SKIP,
            noop_max=atari.MAX_NOOP_FRAMES + 1,  # it draws 0 to noop_max - 1
            episodic_life=False,  # True would restart the whole game at each lost life
            reward_clipping=False,
            use_fire_reset=False,
        )
        self.spec = atari.atari_spec(self._emulators.ale.get_action_set())
        self._in_flight = self._started = False

    def reset(self) -> Step:
        self._settle()
        self._row = 0
        self._starts = np.zeros(self.num_envs, dtype=np.int64)  # row of each lane's last seeded reset
        self._log = bytearray()  # actions [rows, E] since the earliest of them
        self._over = np.zeros(self.num_envs, dtype=bool)  # the next row is a `first`
        observation, self._lives = self._seeded_reset(np.ones(self.num_envs, dtype=bool))
        self._started = True
        self._lane_0 = observation[0].copy()
        return first_step(observation)

    def send(self, actions: NDArray[np.int64]) -> None:
        if self._in_flight or not self._started:
            raise RuntimeError("send comes after reset, load_state_dict or recv")
        check_actions(actions, self.num_envs, self.spec.num_actions)  # on others the emulators would hang
        self._emulators.send(actions.astype(np.int64))
        self._log += actions.astype(np.uint8).tobytes()
        self._in_flight = True

    def recv(self) -> Step:
        """Wait for the emulators.

        A lane that was over has begun an episode (it dropped the action). Where that is its first episode of a
        window, it begins once more, from the window's seed, before anybody sees it.
        """
        if not self._in_flight:
            raise RuntimeError("send comes before recv")
        frames, raw_reward, terminated, truncated, info = self._emulators.recv()
        self._in_flight = False
        self._row += 1
        observation, lives, first = frames[:, 0], info["lives"], self._over
        due = first & (self._row // self._window > self._starts // self._window)
        if due.any():
            self._shorten_log(due)
            observation, lives = self._seeded_reset(due)
        lost = terminated | ((lives < self._lives) & self._life_loss_terminates)
        self._lives = lives
        self._over = terminated | truncated
        self._lane_0 = observation[0].copy()
        return Step(
            observation,
            reward=np.where(first, 0, raw_reward).astype(np.float32),
            discount=np.where(first | ~lost, 1, 0).astype(np.float32),
            first=first,
        )

    def _shorten_log(self, due: NDArray[np.bool_]) -> None:
        """Let the lanes that are due start at this row; forget the actions that no lane needs any longer."""
        begin = self._starts.min()
        self._starts[due] = self._row
        del self._log[: (self._starts.min() - begin) * self.num_envs]

    def _seeded_reset(self, lanes: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Begin an episode in these lanes [E], seeded by window: frames [E, 84, 84] and lives [E] of all."""
        windows = (self._starts // self._window).tolist()
        seeds = [lane_seed(self._seed, int(lane), windows[lane]) for lane in np.flatnonzero(lanes)]
        frames, info = self._emulators.reset(seed=np.array(seeds), options={"reset_mask": lanes})
        return frames[:, 0], info["lives"]

    def _settle(self) -> None:
        if self._in_flight:
            self._emulators.recv()
            self._in_flight = False

    def render(self) -> NDArray[np.uint8]:
        """Lane 0's newest observation, grey, enlarged to RGB [210, 160, 3]: the class keeps no colours."""
        picture = cv2.resize(self._lane_0, PICTURE_SIZE, interpolation=cv2.INTER_LINEAR)
        return np.repeat(picture[:, :, None], 3, axis=2)

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self._window,
            "row": self._row,
            "starts": self._starts.copy(),
            "log": np.frombuffer(bytes(self._log), dtype=np.uint8).reshape(-1, self.num_envs),
            "lives": self._lives.copy(),
            "over": self._over.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[int]:
        """Play the logged actions again, all lanes together, each seeded at its own start.

        What a lane does before its start does not matter. No lane is lost.
        """
        self._settle()
        self._window = int(state["window"])
        self._row = int(state["row"])
        self._starts = state["starts"].copy()
        self._lives = state["lives"].copy()
        self._over = state["over"].copy()
        self._log = bytearray(state["log"].tobytes())
        begin = self._starts.min()
        observation, _ = self._seeded_reset(np.ones(self.num_envs, dtype=bool))
        for row, actions in enumerate(state["log"].astype(np.int64), start=begin + 1):
            self._emulators.send(actions)
            observation = self._emulators.recv()[0][:, 0]
            if (self._starts == row).any():
                observation, _ = self._seeded_reset(self._starts == row)
        self._started = True
        self._lane_0 = observation[0].copy()
        return []

    def close(self) -> None:
        if self._emulators is not None:
            self._settle()
            self._emulators = None
