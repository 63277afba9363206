import torch
from hypothesis import given
from hypothesis import strategies as st

from wn_rl.seeding import derive_seed, random_bits, scale_to_range, scale_to_unit

WORDS = st.integers(0, 2**32 - 1)


def triple32(x: int) -> int:
    """The published C function in unbounded integers."""
    mask = 0xFFFFFFFF
    x ^= x >> 17
    x = x * 0xED5AD4BB & mask
    x ^= x >> 11
    x = x * 0xAC4C1B51 & mask
    x ^= x >> 15
    x = x * 0x31848BAB & mask
    return x ^ (x >> 14)


@given(WORDS, WORDS, WORDS)
def test_bits_are_chained_mixes_of_the_counters(seed: int, stream: int, counter: int) -> None:
    expected = 0x9E3779B9
    for number in (seed, stream, counter):
        expected = triple32((expected + number) & 0xFFFFFFFF)
    assert random_bits((seed, stream), torch.tensor(counter)).item() == expected


def test_an_integer_of_the_key_may_be_a_tensor_instead() -> None:
    slots = torch.arange(100)
    assert torch.equal(random_bits((3, 4, 5), slots), random_bits((3, 4), torch.tensor(5), slots))


def test_bits_are_uniform_and_streams_are_uncorrelated() -> None:
    counters = torch.arange(200_000)
    one, other = scale_to_unit(random_bits((1,), counters)), scale_to_unit(random_bits((2,), counters))
    assert abs(one.mean().item() - 0.5) < 0.003  # five standard errors
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.012
    counts = torch.bincount(scale_to_range(random_bits((1,), counters), 10), minlength=10)
    chi_squared = ((counts - 20_000) ** 2 / 20_000).sum().item()
    assert chi_squared < 30  # 9 degrees of freedom: p is about 4e-4


def test_ranges_end_where_they_should() -> None:
    extremes = torch.tensor([0, 2**32 - 1])
    assert scale_to_range(extremes, 7).tolist() == [0, 6]
    assert scale_to_range(extremes, 2**31 - 1).tolist() == [0, 2**31 - 2]
    low, high = scale_to_unit(extremes).tolist()
    assert low == 0
    assert 0.999 < high < 1


def test_derived_seeds_differ_by_stream_and_seed() -> None:
    seeds = {derive_seed(seed, name, i) for seed in (1, 2) for name in ("a", "b") for i in range(50)}
    assert len(seeds) == 200
    assert derive_seed(1, "a", 0) == derive_seed(1, "a", 0)
    assert all(0 <= seed < 2**31 for seed in seeds)
