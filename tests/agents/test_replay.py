import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wn_rl.agents.replay import LONGEST_ROUND, TRIES, Batch, Draws, Replay, draw_transitions
from wn_rl.envs.base import EnvironmentSpec, Step
from wn_rl.seeding import random_bits

SPEC = EnvironmentSpec(5, (2,), "float32", 1.0, 1, ("",) * 5)
ATARI = EnvironmentSpec(4, (84, 84), "uint8", 1 / 255, 4, ("",) * 4)


def sampled(replay: Replay, index: int, size: int, seed: int = 1, purpose: str = "update") -> Batch:
    draws = Draws(seed, purpose, size)
    draws.seek(index)
    return replay.sample(draws.take(1))


class NaiveReplay:
    """Every row in a list; a transition is built by walking back. Frames are (row + 1, lane + 1), never zero."""

    def __init__(self, capacity: int, num_envs: int, stack: int) -> None:
        self.rows: list[tuple[Step, np.ndarray]] = []
        self.kept, self.stack, self.num_envs = capacity // num_envs, stack, num_envs

    def stacked(self, row: int, lane: int) -> list[list[float]]:
        frames: list[list[float]] = []
        while len(frames) < self.stack:
            step = self.rows[row][0]
            frames.insert(0, step.observation[lane].tolist())
            if step.first[lane]:
                break
            row -= 1
        return [[0.0, 0.0]] * (self.stack - len(frames)) + frames

    def transitions(self) -> dict[tuple[int, int], tuple]:
        oldest = max(0, len(self.rows) - self.kept)
        found = {}
        for row in range(oldest + self.stack - 1, len(self.rows) - 1):
            for lane in range(self.num_envs):
                then = self.rows[row + 1][0]
                if not then.first[lane]:
                    found[row, lane] = (
                        self.stacked(row, lane),
                        int(self.rows[row][1][lane]),
                        float(then.reward[lane]),
                        float(then.discount[lane]),
                        self.stacked(row + 1, lane),
                    )
        return found


def random_row(row: int, num_envs: int, generator: np.random.Generator, p_first: float) -> tuple[Step, np.ndarray]:
    step = Step(
        observation=np.array([[row + 1, lane + 1] for lane in range(num_envs)], dtype=np.float32),
        reward=generator.normal(size=num_envs).astype(np.float32),
        discount=(generator.random(num_envs) > 0.2).astype(np.float32),
        first=(generator.random(num_envs) < p_first) | (row == 0),
    )
    return step, generator.integers(0, 5, num_envs)


@settings(deadline=None, max_examples=60)
@given(
    num_envs=st.integers(1, 4),
    stack=st.integers(1, 4),
    ring_rows=st.integers(6, 20),
    num_rows=st.integers(6, 60),
    p_first=st.sampled_from([0.0, 0.1, 0.4]),
    seed=st.integers(0, 1000),
)
def test_samples_equal_a_naive_model(num_envs, stack, ring_rows, num_rows, p_first, seed) -> None:  # type: ignore[no-untyped-def]
    generator = np.random.default_rng(seed)
    replay = Replay(ring_rows * num_envs, num_envs, SPEC, stack=stack)
    naive = NaiveReplay(ring_rows * num_envs, num_envs, stack)
    for row in range(num_rows):
        step, actions = random_row(row, num_envs, generator, p_first)
        replay.add(step, actions)
        naive.rows.append((step, actions))
    expected = naive.transitions()
    drawn = set()
    for index in range(6):
        batch = sampled(replay, index, 128, seed)
        for s_tm1, a_tm1, r_t, discount_t, s_t, weight in zip(*batch, strict=True):
            if weight.item() == 0:  # no valid try: rare, and removed from the loss
                continue
            key = (int(s_tm1[-1, 0]) - 1, int(s_tm1[-1, 1]) - 1)
            drawn.add(key)
            assert expected[key] == (
                s_tm1.tolist(),
                a_tm1.item(),
                r_t.item(),
                discount_t.item(),
                s_t.tolist(),
            )
    if len(expected) <= 40:  # 768 draws miss one of 40 with probability below 1e-6
        assert drawn == set(expected)


def test_a_draw_without_any_valid_try_has_weight_zero() -> None:
    first = torch.ones((10, 2), dtype=torch.bool)
    bits = random_bits((1,), torch.arange(4 * TRIES).view(4, TRIES))
    _, _, weight = draw_transitions(bits, first, 0, 10, 1)
    assert weight.tolist() == [0, 0, 0, 0]


