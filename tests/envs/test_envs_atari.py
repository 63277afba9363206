"""Atari: our lanes against ale-py's vector class, and what is Atari's alone."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from ale_py import ALEInterface, AtariVectorEnv, LoggerMode, roms
from environment_tools import actions_for, assert_equal_steps, check_restore, make, play

from wn_rl import envs
from wn_rl.config import EnvironmentConfig
from wn_rl.envs import atari
from wn_rl.envs.base import Lanes, Step, first_step, lane_seed
from wn_rl.report.published_scores import REFERENCE_SCORES, SOURCES

PAPER_GAMES = ["breakout", "enduro", "seaquest", "space_invaders"]


@pytest.fixture
def without_noops(monkeypatch):
    """The vector class draws the number of no-ops from another generator."""
    monkeypatch.setattr(atari, "MAX_NOOP_FRAMES", 0)


def play_in_vector_class(game, actions, rules):
    """One lane of the vector class with these actions, as Steps."""
    vector = AtariVectorEnv(
        game,
        1,
        max_num_frames_per_episode=rules.max_episode_frames,
        repeat_action_probability=rules.repeat_action_probability,
        full_action_space=rules.full_action_set,
        stack_num=1,
        noop_max=1,  # it draws 0 to noop_max - 1
        episodic_life=False,
        reward_clipping=False,
        use_fire_reset=False,
    )
    frames, info = vector.reset(seed=np.array([lane_seed(5, 0, 0)]))
    steps, lives, over = [first_step(frames[:, 0])], info["lives"], np.zeros(1, dtype=bool)
    for row in actions:
        vector.send(row)
        frames, reward, terminated, truncated, info = vector.recv()
        discount = np.where(over | ~(terminated | (info["lives"] < lives)), 1, 0).astype(np.float32)
        steps.append(Step(frames[:, 0], np.where(over, 0, reward).astype(np.float32), discount, over))
        lives, over = info["lives"], terminated | truncated
    return steps


def ours_and_theirs(game, num_steps, **changes):
    """One lane of ours and of the vector class with the same actions."""
    rules = EnvironmentConfig(**changes)
    environments = atari.make(game, rules, 1, 5)
    actions = actions_for(environments, num_steps)
    ours = [environments.reset(), *play(environments, actions)]
    return ours, play_in_vector_class(game, actions, rules)


@pytest.mark.parametrize("game", PAPER_GAMES)
def test_lanes_agree_with_the_vector_class_frame_by_frame(game, without_noops):
    one, vector = ours_and_theirs(game, 700)
    assert_equal_steps(one, vector)
    games = sum(int(step.first[0]) for step in one)
    lost = sum(int(step.discount[0] == 0) for step in one)
    if game == "enduro":  # has no lives, and a day does not end this soon
        assert (games, lost) == (1, 0)
    else:
        assert games > 1
        assert lost > games  # lives, not only games
        assert any(step.reward[0] > 0 for step in one)


def test_all_actions_agree_with_the_vector_class(without_noops):
    one, vector = ours_and_theirs("breakout", 500, full_action_set=True)
    assert_equal_steps(one, vector)


def test_sticky_actions_are_drawn_at_each_frame():
    """By hand: where a draw is below a quarter, the frame repeats the action of the frame before."""
    played, seed = [], 4
    lane = atari.AtariLane("breakout", EnvironmentConfig(repeat_action_probability=0.25), seed=1)
    out = np.empty(lane.spec.frame_shape, dtype=np.uint8)
    lane.reset(seed, out)
    ale = SimpleNamespace(act=lambda code: played.append(code) or 0, game_over=lambda: False, lives=lambda: 5)
    ale.getScreenGrayscale = lambda out: out.fill(0)
    lane._ale = ale
    codes = lane._actions
    actions = [2, 3] * 500
    for action in actions:
        lane.step(action, out)
    expected, last, draws = [], codes[0], np.random.PCG64(seed)
    for action in np.repeat(actions, 4):
        last = codes[action] if draws.random_raw() / 2**64 >= 0.25 else last
        expected.append(last)
    assert played == expected
    kept = sum(now == codes[action] for now, action in zip(played[::4], actions, strict=True))
    assert 700 < kept < 800  # of 1,000 actions three quarters begin at once


@pytest.mark.parametrize("num_envs", [1, 3])
def test_sticky_actions_go_on_after_a_resume(num_envs):
    rules = {"repeat_action_probability": 0.25, "full_action_set": True, "max_episode_frames": 4 * 25}
    original, restored = (make("atari", "breakout", num_envs, **rules) for _ in range(2))
    assert original.spec.num_actions == 18
    original.reset()
    check_restore(original, restored, actions_for(original, 110), at=[51, 100])
    original.close()
    restored.close()


@pytest.mark.parametrize("max_frames", [1, 18, 40])
def test_a_cut_game_agrees_with_the_vector_class(max_frames, without_noops):
    one, vector = ours_and_theirs("breakout", 60, max_episode_frames=max_frames)
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


@pytest.mark.parametrize("game", [*PAPER_GAMES, "hangman", "solaris", "yars_revenge"])
def test_a_start_is_the_reset_and_the_frames_without_action(game):
    """Also where the emulator's random numbers change the start, as in the last three."""
    lane, again = (atari.AtariLane(game, EnvironmentConfig(), seed=7) for _ in range(2))
    out = np.empty(lane.spec.frame_shape, dtype=np.uint8)
    lane.reset(1, out)
    for _ in range(40):
        lane.step(1, out)  # the game before leaves nothing
    [seed] = [seed for seed in range(1000) if np.random.default_rng(seed).integers(31) == 12][:1]
    lane.reset(seed, out)
    ale = again._ale
    ale.setInt("random_seed", 7)
    ale.loadROM(roms.get_rom_path(game))
    ale.reset_game()
    for _ in range(12):
        ale.act(0)
    screen = cv2.resize(ale.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(out, screen)
    for action in np.random.default_rng(0).integers(lane.spec.num_actions, size=100):
        code = lane._actions[action]
        assert lane._ale.act(code) == ale.act(code)
        np.testing.assert_array_equal(lane._ale.getScreenGrayscale(), ale.getScreenGrayscale())


@pytest.mark.parametrize("game", ["breakout", "hangman"])
def test_lanes_are_equal_for_any_number_of_processes(game):
    rules = EnvironmentConfig(max_episode_frames=4 * 25, repeat_action_probability=0.25)
    here = Lanes(partial(atari.AtariLane, game, rules), 3, 3)
    two, three = (
        envs.make("atari", game, dataclasses.replace(rules, processes=number), num_envs=3, seed=3)
        for number in (2, 3)
    )
    actions = actions_for(here, 110)
    expected = [here.reset(), *play(here, actions)]
    assert_equal_steps([two.reset(), *play(two, actions)], expected)
    np.testing.assert_array_equal(two.render(), here.render())
    assert two.render().shape == (210, 160, 3)
    check_restore(two, three, actions, at=[51, 52, 60])
    three.load_state_dict(here.state_dict())
    assert_equal_steps(play(three, actions[:5]), play(here, actions[:5]))
    for lanes in (here, two, three):
        lanes.close()


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
