"""Episodes as lanes play them: raw returns, and lengths in agent steps."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from wn_rl.envs.base import Step

RETURN_WINDOW = 100  # episodes in train/return_last_100


@dataclass(frozen=True)
class Episodes:
    """Finished episodes in the order of their ends: raw returns, and lengths in agent steps.

    The means, and the standard deviation of the population, are None without an episode.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    overestimation: float | None = None
    """See `Overestimation`; None where it was not measured."""

    @property
    def return_mean(self) -> float | None:
        """Mean return."""
        return float(np.mean(self.returns)) if self.returns else None

    @property
    def return_std(self) -> float | None:
        """Standard deviation of the returns."""
        return float(np.std(self.returns)) if self.returns else None

    @property
    def length_mean(self) -> float | None:
        """Mean length in agent steps."""
        return float(np.mean(self.lengths)) if self.lengths else None


class Overestimation:
    """How far maximum action values are above the discounted returns that follow, in the mean over states.

    Van Hasselt et al. 2016, figure 3, compare these means. The returns are what the values estimate: rewards are
    clipped if the learner clips them, and they end where the discount is 0. Where a time limit cuts an episode,
    the value of its last state stands for the rest.

    A reward counts for all states before it at once. Its weight is 1 for the last one, gamma for the one before,
    and so on; `_weight_tm1` is the sum of these, without that of the last state.
    """

    def __init__(self, num_envs: int, discount: float, clip_rewards: bool) -> None:
        self._discount, self._clip_rewards = discount, clip_rewards
        self._difference, self._num_states = 0.0, 0
        self._max_q_tm1 = np.zeros(num_envs)
        self._weight_tm1 = np.zeros(num_envs)  # of what follows the state before, without that state itself

    def add(self, step: Step, max_q_t: np.ndarray) -> None:
        """Add a step of each lane, and the maximum action values [E] of the states that it shows."""
        goes_on = ~step.first
        r_t = np.clip(step.reward, -1, 1) if self._clip_rewards else step.reward
        weight = self._weight_tm1 + 1
        gains = np.where(goes_on, self._max_q_tm1 - weight * r_t, -self._weight_tm1 * self._max_q_tm1)
        self._difference += float(gains.sum())
        self._num_states += int(goes_on.sum())
        self._weight_tm1 = np.where(goes_on, self._discount * step.discount * weight, 0.0)
        self._max_q_tm1 = max_q_t.astype(np.float64)

    def mean(self) -> float | None:
        """The mean over the states so far; what is unfinished counts as cut. None without a state."""
        cut = float((self._weight_tm1 * self._max_q_tm1).sum())
        return (self._difference - cut) / self._num_states if self._num_states else None


class EpisodeReturns:
    """Adds up the raw rewards of each lane and gives the episodes that ended: their lanes are `first` again."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    def add(self, step: Step) -> list[tuple[int, float, int]]:
        """(lane, return, length) of each episode that the step shows to be over."""
        ended = [
            (int(lane), float(self._returns[lane]), int(self._lengths[lane]))
            for lane in np.flatnonzero(step.first)
            if self._lengths[lane] > 0
        ]
        self._returns = np.where(step.first, 0.0, self._returns + step.reward)
        self._lengths = np.where(step.first, 0, self._lengths + 1)
        return ended

    def unfinished(self, lane: int) -> tuple[float, int]:
        """Return and length so far of a lane's episode."""
        return float(self._returns[lane]), int(self._lengths[lane])

    def forget(self, lanes: list[int]) -> None:
        """Leave out what was played so far of the lanes' episodes."""
        self._returns[lanes] = 0.0
        self._lengths[lanes] = 0

    def state_dict(self) -> dict[str, object]:
        """Sums so far."""
        return {"returns": self._returns, "lengths": self._lengths}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state that `state_dict` gave."""
        self._returns = state["returns"].copy()
        self._lengths = state["lengths"].copy()


class EpisodeLog:
    """The episodes of training: those that ended since the last row of metrics, and the last hundred returns."""

    def __init__(self, num_envs: int) -> None:
        self.running = EpisodeReturns(num_envs)
        self.recent_returns: deque[float] = deque(maxlen=RETURN_WINDOW)
        self._new: list[tuple[float, int]] = []  # return and length

    def add(self, step: Step) -> None:
        """Add a step of each lane."""
        for _, total, length in self.running.add(step):
            self.recent_returns.append(total)
            self._new.append((total, length))

    def take_metrics(self) -> dict[str, float | int | None]:
        """A row of metrics on the episodes since the last call. Returns are raw."""
        new = Episodes(tuple(r for r, _ in self._new), tuple(n for _, n in self._new))
        self._new = []
        return {
            "train/return": new.return_mean,
            "train/return_last_100": Episodes(tuple(self.recent_returns), ()).return_mean,
            "train/length": new.length_mean,
            "train/episodes": len(new.returns),
        }

    def state_dict(self) -> dict[str, Any]:
        """Sums so far, and what later rows of metrics tell of."""
        return {
            "episodes": self.running.state_dict(),
            "recent_returns": list(self.recent_returns),
            "new_episodes": [list(episode) for episode in self._new],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave."""
        self.running.load_state_dict(state["episodes"])
        self.recent_returns = deque(state["recent_returns"], maxlen=RETURN_WINDOW)
        self._new = [(total, length) for total, length in state["new_episodes"]]
