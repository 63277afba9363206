"""The loss of Deep Q-learning as pure functions (Mnih et al. 2015, equation 2 and Methods)."""

import torch
from torch import Tensor


def _check_ranks(**tensors_and_ranks: tuple[Tensor, int]) -> None:
    for name, (tensor, rank) in tensors_and_ranks.items():
        if tensor.ndim != rank:
            raise ValueError(f"{name} must have rank {rank}, got shape {tuple(tensor.shape)}")


def q_learning_td_error(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """r_t + discount_t max_a q_t[a] - q_tm1[a_tm1], shape [B]. No gradient reaches q_t.

    q_tm1: [B, A] from the online network. a_tm1: [B] int64. r_t, discount_t: [B], the discount being gamma,
    or 0 where the episode ended. q_t: [B, A] from the target network.

    Raises:
        ValueError: a rank differs from the above.
    """
    _check_ranks(q_tm1=(q_tm1, 2), a_tm1=(a_tm1, 1), r_t=(r_t, 1), discount_t=(discount_t, 1), q_t=(q_t, 2))
    target = r_t + discount_t * q_t.detach().amax(dim=1)
    return target - q_tm1.gather(1, a_tm1[:, None]).squeeze(1)


def huber(error: Tensor, delta: float = 1.0) -> Tensor:
    """error^2 / 2 within delta, linear outside: the gradient is the error clipped to [-delta, delta].

    This is what "clipping the error term" does in DeepMind's released code. Clipping inside a squared loss
    would stop the gradient of large errors instead (docs/fidelity.md).
    """
    magnitude = error.abs()
    clipped = magnitude.clamp(max=delta)
    return clipped * (magnitude - 0.5 * clipped)


def q_learning_loss(td_error: Tensor, weight: Tensor) -> Tensor:
    """The Huber loss summed over the batch, as in deep_q_rl ('sum' accumulation). Both arguments are [B]."""
    _check_ranks(td_error=(td_error, 1), weight=(weight, 1))
    return torch.dot(huber(td_error), weight)
