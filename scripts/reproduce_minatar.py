"""Train the `minatar` preset, three games with three seeds each, and print the table of docs/results.md.

Runs that are finished are skipped and runs that stopped are resumed, so that the command may be repeated:

    python scripts/reproduce_minatar.py [FOLDER]        (about five minutes a run on one core)
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

GAMES = ("breakout", "seaquest", "space_invaders")
SEEDS = (1, 2, 3)


def command_of(folder: Path, game: str, seed: int) -> list[str] | None:
    """The command that brings a run further; None if it is finished."""
    status = folder / "status.json"
    if status.exists() and json.loads(status.read_text())["status"] == "finished":
        return None
    if (folder / "config.json").exists():
        return ["resume", str(folder)]
    return ["train", game, "--suite", "minatar", "--seed", str(seed), "--run-dir", str(folder)]


def last_return(folder: Path) -> float:
    """Mean raw return of the last 100 training games."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return float([row["train/return_last_100"] for row in rows if "train/return_last_100" in row][-1])


def main() -> None:
    """Run what is missing, one after the other, and print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/minatar")
    folders = {(game, seed): root / f"{game}-{seed}" for seed in SEEDS for game in GAMES}
    for (game, seed), folder in folders.items():
        command = command_of(folder, game, seed)
        if command is not None:
            subprocess.run([sys.executable, "-m", "wn_rl.cli", *command], check=True)
    print("| game | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean |")
    print("|---|" + "---|" * (len(SEEDS) + 1))
    for game in GAMES:
        returns = [last_return(folders[game, seed]) for seed in SEEDS]
        cells = [f"{value:.1f}" for value in (*returns, statistics.mean(returns))]
        print(f"| {game} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
