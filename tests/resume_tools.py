"""Runs in child processes that are stopped, and what two of them must share."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wn_rl.run.checkpoint import CheckpointStore
from wn_rl.run.folder import RunFolder
from wn_rl.run.sinks import CLOCK_KEYS


class Rows:
    """Takes the rows of a saved replay."""

    def __init__(self) -> None:
        self.columns: list[dict[str, Tensor]] = []

    def write_rows(self, start: int, columns: dict[str, Tensor]) -> None:
        self.columns.append(columns)

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat([part[name] for part in self.columns]) for name in self.columns[0]}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "wn_rl.cli", *map(str, arguments)]


def finish(*arguments: str | Path) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stderr


def final_state(run: Path) -> tuple[int, Any, dict[str, Tensor]]:
    folder = RunFolder(run)
    manifest = max(folder.checkpoints.glob("step_*/manifest.json"))
    store = CheckpointStore(folder.checkpoints, json.loads(manifest.read_text())["identity"])
    rows = Rows()
    loaded = store.load(rows, pytest.fail)  # type: ignore[arg-type]
    assert loaded is not None
    step, state = loaded
    del state["tracker"], state["monitor"]["seconds"]  # byte offsets depend on how long the times are
    return step, state, rows.joined()


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in CLOCK_KEYS} for row in rows]


def assert_same(one: Any, other: Any, place: str = "state") -> None:
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name in one:
            assert_same(one[name], other[name], f"{place}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{place}[{index}]")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other), place
    else:
        assert one == other, place


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, replay rows, environments, actor, and every metric but those that measure time."""
    assert metrics(one) == metrics(other)
    (step, state, rows), (other_step, other_state, other_rows) = final_state(one), final_state(other)
    assert step == other_step
    assert_same(state, other_state)
    count = min(len(rows["first"]), len(other_rows["first"]))  # segments may begin before the ring does
    assert_same({n: c[-count:] for n, c in rows.items()}, {n: c[-count:] for n, c in other_rows.items()}, "replay")


def num_rows(run: Path) -> int:
    """Whole rows of metrics so far; -1 before there is a run."""
    if not (run / "config.json").exists():
        return -1
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def start_and_stop(arguments: list[str | Path], number: int, run: Path, rows: int, delay: float = 0.0) -> int:
    """Start a command, send it a signal once its metrics have this number of rows, and return its exit code."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and num_rows(run) < rows:
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(number)
    process.communicate(timeout=120)
    return process.returncode