def test_draws_are_uniform_over_the_valid_transitions() -> None:
    first = torch.zeros((50, 4), dtype=torch.bool)
    first[::7] = True
    bits = random_bits((1,), torch.arange(40_000 * TRIES).view(40_000, TRIES))
    row, lane, weight = draw_transitions(bits, first, 0, 50, 4)
    assert weight.min() == 1
    valid = [r for r in range(3, 49) if not first[r + 1, 0]]
    counts = torch.bincount(row * 4 + lane, minlength=200).view(50, 4)
    assert sorted(set(row.tolist())) == valid
    expected = 40_000 / (len(valid) * 4)
    chi_squared = ((counts[valid] - expected) ** 2 / expected).sum().item()
    assert chi_squared < 220  # 155 degrees of freedom, p about 5e-4


def filled() -> Replay:
    replay = Replay(40, 2, SPEC, stack=2)
    generator = np.random.default_rng(0)
    for row in range(33):
        replay.add(*random_row(row, 2, generator, 0.1))
    return replay


def test_a_batch_is_a_function_of_seed_purpose_and_index() -> None:
    one, other = filled(), filled()
    for index in (70, 3, 64):
        for a, b in zip(sampled(one, index, 16), sampled(other, index, 16), strict=True):
            assert torch.equal(a, b)
    baseline = sampled(one, 3, 16).s_tm1
    assert not torch.equal(baseline, sampled(one, 4, 16).s_tm1)
    assert not torch.equal(baseline, sampled(one, 3, 16, purpose="initialize").s_tm1)
    assert not torch.equal(baseline, sampled(one, 3, 16, seed=2).s_tm1)


def test_batches_taken_together_are_those_taken_one_by_one() -> None:
    draws, replay = Draws(7, "update", 16), filled()
    draws.seek(LONGEST_ROUND + 2)
    draws.seek(LONGEST_ROUND + 5, 3)
    together = replay.sample(draws.take(3))
    for number in range(3):
        part = slice(16 * number, 16 * (number + 1))
        alone = sampled(replay, LONGEST_ROUND + 5 + number, 16, seed=7)
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[part], b)


def test_what_is_drawn_does_not_depend_on_where_the_bits_drawn_ahead_begin() -> None:
    draws, other = Draws(7, "update", 16), Draws(7, "update", 16)
    for index, num_batches in [(3, 16), (19, 16), (51, 16), (52, 15), (67, LONGEST_ROUND), (3, 1)]:
        draws.seek(index, num_batches)
        other.seek(0)  # a block of its own each time
        for number, bits in enumerate(draws.take(num_batches).split(16)):
            other.seek(index + number)
            assert torch.equal(bits, other.take(1))


def test_rows_read_in_segments_and_written_back_give_the_same_replay() -> None:
    replay = filled()
    assert (replay.oldest_row, replay.num_rows) == (13, 33)
    copy = Replay(40, 2, SPEC, stack=2)
    for start, stop in ((13, 20), (20, 21), (21, 33)):
        copy.write_rows(start, replay.read_rows(start, stop))
    assert copy.num_rows == 33
    for a, b in zip(sampled(replay, 0, 64), sampled(copy, 0, 64), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="not in"):
        replay.read_rows(12, 20)


def test_writing_more_rows_than_the_ring_keeps_the_newest() -> None:
    big = Replay(100, 2, SPEC, stack=2)
    generator = np.random.default_rng(0)
    for row in range(33):
        big.add(*random_row(row, 2, generator, 0.1))
    copy = Replay(40, 2, SPEC, stack=2)
    copy.write_rows(0, big.read_rows(0, 33))
    for a, b in zip(filled().read_rows(13, 33).values(), copy.read_rows(13, 33).values(), strict=True):
        assert torch.equal(a, b)


def test_a_million_atari_frames_take_7_06_gigabytes_and_at_most_2_percent_more() -> None:
    assert Replay.num_bytes(1_000_000, ATARI) <= 7.056e9 * 1.02
    small = Replay(1_000, 4, ATARI, stack=4)
    held = sum(column.untyped_storage().nbytes() for column in small._columns.values())
    assert held <= Replay.num_bytes(1_000, ATARI) + 84 * 84  # and one frame of zeros


def test_too_few_rows_and_too_small_a_ring_are_refused() -> None:
    replay = Replay(40, 2, SPEC, stack=4)
    generator = np.random.default_rng(0)
    for row in range(4):
        replay.add(*random_row(row, 2, generator, 0.0))
    with pytest.raises(ValueError, match="needs more"):
        replay.require_transitions()
    with pytest.raises(ValueError, match="too small"):
        Replay(8, 2, SPEC, stack=4)
