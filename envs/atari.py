"""Atari: emulators driven from Python, with the pixels and resets of ale-py's vector class.

Pixels: the maximum of the last two of four grey frames, resized to 84x84 (Mnih et al. 2015, Methods; the
maximum of grey frames as deep_q_rl). Resets: 0 to 30 frames without action, and no FIRE press.
"""

from functools import cache, partial
from typing import Any

import cv2
import numpy as np
from ale_py import ALEInterface, ALEState, LoggerMode, roms
from numpy.typing import NDArray

from wn_rl.envs.base import Environments, EnvironmentSpec, Lane, Rules
from wn_rl.envs.processes import make_lanes
from wn_rl.machine import num_cores

FRAME_SKIP = 4
FRAME_SIZE = 84
MAX_NOOP_FRAMES = 30
RESIZES = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}


@cache
def games() -> list[str]:
    """The games whose ROMs come with ale-py and that one player can play: others would end the process."""
    return sorted(game for game in roms.get_all_rom_ids() if ALEInterface.isSupportedROM(roms.get_rom_path(game)))


def atari_spec(actions: list[Any]) -> EnvironmentSpec:
    """The spec of a game with these actions of the emulator."""
    return EnvironmentSpec(
        num_actions=len(actions),
        frame_shape=(FRAME_SIZE, FRAME_SIZE),
        dtype="uint8",
        scale=1 / 255,
        frames_per_step=FRAME_SKIP,
        action_meanings=tuple(action.name for action in actions),
    )


def make(game: str, rules: Rules, num_envs: int, seed: int) -> Environments:
    """Lanes of the game. Where the rules leave it open, one is in this process, and several share one per core."""
    processes = num_cores() if num_envs > 1 else 0
    return make_lanes(partial(AtariLane, game, rules), rules, num_envs, seed, processes=processes)


class AtariLane(Lane):
    """One emulator. Its own random numbers come from the seed, and few games draw any."""

    def __init__(self, game: str, rules: Rules, seed: int) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)  # else a banner on every start
        self._ale = ALEInterface()
        self._ale.setFloat("repeat_action_probability", 0.0)  # its states would lack the last action
        self._ale.setInt("random_seed", seed)
        self._ale.loadROM(roms.get_rom_path(game))
        full = rules.full_action_set
        self._actions = self._ale.getLegalActionSet() if full else self._ale.getMinimalActionSet()
        self.spec = atari_spec(self._actions)
        self._life_loss_terminates = rules.life_loss_terminates
        self._max_frames = rules.max_episode_frames
        self._repeat_probability = rules.repeat_action_probability
        self._interpolation = RESIZES[rules.resize]
        self._screen = np.zeros(self._ale.getScreenDims(), dtype=np.uint8)  # newest, then the maximum of two
        self._previous = np.zeros_like(self._screen)
        self._seed = self._frames = 0  # of this episode, without the no-ops
        self._last_action = 0  # of the agent's, NOOP
        self.lives = 0
        self._starts = self._make_starts()

    def _make_starts(self) -> list[tuple[ALEState, NDArray[np.uint8]]]:
        """The state and the grey screen after 0, 1, ... frames without action.

        To restore one takes a hundredth of the time of a reset, which plays some 60 frames first.
        """
        self._ale.reset_game()
        starts = []
        for frame in range(MAX_NOOP_FRAMES + 1):
            if frame:
                self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
            starts.append((self._ale.cloneState(include_rng=False), self._ale.getScreenGrayscale()))
        return starts

    def reset(self, seed: int, out: NDArray[np.uint8]) -> None:
        """Start an episode after 0 to 30 frames without action, their number drawn from the seed."""
        state, screen = self._starts[np.random.default_rng(seed).integers(len(self._starts))]
        self._ale.restoreState(state)
        self._seed, self._frames, self._last_action = seed, 0, 0
        self._random = np.random.PCG64(seed)
        self.lives = self._ale.lives()
        self._screen[:] = screen
        self._previous.fill(0)
        self._observe(out)

    def step(self, action: int, out: NDArray[np.uint8]) -> tuple[float, float, bool]:
        """Repeat the action for four frames, fewer where the episode ends or is cut.

        Where it ends, the frame is what the vector class shows too: the last pooled screen, or the maximum of that
        and this step's third frame if the fourth is the last. A cut episode bootstraps from it.
        """
        ale, reward = self._ale, 0
        for remaining in range(FRAME_SKIP, 0, -1):
            if not self._repeat_probability or self._random.random_raw() >= self._repeat_probability * 2**64:
                self._last_action = action  # sticky actions (Machado et al. 2018) are drawn at each frame
            reward += ale.act(self._actions[self._last_action])
            self._frames += 1
            terminal = ale.game_over()
            over = terminal or self._frames >= self._max_frames
            if over:
                break
            if remaining == 2:
                ale.getScreenGrayscale(self._previous)
            elif remaining == 1:
                ale.getScreenGrayscale(self._screen)
        self._observe(out)
        lives = ale.lives()
        ends = terminal or (lives < self.lives and self._life_loss_terminates)
        self.lives = lives
        return reward, float(not ends), over

    def _observe(self, out: NDArray[np.uint8]) -> None:
        np.maximum(self._screen, self._previous, out=self._screen)
        cv2.resize(self._screen, out.shape[::-1], dst=out, interpolation=self._interpolation)

    def render(self) -> NDArray[np.uint8]:
        """The emulator's screen as RGB [210, 160, 3]. Right after load_state_dict it is not yet drawn."""
        picture: NDArray[np.uint8] = self._ale.getScreenRGB()
        return picture

    def state_dict(self) -> dict[str, Any]:
        """The emulator with its random numbers (14 kB), counters, and the screen an early end shows again."""
        emulator = self._ale.cloneState(include_rng=True).serialize()
        return {
            "emulator": np.frombuffer(emulator, dtype=np.uint8).copy(),
            "screen": self._screen.copy(),
            "seed": self._seed,
            "frames": self._frames,
            "last_action": self._last_action,
            "lives": self.lives,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ale.restoreState(ALEState(state["emulator"].tobytes()))
        self._screen[:] = state["screen"]
        self._previous.fill(0)  # the saved screen is the maximum with it
        self._seed, self._frames = int(state["seed"]), int(state["frames"])
        self._random = np.random.PCG64(self._seed).advance(self._frames)  # one draw a frame
        self._last_action = int(state["last_action"])
        self.lives = int(state["lives"])
