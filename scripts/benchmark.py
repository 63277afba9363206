"""Measure the speed of this machine, beside Stable-Baselines3's at the same work, and write the benchmark page."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import Options
from bench.page import COMMAND, merge, place_of, render
from bench.sections import SECTIONS
from wn_rl.envs import normalize_game
from wn_rl.errors import UserError, say
from wn_rl.machine import git_commit, machine_line, num_cores, resolve_device


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit with 2 if the input is invalid."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, args=arguments)
    try:
        measure(_resolved(options), " ".join([COMMAND, *arguments]))
    except (ValueError, OSError) as error:
        say(f"benchmark: {error}")
        sys.exit(2)
    print(options.out.with_suffix(".md"))


def _resolved(options: Options) -> Options:
    """Check the options before anything is measured, and decide the device, the threads and the games' names."""
    if options.repetitions < 1 or not options.seconds > 0 or options.torch_threads < 0:
        raise ValueError("--repetitions must be at least 1, --seconds greater than 0, --torch-threads at least 0")
    if options.out.suffix != ".json":
        raise UserError(f"--out {options.out} does not end with .json")
    try:
        json.loads(options.out.read_bytes() if options.out.exists() else b"{}")
    except ValueError as error:
        raise UserError(f"--out {options.out} holds no results: {error}") from error
    return dataclasses.replace(
        options,
        device=str(resolve_device(options.device)),
        torch_threads=options.torch_threads or num_cores(),
        games=tuple(normalize_game("atari", game) for game in options.games),
    )


def measure(options: Options, command: str) -> None:
    """Measure section after section; results are written after each row, and the page after each section."""
    device = torch.device(options.device)
    if options.on_cuda:
        torch.cuda.set_device(device)
    torch.set_num_threads(options.torch_threads)
    # Read once: results that are written into the checkout change it.
    commit, plus, changes = (git_commit() or "unknown").partition("+")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        if name.startswith("cuda_") and not options.on_cuda:
            say(f"{name}: not on this machine")
            continue
        say(f"measuring {name}")
        place = place_of(name, options.on_cuda)
        about = {
            "machine": f"{machine_line(device)}, {options.torch_threads} torch threads",
            "command": command,
            "commit": commit[:10] + plus + changes,
            "date": datetime.date.today().isoformat(),
        }
        rows = []
        for row in SECTIONS[name](options):  # some take minutes for each
            rows.append(row)
            merge(options.out, place, rows, {**about, "complete": False})
        results = merge(options.out, place, rows, {**about, "complete": True})
        options.out.with_suffix(".md").write_text(render(results))


if __name__ == "__main__":
    main()
