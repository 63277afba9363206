"""`wn-rl bench`: measure the speed of this machine's every part, and write the benchmark page."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from wn_rl.commands._shared import parse_flags
from wn_rl.errors import UserError, say
from wn_rl.machine import num_cores


@dataclass(frozen=True)
class Bench:
    """Measure one section after another; results of other sections are kept."""

    sections: tyro.conf.Positional[tuple[str, ...]] = ()
    """matrix, updates, emulators, peers, memory, cuda_runs, cuda_together; none: all that this machine can."""
    out: Path = Path("docs/benchmarks.json")
    """Results, a .json file; the page stands beside it as Markdown."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    torch_threads: int = 0
    """CPU threads of torch; 0: one a core. Small networks have one all the same."""
    repetitions: int = 3
    """Measurements of each figure, in turns; updates have five times as many, peers three, a third as long."""
    seconds: float = 10
    """Length of one measurement of a whole loop."""
    games: tuple[str, ...] = ("breakout", "enduro", "seaquest", "space_invaders")
    """Games of emulators and cuda_runs."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl bench`."""
    options = parse_flags(Bench, arguments)
    import torch

    from wn_rl.bench.page import TITLES, merge, render, section_key
    from wn_rl.bench.sections import SECTIONS
    from wn_rl.bench.setups import Options
    from wn_rl.envs import normalize_game
    from wn_rl.machine import git_commit, machine_line, resolve_device

    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        raise ValueError(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if options.repetitions < 1 or not options.seconds > 0 or options.torch_threads < 0:
        raise ValueError("--repetitions must be at least 1, --seconds greater than 0, --torch-threads at least 0")
    _require_results(options.out)
    games = tuple(normalize_game("atari", game) for game in options.games)
    device = resolve_device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    threads = options.torch_threads or num_cores()
    torch.set_num_threads(threads)
    measured = Options(str(device), threads, options.repetitions, options.seconds, games)
    command = " ".join(["wn-rl bench", *arguments])
    # Asked once: results in the checkout are changes of it.
    commit, plus, changes = (git_commit() or "unknown").partition("+")
    page = options.out.with_suffix(".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        key = section_key(name, device.type)
        say(f"measuring: {TITLES[key]}")
        about = {
            "machine": f"{machine_line(device)}, {threads} torch threads",
            "command": command,
            "commit": commit[:10] + plus + changes,
            "date": datetime.date.today().isoformat(),
        }
        rows = []
        for row in SECTIONS[name](measured):  # some take minutes for each
            rows.append(row)
            merge(options.out, key, rows, {**about, "complete": False})
        if rows:
            page.write_text(render(merge(options.out, key, rows, {**about, "complete": True})))
        else:
            say(f"{name}: not on this machine")
    print(page)
    return 0


def _require_results(path: Path) -> None:
    """UserError, before anything is measured for nothing, if the file is not one of results."""
    if path.suffix != ".json":
        raise UserError(f"--out {path} does not end with .json")
    if path.exists():
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"--out {path} holds no results: {error}") from error
