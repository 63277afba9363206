"""A replay memory that stores steps, not transitions: every frame once, whatever the stack.

The ring holds rows; row t has one step of each of the E lanes: the frame, the reward, discount and `first`
that came with it, and the action taken on it. The pair (t, t+1) of a lane is a transition unless t+1 is
`first`; in a stack, the frames before a `first` are zero. That covers game over and time limits; a lost life
is a discount of 0 and no more. The oldest K - 1 rows of the ring end no stack of K: it would not be whole.

    row      10 11 12 13 14 15 16        frames | a b c | d e f g   (| a reset: rows 10 and 13 are `first`)
    pair (11, 12)  stack of 4: s_tm1 = 0 0 a b, s_t = 0 a b c
    pair (12, 13)  no transition
    pair (14, 15)  s_tm1 = 0 0 d e, s_t = 0 d e f
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wn_rl.agents.accelerate import Transfer
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.seeding import random_bits, scale_to_range

TRIES = 16  # draws for a slot; with one step in ten a reset, none is valid once in 10^16
LONGEST_ROUND = 64  # updates; their bits are made at once, since they depend on counters alone
_STREAM = 0x5EED  # sets these numbers apart from the actor's

Columns = dict[str, Tensor]


class Batch(NamedTuple):
    """Transitions (t-1, t), stacked frames in the environment's own dtype.

    weight is 1, or 0 for a slot for which no valid transition was found (see `replay.draw_transitions`).
    """

    s_tm1: Tensor  # [B, K, *O]
    a_tm1: Tensor  # [B] int64
    r_t: Tensor  # [B] float32, raw
    discount_t: Tensor  # [B] float32, 0 where nothing follows, else 1 (for `Targets`: else gamma)
    s_t: Tensor  # [B, K, *O]
    weight: Tensor  # [B] float32


def draw_transitions(
    bits: Tensor, first: Tensor, oldest_row: int | Tensor, num_rows: int | Tensor, stack: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Uniform draws of transitions from a ring, without a loop: the first valid one of several tries.

    bits: [B, TRIES] of `random_bits`. first: [R, E] bool. The ring holds rows [oldest_row, num_rows): integers,
    or 0-d tensors if a CUDA graph is to see them change.
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


class Draws:
    """The random bits of the batches of one purpose, a block of batches ahead in one tensor that stays in place.

    They are a pure function of (seed, purpose, index of the batch). `seek` and `take` are apart so that a CUDA
    graph can hold `take`.
    """

    def __init__(self, seed: int, purpose: str, batch_size: int, device: torch.device | str = "cpu") -> None:
        self._key = (seed, _STREAM, *purpose.encode())
        self._slots = torch.arange(batch_size * TRIES, device=device).view(batch_size, TRIES)
        self._ahead = torch.arange(LONGEST_ROUND, device=device)
        self._bits = torch.zeros((LONGEST_ROUND, batch_size, TRIES), dtype=torch.int64, device=device)
        self._start: int | None = None  # index of the first batch whose bits are there
        self._offset = torch.zeros((), dtype=torch.int64, device=device)

    def seek(self, index: int, num_batches: int = 1) -> None:
        """Let `take` start at the batch of this index; it may take num_batches, at most LONGEST_ROUND."""
        if self._start is None or not self._start <= index <= self._start + LONGEST_ROUND - num_batches:
            self._bits.copy_(random_bits(self._key, (self._ahead + index)[:, None, None], self._slots))
            self._start = index
        self._offset.fill_(index - self._start)

    def take(self, num_batches: int) -> Tensor:
        """Bits [num_batches * B, TRIES] from where `seek` pointed."""
        return self._bits.index_select(0, self._ahead[:num_batches] + self._offset).flatten(0, 1)


class Replay:
    """The last `capacity` steps of E lanes, in 7,073 bytes a step of 84x84 frames.

    capacity: steps, all lanes together; rounded down to whole rows. What is drawn is a pure function of the
    bits given and the rows held, so that there is no random state and a resumed run draws the same.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        spec: EnvironmentSpec,
        *,
        stack: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.stack, self.num_envs = stack, num_envs
        self.num_rows = 0  # rows ever added
        self.ring_rows = capacity // num_envs
        if self.ring_rows <= stack:
            raise ValueError(f"a replay of {capacity} steps is too small for {num_envs} lanes")
        rows = (self.ring_rows, num_envs)
        # One frame more than the ring, all zero: frames before a `first` are read from there.
        self._zero_frame = self.ring_rows * num_envs
        shape = (self._zero_frame + 1, *spec.frame_shape)
        self._frames = torch.empty(shape, dtype=getattr(torch, spec.dtype), device=device)
        self._frames[self._zero_frame] = 0
        self._columns: Columns = {
            "frame": self._frames[: self._zero_frame].view(*rows, *spec.frame_shape),
            "action": torch.zeros(rows, dtype=torch.int64, device=device),
            "reward": torch.zeros(rows, dtype=torch.float32, device=device),
            "discount": torch.zeros(rows, dtype=torch.float32, device=device),
            "first": torch.zeros(rows, dtype=torch.bool, device=device),
        }
        self._offsets = torch.arange(1 - stack, 2, device=device)
        # The rows held, for draws inside a CUDA graph, which sees tensors change and no integers.
        self._oldest_row, self._num_rows = torch.zeros(2, dtype=torch.int64, device=device)
        on_cpu = self.device.type == "cpu"  # there numpy writes a row in a fifth of torch's time
        self._arrays = [column.numpy() for column in self._columns.values()] if on_cpu else []
        self._transfer = None if on_cpu else Transfer(self.device)

    @staticmethod
    def num_bytes(capacity: int, spec: EnvironmentSpec) -> int:
        """Memory that a replay of this capacity takes."""
        frame = torch.empty(spec.frame_shape, dtype=getattr(torch, spec.dtype))
        return capacity * (frame.numel() * frame.element_size() + 17)

    @property
    def oldest_row(self) -> int:
        """The oldest row still in the ring; rows [oldest_row, num_rows) are."""
        return max(0, self.num_rows - self.ring_rows)

    def add(self, step: Step, actions: NDArray[np.int64]) -> None:
        """Append one row: a step of each lane, and the actions [E] taken on it."""
        slot = self.num_rows % self.ring_rows
        values = (step.observation, actions, step.reward, step.discount, step.first)
        if self._transfer is None:
            for array, value in zip(self._arrays, values, strict=True):
                array[slot] = value
        else:
            self._transfer.send([torch.from_numpy(value) for value in values])
            received = self._transfer.receive(self.num_envs)
            for column, row in zip(self._columns.values(), received, strict=True):
                column[slot].copy_(row)
        self._set_num_rows(self.num_rows + 1)

    def _set_num_rows(self, num_rows: int) -> None:
        self.num_rows = num_rows
        self._num_rows.fill_(num_rows)
        self._oldest_row.fill_(self.oldest_row)

    def require_transitions(self) -> None:
        """ValueError if there are too few rows for one transition."""
        if self.num_rows - self.oldest_row <= self.stack:
            raise ValueError(f"the replay holds {self.num_rows} rows; a stack of {self.stack} needs more")

    def sample(self, bits: Tensor) -> Batch:
        """The batch [B] that belongs to bits [B, TRIES] (see `Draws`), uniform over the transitions held.

        A CUDA graph may hold it. There must be a transition: see `require_transitions`.
        """
        first = self._columns["first"]
        return self._gather(*draw_transitions(bits, first, self._oldest_row, self._num_rows, self.stack))

    def _gather(self, row: Tensor, lane: Tensor, weight: Tensor) -> Batch:
        slots = (row[:, None] + self._offsets) % self.ring_rows  # [B, K + 1]: t-K+1 ... t+1
        index = slots * self.num_envs + lane[:, None]
        stacked = index.clone()
        if self.stack > 1:
            first = self._columns["first"].view(-1)[index[:, 1:-1]]  # t-K+2 ... t; t+1 is never first
            reset_follows = first.flip(1).cumsum(1).flip(1) > 0  # for t-K+1 ... t-1
            stacked[:, :-2].masked_fill_(reset_follows, self._zero_frame)
        frames = self._frames.index_select(0, stacked.flatten()).view(*index.shape, *self._frames.shape[1:])
        now, then = index[:, -2], index[:, -1]
        return Batch(
            s_tm1=frames[:, :-1],
            a_tm1=self._columns["action"].view(-1)[now],
            r_t=self._columns["reward"].view(-1)[then],
            discount_t=self._columns["discount"].view(-1)[then],
            s_t=frames[:, 1:],
            weight=weight,
        )

    def read_rows(self, start: int, stop: int) -> Columns:
        """Copies of rows [start, stop), which must be in the ring; each column is [stop - start, E, ...]."""
        if not self.oldest_row <= start <= stop <= self.num_rows:
            raise ValueError(f"rows {start} to {stop} are not in [{self.oldest_row}, {self.num_rows})")
        slots = torch.arange(start, stop, device=self._frames.device) % self.ring_rows
        return {name: column[slots].cpu() for name, column in self._columns.items()}

    def write_rows(self, start: int, columns: Columns) -> None:
        """Put rows back as `read_rows` gave them, in order; the last call's end is the new num_rows.

        ValueError: they are rows of another replay.
        """
        stop = start + len(columns["first"])
        form = {name: (column.dtype, column.shape[1:]) for name, column in self._columns.items()}
        if {name: (column.dtype, column.shape[1:]) for name, column in columns.items()} != form or start < 0:
            raise ValueError("these are not rows of this replay")
        keep = max(start, stop - self.ring_rows)
        slots = torch.arange(keep, stop, device=self._frames.device) % self.ring_rows
        for name, column in self._columns.items():
            column[slots] = columns[name][keep - start :].to(column.device)
        self._set_num_rows(stop)


class Batches:
    """Batches from a replay, on the learner's device. A CUDA graph may hold `take`; call `seek` before it.

    Those of one number and purpose are a pure function of the seed and of what the replay holds. A replay in host
    memory draws there and hands its batches over through pinned memory.
    """

    def __init__(self, replay: Replay, purpose: str, batch_size: int, device: torch.device, seed: int) -> None:
        self._replay, self._batch_size = replay, batch_size
        self._draws = Draws(seed, purpose, batch_size, replay.device)
        self._transfer = None if replay.device == device else Transfer(device)

    def seek(self, index: int, num_batches: int) -> None:
        """Let `take` start at the batch of this index and give num_batches, at most LONGEST_ROUND."""
        self._draws.seek(index, num_batches)
        if self._transfer is not None:
            self._transfer.send(self._sample(num_batches))

    def take(self, num_batches: int) -> Batch:
        """The batches from where `seek` pointed, in one [num_batches * B, ...]."""
        if self._transfer is None:
            return self._sample(num_batches)
        return Batch(*self._transfer.receive(num_batches * self._batch_size))

    def _sample(self, num_batches: int) -> Batch:
        return self._replay.sample(self._draws.take(num_batches))
