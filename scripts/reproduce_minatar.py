"""Train the `minatar` preset, three games with three seeds each, and print the table of docs/results.md.

Runs that are finished are skipped and runs that stopped are resumed, so that the command may be repeated:

    python scripts/reproduce_minatar.py [FOLDER]        (5 to 14 minutes a run on one core)
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

GAMES = ("breakout", "seaquest", "space_invaders")
SEEDS = (1, 2, 3)
STEPS = (200_000, 500_000)


def command_of(folder: Path, game: str, seed: int) -> list[str] | None:
    """The command that brings a run further; None if it is finished."""
    status = folder / "status.json"
    if status.exists() and json.loads(status.read_text())["status"] == "finished":
        return None
    if (folder / "config.json").exists():
        return ["resume", str(folder)]
    return ["train", game, "--suite", "minatar", "--seed", str(seed), "--run-dir", str(folder)]


def return_at(folder: Path, step: int) -> float:
    """Mean raw return of the last 100 training games at a step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float(next(row["train/return_last_100"] for row in rows if row["step"] == step and "loss" in row))


def main() -> None:
    """Run what is missing, one after the other, and print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/minatar")
    folders = {(game, seed): root / f"{game}-{seed}" for seed in SEEDS for game in GAMES}
    for (game, seed), folder in folders.items():
        command = command_of(folder, game, seed)
        if command is not None:
            subprocess.run([sys.executable, "-m", "wn_rl.cli", *command], check=True)
    print("| game | steps | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |")
    print("|---|---|" + "---|" * (len(SEEDS) + 1))
    for game in GAMES:
        for step in STEPS:
            returns = [return_at(folders[game, seed], step) for seed in SEEDS]
            cells = [f"{value:.1f}" for value in (*returns, statistics.mean(returns))]
            print(f"| {game} | {step:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
