"""Grids: every cell is one run with its own name; and what the folders say of the runs."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grid_tools import leave, make_grid
from hypothesis import given, settings
from hypothesis import strategies as st

from wn_rl.commands.train import read_flags
from wn_rl.compare.arms import Arm, parse_arms
from wn_rl.compare.grid import Run, changed, expand, flags_of, look, prepare, write_grid
from wn_rl.config import Config, NetworkConfig, to_json
from wn_rl.errors import UserError
from wn_rl.presets import METHOD_OPTIONS, classic, laptop, method_options, minatar
from wn_rl.registry import PARAMETERIZATIONS, PRESETS
from wn_rl.run.folder import RunFolder

OUT = Path("comparison")
RATES = st.floats(1e-9, 10, allow_nan=False)
ARMS = st.lists(
    st.builds(Arm, st.sampled_from(list(PARAMETERIZATIONS)), RATES), min_size=1, max_size=6, unique=True
)
BASES = st.lists(
    st.sampled_from([minatar("breakout"), minatar("seaquest"), laptop("breakout"), classic("cartpole")]),
    min_size=1,
    max_size=4,
    unique=True,
)
SEEDS = st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=4)


@settings(deadline=None)
@given(BASES, ARMS, SEEDS)
def test_every_cell_of_the_grid_is_one_run_with_a_name_of_its_own(
    bases: list[Config], arms: list[Arm], seeds: set[int]
) -> None:
    runs = expand(bases, arms, seeds, OUT)
    cells = [
        (run.config.suite, run.config.game, run.config.parameterization, run.config.learning_rate, run.config.seed)
        for run in runs
    ]
    product = itertools.product(bases, arms, seeds)
    assert set(cells) == {(b.suite, b.game, a.parameterization, a.learning_rate, s) for b, a, s in product}
    assert len(runs) == len(bases) * len(arms) * len(seeds) == len({run.name for run in runs})
    assert all(run.config.run_name == run.name == run.path.name for run in runs)


@settings(deadline=None)
@given(BASES, ARMS, SEEDS, st.randoms())
def test_a_cell_is_the_same_run_in_whatever_grid_it_stands(
    bases: list[Config], arms: list[Arm], seeds: set[int], random: Any
) -> None:
    runs = {run.name: run for run in expand(bases, arms, seeds, OUT)}
    base, arm, seed = random.choice(bases), random.choice(arms), random.choice(sorted(seeds))
    (alone,) = expand([base], [arm], [seed], OUT)
    assert runs[alone.name] == alone


def test_names_are_as_they_were() -> None:
    """A changed name would start every comparison anew."""
    assert [run.name for run in make_grid(OUT, seeds=2, arms=("weight_norm", "normal:1e-5"))] == [
        "minatar-breakout-weight_norm-lr0.0003-seed1",
        "minatar-breakout-normal-lr1e-05-seed1",
        "minatar-breakout-weight_norm-lr0.0003-seed2",
        "minatar-breakout-normal-lr1e-05-seed2",
    ]


def test_a_run_has_its_own_threads_and_the_group_of_its_other_seeds(tmp_path: Path) -> None:
    run, _, other, _ = expand([laptop("breakout")], [Arm("normal"), Arm("weight_norm")], [1, 2], tmp_path / "mine")
    assert run.config.torch_threads == 1
    assert run.config.group == other.config.group == "atari-breakout-normal-lr0.0001"
    threads = dataclasses.replace(laptop("breakout"), torch_threads=3, group="ours")
    (run,) = expand([threads], [Arm("normal")], [1], tmp_path)
    assert run.config.torch_threads == 3
    assert run.config.group == "ours"


def test_arms_are_products_and_one_without_a_rate_takes_that_of_its_preset() -> None:
    arms = parse_arms(["weight_norm", "normal:1e-4,3e-4"])
    assert arms == (Arm("weight_norm"), Arm("normal", 1e-4), Arm("normal", 3e-4))
    runs = expand([minatar("breakout"), classic("cartpole")], arms, [1], OUT)
    assert [run.config.optimizer.learning_rate for run in runs] == [3e-4, 1e-4, 3e-4, 1e-3, 1e-4, 3e-4]


def test_arms_have_options_which_are_in_their_names_and_configs(tmp_path: Path) -> None:
    """Of the paper: log-scale g, the bound on |v|, and normal layers that start as in section 3."""
    weight_norm = "weight_norm+log-scale=3+max-v-norm=1.5:3e-4"
    texts = (weight_norm, "normal+initialization=data_dependent:1e-3", "normal:1e-3")
    runs = make_grid(tmp_path, seeds=1, arms=texts)
    networks = [run.config.network for run in runs]
    assert [(net.log_scale, net.max_v_norm, net.initialization) for net in networks] == [
        (3.0, 1.5, "auto"),
        (None, None, "data_dependent"),
        (None, None, "auto"),
    ]
    assert [run.name for run in runs] == [
        "minatar-breakout-weight_norm-log_scale-3.0-max_v_norm-1.5-lr0.0003-seed1",
        "minatar-breakout-normal-initialization-data_dependent-lr0.001-seed1",
        "minatar-breakout-normal-lr0.001-seed1",
    ]


@pytest.mark.parametrize(
    ("arm", "flag"), [("normal+log-scale=3", "log-scale"), ("normal+initialization=warm", "initialization")]
)
def test_options_that_a_method_cannot_have_are_refused(arm: str, flag: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"--network\.{flag}"):
        make_grid(tmp_path, arms=(arm,))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weightnorm", "did you mean weight_norm"),
        ("", "unknown parameterization ''"),
        ("normal:", "'' in 'normal:'"),
        ("normal:0", "'0' in 'normal:0'"),
        ("normal:1e-4,-1", "'-1'"),
        ("normal:nan", "'nan'"),
        ("normal:inf", "'inf'"),
        ("normal:fast", "'fast'"),
        ("weight_norm+scale=3", "unknown option 'scale'"),
        ("weight_norm+log-scale", "'' in 'weight_norm+log-scale' is not a number"),
    ],
)
def test_arms_that_are_none_are_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match="--arms") as refused:
        parse_arms([text])
    assert says in str(refused.value)


def test_a_grid_that_names_a_run_twice_or_none_is_refused() -> None:
    with pytest.raises(UserError, match=r"normal-lr0\.0001-seed1 twice"):
        make_grid(OUT, arms=("normal", "normal:1e-4"))
    with pytest.raises(UserError, match="twice"):
        expand([minatar("breakout"), minatar("breakout")], [Arm("normal")], [1], OUT)
    for empty in [
        ([], [Arm("normal")], [1]),
        ([minatar("breakout")], [], [1]),
        ([minatar("breakout")], [Arm("normal")], []),
    ]:
        with pytest.raises(UserError, match="empty"):
            expand(*empty, OUT)


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_train_reads_from_the_flags_of_a_config_that_config(preset: str, data: st.DataObject) -> None:
    config = _changed(PRESETS[preset]("breakout"), data)
    assert read_flags(flags_of(config)).config == config


def _changed(config: Config, data: st.DataObject) -> Config:
    """Some fields of each type set to other values, one of them None."""
    draw: Callable[[Any], Any] = data.draw
    return dataclasses.replace(
        config,
        seed=draw(st.integers(0, 2**31 - 1)),
        suite=draw(st.sampled_from(["atari", "minatar"])),
        keep_replay=draw(st.booleans()),
        track=tuple(draw(st.lists(st.sampled_from(["jsonl", "wandb", "console"]), unique=True))),
        group=draw(st.sampled_from([None, "a group", "x=1"])),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=draw(RATES)),
        environment=dataclasses.replace(config.environment, life_loss_terminates=draw(st.booleans())),
        learning=dataclasses.replace(config.learning, discount=draw(st.floats(0, 1))),
    )


def test_a_folder_says_what_became_of_its_run(tmp_path: Path) -> None:
    _new, lock, finished, interrupted, killed, failed = runs = make_grid(tmp_path, seeds=6)
    with RunFolder(lock.path).lock():
        pass
    leave(finished, "finished")
    leave(interrupted, "interrupted", "saved")
    leave(killed, "running")
    leave(failed, "failed", "no luck")
    before = sorted(tmp_path.rglob("*"))
    found = [look(run) for run in runs]
    assert [entry.run for entry in found] == list(runs)
    assert [entry.state for entry in found] == ["waiting", "waiting", "finished", *["waiting"] * 3]
    assert [entry.message for entry in found][3:] == ["", "", "failed before: no luck"]
    assert sorted(tmp_path.rglob("*")) == before


def _damage(run: Run, how: str) -> None:
    if how == "a file":
        run.path.parent.mkdir()
        run.path.write_text("")
        return
    leave(run, "finished")
    config = RunFolder(run.path).config_file
    if how == "no config":
        config.unlink()
    elif how == "a folder":
        config.unlink()
        config.mkdir()
    elif how == "no rights":
        run.path.chmod(0)
    else:
        config.write_bytes(how.encode())


TEXTS = ["", "{", "[]", "{}", '{"config": {}}', '{"config": 3}', "\x80"]


@pytest.mark.parametrize("how", ["a file", "no config", "a folder", "no rights", *TEXTS])
def test_an_unreadable_folder_is_named(how: str, tmp_path: Path) -> None:
    (run,) = make_grid(tmp_path, seeds=1)
    _damage(run, how)
    try:
        (run.path / "config.json").read_bytes()
        readable = how == "no rights"  # by the superuser
    except OSError:
        readable = False
    found = look(run)
    run.path.chmod(0o755)
    assert found.state == ("finished" if readable else "unreadable")
    assert readable or found.message
    assert "\n" not in found.message


@pytest.mark.parametrize(
    ("setting", "value"), [("steps", 2000), ("num_envs", 2), ("learning.batch_size", 32), ("evaluation.period", 7)]
)
def test_a_grid_that_changed_is_refused_by_the_name_of_the_setting(
    setting: str, value: int, tmp_path: Path
) -> None:
    (run,) = make_grid(tmp_path, seeds=1)
    leave(run, "interrupted")
    with pytest.raises(UserError, match=f"was started with {setting} ") as refused:
        look(dataclasses.replace(run, config=changed(run.config, {setting: value})))
    assert str(run.path) in str(refused.value)


def test_where_a_run_is_computed_and_what_is_recorded_of_it_may_change(tmp_path: Path) -> None:
    (run,) = make_grid(tmp_path, seeds=1)
    leave(run, "interrupted")
    elsewhere = {"device": "cuda:1", "accelerate": "compile", "torch_threads": 4, "environment.processes": 3}
    recorded = {"track": ("jsonl",), "group": "other", "keep_replay": True, "log_period": 500}
    evaluated = {"evaluation.video_period": 3, "evaluation.held_out_states": 9}
    config = changed(run.config, {**elsewhere, **recorded, **evaluated})
    assert look(dataclasses.replace(run, config=config)).state == "waiting"


def test_only_what_a_run_left_that_never_began_is_removed(tmp_path: Path) -> None:
    killed, began, stranger = make_grid(tmp_path)
    for run in (killed, stranger):
        (run.path / "wandb" / "run").mkdir(parents=True)
        (run.path / ".config.json.123.tmp").write_text("{")
        (run.path / ".lock").write_text("123")
    (stranger.path / "thesis.tex").write_text("")
    leave(began, "running")
    (began.path / "wandb").mkdir()
    assert [look(run).state for run in (killed, began, stranger)] == ["waiting", "waiting", "unreadable"]
    for run in (killed, began):
        assert prepare(run)
    assert [path.name for path in killed.path.iterdir()] == [".lock"]
    assert (began.path / "wandb").exists()


def test_the_grid_is_recorded(tmp_path: Path) -> None:
    runs = make_grid(tmp_path, seeds=2, arms=("normal:0.001",))
    write_grid(runs, ["wn-rl", "compare"])
    (record,) = json.loads((tmp_path / "comparison.json").read_text())["grids"]
    assert record["command"] == ["wn-rl", "compare"]
    assert record["runs"][1] == {"name": "minatar-breakout-normal-lr0.001-seed2", "suite": "minatar"}


def test_a_second_grid_of_a_folder_joins_the_first_unless_it_holds_it(tmp_path: Path) -> None:
    def commands() -> list[str]:
        return [grid["command"][0] for grid in json.loads((tmp_path / "comparison.json").read_text())["grids"]]

    write_grid(make_grid(tmp_path, seeds=1), ["few seeds"])
    write_grid(make_grid(tmp_path, seeds=1, arms=("batch_norm",)), ["another arm"])
    assert commands() == ["few seeds", "another arm"]
    write_grid(make_grid(tmp_path, seeds=2), ["more seeds"])
    assert commands() == ["another arm", "more seeds"]
    write_grid(make_grid(tmp_path, seeds=1), ["few seeds"])
    assert commands() == ["another arm", "more seeds", "few seeds"]


@pytest.mark.parametrize("text", ["[", '{"grids": [{}]}', "[]", '{"grids": 3}'])
def test_a_damaged_record_of_grids_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(UserError, match=r"comparison\.json is damaged"):
        write_grid(make_grid(tmp_path, seeds=1), ["mine"])
    assert (tmp_path / "comparison.json").read_text() == text


def test_the_options_of_a_method_have_their_defaults() -> None:
    none = dict.fromkeys(("output_scale", "log_scale", "max_v_norm"))
    assert {"initialization": "auto", "override": "", **none} == METHOD_OPTIONS
    network = NetworkConfig(override=("output=normal", "dense=batch_norm"))
    config = dataclasses.replace(minatar("breakout"), network=network)
    assert method_options(to_json(config))["override"] == "output=normal,dense=batch_norm"
    assert NetworkConfig(override="output=normal,dense=batch_norm") == network  # type: ignore[arg-type]
