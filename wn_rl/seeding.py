"""Named randomness: every random number of a run is a function of the seed and what it is for.

`derive_seed` makes seeds for things that own a generator (environments, initial weights). `random_bits` is a
counter-based generator in integer arithmetic: it has no state to save, and gives equal numbers on CPU and CUDA,
eagerly and inside a captured graph.
"""

import zlib
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
IntOrTensor = TypeVar("IntOrTensor", int, Tensor)


def derive_seed(seed: int, *stream: str | int) -> int:
    """A 31-bit seed for the named stream, e.g. `derive_seed(1, "evaluation", 3)`.

    Streams with different names are independent (numpy's SeedSequence mixes them).
    """
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in stream]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0] >> 1)


def _mix(x: IntOrTensor) -> IntOrTensor:
    """Wellons' triple32, a bijection of 32-bit integers: https://nullprogram.com/blog/2018/07/31/.

    Tensors are int64: a product wraps modulo 2**64, which leaves its low 32 bits right.
    """
    x = ((x ^ (x >> 17)) * 0xED5AD4BB) & _MASK
    x = ((x ^ (x >> 11)) * 0xAC4C1B51) & _MASK
    x = ((x ^ (x >> 15)) * 0x31848BAB) & _MASK
    return x ^ (x >> 14)


def random_bits(key: tuple[int, ...], *counters: Tensor) -> Tensor:
    """32 random bits (int64 in [0, 2**32)) for each element of the broadcast counters.

    key: Python integers, counters: int64 tensors, all in [0, 2**32). An integer may move from the end of
    the key to the first counter, as a tensor, without changing the numbers.
    """
    head = 0x9E3779B9
    for number in key:
        head = _mix((head + number) & _MASK)
    bits = torch.full((), head, dtype=torch.int64, device=counters[0].device)
    for counter in counters:
        bits = _mix((bits + counter) & _MASK)
    return bits


def scale_to_range(bits: Tensor, upper: Tensor | int) -> Tensor:
    """Random bits as integers in [0, upper), upper < 2**31; the bias is below upper / 2**32."""
    return (bits * upper) >> 32


def scale_to_unit(bits: Tensor) -> Tensor:
    """Random bits as float32 in [0, 1): the upper 24 bits, so that every value is exact."""
    return (bits >> 8).to(torch.float32) * 2.0**-24
