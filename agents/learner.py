"""Learning: the online network, its optimizer, and the two plain copies that act and give targets."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from wn_rl.agents.accelerate import Transfer, accelerated, allow_programs, set_tf32
from wn_rl.agents.losses import Batch, q_learning_loss, q_learning_target
from wn_rl.agents.replay import LONGEST_ROUND, Draws, Replay
from wn_rl.config import Config
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.nn import (
    data_dependent_init,
    default_init,
    fold,
    hand_over_input,
    held_weights,
    hold_weights,
    load_optimizer_tree,
    make_network,
    make_optimizer,
    make_step,
    norms,
    optimizer_tree,
    refill,
    refill_held,
    shares_all,
)
from wn_rl.nn.update.steps import UpdateStep
from wn_rl.seeding import derive_seed

# Not on a CPU: there the libraries' products are nearly all of a network, and what the compiler puts around
# them is slower than torch's own operations (docs/speed.md).
NETWORKS_COMPILED_ON = ("cuda",)


def make_online_network(config: Config, spec: EnvironmentSpec) -> nn.Sequential:
    """The network that a config asks for; its first weights are a function of the seed."""
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "weights"))
    network = make_network(
        config.network.name,
        frame_shape=spec.frame_shape,
        stack=config.network.stack,
        scale=spec.scale,
        num_actions=spec.num_actions,
        parameterization=config.parameterization,
        log_scale=config.network.log_scale,
        generator=generator,
    )
    if config.network.initialization == "torch":
        default_init(network, generator)
    return network


class Learner:
    """Q-learning on batches (Mnih et al. 2015, algorithm 1) for any parameterization.

    online: trained, in train mode. acting and target: plain torch layers with the same function in eval
    mode, refilled in place, so that acting costs the same for every parameterization.
    acting_follows: whether acting sees every update by itself, as it does where it shares all its weights.

    `learn`, `refresh_acting` and nothing else may stand in a CUDA graph: they neither wait for the device nor
    change a number that Python holds.
    """

    def __init__(self, config: Config, spec: EnvironmentSpec, device: torch.device) -> None:
        self._config = config
        self.device = device
        set_tf32(config.learning.precision == "tf32", device)
        self._compiles_networks = config.accelerate != "eager" and device.type in NETWORKS_COMPILED_ON
        self.online = make_online_network(config, spec).to(device).train()
        if device.type == "cpu":
            hand_over_input(self.online)
        self.acting = cast(nn.Sequential, fold(self.online, fast=True, share=True))
        self.target = cast(nn.Sequential, fold(self.online, fast=True))
        self.acting_follows = shares_all(self.acting, self.online)
        if self._compiles_networks:
            for network in (self.online, self.acting, self.target):  # as compiled convolutions take their weights
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(config.optimizer.name, self.online.parameters(), config.learning_rate)
        self._compute_targets = self._targets
        self._compute_loss = self._loss
        self._step = self._prepare_step()
        self.num_updates = 0
        self._updates_per_target = config.learning.target_period // config.learning.update_period
        # Sums since the last `metrics` call; read there, so that no update waits for the device.
        self._loss_sum = torch.zeros((), device=device)
        self._q_sum = torch.zeros((), device=device)
        self._summed_updates = 0

    def _prepare_step(self) -> UpdateStep:
        """Compile what `--accelerate` asks for; how an update ends follows from that."""
        config = self._config
        compiles = config.accelerate != "eager"
        if compiles:
            allow_programs(LONGEST_ROUND)  # a round of each number of updates that there is
        if self._compiles_networks:
            self._compute_targets = torch.compile(self._targets, dynamic=False)
            self._compute_loss = torch.compile(self._loss, dynamic=False)
        if compiles:
            in_bfloat16 = config.learning.precision == "bfloat16"
            hold_weights(self.online[:-1], torch.bfloat16 if in_bfloat16 else torch.float32)
            hold_weights(self.online[-1], torch.float32)  # see `_values`
        return make_step(self.online, self.optimizer, config.network.max_v_norm, fuse=compiles)

    def initialize(self, states: Tensor) -> None:
        """Set scales and biases from replay states [N, K, *O] (Salimans & Kingma, equations 4 and 5)."""
        if self._config.network.initialization == "data_dependent":
            data_dependent_init(self.online, states)
        refill_held(self.online)
        refill(self.acting, self.online)
        refill(self.target, self.online)

    def learn(self, batch: Batch, num_updates: int) -> None:
        """Updates on the consecutive parts of a batch [num_updates * B], with one target forward for them all.

        That is exact, since the target stays: num_updates is at most `updates_until_copy`. Call `count` next.
        """
        set_tf32(
            self._config.learning.precision == "tf32", self.device
        )  # again: other learners of this process may differ
        with torch.no_grad():
            target_t = self._compute_targets(batch)
        size = self._config.learning.batch_size
        for number in range(num_updates):
            part = slice(number * size, (number + 1) * size)
            self._update(batch.s_tm1[part], batch.a_tm1[part], target_t[part], batch.weight[part])

    def _targets(self, batch: Batch) -> Tensor:
        learning = self._config.learning
        reward = batch.r_t.clamp(-1, 1) if learning.clip_rewards else batch.r_t
        q_t = self._values(self.target, batch.s_t)
        return q_learning_target(reward, batch.discount_t * learning.discount, q_t)

    def _values(self, network: nn.Sequential, states: Tensor) -> Tensor:
        """Action values [B, A] in float32. In bfloat16 the output layer stays float32: gaps there are small."""
        if self._config.learning.precision != "bfloat16":
            return network(states)  # type: ignore[no-any-return]
        with torch.autocast(self.device.type, torch.bfloat16):
            features = network[:-1](states)
        return network[-1](features.float())  # type: ignore[no-any-return]

    def _loss(self, s_tm1: Tensor, a_tm1: Tensor, target_t: Tensor, weight: Tensor) -> Tensor:
        """The loss, summed over the batch; its mean and that of the action values join the sums for metrics."""
        q_tm1 = self._values(self.online, s_tm1)
        loss = q_learning_loss(q_tm1, a_tm1, target_t, weight)
        with torch.no_grad():
            self._loss_sum += loss / self._config.learning.batch_size
            self._q_sum += q_tm1.mean()
        return loss

    def _update(self, s_tm1: Tensor, a_tm1: Tensor, target_t: Tensor, weight: Tensor) -> None:
        loss = self._compute_loss(s_tm1, a_tm1, target_t, weight)
        self._step.apply(torch.autograd.grad(loss, self._step.leaves))

    @property
    def updates_until_copy(self) -> int:
        """Updates up to and with the next one after which the target is copied."""
        return self._updates_per_target - self.num_updates % self._updates_per_target

    def count(self, num_updates: int) -> None:
        """Count updates that `learn` has made; then the target's copy, if it is due."""
        self.num_updates += num_updates
        self._summed_updates += num_updates
        if self.num_updates % self._updates_per_target == 0:
            refill(self.target, self.online)

    def refresh_acting(self) -> None:
        """Let the acting copy see the updates made since the last call."""
        refill(self.acting, self.online)

    def max_q(self, states: Tensor) -> float:
        """Mean over states [N, K, *O] of the greatest action value (Mnih et al. 2015, figure 2c)."""
        with torch.no_grad():
            return float(self.acting(states).amax(dim=1).mean())

    def metrics(self) -> dict[str, float | None]:
        """Means since the last call, and the norms of v and g of each weight-normalized layer.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        count = self._summed_updates
        row: dict[str, float | None] = {"loss": None, "q_mean": None}
        if count:
            row = {"loss": float(self._loss_sum) / count, "q_mean": float(self._q_sum) / count}
        self.check_finite()
        self._loss_sum.zero_()
        self._q_sum.zero_()
        self._summed_updates = 0
        return {**row, **{name: float(value) for name, value in norms(self.online).items()}}

    def check_finite(self) -> None:
        """FloatingPointError, with what to look at, if the loss or a parameter has stopped being a number."""
        named = self.online.named_parameters()
        bad = [name for name, value in named if not bool(torch.isfinite(value).all())]
        if bad or not bool(torch.isfinite(self._loss_sum)):
            raise FloatingPointError(
                f"at update {self.num_updates} the losses since the last row add up to {float(self._loss_sum)}, "
                f"and the parameters that are not finite are: {', '.join(bad) or 'none'}. "
                f"The learning rate is {self._config.learning_rate:g}: try a smaller one"
            )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides later updates, and the sums of metrics not yet read."""
        return {
            "online": self.online.state_dict(),
            "held": held_weights(self.online),  # compiled steps round otherwise than `refill_held`
            "target": self.target.state_dict(),
            "optimizer": optimizer_tree(self.optimizer),
            "num_updates": self.num_updates,
            "sums": [self._loss_sum, self._q_sum],
            "summed_updates": self._summed_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave, in place."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer_tree(self.optimizer, state["optimizer"])
        self.num_updates = state["num_updates"]
        self._loss_sum.copy_(state["sums"][0])
        self._q_sum.copy_(state["sums"][1])
        self._summed_updates = state["summed_updates"]
        refill_held(self.online, state.get("held"))
        refill(self.acting, self.online)


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
