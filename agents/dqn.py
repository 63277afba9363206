"""Deep Q-learning with experience replay (Mnih et al. 2015, algorithm 1): schedules, targets, loss, updates, loop.

Letters in shapes: E lanes, B batch, K stack, *O frame shape, A actions. All counts are agent steps. Names that end
in _tm1 belong to the time before a transition, those in _t to the time after it.
"""

import itertools
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from wn_rl.agents.accelerate import accelerated
from wn_rl.agents.actor import Actor
from wn_rl.agents.episodes import EpisodeLog
from wn_rl.agents.q_networks import QNetworks, Values
from wn_rl.agents.replay import LONGEST_ROUND, Batch, Batches, Replay
from wn_rl.config import LearningConfig
from wn_rl.envs.base import Environments, Step

Targets = Callable[[Batch, Values, Values], Tensor]
"""(batch, values of the target network, values of the online network) -> the target of q_tm1[a_tm1], [B].

Rewards of the batch are clipped already if they are to be, and its discounts are multiplied by gamma."""


def epsilon_at(num_steps: int, learning: LearningConfig) -> float:
    """Exploration after num_steps: its start until replay start, then linear to its end, then constant."""
    fraction = min(max((num_steps - learning.replay_start) / learning.epsilon_steps, 0.0), 1.0)
    return learning.epsilon_start + fraction * (learning.epsilon_end - learning.epsilon_start)


def updates_due(num_steps: int, learning: LearningConfig) -> int:
    """Updates that belong to num_steps: those of each whole update period since replay start, for any lanes."""
    periods = max(0, num_steps - learning.replay_start) // learning.update_period
    return periods * learning.updates_per_period


def q_learning(batch: Batch, target: Values, online: Values) -> Tensor:
    """The `Targets` of Deep Q-learning. They ask the target network alone."""
    return q_learning_target(batch.r_t, batch.discount_t, target(batch.s_t))


def q_learning_target(r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """r_t + discount_t max_a q_t[a], shape [B] (Mnih et al. 2015, equation 2). No gradient passes it.

    r_t, discount_t: [B], the discount being gamma, or 0 where the episode ended. q_t: [B, A] from the target
    network.

    Raises:
        ValueError: a rank differs from the above.
    """
    _check_ranks(r_t=(r_t, 1), discount_t=(discount_t, 1), q_t=(q_t, 2))
    return (r_t + discount_t * q_t.amax(dim=1)).detach()


def q_learning_loss(q_tm1: Tensor, a_tm1: Tensor, target_t: Tensor, weight: Tensor) -> Tensor:
    """The Huber loss of target_t - q_tm1[a_tm1], summed over the batch as in deep_q_rl ('sum' accumulation).

    Its gradient is the error clipped to [-1, 1]: that is what "clipping the error term" does in DeepMind's
    released code. Clipping inside a squared loss would stop the gradient of large errors (docs/fidelity.md).

    q_tm1: [B, A] from the online network. a_tm1: [B] int64. target_t: [B]. weight: [B], 0 drops a slot.

    Raises:
        ValueError: a rank differs from the above.
    """
    _check_ranks(q_tm1=(q_tm1, 2), a_tm1=(a_tm1, 1), target_t=(target_t, 1), weight=(weight, 1))
    taken = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)  # [B]
    return torch.dot(F.huber_loss(taken, target_t, reduction="none"), weight)


def _check_ranks(**tensors_and_ranks: tuple[Tensor, int]) -> None:
    for name, (tensor, rank) in tensors_and_ranks.items():
        if tensor.ndim != rank:
            raise ValueError(f"{name} must have rank {rank}, got shape {tuple(tensor.shape)}")


