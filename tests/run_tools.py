"""What the tests of the command line share: running it in this process, and reading what a run left."""

import json
from pathlib import Path
from typing import Any

import pytest

from wn_rl.cli import main
from wn_rl.run.tracking import CLOCK_KEYS

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


def status_of(run: Path) -> dict[str, Any]:
    """What status.json says."""
    return dict(json.loads((run / "status.json").read_text()))


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without what measures time."""
    return [{key: value for key, value in row.items() if key not in CLOCK_KEYS} for row in rows]
