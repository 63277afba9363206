"""Atari: the two backends against each other, and what is Atari's alone."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from environment_tools import actions_for, assert_equal_steps, check_restore, make, play

from wn_rl.config import EnvironmentConfig
from wn_rl.envs import atari, atari_vector
from wn_rl.envs import base as lanes
from wn_rl.envs.atari_vector import AtariVector
from wn_rl.envs.base import lane_seed
from wn_rl.report.published_scores import REFERENCE_SCORES, SOURCES

PAPER_GAMES = ["breakout", "enduro", "seaquest", "space_invaders"]


@pytest.fixture
def without_noops(monkeypatch):
    """The two backends draw the number of no-ops from different generators."""
    monkeypatch.setattr(atari, "MAX_NOOP_FRAMES", 0)


def both_backends(game, num_steps, **changes):
    """One lane played by each backend with the same actions."""
    streams = []
    for backend in (atari.make, AtariVector):
        environments = backend(game, EnvironmentConfig(**changes), 1, 5)
        actions = actions_for(environments, num_steps)
        streams.append([environments.reset(), *play(environments, actions)])
        environments.close()
    return streams


@pytest.mark.parametrize("game", PAPER_GAMES)
def test_backends_agree_frame_by_frame(game, without_noops):
    one, vector = both_backends(game, 700)
    assert_equal_steps(one, vector)
    games = sum(int(step.first[0]) for step in one)
    lost = sum(int(step.discount[0] == 0) for step in one)
    if game == "enduro":  # has no lives, and a day does not end this soon
        assert (games, lost) == (1, 0)
    else:
        assert games > 1
        assert lost > games  # lives, not only games
        assert any(step.reward[0] > 0 for step in one)


def test_backends_agree_on_sticky_actions_and_on_all_actions(without_noops):
    """To the end of the first game, whose seed both take from the lane's."""
    one, vector = both_backends("breakout", 500, repeat_action_probability=0.25, full_action_set=True)
    end = next(number for number, step in enumerate(one) if number and step.first[0])
    assert_equal_steps(one[:end], vector[:end])
    plain, _ = both_backends("breakout", 500, full_action_set=True)
    assert any((a.observation != b.observation).any() for a, b in zip(one[:end], plain, strict=False))


@pytest.mark.parametrize("num_envs", [1, 3])
def test_sticky_actions_go_on_after_a_resume(num_envs, monkeypatch):
    monkeypatch.setattr(atari_vector, "WINDOW", 40)
    rules = {"repeat_action_probability": 0.25, "full_action_set": True, "max_episode_frames": 4 * 25}
    original, restored = (make("atari", "breakout", num_envs, **rules) for _ in range(2))
    assert original.spec.num_actions == 18
    original.reset()
    check_restore(original, restored, actions_for(original, 110), at=[51, 100])
    original.close()
    restored.close()


