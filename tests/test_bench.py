"""The benchmarks measure equal work, and the page says what was measured and what was not."""

import dataclasses
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import wn_rl

from wn_rl import machine
from wn_rl.agents.experiment import make_training_environments
from wn_rl.agents.replay import LONGEST_ROUND, Replay
from wn_rl.bench import clock as clock_module
from wn_rl.bench import cuda_workers, measure, workers
from wn_rl.bench.clock import SteadyState, Turns
from wn_rl.bench.measure import (
    SB3,
    Row,
    compile_first,
    flop_of,
    matrix_rate,
    measure_apart,
    measure_in_turns,
    measure_together,
    seconds_in_turns,
)
from wn_rl.bench.page import TITLES, peers_in_short, render, section_key
from wn_rl.bench.sections import (
    LEARNING_OF_PEERS,
    PEERS_ON_CUDA,
    SECTIONS,
    UPDATES_ON_CUDA,
    _plain_update,
    rates_and_ratios,
    require_equal_work,
)
from wn_rl.bench.setups import Options, config_of, filled_replay
from wn_rl.config import OptimizerConfig, from_json, to_json
from wn_rl.presets import minatar

CPU = torch.device("cpu")


def quick(num_envs: int) -> dict[str, Any]:
    base = minatar("breakout")
    learning = dataclasses.replace(base.learning, replay_start=200, replay_capacity=2_000, target_period=400)
    config = dataclasses.replace(
        base,
        num_envs=num_envs,
        device="cpu",
        steps=10**9,
        parameterization="normal",
        learning=learning,
        optimizer=OptimizerConfig(learning_rate=1e-4),
    )
    return to_json(config)


@pytest.mark.parametrize(
    ("num_envs", "parameterization", "peer"),
    [
        (1, "normal", "stable_baselines3"),
        (8, "normal", "stable_baselines3"),
        (8, "weight_norm", "sb3_with_our_layers"),
    ],
)
def test_both_loops_do_the_same_work(num_envs: int, parameterization: str, peer: str) -> None:
    config = {**quick(num_envs), "parameterization": parameterization}
    loops = {worker: (worker, {"config": config}) for worker in ("ours", peer)}
    in_turns = measure_in_turns(loops, turns=2, seconds=0.2)
    assert [len(each) for each in in_turns.values()] == [2, 2]
    for results in zip(*in_turns.values(), strict=True):
        require_equal_work(*results)
        assert all(result["steps_per_second"] > 0 for result in results)
        assert all(result["steps"] % max(4, num_envs) == 0 for result in results)  # whole rounds
    with pytest.raises(AssertionError):
        require_equal_work({**results[0], "steps": 2 * results[0]["steps"] + 100}, results[1])
    with pytest.raises(AssertionError):
        require_equal_work({**results[0], "torch_threads": 7}, results[1])


def test_the_emulator_is_timed_without_a_network() -> None:
    result = workers.emulator(quick(4), 0.1)
    assert 1e3 < result["steps_per_second"] < 1e6
    assert 1e3 < result["steps_per_second_without_start"] < 1e6


def test_replays_are_weighed() -> None:
    config = quick(1)
    small = {**config, "learning": {**config["learning"], "replay_capacity": 10_000}}
    settings = {"config": small, "seconds": 0}  # apart: this process has memory left over from other tests
    ours, theirs = (measure_apart(name, settings) for name in ("replay_memory", "sb3_replay_memory"))
    assert 7_056 <= ours["bytes"] / ours["steps"] < 7_056 * 1.2  # a page of memory or two belongs to others
    assert theirs["bytes"] / theirs["steps"] > 3.5 * 7_056


def test_a_worker_that_fails_says_why() -> None:
    config = {**quick(1), "parameterization": "weight_norm"}
    with pytest.raises(RuntimeError, match="SB3's own layers are normal"):
        measure_apart("stable_baselines3", {"config": config})
    with pytest.raises(RuntimeError, match="SB3's own layers are normal"):
        measure_in_turns({"SB3": ("stable_baselines3", {"config": config})}, turns=1, seconds=0.1)


def test_the_clock_starts_at_the_steady_state(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])
    clock = SteadyState(begin=100, seconds=2.0)
    for second, steps, updates in [(0.0, 99, 0), (5.0, 100, 7), (6.0, 300, 50)]:
        now[0] = second
        assert clock(steps, updates)
    now[0] = 9.0
    assert not clock(500, 107)
    assert clock.result["steps_per_second"] == 100
    assert (clock.result["steps"], clock.result["updates"]) == (400, 100)


