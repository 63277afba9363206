"""What the tests of comparisons share: small grids, and folders as runs leave them."""

import dataclasses
from pathlib import Path

from wn_rl.compare.arms import parse_arms
from wn_rl.compare.grid import Run, expand
from wn_rl.config import to_json
from wn_rl.presets import minatar
from wn_rl.run.folder import RunFolder, Status, write_json


def make_grid(out: Path, *, seeds: int = 3, arms: tuple[str, ...] = ("weight_norm",)) -> tuple[Run, ...]:
    """Runs of MinAtar's Breakout of 1,000 steps."""
    base = dataclasses.replace(minatar("breakout"), steps=1000)
    return expand([base], parse_arms(arms), range(1, seeds + 1), out)


def leave(run: Run, status: Status, message: str = "") -> None:
    """Make a run's folder as one that ended so."""
    folder = RunFolder(run.path)
    write_json(folder.config_file, {"config": to_json(run.config)})
    folder.write_status(status, run.config.steps, message)