@pytest.mark.parametrize("max_frames", [1, 18, 40])
def test_backends_agree_where_a_game_is_cut(max_frames, without_noops):
    one, vector = both_backends("breakout", 60, max_episode_frames=max_frames)
    assert_equal_steps(one, vector)
    steps_of_a_game = -(-max_frames // atari.FRAME_SKIP)
    assert [bool(step.first[0]) for step in one] == [n % (steps_of_a_game + 1) == 0 for n in range(61)]
    assert all(step.discount[0] == 1 for step in one)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_lost_life_is_the_discount_and_nothing_else(lanes):
    with_lives = make("atari", "breakout", lanes)
    without = make("atari", "breakout", lanes, life_loss_terminates=False)
    actions = actions_for(with_lives, 400)
    marked = [with_lives.reset(), *play(with_lives, actions)]
    plain = [without.reset(), *play(without, actions)]
    unmarked = [step._replace(discount=other.discount) for step, other in zip(marked, plain, strict=True)]
    assert_equal_steps(unmarked, plain)
    zeros = [sum(step.discount[0] == 0 for step in steps) for steps in (marked, plain)]
    assert zeros[1] > 0
    assert zeros[0] >= 5 * zeros[1]  # five lives a game
    with_lives.close()
    without.close()


LIVES = [3, 4, 3, 3, 2]  # a life won, then lost: Seaquest does this
DISCOUNTS = [1, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("before", "lives", "discounts"), [(3, LIVES, DISCOUNTS), (None, [4], [0])], ids=["previous", "first"]
)
def test_lives_are_compared_with_the_previous_step(before, lives, discounts):
    """None: with those of the reset, which are five."""
    lane, rest = atari.AtariLane("breakout", EnvironmentConfig(), seed=1), iter(lives)
    out = np.empty(lane.spec.frame_shape, dtype=np.uint8)
    lane.reset(1, out)
    lane.lives = lane.lives if before is None else before
    lane._ale = SimpleNamespace(
        act=lambda action: 0,
        game_over=lambda: False,
        lives=lambda: next(rest),
        getScreenGrayscale=lambda out: out.fill(0),
    )
    assert [lane.step(0, out)[1] for _ in lives] == discounts


def test_lives_are_compared_with_the_previous_step_in_many_lanes():
    class Emulators:
        rest = iter(LIVES)

        def send(self, actions):
            pass

        def recv(self):
            frames, no = np.zeros((2, 1, 84, 84), dtype=np.uint8), np.zeros(2, dtype=bool)
            return frames, np.zeros(2), no, no, {"lives": np.array([next(self.rest), 3])}

    environments = AtariVector("seaquest", EnvironmentConfig(), 2, 5)
    environments.reset()
    environments._emulators, environments._lives = Emulators(), np.array([3, 3])
    steps = play(environments, np.zeros((len(LIVES), 2), dtype=np.int64))
    assert [step.discount[0] for step in steps] == DISCOUNTS
    assert all(step.discount[1] == 1 for step in steps)


@pytest.mark.parametrize(("resize", "interpolation"), [("area", cv2.INTER_AREA), ("bilinear", cv2.INTER_LINEAR)])
def test_pixels_against_a_plain_loop(resize, interpolation, without_noops):
    """The maximum of the last two of four grey frames, then the resize: deep_q_rl's order."""
    environments = make("atari", "seaquest", 1, seed=5, resize=resize)
    actions = actions_for(environments, 40)
    steps = [environments.reset(), *play(environments, actions)]
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", lane_seed(5, 0, 0))
    ale.loadROM(roms.get_rom_path("seaquest"))
    ale.reset_game()
    codes = ale.getMinimalActionSet()
    for step, action in zip(steps[1:], actions[:, 0], strict=True):
        screens = []
        for _ in range(4):
            ale.act(codes[action])
            screens.append(ale.getScreenGrayscale())
        newest = np.maximum(screens[2], screens[3])
        expected = cv2.resize(newest, (84, 84), interpolation=interpolation)
        np.testing.assert_array_equal(step.observation[0], expected)


def test_noops_are_zero_to_thirty_frames():
    lane = atari.AtariLane("breakout", EnvironmentConfig(), seed=1)
    out = np.empty(lane.spec.frame_shape, dtype=np.uint8)
    numbers = set()
    for seed in range(100):
        lane.reset(seed, out)
        numbers.add(lane._ale.getEpisodeFrameNumber())
    offset = min(numbers)
    assert max(numbers) - offset == 30
    assert len(numbers) > 20
    lane._ale.reset_game()
    assert offset == lane._ale.getEpisodeFrameNumber()


def test_noops_of_many_lanes_are_zero_to_thirty_frames():
    environments = AtariVector("breakout", EnvironmentConfig(), 8, 5)
    environments.reset()
    numbers = set()
    for _ in range(12):
        _, info = environments._emulators.reset()
        numbers |= set(info["episode_frame_number"].tolist())
    environments.close()
    assert min(numbers) == 0
    assert max(numbers) == 30


def test_state_of_many_lanes_over_windows(monkeypatch):
    """Games are cut after 25 steps: rows 52 and 104 are the first game starts in a window of 40 steps."""
    monkeypatch.setattr(atari_vector, "WINDOW", 40)
    original = make("atari", "breakout", 3, emulator_threads=1, max_episode_frames=4 * 25)
    restored = make("atari", "breakout", 3, emulator_threads=2, max_episode_frames=4 * 25)
    actions = actions_for(original, 110)
    original.reset()
    row = 0
    for stop, start in ((51, 0), (52, 52), (103, 52), (104, 104)):
        play(original, actions[row:stop])
        row = stop
        state = original.state_dict()
        assert state["starts"].tolist() == [start] * 3
        assert len(state["log"]) == stop - start
    check_restore(original, restored, actions, at=[51, 52])
    original.close()
    restored.close()


def test_a_state_keeps_the_windows_that_it_was_played_with(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(atari_vector, "WINDOW", 40)
    original = make("atari", "breakout", 2, max_episode_frames=4 * 25)
    monkeypatch.setattr(atari_vector, "WINDOW", 1000)
    restored = make("atari", "breakout", 2, max_episode_frames=4 * 25)
    actions = actions_for(original, 110)
    original.reset()
    play(original, actions[:60])
    restored.load_state_dict(original.state_dict())
    assert_equal_steps(play(restored, actions[60:]), play(original, actions[60:]))  # row 104 is in a new window
    original.close()
    restored.close()


def test_lanes_of_different_log_lengths(monkeypatch):
    """Lanes whose games end at different rows are seeded at different rows."""
    monkeypatch.setattr(atari_vector, "WINDOW", 100)
    original, restored = make("atari", "space_invaders", 2), make("atari", "space_invaders", 2, emulator_threads=1)
    actions = actions_for(original, 700)
    original.reset()
    starts = [0, 0]
    row = 0
    while min(starts) == 0 or starts[0] == starts[1]:
        play(original, actions[row : row + 1])
        row += 1
        starts = original.state_dict()["starts"].tolist()
    check_restore(original, restored, actions[: row + 60], at=[row, row + 30])
    original.close()
    restored.close()


def test_a_window_starts_its_lanes_from_new_seeds(monkeypatch):
    """Without windows and with them the stream is the same up to the first reset of the second window."""
    streams = []
    for window in (10_000, 20):
        monkeypatch.setattr(atari_vector, "WINDOW", window)
        environments = make("atari", "breakout", 2, max_episode_frames=4 * 15)
        streams.append([environments.reset(), *play(environments, actions_for(environments, 40))])
        environments.close()
    assert_equal_steps(streams[0][:32], streams[1][:32])  # firsts at 0, 16, 32; 32 is past row 20
    assert streams[1][32].first.all()
    assert any(
        (one.observation != other.observation).any()
        for one, other in zip(streams[0][32:], streams[1][32:], strict=True)
    )


def test_reset_and_close_with_a_step_in_flight():
    environments = make("atari", "breakout", 2)
    expected = environments.reset()
    environments.send(np.zeros(2, dtype=np.int64))
    assert_equal_steps([environments.reset()], [expected])
    environments.send(np.zeros(2, dtype=np.int64))
    environments.close()


def test_reference_scores():
    assert sorted(REFERENCE_SCORES) == PAPER_GAMES
    assert all(set(scores) == set(SOURCES) for scores in REFERENCE_SCORES.values())
    assert REFERENCE_SCORES["space_invaders"]["dqn_weight_norm"] == 2179


def test_each_window_has_seeds_of_its_own(monkeypatch):
    asked = []

    def noted(seed, lane, index):
        asked.append((seed, lane, index))
        return lanes.lane_seed(seed, lane, index)

    monkeypatch.setattr(atari_vector, "WINDOW", 20)
    monkeypatch.setattr(atari_vector, "lane_seed", noted)
    environments = make("atari", "breakout", 2, seed=5, max_episode_frames=4 * 15)
    environments.reset()
    play(environments, actions_for(environments, 50))  # firsts at 0, 16, 32 and 48; windows begin at 20 and 40
    environments.close()
    assert asked == [(5, 0, 0), (5, 1, 0), (5, 0, 1), (5, 1, 1), (5, 0, 2), (5, 1, 2)]
