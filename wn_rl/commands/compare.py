"""`wn-rl compare`: train every run of a grid, going on after any kind of stop, and report them."""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from wn_rl.compare.arms import parse_arms
from wn_rl.commands._presets import preset_of, suite_of
from wn_rl.commands.train import Train
from wn_rl.config import Config, SuiteName
from wn_rl.errors import UserError, say
from wn_rl.extensions import import_flags
from wn_rl.flags import parse_flags
from wn_rl.compare.launch import Entry, Launcher, StopSignals, Supervisor, entries_of
from wn_rl.launch_local import LocalLauncher, Slot, local_slots
from wn_rl.compare.progress import Survey, total_seconds
from wn_rl.compare.ray_launcher import RayLauncher
from wn_rl.launch_table import duration, in_words, make_display
from wn_rl.presets import PRESETS
from wn_rl.compare.grid import (
    Run,
    differing_flags,
    expand,
    require_tests,
    wandb_sweep_of_runs,
    write_grid,
    write_wandb_sweep,
)


@dataclass(frozen=True)
class Compare:
    """Train arms on games over seeds: every run of a grid, so many at once; then report them, in DIR/report.

    Finished runs are left alone, stopped ones go on, failed ones are tried again: the same command, given
    again, completes the comparison.

    Every flag of `wn-rl train` that the grid leaves open can be given too, and holds for all runs: --steps, say.
    """

    games: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GAME ...")]
    """Games of the suite; SUITE/GAME for one of another suite, gymnasium/ID for any Gymnasium environment."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the comparison."""
    suite: SuiteName | None = None
    """Where games come from that are given without a suite; None: the preset's, atari without one."""
    arms: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ARM ...")] = ("weight_norm", "normal")
    """Parameterizations, with their learning rates: weight_norm:3e-4 normal:1e-4,3e-4. Without rates: the
    preset's, or else the parameterization's default. After a plus, options of the method: weight_norm+log-scale=3,
    weight_norm+max-v-norm=1, normal+initialization=torch."""
    seeds: int = 3
    """Runs of each arm on each game: how many seeds."""
    first_seed: int = 1
    """The first of the seeds; the others follow it."""
    preset: str | None = None
    """Where the defaults come from, as in `wn-rl train`; None: the suite's own."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs) or cuda:N."""
    launcher: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: tasks on a Ray cluster whose machines share the folder."""
    workers: int | None = None
    """local: runs at once; None: cores / --torch-threads (1 unless given), and no more than GPUs have room for."""
    gpu_share: float | None = None
    """Part of a GPU that a run takes, e.g. 0.25 for four runs on each; None: a whole one."""
    address: str | None = None
    """ray: the cluster's address; None: that of RAY_ADDRESS, or a new cluster on this machine."""
    retries: int = 1
    """Attempts after a failed one, for each run."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Of all runs of the grid, these (names as --dry-run prints them), and no report."""
    dry_run: bool = False
    """Print the runs, their steps and the time they will take, and start nothing."""
    wandb_sweep: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a sweep that W&B's agents can run (`wandb sweep FILE`), and start nothing."""


# Flags of `wn-rl train` that the grid decides, and what decides them.
_DECIDED = {
    "--parameterization": "--arms",
    "--optimizer.learning-rate": "--arms",
    "--seed": "--seeds and --first-seed",
    "--env-id": "--games",
    "--run-dir": "--out",
    "--run-name": "--out",
}


def run(arguments: Sequence[str]) -> int:
    """`wn-rl compare`."""
    options, others = parse_flags(Compare, arguments, return_unknown_args=True)
    _check(options, others)
    runs = _runs_of(options, others)
    if options.wandb_sweep is not None:
        return _write_sweep(options.wandb_sweep, options, others, runs)
    _require_possible(options, runs)
    chosen = _chosen(runs, options.only)
    entries = entries_of(chosen)
    if options.dry_run:
        return _describe(options, entries)
    launcher, at_once = _launcher(options, chosen)
    write_grid(runs, ["wn-rl", *import_flags(), *_command(options, others)])
    exit_code = _train(entries, launcher, at_once, options.retries)
    if options.only or exit_code > 1 or all(entry.state != "finished" for entry in entries):
        return exit_code
    return max(exit_code, _report(options.out))