def test_a_loop_counts_when_it_is_its_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From step 100 on; a turn of two seconds, then one of one; rounds are of eight steps."""
    now = [0.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(clock_module.sys, "stdin", io.StringIO("2.0\n1.0\n"))
    clock = Turns(begin=100, steps_of_round=8)
    for second, steps, goes_on in [
        (0.0, 99, True), (5.0, 100, True), (6.9, 116, True), (7.5, 118, True), (8.0, 124, True), (8.5, 132, True),
        (9.0, 140, False),
    ]:  # fmt: skip
        now[0] = second
        assert clock(steps, steps // 4) == goes_on
    ready, *turns = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ready == "ready"
    assert [(turn["steps"], turn["updates"], turn["steps_per_second"]) for turn in turns] == [
        (24, 6, 8.0), (16, 4, 16.0)
    ]  # fmt: skip


def test_the_work_of_a_product_is_counted() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert flop_of(lambda: a @ b) == 2 * 3 * 5 * 7
    assert matrix_rate(torch.float32, CPU, repetitions=1) > 1e8


def test_the_products_of_an_update_are_counted() -> None:
    convolution, dense = 8 * 8 * 16 * 4 * 9, 1024 * 128 + 128 * 3
    passes_of_convolution, passes_of_dense = 3, 4  # two forward and backward: pixels need no gradient
    multiplications = passes_of_convolution * convolution + passes_of_dense * dense
    config = minatar("breakout")
    assert flop_of(lambda: _plain_update(config)) == 2 * 64 * multiplications


def test_rounds_of_updates_are_timed_in_turns_in_a_process_of_their_own() -> None:
    configs = {name: {**quick(8), "parameterization": name} for name in ("normal", "weight_norm")}
    seconds = measure_apart("rounds_in_turns", {"configs": configs, "turns": 3, "calls": 2})
    assert list(seconds) == ["normal", "weight_norm"]
    assert all(len(values) == 3 and min(values) > 0 for values in seconds.values())


def test_functions_are_timed_in_turns() -> None:
    calls: list[str] = []
    seconds = seconds_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 2, CPU)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert "".join(calls).endswith("aabb" + "bbaa" + "aabb")


def test_the_page_names_machine_and_command_and_says_what_is_missing() -> None:
    limited = Row({"network": "nature_cnn"}, "microseconds", [120.0, 100.0, 130.0], 60.0, "4.37 GFLOP")
    plain = Row({"network": "mlp"}, "ratio", [1.2345])
    about = {"machine": "2 x CPU", "command": "wn-rl bench updates", "date": "2026-01-01"}
    rows = [dataclasses.asdict(row) for row in (limited, plain)]
    page = render({"updates": {**about, "rows": rows}})
    assert "| nature_cnn | 120 microseconds (100 to 130) | 2.00 x 60 |" in page
    assert "| mlp | 1.23 ratio |  |" in page
    assert "2 x CPU. `wn-rl bench updates`, 2026-01-01." in page
    assert "References: 4.37 GFLOP." in page
    assert page.count("Not measured.") == len(TITLES) - 1


def test_sections_merge_into_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, section in enumerate(("matrix", "memory")):
        rows = [Row({"n": number}, "GB", [float(number)])]
        monkeypatch.setitem(SECTIONS, section, lambda options, rows=rows: rows)
        out = str(tmp_path / "results.json")
        assert wn_rl("bench", section, "--out", out, "--device", "cpu", "--torch-threads", "1") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["matrix", "memory"]
    assert "| 1 | 1 GB |" in (tmp_path / "results.md").read_text()


def test_results_name_their_commit_as_it_was_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written into a checkout, those of the first section are changes of it."""
    out = tmp_path / "results.json"
    commits = {True: "0123456789abcdef+changes", False: "0123456789abcdef"}
    monkeypatch.setattr(machine, "git_commit", lambda: commits[out.exists()])
    for section in ("matrix", "memory"):
        monkeypatch.setitem(SECTIONS, section, lambda options: [Row({"n": 1}, "GB", [1.0])])
    measure = ("--out", str(out), "--device", "cpu", "--torch-threads", "1")
    assert wn_rl("bench", "matrix", "memory", *measure) == 0
    assert {found["commit"] for found in json.loads(out.read_text()).values()} == {"0123456789"}
    assert wn_rl("bench", "matrix", *measure) == 0
    assert json.loads(out.read_text())["matrix"]["commit"] == "0123456789+changes"


