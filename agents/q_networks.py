"""The online network, the two plain copies that act and give targets, and how they are computed fast."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from wn_rl.agents.accelerate import accelerated, allow_compiled_programs, set_tf32
from wn_rl.agents.replay import LONGEST_ROUND
from wn_rl.nn import (
    anneal,
    fold,
    held_weights,
    hold_weights,
    load_optimizer_tree,
    make_step,
    move_toward,
    optimizer_tree,
    refill,
    refill_held,
    scale_in_first_convolution,
    shares_all_tensors,
)
from wn_rl.nn.update.optimizers import MultiTensorOptimizer

# Not on a CPU: there the libraries' products are nearly all of a network, and what the compiler puts around
# them is slower than torch's own operations (docs/speed.md).
NETWORKS_COMPILED_ON = ("cuda",)

Values = Callable[[Tensor], Tensor]
"""States [B, K, *O] -> action values [B, A] in float32."""

Function = TypeVar("Function", bound=Callable[..., Tensor])


class MetricSums:
    """The loss and the action values, added up on the device, so that no update waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.loss, self.q = torch.zeros((), device=device), torch.zeros((), device=device)
        self.num_updates = 0  # in the sums

    def add(self, loss: Tensor, q: Tensor) -> None:
        """Add the means of one update, 0-d."""
        self.loss += loss
        self.q += q

    def take(self) -> dict[str, float | None]:
        """Means over the updates since the last call; None without an update."""
        count = self.num_updates
        means = {"loss": float(self.loss) / count, "q_mean": float(self.q) / count} if count else {}
        self.loss.zero_()
        self.q.zero_()
        self.num_updates = 0
        return {"loss": None, "q_mean": None, **means}


