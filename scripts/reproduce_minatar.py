"""Train the `minatar` preset, three games with three seeds each, and print the table of docs/results.md.

The runs are those of a `wn-rl compare`, which leaves finished runs alone and resumes stopped ones, so the command
can be repeated:

    python scripts/reproduce_minatar.py [FOLDER]        (8 to 14 minutes a run, one on each core)
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that a checkout need not be installed
from wn_rl.report.render import markdown_table  # noqa: E402
from wn_rl.run.folder import RunFolder  # noqa: E402

GAMES = ("breakout", "seaquest", "space_invaders")
SEEDS = (1, 2, 3)
STEPS = (200_000, 500_000)


def return_at(folder: Path, step: int) -> float:
    """Mean raw return of the last 100 training episodes at a step."""
    rows = RunFolder(folder).read_rows()
    return float(next(row["train/return_last_100"] for row in rows if row["step"] == step and "loss" in row))


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/minatar"))
    out: Path = parser.parse_args().folder
    grid = ["--suite", "minatar", "--games", *GAMES, "--arms", "weight_norm:3e-4", "--seeds", str(len(SEEDS))]
    command = [sys.executable, "-m", "wn_rl.cli", "compare", *grid, "--out", str(out)]
    exit_code = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode
    if exit_code:
        sys.exit(exit_code)  # it has said why
    rows = []
    for game in GAMES:
        folders = [out / "runs" / f"minatar-{game}-weight_norm-lr0.0003-seed{seed}" for seed in SEEDS]
        for step in STEPS:
            returns = [return_at(folder, step) for folder in folders]
            rows.append([game, f"{step:,}", *(f"{value:.1f}" for value in (*returns, statistics.mean(returns)))])
    print(markdown_table(["game", "steps", *(f"seed {seed}" for seed in SEEDS), "mean"], rows))


if __name__ == "__main__":
    main()