@pytest.mark.parametrize("section", ["cuda_runs", "cuda_together"])
def test_without_cuda_the_cuda_sections_are_empty(section: str) -> None:
    assert list(SECTIONS[section](Options("cpu", 1, 1, 0.1, ()))) == []


def test_what_a_cuda_machine_measures_stands_beside_what_a_cpu_does() -> None:
    assert section_key("updates", "cuda") == "cuda_updates"
    assert section_key("updates", "cpu") == "updates"
    assert section_key("cuda_runs", "cuda") == "cuda_runs"
    assert section_key("memory", "cuda") == "memory"
    page = render({})
    assert "`wn-rl bench updates --device cuda`" in page
    assert "`wn-rl bench updates`" in page
    assert "`wn-rl bench cuda_runs`" in page


@pytest.mark.parametrize("period", [0, 400])
def test_a_full_replay_is_timed_without_tests_and_with_them(period: int) -> None:
    config = quick(8)
    learning = {**config["learning"], "replay_start": 400, "epsilon_start": 1.0, "epsilon_steps": 1}
    evaluation = {**config["evaluation"], "period": period, "steps": 50, "num_envs": 4}
    changed = {**config, "learning": learning, "evaluation": evaluation}
    result = measure_apart("prefilled", {"config": changed, "seconds": 0.5})
    assert abs(result["steps"] - 4 * result["updates"]) <= 8
    assert result["steps_per_second"] > 0
    assert result["tests"] == (result["steps"] // period if period else 0)
    if period:  # the time ends with a test
        assert result["steps"] % period < 8


def test_filling_repeats_the_rows_of_a_replay() -> None:
    config = from_json(quick(2))
    replay = filled_replay(config, CPU, num_rows=10)
    larger = Replay(50, 2, make_training_environments(config).spec, stack=1)
    larger.write_rows(0, replay.read_rows(0, 10))
    cuda_workers.fill(larger)
    assert larger.num_rows >= larger.ring_rows == 25
    again = larger.read_rows(larger.num_rows - 10, larger.num_rows)
    for name, column in replay.read_rows(0, 10).items():
        assert torch.equal(again[name], column)


def test_learners_are_timed_together_by_turns(tmp_path: Path) -> None:
    config = {**quick(8), "torch_threads": 1}
    settings = {"config": config, "seconds": 0.1, "folder": str(tmp_path), "counts": [1, 2]}
    results = measure_together("updates_together", [{**settings, "number": number} for number in range(2)])
    assert [sorted(result["rates"]) for result in results] == [["1", "2"], ["2"]]
    assert all(rate > 0 for result in results for rate in result["rates"].values())


def test_a_round_is_compiled_for_another_process() -> None:
    """Not compiled here, which takes long, but made."""
    assert measure_apart("compile_round", {"config": quick(8)}) == {}


def test_what_processes_have_in_common_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(measure, "measure_together", lambda worker, settings: asked.extend(settings))
    base = from_json(quick(8))
    captured = dataclasses.replace(base, accelerate="cuda_graph")
    compile_first([base, captured, dataclasses.replace(captured, accelerate="compile")])
    assert asked == [{"config": {**quick(8), "accelerate": "compile"}}]


def test_what_is_timed_on_cuda_never_splits_a_round() -> None:
    """A split round is of a new size, which is compiled when it comes."""
    options = Options("cpu", 1, 10, 1.0, ("breakout",))
    configs = [config_of("fast", "breakout", options, learning=UPDATES_ON_CUDA)]
    for preset, game, numbers_of_lanes in PEERS_ON_CUDA:
        for lanes in numbers_of_lanes:
            configs.append(config_of(preset, game, options, num_envs=lanes, learning=LEARNING_OF_PEERS))
            assert configs[-1].learning.replay_start % lanes == 0  # else the first round is a shorter one
    for config in configs:
        updates_in_a_round = max(1, config.num_envs // config.learning.update_period)
        updates_per_target = config.learning.target_period // config.learning.update_period
        assert updates_per_target % updates_in_a_round == 0
        assert updates_in_a_round <= LONGEST_ROUND


def test_the_loops_beside_sb3_stand_in_short_too() -> None:
    ours = "ours, normal, float32"
    one_lane = {SB3: 100.0, ours: 150.0, f"{ours} / SB3": 1.5}
    lanes = {SB3: 2000.0, ours: 4000.0, f"{ours} / SB3": 2.0, f"{ours} / SB3 with one lane": 40.0}
    rows = [
        Row(
            {"suite": "atari", "game": "pong", "lanes": number, "loop": loop}, "", [figure / 2, figure, 9 * figure]
        )
        for number, figures in ((1, one_lane), (16, lanes))
        for loop, figure in figures.items()
    ]
    assert peers_in_short(rows) == [
        f"| suite | game | lanes | {SB3} | {ours} |",
        "|---|---|---|---|---|",
        "| atari | pong | 1 | 100 | 150 (1.50) |",
        "| atari | pong | 16 | 2,000 | 4,000 (2.00, 40.00) |",
    ]


def test_the_readme_shows_what_the_page_does() -> None:
    root = Path(__file__).parents[1]
    results = json.loads((root / "docs" / "benchmarks.json").read_text())
    readme = (root / "README.md").read_text()
    in_one_line = " ".join(readme.split())
    assert "\n".join(peers_in_short([Row(**row) for row in results["peers"]["rows"]])) in readme
    assert f"{results['peers']['date']}, by `{results['peers']['command']}`" in in_one_line
    ours, theirs = (Row(**row).median for row in results["memory"]["rows"])
    assert f"takes {ours:.1f} GB, and {theirs:.1f} GB in SB3's" in in_one_line


def test_the_page_in_the_documentation_shows_the_results_beside_it() -> None:
    page = Path(__file__).parents[1] / "docs" / "benchmarks.md"
    assert page.read_text() == render(json.loads(page.with_suffix(".json").read_text()))


def test_a_section_that_was_interrupted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: Options) -> Iterator[Row]:
        yield Row({"n": 1}, "GB", [1.0])
        raise KeyboardInterrupt

    monkeypatch.setitem(SECTIONS, "memory", interrupted)
    out = tmp_path / "results.json"
    assert wn_rl("bench", "memory", "--out", str(out), "--device", "cpu", "--torch-threads", "1") == 130
    assert "Interrupted: rows are missing." in render(json.loads(out.read_text()))


def test_learners_meet_before_they_are_timed_together(tmp_path: Path) -> None:
    names = [f"2-{number}" for number in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: cuda_workers.meet(tmp_path, name, "2-*", 3), names))
    (tmp_path / "now").mkdir()
    with pytest.raises(OSError, match="no room"), cuda_workers.failure_told(tmp_path / "now"):
        raise OSError("no room")
    with pytest.raises(RuntimeError, match="another learner failed: OSError: no room"):
        cuda_workers.meet(tmp_path / "now", "4-0", "4-*", 2)
    with pytest.raises(TimeoutError, match="only 1 of 2 came"):
        cuda_workers.meet(tmp_path, "4-0", "4-*", 2, patience=0.05)


