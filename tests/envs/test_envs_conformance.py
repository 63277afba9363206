"""What every suite promises (envs/base.py), with one lane and with several."""

import copy
import re
import subprocess
import sys

import numpy as np
import own_environments  # noqa: F401  (it registers what GAMES and tests name)
import pytest
from environment_tools import (
    actions_for,
    assert_equal_steps,
    check_restore,
    make,
    one_line,
    play,
)

from wn_rl import envs
from wn_rl.envs.base import Step

GAMES = {
    "atari": "seaquest",
    "minatar": "seaquest",
    "classic": "cartpole",
    "gymnasium": "own_environments:Own/BigCatch-v0",
}
CASES = [(suite, lanes) for suite in envs.SUITES for lanes in (1, 2)]
FRAMES_PER_STEP = {"atari": 4, "minatar": 1, "classic": 1, "gymnasium": 1}
EPISODE_STEPS = 12


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    """make() for one suite and number of lanes, with other arguments open; all are closed afterwards."""
    suite, num_envs = request.param
    made = []

    def make_case(num_envs=num_envs, **changes):
        environments = make(suite, GAMES[suite], num_envs, **changes)
        made.append(environments)
        return environments

    make_case.suite = suite
    yield make_case
    for environments in made:
        environments.close()
        environments.close()


def test_shapes_dtypes_and_the_first_row(case):
    environments = case()
    spec, lanes = environments.spec, environments.num_envs
    assert len(spec.action_meanings) == spec.num_actions > 1
    assert spec.scale == (1 / 255 if spec.dtype == "uint8" and case.suite != "minatar" else 1)
    for number, step in enumerate([environments.reset(), *play(environments, actions_for(environments, 5))]):
        assert step.observation.shape == (lanes, *spec.frame_shape)
        assert step.observation.dtype == spec.dtype
        assert step.observation.flags.c_contiguous
        assert [column.dtype for column in step[1:]] == [np.float32, np.float32, np.bool_]
        assert all(column.shape == (lanes,) for column in step[1:])
        assert step.first.all() == (number == 0)
    assert_first_rows_are_void([environments.reset()])


def assert_first_rows_are_void(steps):
    for step in steps:
        np.testing.assert_array_equal(step.reward[step.first], 0)
        np.testing.assert_array_equal(step.discount[step.first], 1)


def test_a_cut_episode_bootstraps_and_the_next_row_is_first(case):
    frames = EPISODE_STEPS * FRAMES_PER_STEP[case.suite]
    environments = case(max_episode_frames=frames, life_loss_terminates=False)
    steps = [environments.reset(), *play(environments, actions_for(environments, 5 * EPISODE_STEPS))]
    assert_first_rows_are_void(steps)
    length, cut = np.zeros(environments.num_envs, dtype=int), 0
    over = np.ones(environments.num_envs, dtype=bool)
    for step in steps:
        np.testing.assert_array_equal(step.first, over)
        length = np.where(step.first, 0, length + 1)
        over = (length == EPISODE_STEPS) | (step.discount == 0)
        cut += ((length == EPISODE_STEPS) & (step.discount == 1)).sum()
    assert cut > 0


def test_the_action_after_the_end_is_ignored(case):
    one, other = case(max_episode_frames=1), case(max_episode_frames=1)
    one.reset()
    other.reset()
    lowest = np.zeros((4, one.num_envs), dtype=np.int64)
    highest = lowest.copy()
    highest[1::2] = one.spec.num_actions - 1  # every second row is a first
    assert_equal_steps(play(one, lowest), play(other, highest))


def test_the_seed_decides_everything(case):
    one, same, other = case(seed=1), case(seed=1), case(seed=2)
    actions = actions_for(one, 60)
    expected = [one.reset(), *play(one, actions)]
    assert_equal_steps([same.reset(), *play(same, actions)], expected)
    assert_equal_steps([same.reset(), *play(same, actions[:20])], expected[:21])  # anew from the seed
    different = [other.reset(), *play(other, actions)]
    assert any((a.observation != b.observation).any() for a, b in zip(expected, different, strict=True))


def test_a_lane_does_not_depend_on_the_number_of_lanes(case):
    few = case()
    if case.suite == "atari" and few.num_envs == 1:
        pytest.skip("one lane of Atari has its own emulator; test_envs_atari compares it")
    more = case(num_envs=3)
    expected = [few.reset(), *play(few, actions_for(few, 60))]
    steps = [more.reset(), *play(more, actions_for(more, 60))]
    assert_equal_steps([Step(*(column[: few.num_envs] for column in step)) for step in steps], expected)


