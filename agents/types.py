"""The data that passes between replay, learner and loss. Letters: B batch, K stack, *O frame shape, A actions."""

from typing import NamedTuple

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
