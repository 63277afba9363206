"""The benchmarks measure equal work, and the page says what was measured and what was not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import wn_rl

from wn_rl.bench import workers
from wn_rl.bench.measure import Row, flop_of, matrix_rate, measure_apart, seconds_in_turns
from wn_rl.bench.page import render
from wn_rl.bench.sections import SB3, SECTIONS, Options, _lanes_against_one, require_equal_work
from wn_rl.bench.workers import SteadyState
from wn_rl.config import OptimizerConfig, to_json
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
    results = [measure_apart(worker, {"config": config, "seconds": 0.2}) for worker in ("ours", peer)]
    require_equal_work(*results)
    assert all(result["steps_per_second"] > 0 for result in results)
    with pytest.raises(AssertionError):
        require_equal_work({**results[0], "updates": results[0]["updates"] // 2}, results[1])
    with pytest.raises(AssertionError):
        require_equal_work({**results[0], "torch_threads": 7}, results[1])


def test_the_emulator_is_timed_without_a_network() -> None:
    rate = workers.emulator(quick(4), 0.1)["steps_per_second"]
    assert 1e3 < rate < 1e6


def test_replays_are_weighed() -> None:
    config = quick(1)
    small = {**config, "learning": {**config["learning"], "replay_capacity": 10_000}}
    ours, theirs = (weigh(small, 0) for weigh in (workers.replay_memory, workers.sb3_replay_memory))
    assert 7_056 <= ours["bytes"] / ours["steps"] < 7_056 * 1.2  # a page of memory or two belongs to others
    assert theirs["bytes"] / theirs["steps"] > 3.5 * 7_056


def test_a_worker_that_fails_says_why() -> None:
    config = {**quick(1), "parameterization": "weight_norm"}
    with pytest.raises(RuntimeError, match="SB3's own layers are normal"):
        measure_apart("stable_baselines3", {"config": config, "seconds": 0.1})


def test_the_clock_starts_at_the_steady_state(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(workers.time, "perf_counter", lambda: now[0])
    clock = SteadyState(begin=100, seconds=2.0)
    for second, steps, updates in [(0.0, 99, 0), (5.0, 100, 7), (6.0, 300, 50)]:
        now[0] = second
        assert clock(steps, updates)
    now[0] = 9.0
    assert not clock(500, 107)
    assert clock.result["steps_per_second"] == 100
    assert (clock.result["steps"], clock.result["updates"]) == (400, 100)


def test_the_work_of_a_product_is_counted() -> None:
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert flop_of(lambda: a @ b) == 2 * 3 * 5 * 7
    assert matrix_rate(torch.float32, CPU, repetitions=1) > 1e8


def test_functions_are_timed_in_turns() -> None:
    calls: list[str] = []
    seconds = seconds_in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 3, CPU)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert "".join(calls).endswith("aaabbbaaabbb")


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
    assert page.count("Not measured.") == len(SECTIONS) - 1


def test_sections_merge_into_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, section in enumerate(("matrix", "memory")):
        rows = [Row({"n": number}, "GB", [float(number)])]
        monkeypatch.setitem(SECTIONS, section, lambda options, rows=rows: rows)
        out = str(tmp_path / "results.json")
        assert wn_rl("bench", section, "--out", out, "--device", "cpu", "--torch-threads", "1") == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results) == ["matrix", "memory"]
    assert "| 1 | 1 GB |" in (tmp_path / "results.md").read_text()


def test_without_cuda_the_cuda_section_is_empty() -> None:
    assert SECTIONS["cuda_runs"](Options("cpu", 1, 1, 0.1)) == []


def test_wrong_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl("bench", "updats") == 2
    assert "no section 'updats'" in capsys.readouterr().err
    assert wn_rl("bench", "matrix", "--repetitions", "0") == 2


def test_lanes_are_also_held_against_one_lane_of_the_peer() -> None:
    def row(lanes: int, loop: str, rate: float) -> Row:
        return Row({"suite": "atari", "game": "pong", "lanes": lanes, "loop": loop}, "steps/s", [rate])

    rows = [row(1, SB3, 100.0), row(1, "ours", 150.0), row(8, SB3, 120.0), row(8, "ours", 250.0)]
    (compared,) = _lanes_against_one(rows)
    assert (compared.what["lanes"], compared.what["loop"]) == (8, "ours / SB3 with one lane")
    assert compared.values == [2.5]
    assert _lanes_against_one(rows[2:]) == []
