"""Measure the speed of this machine, beside Stable-Baselines3's at the same work, and write the benchmark page."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.measure import Options
from bench.page import COMMAND, place_of, render
from bench.sections import SECTIONS
from wn_rl.errors import UserError, say
from wn_rl.machine import git_commit, machine_line, num_cores, resolve_device
from wn_rl.run.files import replace_file


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit with 2 if the input is invalid."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, args=arguments)
    try:
        measure(options, " ".join([COMMAND, *arguments]))
    except (ValueError, OSError) as error:
        say(f"benchmark: {error}")
        sys.exit(2)
    print(options.out.with_suffix(".md"))


def measure(options: Options, command: str) -> None:
    """Measure section after section; the results and the page are written after each row.

    Raises:
        UserError: an option is invalid.
    """
    if options.repetitions < 1 or not options.seconds > 0:
        raise UserError("--repetitions must be at least 1, and --seconds greater than 0")
    if options.out.suffix != ".json":
        raise UserError(f"--out {options.out} does not end with .json")
    try:
        results = dict(json.loads(options.out.read_bytes())) if options.out.exists() else {}
    except ValueError as error:
        raise UserError(f"--out {options.out} holds no results: {error}") from error
    device = resolve_device(options.device)
    options = dataclasses.replace(options, device=str(device))
    if on_cuda := device.type == "cuda":
        torch.cuda.set_device(device)
    # Read once: results that are written into the checkout change it.
    commit, plus, changes = (git_commit() or "unknown").partition("+")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        say(f"measuring {name}")
        found = results[place_of(name, on_cuda)] = {
            "machine": f"{machine_line(device)}, {num_cores()} torch threads",
            "command": command,
            "commit": commit[:10] + plus + changes,
            "date": datetime.date.today().isoformat(),
            "complete": False,
            "rows": [],
        }
        for row in SECTIONS[name](options):  # some take minutes for each
            found["rows"].append(dataclasses.asdict(row))
            _write(options.out, results)
        found["complete"] = True
        _write(options.out, results)


def _write(path: Path, results: dict[str, Any]) -> None:
    replace_file(path, (json.dumps(results, indent=1) + "\n").encode())
    path.with_suffix(".md").write_text(render(results))


if __name__ == "__main__":
    main()
