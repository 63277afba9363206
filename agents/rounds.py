"""A round: the updates that fall due together, from drawing their transitions to the last gradient step."""

from wn_rl.agents.accelerate import accelerated
from wn_rl.agents.learner import Learner
from wn_rl.agents.replay import LONGEST_ROUND, Draws, Replay
from wn_rl.agents.transfer import Transfer
from wn_rl.agents.types import Batch
from wn_rl.config import Config
from wn_rl.seeding import derive_seed


class Rounds:
    """Learning from a replay, `num_updates` at a time.

    With the replay on the learner's device the whole round, drawing and gathering included, is one function of
    static tensors, which `--accelerate cuda_graph` captures. A replay in host memory draws there and hands its
    batches over through pinned memory.
    """

    def __init__(self, config: Config, learner: Learner, replay: Replay) -> None:
        self._learner, self._replay = learner, replay
        seed = derive_seed(config.seed, "replay")
        self._batch_size = config.learning.batch_size
        self._draws = Draws(seed, "update", self._batch_size, replay.device)
        self._transfer = None if replay.device == learner.device else Transfer(learner.device)
        self._run = accelerated(self._learn, config.accelerate)
        # A graph of nothing would be taken for a mistake.
        mode = "eager" if learner.acting_follows else config.accelerate
        self._refresh = accelerated(learner.refresh_acting, mode)

    def learn(self, num_updates: int) -> None:
        """Make updates, copying the target exactly where it is due, and let the acting network see them.

        Raises:
            ValueError: the replay holds too few rows.
        """
        self._replay.require_transitions()
        while num_updates > 0:
            count = min(num_updates, LONGEST_ROUND, self._learner.updates_until_copy)
            self._draws.seek(self._learner.num_updates, count)
            if self._transfer is not None:
                self._transfer.send(self._sample(count))
            self._run(count)
            self._learner.count(count)
            num_updates -= count
        self._refresh()

    def _sample(self, num_updates: int) -> Batch:
        return self._replay.sample(self._draws.take(num_updates))

    def _learn(self, num_updates: int) -> None:
        if self._transfer is None:
            batch = self._sample(num_updates)
        else:
            batch = Batch(*self._transfer.receive(num_updates * self._batch_size))
        self._learner.learn(batch, num_updates)
