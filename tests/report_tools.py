"""Hand-written run folders for the tests of the report, and what the report makes of them."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from run_tools import write_rows

from wn_rl.config import Config, EvaluationConfig, OptimizerConfig, to_json
from wn_rl.registry import PRESETS
from wn_rl.report.comparison import Comparison, choose_rates, compare
from wn_rl.report.findings import Findings, examine
from wn_rl.report.published_scores import Scores
from wn_rl.report.read import LeftOut, read_runs

PERIOD = 100
"""Agent steps of an epoch."""
Curves = Sequence[Sequence[float | None]]
"""The evaluation scores of each seed."""


def write_run(
    folder: Path,
    scores: Sequence[float | None],
    *,
    game: str = "breakout",
    suite: str = "minatar",
    parameterization: str = "normal",
    rate: float = 1e-4,
    seed: int = 1,
    steps: int | None = None,
    status: str = "finished",
    message: str = "",
    norms: Sequence[float] = (),
    updates: Sequence[int] = (),
    versions: dict[str, str | None] | None = None,
    **changes: Any,
) -> Path:
    """A run folder with one evaluation an epoch; None has no score. steps None: up to the last evaluation.

    norms: |v| of the layer "conv" by epoch. updates: made by then. changes: fields of Config.
    """
    preset = "paper" if suite == "atari" else suite
    config: Config = dataclasses.replace(
        PRESETS[preset](game),
        parameterization=parameterization,
        seed=seed,
        steps=len(scores) * PERIOD if steps is None else steps,
        optimizer=OptimizerConfig(learning_rate=rate),
        evaluation=EvaluationConfig(period=PERIOD),
        **changes,
    )
    rows: list[dict[str, Any]] = []
    for number, score in enumerate(scores, start=1):
        row: dict[str, Any] = {"step": number * PERIOD, "frames_per_second": 90.0}
        if norms:
            row |= {"norm_v/conv": norms[number - 1], "norm_g/conv": 1.0}
        if updates:
            row["updates"] = updates[number - 1]
        rows += [row, {"step": number * PERIOD, "eval/return_mean": score, "eval/episodes": 5}]
    folder.mkdir(parents=True)
    command = ["wn-rl", "train", game, "--seed", str(seed)]
    record = {"config": to_json(config), "versions": versions or {"torch": "2.13.0"}, "command": command}
    record["machine"] = "a CPU"
    (folder / "config.json").write_text(json.dumps(record))
    write_rows(folder, rows)
    state = {"status": status, "step": len(scores) * PERIOD, "message": message}
    (folder / "status.json").write_text(json.dumps(state))
    return folder


def write_arm(root: Path, curves: Curves, **settings: Any) -> None:
    """One run a curve, with seeds from 1."""
    name = "-".join(str(value) for value in settings.values())[:150]
    for seed, scores in enumerate(curves, start=1):
        write_run(root / f"{name}-{seed}", scores, seed=seed, **settings)


def write_pair(root: Path, normal: Curves, weight_norm: Curves, **settings: Any) -> None:
    """Both arms at 1e-4."""
    write_arm(root, normal, parameterization="normal", **settings)
    write_arm(root, weight_norm, parameterization="weight_norm", **settings)


def compared(*roots: Path, until: int | None = None) -> tuple[list[Comparison], list[LeftOut]]:
    """What the runs in the folders are compared as, and those that are not."""
    return compare(read_runs(roots)[0], until)


def comparison_of(root: Path) -> Comparison:
    """The only one of the runs in a folder."""
    (comparison,), _ = compared(root)
    return comparison


def found(root: Path, published: Scores | None = None) -> Findings:
    """Its numbers, rates chosen on the same runs."""
    comparison = comparison_of(root)
    return examine(comparison, choose_rates(comparison, []), published or {}, np.random.default_rng(0))
