"""A run in its folder, in process: what is saved, said and noted when things go wrong."""

import dataclasses
import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from run_tools import QUICK, rows_of, status_of, wn_rl

from wn_rl.agents import dqn as experiment_module
from wn_rl.commands import resume, train
from wn_rl.commands._shared import parse_flags
from wn_rl.config import Config, EnvironmentConfig
from wn_rl.presets import laptop, minatar
from wn_rl.run import training
from wn_rl.run.checkpoint import CheckpointError, CheckpointStore
from wn_rl.run.monitor import crossed

TRAIN = ["train", "breakout", *QUICK, "--track", "jsonl"]


def fail_saves_from(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save = CheckpointStore.save

    def failing(store: CheckpointStore, at: int, *rest: object) -> None:
        if at >= step:
            raise CheckpointError("no space left on device")
        save(store, at, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointStore, "save", failing)


def test_periods_count_crossings() -> None:
    assert [crossed(10, before, now) for before, now in ((0, 9), (0, 10), (9, 12), (10, 19), (8, 41))] == [
        False, True, True, False, True,
    ]  # fmt: skip


def test_a_full_disk_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fail_saves_from(400, monkeypatch)
    assert wn_rl(*TRAIN, "--run-dir", str(run)) == 1
    said = capsys.readouterr().err
    assert "no space left on device; the checkpoint before it is kept" in said
    assert f"mend that, then resume it with: wn-rl resume {run}" in said
    assert status_of(run)["status"] == "failed"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert wn_rl("resume", str(run)) == 0  # from step 200: nothing was dropped
    assert status_of(run) == {**status_of(run), "status": "finished", "step": 600}


def test_the_threads_of_a_run_are_not_left_to_what_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_in(config: Config, *rest: object, **options: object) -> training.Outcome:
        assert config.torch_threads == torch.get_num_threads() == 2
        return training.Outcome("interrupted", 130, "stopped")

    monkeypatch.setattr(training, "train_in", train_in)
    config = dataclasses.replace(minatar("breakout"), torch_threads=2, device="cpu")
    assert training.train(config, tmp_path / "run").exit_code == 130
    assert torch.get_num_threads() == 1


def test_a_run_goes_on_in_any_thread(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    config = parse_flags(
        train.Train, [*TRAIN[1:], "--device", "cpu"], default=train.Train(minatar("breakout"))
    ).config
    with ThreadPoolExecutor() as threads:
        outcome = threads.submit(training.train, config, tmp_path / "run").result()
    assert (outcome.status, status_of(tmp_path / "run")["step"]) == ("finished", 600)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_an_error_is_noted_with_its_place_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def broken(self: object, *rest: object) -> None:
        raise ValueError("a fault of the program")

    monkeypatch.setattr(experiment_module.Replay, "sample", broken)
    assert wn_rl(*TRAIN, "--run-dir", str(run)) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "a fault of the program; no checkpoint was saved" in said.splitlines()[-1]
    assert status_of(run)["status"] == "failed"


def test_a_run_that_diverges_says_what_the_page_on_trouble_quotes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "trouble.md").read_text()
    [quoted] = re.findall("«(the losses .*) nan»", page)
    assert wn_rl(*TRAIN, "--optimizer.learning-rate", "1e30", "--run-dir", str(tmp_path / "run")) == 1
    assert quoted in capsys.readouterr().err
    assert "no checkpoint was saved" in status_of(tmp_path / "run")["message"]


def test_a_run_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wn_rl(*TRAIN, "--steps", "100", "--run-dir", str(tmp_path / "short")) == 0
    said = capsys.readouterr().err
    assert "warning: no update will be made: --steps 100 ends with --learning.replay-start or before" in said
    assert "warning: no evaluation will be made: --steps 100 ends before the first --evaluation.period" in said
    assert rows_of(tmp_path / "short")[-1]["updates"] == 0
    assert wn_rl(*TRAIN, "--run-dir", str(tmp_path / "whole")) == 0
    assert "will be made" not in capsys.readouterr().err


def test_resuming_a_finished_run_says_so_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr("wn_rl.run.training.KEPT_REPLAY_BYTES", 0)
    assert wn_rl(*TRAIN, "--run-dir", str(run)) == 0
    assert "--keep-replay" in capsys.readouterr().err
    assert wn_rl("resume", str(run)) == 0
    assert "is finished at 600 steps" in capsys.readouterr().err
    before = (run / "config.json").read_bytes()
    assert wn_rl("resume", str(run), "--steps", "900") == 2  # its replay was dropped
    assert (run / "config.json").read_bytes() == before
    assert status_of(run)["status"] == "finished"


@pytest.fixture
def stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that can be made longer, with what it said forgotten."""
    run = tmp_path / "run"
    assert wn_rl(*TRAIN, "--keep-replay", "--run-dir", str(run)) == 0
    capsys.readouterr()
    return run


def change_record(run: Path, **changes: Any) -> dict[str, Any]:
    """Write config.json with other parts; what it holds then."""
    record = {**json.loads((run / "config.json").read_text()), **changes}
    (run / "config.json").write_text(json.dumps(record))
    return record


def test_what_decides_numbers_is_recorded_and_said_where_it_changes(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = change_record(stopped)
    change_record(stopped, versions={**now["versions"], "torch": "1.0"}, machine="another")
    for steps, said in (("700", "torch was 1.0"), ("800", "")):
        assert wn_rl("resume", str(stopped), "--steps", steps, "--device", "cpu") == 0
        printed = capsys.readouterr().err
        assert said in printed
        assert ("warning" in printed) == bool(said)
        record = change_record(stopped)
        assert (record["versions"]["torch"], record["machine"]) == ("1.0", "another")
        assert record["sessions"] == [{"step": 600, "versions": now["versions"], "machine": now["machine"]}]


def test_a_session_of_which_nothing_is_left_is_not_recorded() -> None:
    config = dataclasses.replace(minatar("breakout"), device="cpu")
    began = training._circumstances(config)
    lost = {"step": 400, "versions": {"torch": "1.0"}, "machine": "another"}
    assert training._with_session({**began, "sessions": [lost]}, config, 400) == {**began, "sessions": []}
    known = training._with_session({**began, "sessions": [lost]}, config, 600)
    assert known == {**began, "sessions": [lost, {"step": 600, **began}]}
    assert training.last_session(known)["step"] == 600


def test_how_a_run_is_computed_may_change_and_is_said(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = change_record(stopped)["config"]
    change_record(stopped, config={**config, "accelerate": "cuda_graph", "device": "cuda:0"})
    arguments = ["resume", str(stopped), "--steps", "700", "--device", "cpu"]
    assert wn_rl(*arguments) == 2
    assert "--accelerate cuda_graph needs a CUDA device" in capsys.readouterr().err
    assert wn_rl(*arguments, "--accelerate", "eager", "--checkpoint-period", "50") == 0
    said = capsys.readouterr().err
    assert "warning: device was cuda:0, is cpu: the run may not be the same bit for bit" in said
    assert "warning: accelerate was cuda_graph, is eager: the run may not be the same bit for bit" in said
    resumed = change_record(stopped)["config"]
    assert (resumed["accelerate"], resumed["device"], resumed["checkpoint_period"]) == ("eager", "cpu", 50)
    assert [path.name for path in sorted((stopped / "checkpoints").glob("step_*"))] == [
        "step_000000000652", "step_000000000700",
    ]  # fmt: skip


def test_a_run_may_go_on_with_other_processes() -> None:
    config = laptop("breakout")
    changed = resume._changed(config, parse_flags(resume.Resume, ["run", "--environment.processes", "3"]))
    assert changed == dataclasses.replace(config, environment=EnvironmentConfig(processes=3))
    assert resume._changed(config, resume.Resume(Path("run"))) == config
