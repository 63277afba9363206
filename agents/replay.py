"""A replay memory that stores steps, not transitions: every frame once, whatever the stack.

The ring holds rows; row t has one step of each of the E lanes: the frame, the reward, discount and `first`
that came with it, and the action taken on it. The pair (t, t+1) of a lane is a transition unless t+1 is
`first`; in a stack, the frames before a `first` are zero. That rule covers game over, lost lives, time
limits and the seam of the ring alike:

    row      0 1 2 3 4 5 6        frames a b c | d e f g   (| a reset: row 3 is `first`)
    pair (1, 2)  stack of 4: s_tm1 = 0 0 a b, s_t = 0 a b c
    pair (2, 3)  no transition
    pair (4, 5)  s_tm1 = 0 0 d e, s_t = 0 d e f
"""

import torch
from torch import Tensor

from wn_rl.agents.types import Batch
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.seeding import random_bits, scale_to_range

TRIES = 16  # draws for a slot; with one step in ten a reset, none is valid once in 10^16
DRAW_AHEAD = 64  # updates whose random bits are made at once: they depend on counters alone
_STREAM = 0x5EED  # sets these numbers apart from the actor's

Columns = dict[str, Tensor]


def draw_transitions(
    bits: Tensor, first: Tensor, oldest_row: int, num_rows: int, stack: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform draws of transitions from a ring, without a loop: the first valid one of several tries.

    bits: [B, TRIES] of `random_bits`. first: [R, E] bool. The ring holds rows [oldest_row, num_rows).
    Returns row t [B], lane [B] and weight [B]: 0 in the rare case that no try was valid, else 1.
    """
    ring_rows, num_lanes = first.shape
    lowest = oldest_row + stack - 1
    position = scale_to_range(bits, (num_rows - 1 - lowest) * num_lanes)
    row = lowest + torch.div(position, num_lanes, rounding_mode="floor")
    lane = position % num_lanes
    valid = ~first[(row + 1) % ring_rows, lane]
    weight, chosen = valid.to(torch.float32).max(dim=1, keepdim=True)
    return row.gather(1, chosen).squeeze(1), lane.gather(1, chosen).squeeze(1), weight.squeeze(1)


class Replay:
    """The last `capacity` steps of E lanes, in 7,073 bytes a step of 84x84 frames.

    capacity: steps, all lanes together; rounded down to whole rows. Index draws are a pure function of
    (seed, purpose, index), so that there is no random state and a resumed run draws the same. Rows are
    held on `device`; batches are given on `batch_device`.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        spec: EnvironmentSpec,
        *,
        stack: int,
        seed: int,
        device: torch.device | str = "cpu",
        batch_device: torch.device | str | None = None,
    ) -> None:
        self.batch_device = torch.device(device if batch_device is None else batch_device)
        self.stack = stack
        self.seed = seed
        self.num_envs = num_envs
        self.num_rows = 0  # rows ever added
        self.ring_rows = capacity // num_envs
        if self.ring_rows <= stack:
            raise ValueError(f"a replay of {capacity} steps is too small for {num_envs} lanes")
        rows = (self.ring_rows, num_envs)
        # One frame more than the ring, all zero: what stands before a `first` is read from there.
        self._frames = torch.empty(
            (self.ring_rows * num_envs + 1, *spec.frame_shape),
            dtype=getattr(torch, spec.dtype),
            device=device,
        )
        self._zero_frame = self.ring_rows * num_envs
        self._frames[self._zero_frame] = 0
        self._columns: Columns = {
            "frame": self._frames[: self._zero_frame].view(*rows, *spec.frame_shape),
            "action": torch.zeros(rows, dtype=torch.int64, device=device),
            "reward": torch.zeros(rows, dtype=torch.float32, device=device),
            "discount": torch.zeros(rows, dtype=torch.float32, device=device),
            "first": torch.zeros(rows, dtype=torch.bool, device=device),
        }
        self._offsets = torch.arange(1 - stack, 2, device=device)
        self._bits: tuple[str, int, Tensor] | None = None

    @staticmethod
    def num_bytes(capacity: int, spec: EnvironmentSpec) -> int:
        """Memory that a replay of this capacity takes."""
        frame = torch.empty(spec.frame_shape, dtype=getattr(torch, spec.dtype))
        return capacity * (frame.numel() * frame.element_size() + 17)

    @property
    def oldest_row(self) -> int:
        """The oldest row still in the ring; rows [oldest_row, num_rows) are."""
        return max(0, self.num_rows - self.ring_rows)

    @property
    def num_steps(self) -> int:
        """Steps held, all lanes together."""
        return (self.num_rows - self.oldest_row) * self.num_envs

    def add(self, step: Step, actions: object) -> None:
        """Append one row: a step of each lane, and the actions [E] taken on it."""
        slot = self.num_rows % self.ring_rows
        values = (step.observation, actions, step.reward, step.discount, step.first)
        for column, value in zip(self._columns.values(), values, strict=True):
            column[slot] = torch.as_tensor(value)
        self.num_rows += 1

    def sample(self, purpose: str, index: int, batch_size: int) -> Batch:
        """The batch that belongs to (seed, purpose, index), uniform over the transitions held.

        Raises:
            ValueError: there are too few rows for one transition.
        """
        if self.num_rows - self.oldest_row <= self.stack:
            raise ValueError(f"the replay holds {self.num_rows} rows; a stack of {self.stack} needs more")
        bits = self._random_bits(purpose, index, batch_size)
        row, lane, weight = draw_transitions(
            bits, self._columns["first"], self.oldest_row, self.num_rows, self.stack
        )
        return self._gather(row, lane, weight)

    def _random_bits(self, purpose: str, index: int, batch_size: int) -> Tensor:
        block = index // DRAW_AHEAD
        if self._bits is None or self._bits[:2] != (purpose, block) or self._bits[2].shape[1] != batch_size:
            device = self._frames.device
            indices = torch.arange(block * DRAW_AHEAD, (block + 1) * DRAW_AHEAD, device=device)
            draws = torch.arange(batch_size * TRIES, device=device).view(batch_size, TRIES)
            key = (self.seed, _STREAM, *purpose.encode())
            self._bits = (purpose, block, random_bits(key, indices[:, None, None], draws))
        return self._bits[2][index % DRAW_AHEAD]

    def _gather(self, row: Tensor, lane: Tensor, weight: Tensor) -> Batch:
        slots = (row[:, None] + self._offsets) % self.ring_rows  # [B, K + 1]: t-K+1 ... t+1
        lanes = lane[:, None]
        first = self._columns["first"][slots[:, 1:-1], lanes]  # t-K+2 ... t; t+1 is never first
        reset_follows = first.flip(1).cumsum(1).flip(1) > 0  # for t-K+1 ... t-1
        index = slots * self.num_envs + lanes
        index[:, : self.stack - 1].masked_fill_(reset_follows, self._zero_frame)
        frames = self._frames.index_select(0, index.flatten()).view(*index.shape, *self._frames.shape[1:])
        now = slots[:, -2], lane
        then = slots[:, -1], lane
        frames = frames.to(self.batch_device)
        return Batch(
            s_tm1=frames[:, :-1],
            a_tm1=self._columns["action"][now].to(self.batch_device),
            r_t=self._columns["reward"][then].to(self.batch_device),
            discount_t=self._columns["discount"][then].to(self.batch_device),
            s_t=frames[:, 1:],
            weight=weight.to(self.batch_device),
        )

    def read_rows(self, start: int, stop: int) -> Columns:
        """Copies of rows [start, stop), which must be in the ring; each column is [stop - start, E, ...]."""
        if not self.oldest_row <= start <= stop <= self.num_rows:
            raise ValueError(f"rows {start} to {stop} are not in [{self.oldest_row}, {self.num_rows})")
        slots = torch.arange(start, stop, device=self._frames.device) % self.ring_rows
        return {name: column[slots].cpu() for name, column in self._columns.items()}

    def write_rows(self, start: int, columns: Columns) -> None:
        """Put rows back as `read_rows` gave them, in order; the last call's end is the new num_rows."""
        stop = start + len(columns["first"])
        keep = max(start, stop - self.ring_rows)
        slots = torch.arange(keep, stop, device=self._frames.device) % self.ring_rows
        for name, column in self._columns.items():
            column[slots] = columns[name][keep - start :].to(column.device)
        self.num_rows = stop
