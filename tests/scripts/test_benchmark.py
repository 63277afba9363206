"""The benchmarks measure equal work, and the page says what was measured and what was not."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import benchmark
from bench import measure, sections, workers
from bench.measure import LEARNING, Options, Row, Section, config_of, in_turns
from bench.page import PLACES, place_of, render
from bench.sections import SB3, SECTIONS
from wn_rl.agents.replay import LONGEST_ROUND
from wn_rl.config import Config
from wn_rl.presets import minatar

ROOT = Path(__file__).parents[2]
REPLAYS = (workers.full_replay, workers.full_sb3_replay)
QUICK = {"replay_start": 200, "replay_capacity": 2_000, "target_period": 400}


def quick(num_envs: int, parameterization: str = "normal") -> Config:
    changes = {"num_envs": num_envs, "parameterization": parameterization}
    return config_of("minatar", "breakout", "cpu", learning=QUICK, **changes)


@pytest.mark.parametrize(("num_envs", "parameterization"), [(1, "normal"), (8, "normal"), (8, "weight_norm")])
def test_both_loops_do_the_same_work(num_envs: int, parameterization: str) -> None:
    ours = workers.ours, quick(num_envs, parameterization)
    loops = {"ours": ours, "SB3": (workers.stable_baselines3, quick(num_envs))}
    found = in_turns(loops, turns=2, seconds=0.2)
    assert [len(each) for each in found.values()] == [2, 2]
    for results in zip(*found.values(), strict=True):
        sections.require_equal_work(*results)
        assert all(result["seconds"] >= 0.2 for result in results)
        assert all(result["steps"] % max(4, num_envs) == 0 < result["steps"] for result in results)  # whole rounds
    for other in ({"steps": 2 * results[0]["steps"] + 100}, {"torch_threads": 7}):
        with pytest.raises(AssertionError):
            sections.require_equal_work({**results[0], **other}, results[1])


class FakeConnection:
    """Gives out the seconds of turns, and keeps what is sent."""

    def __init__(self, *seconds: float) -> None:
        self.sent: list[Any] = []
        self.send, self.recv = self.sent.append, iter(seconds).__next__


def test_a_loop_counts_whole_blocks_when_it_is_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop of 32 steps a second: 64 more take two seconds."""
    connection, steps, ends = FakeConnection(2.0, 3.0), [0], list[int]()
    monkeypatch.setattr(workers.time, "perf_counter", lambda: steps[0] / 32)

    def run_to(num_steps: int) -> None:
        steps[0] = num_steps
        ends.append(num_steps)

    arguments: Any = (connection, quick(8), torch.nn.Linear(2, 3), run_to, lambda: (steps[0], steps[0] // 4))
    with pytest.raises(StopIteration):  # there are two turns only
        workers.loop_in_turns(*arguments)
    assert ends == [600, 664, 728, 792]  # the first one is the warm-up
    ready, *results = connection.sent
    assert ready == "ready"
    assert [(each["seconds"], each["steps"], each["updates"]) for each in results] == [(2, 64, 16), (4, 128, 32)]
    assert {each["num_parameters"] for each in results} == {9}


def test_the_emulator_is_timed_in_the_frames_of_its_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of four lanes takes two seconds of this clock; a step is four frames."""
    connection, readings = FakeConnection(1.0), iter([0.0, 0.0, 0.1, 0.0, 0.0, 2.0])
    monkeypatch.setattr(workers.time, "perf_counter", lambda: next(readings))
    worker: Any = workers.emulator
    with pytest.raises(StopIteration):  # there is one turn only
        worker(connection, config_of("paper", "breakout", "cpu", num_envs=4))
    assert connection.sent == ["ready", 4 * 4 / 2]


def test_replays_are_weighed() -> None:
    # In a process of its own: this one has memory left over from other tests.
    replays = {replay.__name__: (workers.replay_bytes, replay, 10_000) for replay in REPLAYS}
    ours, theirs = (turn["bytes"] / 10_000 for [turn] in in_turns(replays, 1, 0).values())
    assert 7_056 <= ours < 7_056 * 1.2  # a page of memory or two belongs to others
    assert theirs > 3.5 * 7_056


def test_a_process_that_fails_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    unknown = dataclasses.replace(quick(1), game="pacman")
    with pytest.raises(EOFError):
        in_turns({"ours": (workers.ours, unknown)}, turns=1, seconds=0.1)
    assert "pacman" in capfd.readouterr().err


def test_products_are_counted() -> None:
    assert measure.matrix_rate("float32", "cpu", threads=1, repetitions=1) > 1e8
    convolution, dense = 8 * 8 * 16 * 4 * 9, 1024 * 128 + 128 * 3
    # Forward twice and backward: the convolution's needs no gradient of pixels.
    assert sections.flop_of_update(minatar("breakout")) == 2 * 64 * (3 * convolution + 4 * dense)


def test_updates_are_timed_in_turns() -> None:
    configs = {name: quick(8, name) for name in ("normal", "weight_norm")}
    turns = in_turns({0: (workers.updates, configs, 2)}, turns=3, seconds=0)[0]  # every second in reverse order
    assert [list(turn) for turn in turns] == [list(configs), list(configs)[::-1], list(configs)]
    assert all(min(turn.values()) > 0 for turn in turns)


def test_what_is_timed_on_cuda_never_splits_a_round() -> None:
    """A split round is of a new size, which is compiled when it comes."""
    lanes = {*sections.LANES_OF_PEERS, *(lanes for _, lanes, _ in sections.UPDATES_ON_CUDA)}
    for config in (
        config_of(preset, "breakout", "cpu", num_envs=n) for preset in ("laptop", "fast") for n in lanes
    ):
        num_updates = workers.updates_in_a_round(config)
        assert config.learning.target_period // config.learning.update_period % num_updates == 0
        assert num_updates <= LONGEST_ROUND
    assert all(LEARNING["replay_start"] % number == 0 for number in lanes)  # else the first round is a shorter one


def test_rates_are_compared_with_the_peer_s_at_the_same_lanes_and_at_one() -> None:
    one_lane = {(1, SB3): [100.0, 50.0], (1, "ours"): [150.0, 100.0]}
    rates = {**one_lane, (8, SB3): [125.0, 80.0], (8, "ours"): [250.0, 90.0]}
    rows = list(sections.rates_and_ratios(rates, {"game": "pong"}))
    assert {(row.what["lanes"], row.what["loop"]): row.results for row in rows} == {
        (1, SB3): {"steps/s": [100.0, 50.0]},
        (1, "ours"): {"steps/s": [150.0, 100.0], "ratio to SB3": [1.5, 2.0]},
        (8, SB3): {"steps/s": [125.0, 80.0]},
        (8, "ours"): {
            "steps/s": [250.0, 90.0],
            "ratio to SB3": [2.0, 1.125],
            "ratio to SB3 with one lane": [2.5, 1.8],
        },
    }


def test_the_page_names_machine_and_command_and_says_what_is_missing() -> None:
    results = {"microseconds": [1200.0, 1000.0, 1300.0], "ratio to normal": [1.2345]}
    compared = Row({"network": "nature_cnn"}, results)
    rows = [dataclasses.asdict(row) for row in (compared, Row({"network": "mlp"}, {"microseconds": [60.0]}))]
    about = {"machine": "2 x CPU", "command": "benchmark.py updates", "date": "2026-01-01", "rows": rows}
    about |= {"commit": "abc", "complete": True}
    page = render({"updates": about})
    assert "| network | microseconds | ratio to normal |" in page
    assert "| nature_cnn | 1,200 (1,000 to 1,300) | 1.23 |" in page
    assert "| mlp | 60 |  |" in page
    assert "2 x CPU. `benchmark.py updates`, 2026-01-01, commit abc.\n" in page
    assert page.count("Not measured.") == len(PLACES) - 1
    assert "Interrupted: rows are missing." in render({"updates": {**about, "complete": False}})


def test_every_section_has_a_place_and_a_cuda_device_its_own() -> None:
    assert tuple(SECTIONS) == get_args(Section)
    assert {place_of(name, on_cuda) for name in SECTIONS for on_cuda in (False, True)} == set(PLACES)
    assert place_of("updates", on_cuda=True) == "cuda_updates"
    assert place_of("memory", on_cuda=True) == "memory"
    for flags in ("updates --device cuda", "updates"):
        assert f"`python scripts/benchmark.py {flags}`" in render({})


def test_the_documentation_shows_the_results() -> None:
    results = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    assert (ROOT / "docs" / "benchmarks.md").read_text() == render(results)


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections that measure nothing: each yields its number."""
    for number, section in enumerate(get_args(Section)):
        row = Row({"n": number}, {"GB": [float(number)]})
        monkeypatch.setitem(SECTIONS, section, lambda options, row=row: iter([row]))


def run(out: Path, *sections: str) -> dict[str, Any]:
    """The results after measuring sections."""
    benchmark.main([*sections, "--out", str(out), "--device", "cpu"])
    return dict(json.loads(out.read_text()))


@pytest.mark.usefixtures("one_row")
def test_sections_merge_into_one_page(tmp_path: Path) -> None:
    for section in ("updates", "memory"):
        results = run(tmp_path / "results.json", section)
    assert list(results) == ["updates", "memory"]
    assert results["memory"]["command"].startswith("python scripts/benchmark.py memory --out ")
    assert "| 3 | 3 |" in (tmp_path / "results.md").read_text()


@pytest.mark.usefixtures("one_row")
def test_results_name_their_commit_as_it_was_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that are written into a checkout change it."""
    out = tmp_path / "results.json"
    monkeypatch.setattr(benchmark, "git_commit", lambda: "0123456789abcdef" + "+changes" * out.exists())
    assert {found["commit"] for found in run(out, "updates", "memory").values()} == {"0123456789"}
    assert run(out, "updates")["updates"]["commit"] == "0123456789+changes"


def test_a_section_that_was_interrupted_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(options: Options) -> Iterator[Row]:
        yield Row({"n": 1}, {"GB": [1.0]})
        raise KeyboardInterrupt

    monkeypatch.setitem(SECTIONS, "memory", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "results.json", "memory")
    found = json.loads((tmp_path / "results.json").read_text())["memory"]
    assert (found["complete"], len(found["rows"])) == (False, 1)


def test_invalid_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text("mine")
    for arguments, says in [
        (["updats"], "updats"),
        (["updates", "--repetitions", "0"], "--repetitions must be at least 1"),
        (["updates", "--out", "page.md"], "--out page.md does not end with .json"),
        (["updates", "--out", str(notes)], f"--out {notes} holds no results"),
    ]:
        with pytest.raises(SystemExit) as stop:
            benchmark.main(arguments)
        assert stop.value.code == 2
        assert says in capsys.readouterr().err
    assert notes.read_text() == "mine"