def _check(options: Compare, others: Sequence[str]) -> None:
    """ValueError on what no grid and no launcher can be made of."""
    given = [word.partition("=")[0].replace("_", "-") for word in others]
    for flag, decided_by in _DECIDED.items():
        if flag in given:
            raise ValueError(f"{flag} is decided by {decided_by} here")
    for name, least in (("seeds", 1), ("first_seed", 0), ("retries", 0), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file: name a folder")
    if options.gpu_share is not None and not 0 < options.gpu_share <= 1:
        raise ValueError(f"--gpu-share must be greater than 0 and at most 1, got {options.gpu_share}")
    if options.gpu_share is not None and options.device == "cpu":
        raise ValueError("--gpu-share is of a GPU, and --device cpu uses none")
    if options.launcher == "local" and options.address is not None:
        raise ValueError("--address is a Ray cluster's: add --launcher ray")
    if options.launcher == "ray" and options.workers is not None:
        raise ValueError("--workers is for --launcher local: Ray starts what its cluster has room for")
    if options.launcher == "ray" and options.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda with --launcher ray, got {options.device!r}")


def _runs_of(options: Compare, others: Sequence[str]) -> tuple[Run, ...]:
    from wn_rl import envs

    if options.preset is not None and options.preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {options.preset!r}")
    own_suite = suite_of(options.suite, options.preset)
    bases = []
    for name in options.games:
        suite, slash, game = name.partition("/")
        if not slash or (own_suite == "gymnasium" and suite not in envs.SUITES):  # an id may have a slash
            suite, game = own_suite, name
        bases.append(_settings(options, suite, envs.normalize_game(suite, game), others))
    for base in bases:
        require_tests(base)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return expand(bases, parse_arms(options.arms), seeds, options.out)


def _settings(options: Compare, suite: str, game: str, others: Sequence[str]) -> Config:
    """What `wn-rl train GAME` would take, with the flags that are not ours."""
    preset = options.preset or preset_of(suite, game, options.device)
    default = Train(PRESETS[preset](tyro.MISSING))
    config: Config = parse_flags(Train, [game, "--suite", suite, *others], default=default).config
    return dataclasses.replace(config, device=options.device)


def _require_possible(options: Compare, runs: Sequence[Run]) -> None:
    """ValueError or UserError, before anything starts, on a device or a network that no run could have."""
    from wn_rl.agents.experiment import make_training_environments, require_device
    from wn_rl.agents.learner import make_online_network
    from wn_rl.machine import resolve_device

    for config in {(run.config.suite, run.config.game): run.config for run in runs}.values():
        if options.launcher == "local":
            require_device(config, resolve_device(config.device))
        single = dataclasses.replace(config.environment, processes=False)
        environments = make_training_environments(dataclasses.replace(config, num_envs=1, environment=single))
        environments.close()
        make_online_network(config, environments.spec)


def _chosen(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs of these names; all, without any."""
    by_name = {run.name: run for run in runs}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=1, cutoff=0)
            raise UserError(f"--only: no run {name!r} in the grid; did you mean {near[0]}?")
    return [by_name[name] for name in dict.fromkeys(names) or by_name]


def _launcher(options: Compare, runs: Sequence[Run]) -> tuple[Launcher, int]:
    """Where the runs go, and how many of them at once."""
    if options.launcher == "local":
        slots = _slots(options, runs)
        return LocalLauncher(slots), len(slots)
    launcher = RayLauncher(
        options.address,
        options.device,
        threads=_threads(runs),
        gpu_share=options.gpu_share,
    )
    return launcher, launcher.at_once


def _slots(options: Compare, runs: Sequence[Run]) -> list[Slot]:
    return local_slots(
        options.device, threads=_threads(runs), workers=options.workers, gpu_share=options.gpu_share
    )


def _threads(runs: Sequence[Run]) -> int:
    return max(run.config.torch_threads for run in runs)


def _train(entries: Sequence[Entry], launcher: Launcher, at_once: int, retries: int) -> int:
    """Run what is to run, show it, and say what became of it; the exit code."""
    stop = StopSignals()
    display = make_display(entries, at_once)
    with stop.listening():
        try:
            Supervisor(entries, launcher, retries=retries, stop=stop).run(display.update)
        finally:
            display.close()
    lost = [entry for entry in entries if entry.state in ("failed", "unreadable")]
    for entry in lost:
        log = f" (its log: {entry.run.log})" if entry.state == "failed" else ""
        say(f"{entry.state}: {entry.run.name}: {entry.message}{log}")
    if stop.count:
        finished = sum(entry.state == "finished" for entry in entries)
        say(f"stopped with {finished} of {len(entries)} runs finished; the same command goes on")
        return 128 + stop.number
    return 1 if lost else 0


def _report(out: Path) -> int:
    """`wn-rl report` over the folder; it names what of the grid it leaves out, and says where the page is."""
    from wn_rl.commands import report

    return report.run([str(out), "--out", str(out / "report")])


def _describe(options: Compare, entries: Sequence[Entry]) -> int:
    """Print what would be done, and how long it would take as far as runs in the folder tell."""
    rows = Survey(entries).rows()
    for row in rows:
        print(in_words(row))
    to_run = [row for row in rows if row.is_to_run]
    steps = sum(max(0, row.entry.run.config.steps - row.progress.step) for row in to_run)
    local = options.launcher == "local"
    at_once = len(_slots(options, [entry.run for entry in entries])) if local else 1
    seconds = total_seconds(rows, at_once)
    if seconds is None:
        time = "how long it takes is known once a run here, of each suite, has made some steps"
    else:
        time = f"about {duration(seconds)} by the speed of the runs here"
    side_by_side = (
        f"{at_once} at a time" if local else "one after the other; Ray runs what its cluster has room for"
    )
    print(f"{len(to_run)} of {len(rows)} runs to do, {steps:,} steps, {side_by_side}: {time}")
    return 0


def _write_sweep(file: Path, options: Compare, others: Sequence[str], runs: Sequence[Run]) -> int:
    """Write the grid as a sweep of W&B."""
    command = _command(dataclasses.replace(options, out=options.out.resolve()), others)
    sweep = wandb_sweep_of_runs(options.out.resolve().name, command, runs)
    write_wandb_sweep(file, sweep, runs[0].config.track)
    return 0


def _command(options: Compare, others: Sequence[str]) -> list[str]:
    """`compare` with the flags that give the whole grid."""
    whole = dataclasses.replace(options, only=(), wandb_sweep=None)
    return ["compare", *differing_flags(whole, Compare(games=(), out=Path())), *others]