def test_lanes_differ(case):
    environments = case(num_envs=2)
    actions = np.repeat(actions_for(environments, 60)[:, :1], 2, axis=1)
    steps = [environments.reset(), *play(environments, actions)]
    assert any((step.observation[0] != step.observation[1]).any() for step in steps)


def test_state_after_any_row_continues_bit_for_bit(case):
    """Rows of all kinds: cuts come after 12 steps, so row 12 is an end, 13 a first, 0 the reset itself."""
    frames = EPISODE_STEPS * FRAMES_PER_STEP[case.suite]
    original = case(max_episode_frames=frames)
    restored = case(max_episode_frames=frames)
    check_restore(original, restored, actions_for(original, 40), at=[0, 7, 12, 13, 26])


@pytest.mark.parametrize(
    ("suite", "game", "rows"),
    [
        *(("minatar", game, list(range(1, 600, 75))) for game in envs.games("minatar")),
        *(("classic", game, [1, 50, 123, 199, 200, 201, 499, 500, 501, 530]) for game in envs.games("classic")),
        *(
            ("gymnasium", f"own_environments:Own/{name}", [0, 1, 6, 7, 8, 29, 30, 31, 100])
            for name in ("Catch-v1", "Corridor-v0")
        ),
    ],
)
def test_state_of_every_game(suite, game, rows):
    original, restored = make(suite, game, 2), make(suite, game, 2)
    assert original.spec.repeatable
    check_restore(original, restored, actions_for(original, rows[-1] + 30), at=rows)


@pytest.mark.parametrize(
    ("suite", "game"), [("atari", "breakout"), ("minatar", "breakout"), ("classic", "cartpole")]
)
def test_state_at_the_end_of_a_real_game(suite, game):
    """Around the first game over, each kind of row."""
    original, restored = make(suite, game, 1), make(suite, game, 1, seed=3)
    actions = actions_for(original, 400)
    steps = [original.reset(), *play(original, actions)]
    end = next(n for n, step in enumerate(steps) if n > 0 and step.first[0]) - 1
    assert steps[end].discount[0] == 0
    check_restore(original, restored, actions[: end + 40], at=[end - 1, end, end + 1, end + 2])


def test_saving_does_not_disturb_and_a_state_can_be_used_twice(case):
    environments = case()
    actions = actions_for(environments, 30)
    environments.reset()
    play(environments, actions[:10])
    state = environments.state_dict()
    expected = play(environments, actions[10:])
    for _ in range(2):
        environments.load_state_dict(state)
        assert_equal_steps(play(environments, actions[10:]), expected)


def test_bad_actions_are_refused_before_anything_happens(case):
    environments, untouched = case(), case()
    good = actions_for(environments, 3)
    environments.reset()
    untouched.reset()
    for bad in (
        np.full(environments.num_envs, -1),
        np.full(environments.num_envs, environments.spec.num_actions),
        np.zeros(environments.num_envs + 1, dtype=np.int64),
        np.zeros(environments.num_envs),
    ):
        with pytest.raises(ValueError, match="actions must be") as error:
            environments.send(bad)
        one_line(error)
    assert_equal_steps(play(environments, good), play(untouched, good))


def test_calls_out_of_order_are_refused(case):
    environments = case()
    with pytest.raises(RuntimeError):
        environments.send(np.zeros(environments.num_envs, dtype=np.int64))
    environments.reset()
    with pytest.raises(RuntimeError):
        environments.recv()


def test_steps_belong_to_their_receiver(case):
    environments, other = case(), case()
    actions = actions_for(environments, 30)
    steps = [environments.reset(), *play(environments, actions[:10])]
    kept = copy.deepcopy(steps)
    later = play(environments, actions[10:])
    assert_equal_steps(steps, kept)
    other.reset()
    for number, row in enumerate(actions):  # a receiver who spoils what it was given spoils nothing else
        other.send(row)
        step = other.recv()
        if number >= 10:
            assert_equal_steps([step], [later[number - 10]])
        for column in step:
            column[:] = 1


def test_render(case):
    if case.suite == "classic":
        pytest.skip("needs pygame; see test_envs_classic")
    environments = case()
    environments.reset()
    play(environments, actions_for(environments, 3))
    picture = environments.render()
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert min(picture.shape[:2]) >= 160
    assert len(np.unique(picture)) > 1


