"""What the tests of the command line share: running it in this process, and reading what a run left."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from wn_rl.cli import main
from wn_rl.run.sinks import CLOCK_KEYS

# A MinAtar run of a second: metrics and a checkpoint every 200 steps, a test every 300.
QUICK = [
    "--suite", "minatar", "--steps", "600", "--log-period", "200", "--checkpoint-period", "200",
    "--learning.replay-start", "100", "--learning.replay-capacity", "2000", "--learning.epsilon-steps", "200",
    "--network.init-states", "32", "--evaluation.period", "300", "--evaluation.steps", "100",
    "--evaluation.held-out-states", "16", "--evaluation.video-period", "0",
]  # fmt: skip


def wn_rl(*arguments: str) -> int:
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start a command as a shell does: in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "wn_rl.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str] | None" = None) -> None:
    """Until something is so, for at most two minutes and as long as the process runs."""
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def write_rows(run: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the metrics.jsonl of a run."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def status_of(run: Path) -> dict[str, Any]:
    """What status.json says."""
    return dict(json.loads((run / "status.json").read_text()))


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what measures time."""
    return [{key: value for key, value in row.items() if key not in CLOCK_KEYS} for row in rows]