class Learner:
    """Updates the networks from the replay, in rounds: the updates that fall due together.

    A round is a function of static tensors and a Python integer, so a CUDA graph may hold it.
    """

    def __init__(
        self,
        networks: QNetworks,
        replay: Replay,
        learning: LearningConfig,
        *,
        seed: int,
        accelerate: str = "eager",
        targets: Targets = q_learning,
    ) -> None:
        self.networks, self.replay, self.learning = networks, replay, learning
        self.num_updates = 0
        self._targets = targets
        # Where the target network stays the same in a round, targets that ask it alone are computed in one pass.
        self._once_a_round = targets is q_learning and learning.target_smoothing is None
        self._batches = Batches(replay, "update", learning.batch_size, networks.device, seed)
        self._compute_targets = networks.compiled(self._targets_of) if self._once_a_round else self._targets_of
        self._compute_loss = networks.compiled(self._loss)
        self._run_round = accelerated(self._round, accelerate)

    def learn(self, num_updates: int) -> None:
        """Make updates, copy the target network exactly where it is due, and let the acting network see them.

        Raises:
            ValueError: the replay holds too few rows.
        """
        self.replay.require_transitions()
        learning = self.learning
        updates_per_copy = learning.target_period // learning.update_period * learning.updates_per_period
        while num_updates > 0:
            count = min(num_updates, LONGEST_ROUND, updates_per_copy - self.num_updates % updates_per_copy)
            self._batches.seek(self.num_updates, count)
            self._run_round(count)
            self.num_updates += count
            self.networks.sums.num_updates += count
            num_updates -= count
            if self.num_updates % updates_per_copy == 0 and learning.target_smoothing is None:
                self.networks.copy_target()
        self.networks.refresh_acting()

    def _round(self, count: int) -> None:
        self.networks.allow_precision()
        size = self.learning.batch_size
        transitions = self._batches.take(count)  # of all updates: [count * B, ...]
        batches: Iterable[Batch] = [transitions]
        if count > 1:
            parts = zip(*(torch.split(column, size) for column in transitions), strict=True)
            batches = itertools.starmap(Batch, parts)
        targets = torch.split(self._compute_targets(transitions), size) if self._once_a_round else None
        for number, batch in enumerate(batches):  # of one update: [B, ...]
            target_t = self._compute_targets(batch) if targets is None else targets[number]  # [B]
            loss = self._compute_loss(batch.s_tm1, batch.a_tm1, target_t, batch.weight)
            gradients = torch.autograd.grad(loss, self.networks.step.leaves)
            self.networks.step.apply(gradients)  # the optimizer, and what follows from it
            self.networks.follow()

    @torch.no_grad()
    def _targets_of(self, batch: Batch) -> Tensor:
        r_t = batch.r_t.clamp(-1, 1) if self.learning.clip_rewards else batch.r_t
        batch = batch._replace(r_t=r_t, discount_t=batch.discount_t * self.learning.discount)
        return self._targets(batch, self.networks.target_values, self.networks.online_values)

    def _loss(self, s_tm1: Tensor, a_tm1: Tensor, target_t: Tensor, weight: Tensor) -> Tensor:
        q_tm1 = self.networks.trained_values(s_tm1)  # [B, A]
        loss = q_learning_loss(q_tm1, a_tm1, target_t, weight)
        self.networks.sums.add(loss.detach() / self.learning.batch_size, q_tm1.detach().mean())
        return loss


class DQN:
    """Act, remember, learn. `wn_rl.agents.experiment.make_dqn` makes its parts.

    at_replay_start: called once, when the replay reaches its start size, before the first update.
    """

    def __init__(
        self,
        learning: LearningConfig,
        environments: Environments,
        actor: Actor,
        replay: Replay,
        learner: Learner,
        at_replay_start: Callable[["DQN"], None],
    ) -> None:
        self.learning = learning
        self.environments, self.actor, self.replay, self.learner = environments, actor, replay, learner
        self.episodes = EpisodeLog(environments.num_envs)
        self.held_out_states: Tensor | None = None
        self.initialized = False
        self.step: Step | None = None
        self.num_steps = 0
        self._at_replay_start = at_replay_start

    def run(self, num_steps: int, after_step: Callable[["DQN"], None]) -> None:
        """Train to num_steps. after_step is called before the first step and after each; it may raise."""
        if self.step is None:
            self.step = self.environments.reset()
        after_step(self)
        while self.num_steps < num_steps:
            actions = self.actor.act(self.step, epsilon_at(self.num_steps, self.learning))  # [E]
            self.environments.send(actions)  # lanes in processes play on while the learner works:
            self.replay.add(self.step, actions)
            self.learn()  # the replay does not hold the step in flight
            self.step = self.environments.recv()
            self.num_steps += self.environments.num_envs
            self.episodes.add(self.step)
            after_step(self)

    def learn(self) -> None:
        """Make the updates that are due, on what the replay holds."""
        if self.num_steps < self.learning.replay_start:
            return
        if not self.initialized:
            self._at_replay_start(self)
            self.initialized = True
        num_due = updates_due(self.num_steps, self.learning) - self.learner.num_updates
        if num_due:
            self.learner.learn(num_due)

    @property
    def num_frames(self) -> int:
        """Emulator frames so far."""
        return self.num_steps * self.environments.spec.frames_per_step