def test_results_go_to_a_file_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"  # where the page itself would stand
    assert wn_rl("bench", "matrix", "--out", str(page)) == 2
    assert f"--out {page} does not end with .json" in capsys.readouterr().err
    notes = tmp_path / "notes.json"
    notes.write_text("mine")
    assert wn_rl("bench", "matrix", "--out", str(notes)) == 2
    assert f"--out {notes} holds no results" in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("bench", "updats") == 2
    assert "no section 'updats'" in capsys.readouterr().err
    assert wn_rl("bench", "matrix", "--repetitions", "0") == 2
    assert wn_rl("bench", "emulators", "--games", "breakuot") == 2
    assert "breakout" in capsys.readouterr().err


def test_rates_are_held_against_the_peer_s_with_as_many_lanes_and_with_one() -> None:
    one_lane = {(1, SB3): [100.0, 50.0], (1, "ours"): [150.0, 100.0]}
    rates = {**one_lane, (8, SB3): [125.0, 80.0], (8, "ours"): [250.0, 90.0]}
    rows = list(rates_and_ratios(rates, {"game": "pong"}))
    ratios = {(row.what["lanes"], row.what["loop"]): row.values for row in rows if row.unit == "ratio"}
    assert ratios == {
        (1, "ours / SB3"): [1.5, 2.0],
        (8, "ours / SB3"): [2.0, 1.125],
        (8, "ours / SB3 with one lane"): [2.5, 1.8],
    }
    assert [row.values for row in rows if row.unit == "steps/s"] == list(rates.values())