@pytest.mark.parametrize("suite", envs.SUITES)
def test_every_name_is_its_own_normal_form(suite):
    names = envs.games(suite)
    assert names == sorted(set(names))
    assert [envs.normalize_game(suite, name) for name in names] == names


@pytest.mark.parametrize(
    ("suite", "spelling", "name"),
    [
        ("atari", "Breakout", "breakout"),
        ("atari", "SpaceInvaders", "space_invaders"),
        ("atari", "space-invaders", "space_invaders"),
        ("atari", "Space Invaders", "space_invaders"),
        ("atari", "ALE/SpaceInvaders", "space_invaders"),
        ("atari", "SeaquestNoFrameskip-v4", "seaquest"),
        ("minatar", "MinAtar/SpaceInvaders", "space_invaders"),
        ("classic", "CartPole-v1", "cartpole"),
        ("classic", "MountainCar", "mountain_car"),
    ],
)
def test_other_spellings(suite, spelling, name):
    assert envs.normalize_game(suite, spelling) == name


@pytest.mark.parametrize(
    ("suite", "game", "changes", "says"),
    [
        ("atari", "brekout", {}, "breakout"),
        ("atari", "joust", {}, "unknown atari game"),  # for two players: its ROM would end the process
        ("minatar", "space_invader", {}, "space_invaders"),
        ("classic", "", {}, "unknown classic game"),
        ("attari", "breakout", {}, "atari"),
        ("atari", "breakout", {"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ("atari", "breakout", {"seed": -1}, "seed must be at least 0"),
        ("atari", "breakout", {"max_episode_frames": 0}, "max_episode_frames must be at least 1"),
        ("atari", "breakout", {"processes": -1}, "processes must be at least 0"),
        ("atari", "breakout", {"resize": "cubic"}, "area, bilinear"),
        ("minatar", "breakout", {"resize": "bilinear"}, "no effect"),
        ("gymnasium", "CartPole-v1", {"resize": "bilinear"}, "no effect"),
        ("classic", "cartpole", {"channels": "first"}, "--environment.channels first has no effect"),
        ("gymnasium", "CartPole-v1", {"channels": "last"}, "shows (4,), without channels"),
        ("gymnasium", "CartPole-v1", {"channels": "middle"}, "auto, first, last"),
        ("atari", "cartpole", {}, "give cartpole --suite classic"),
        ("atari", "CartPole-v1", {}, "give cartpole --suite classic or --env-id CartPole-v1"),
        ("atari", "cartpol", {}, "did you mean cartpole --suite classic?"),
        ("classic", "breakout-v5", {}, "give breakout --suite atari or breakout --suite minatar"),
        ("gymnasium", "breakout", {}, "give breakout --suite atari"),
    ],
)
def test_what_make_refuses(suite, game, changes, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        make(suite, game, **{"num_envs": 1, **changes})
    one_line(error)


def test_a_fresh_process_prints_nothing_and_imports_no_torch_or_matplotlib():
    program = """
import sys
from wn_rl import envs
from wn_rl.config import EnvironmentConfig
for suite, game, lanes in (("atari", "breakout", 1), ("atari", "breakout", 2), ("minatar", "breakout", 1)):
    made = envs.make(suite, game, EnvironmentConfig(max_episode_frames=9), num_envs=lanes, seed=1)
    made.reset()
    made.close()
assert not {"torch", "matplotlib", "seaborn"} & set(sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("suite", "game", "flags"),
    [
        ("atari", "ALE/SpaceInvaders-v5", "give space_invaders --environment.repeat-action-probability 0.25, or"),
        ("atari", "Breakout-v0", "give breakout --environment.repeat-action-probability 0.25, or"),
        ("minatar", "MinAtar/Breakout-v1", "give breakout --environment.repeat-action-probability 0.1, or"),
    ],
)
def test_names_of_games_with_sticky_actions_are_refused(suite, game, flags):
    with pytest.raises(ValueError, match=re.escape(flags)):
        envs.normalize_game(suite, game)


@pytest.mark.parametrize("rule", [{"repeat_action_probability": 0.25}, {"full_action_set": True}])
def test_rules_of_actions_are_for_arcade_games(rule):
    with pytest.raises(ValueError, match="has no effect in the suite classic"):
        make("classic", "cartpole", 1, **rule)
