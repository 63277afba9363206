"""The target and the loss of Deep Q-learning as pure functions (Mnih et al. 2015, equation 2 and Methods)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Batch(NamedTuple):
    """Transitions (t-1, t), stacked frames in the environment's own dtype.

    weight is 1, or 0 for a slot for which no valid transition was found (see `replay.draw_transitions`).
    """

    s_tm1: Tensor  # [B, K, *O]
    a_tm1: Tensor  # [B] int64
    r_t: Tensor  # [B] float32, raw
    discount_t: Tensor  # [B] float32, 0 where nothing follows
    s_t: Tensor  # [B, K, *O]
    weight: Tensor  # [B] float32


def _check_ranks(**tensors_and_ranks: tuple[Tensor, int]) -> None:
    for name, (tensor, rank) in tensors_and_ranks.items():
        if tensor.ndim != rank:
            raise ValueError(f"{name} must have rank {rank}, got shape {tuple(tensor.shape)}")


def q_learning_target(r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """r_t + discount_t max_a q_t[a], shape [B]. No gradient passes it.

    r_t, discount_t: [B], the discount being gamma, or 0 where the episode ended. q_t: [B, A] from the target
    network.

    Raises:
        ValueError: a rank differs from the above.
    """
    _check_ranks(r_t=(r_t, 1), discount_t=(discount_t, 1), q_t=(q_t, 2))
    return (r_t + discount_t * q_t.amax(dim=1)).detach()


def q_learning_loss(q_tm1: Tensor, a_tm1: Tensor, target_t: Tensor, weight: Tensor) -> Tensor:
    """The Huber loss of target_t - q_tm1[a_tm1], summed over the batch as in deep_q_rl ('sum' accumulation).

    It is error^2 / 2 within 1 and linear outside, so its gradient is the error clipped to [-1, 1]: that is what
    "clipping the error term" does in DeepMind's released code. Clipping inside a squared loss would stop the
    gradient of large errors instead (docs/fidelity.md).

    q_tm1: [B, A] from the online network. a_tm1: [B] int64. target_t: [B]. weight: [B], 0 drops a slot.

    Raises:
        ValueError: a rank differs from the above.
    """
    _check_ranks(q_tm1=(q_tm1, 2), a_tm1=(a_tm1, 1), target_t=(target_t, 1), weight=(weight, 1))
    taken = q_tm1.gather(1, a_tm1[:, None]).squeeze(1)
    return torch.dot(F.huber_loss(taken, target_t, reduction="none"), weight)