class QNetworks:
    """The Q-networks of Deep Q-learning, for any parameterization.

    online: on its device, trained by the optimizer, in train mode. acting and target: plain torch layers with the
    same function in eval mode, refilled in place, so that acting costs the same for every parameterization.
    max_v_norm: the bound on |v| or None. step: from gradients of its leaves to the next weights.
    target_smoothing, averaging: as `wn_rl.config` documents them. anneal_over: updates until the rate is 0.
    """

    def __init__(
        self,
        online: nn.Sequential,
        optimizer: MultiTensorOptimizer,
        *,
        precision: str = "float32",
        accelerate: str = "eager",
        max_v_norm: float | None = None,
        target_smoothing: float | None = None,
        averaging: float | None = None,
        anneal_over: int | None = None,
    ) -> None:
        self.device = next(online.parameters()).device
        self.online, self.optimizer = online.train(), optimizer
        self.sums = MetricSums(self.device)
        self._precision = precision
        self._compiles_networks = accelerate != "eager" and self.device.type in NETWORKS_COMPILED_ON
        self.allow_precision()
        if self.device.type == "cpu":
            scale_in_first_convolution(online)
        self.acting = cast(nn.Sequential, fold(online, fast=True, share=True))
        self.target = cast(nn.Sequential, fold(online, fast=True))
        if self._compiles_networks:
            for network in (online, self.acting, self.target):  # as compiled convolutions take their weights
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if accelerate != "eager":
            allow_compiled_programs(LONGEST_ROUND)  # a round of each number of updates that there is
            hold_weights(online[:-1], torch.bfloat16 if precision == "bfloat16" else torch.float32)
            hold_weights(online[-1], torch.float32)  # see `_values`
        self._target_smoothing, self._averaging = target_smoothing, averaging
        # A running average of all that the online network has, in parameters as the paper takes it.
        self.average = None if averaging is None else copy.deepcopy(online).requires_grad_(False)
        self._rate_steps: list[tuple[Tensor, Tensor]] = []  # learning rates, and what each update takes from them
        if anneal_over is not None:
            anneal(optimizer)
            self._rate_steps = [(group["lr"], group["lr"] / anneal_over) for group in optimizer.param_groups]
        self.step = make_step(online, optimizer, max_v_norm, fuse=accelerate != "eager")
        # Torch warns of a graph of nothing, and acting may share all its weights.
        mode = "eager" if shares_all_tensors(self.acting, online) else accelerate
        # Lets the acting network see the updates made since the last call.
        self.refresh_acting = accelerated(lambda: refill(self.acting, self.online), mode)

    def allow_precision(self) -> None:
        """Set what the device may round: other networks of this process may differ."""
        set_tf32(self._precision == "tf32", self.device)

    def compiled(self, function: Function) -> Function:
        """The function, compiled where networks are."""
        return cast(Function, torch.compile(function, dynamic=False)) if self._compiles_networks else function

    def initialize(self, start: Callable[[nn.Sequential], None]) -> None:
        """Let start set the online network's first weights in place, and copy them to both copies."""
        start(self.online)
        refill_held(self.online)
        refill(self.acting, self.online)
        self.copy_target()
        if self.average is not None:
            self.average.load_state_dict(self.online.state_dict())

    def trained_values(self, states: Tensor) -> Tensor:
        """Action values [B, A] of the online network in train mode, for the loss."""
        return self._values(self.online, states)

    def online_values(self, states: Tensor) -> Tensor:
        """Action values [B, A] of the online network as it is now, in eval mode."""
        self.online.eval()
        values = self._values(self.online, states)
        self.online.train()
        return values

    def target_values(self, states: Tensor) -> Tensor:
        """Action values [B, A] of the target network."""
        return self._values(self.target, states)

    def _values(self, network: nn.Sequential, states: Tensor) -> Tensor:
        """Action values [B, A] in float32. In bfloat16 the output layer stays float32: gaps there are small."""
        if self._precision != "bfloat16":
            return network(states)  # type: ignore[no-any-return]
        with torch.autocast(self.device.type, torch.bfloat16):
            features = network[:-1](states)
        return network[-1](features.float())  # type: ignore[no-any-return]

    @torch.no_grad()
    def follow(self) -> None:
        """After an update, let what follows the online network follow it. A CUDA graph may hold this."""
        if self._target_smoothing is not None:
            refill(self.target, self.online, self._target_smoothing)
        if self.average is not None and self._averaging is not None:
            move_toward(self.average, self.online, 1 - self._averaging)
        for rate, step in self._rate_steps:
            rate -= step

    def evaluation_network(self) -> nn.Module:
        """What evaluations ask, in eval mode: the acting network, or the average of the parameters."""
        return self.acting if self.average is None else fold(self.average, fast=True)

    def evaluated_state(self) -> dict[str, Tensor]:
        """The parameters and buffers behind `evaluation_network`, for the online network's layers."""
        return (self.online if self.average is None else self.average).state_dict()

    def copy_target(self) -> None:
        """Copy the online network as it is now to the target network."""
        refill(self.target, self.online)

    def max_q(self, states: Tensor) -> float:
        """Mean over states [N, K, *O] of the maximum action value (Mnih et al. 2015, figure 2c)."""
        with torch.no_grad():
            return float(self.acting(states).amax(dim=1).mean())

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides later updates, and the sums of metrics not yet read."""
        return {
            "online": self.online.state_dict(),
            "held": held_weights(self.online),  # compiled steps round otherwise than `refill_held`
            "target": self.target.state_dict(),
            "optimizer": optimizer_tree(self.optimizer),
            "sums": [self.sums.loss, self.sums.q],
            "summed_updates": self.sums.num_updates,
            **({} if self.average is None else {"average": self.average.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` gave, in place."""
        self.online.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        load_optimizer_tree(self.optimizer, state["optimizer"])
        self.sums.loss.copy_(state["sums"][0])
        self.sums.q.copy_(state["sums"][1])
        self.sums.num_updates = state["summed_updates"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        refill_held(self.online, state.get("held"))
        refill(self.acting, self.online)
