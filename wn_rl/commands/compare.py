"""`wn-rl compare`: train every run of a grid, resuming after any kind of stop, and report them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from wn_rl.commands._shared import OF_ONE_RUN, parse_flags, require_free
from wn_rl.commands.report import Report, write
from wn_rl.commands.train import read_flags
from wn_rl.compare.arms import parse_arms
from wn_rl.compare.grid import (
    Entry,
    Run,
    State,
    changed,
    differing_flags,
    expand,
    look,
    require_evaluations,
    write_grid,
)
from wn_rl.compare.launch import Launcher, LocalLauncher, Slot, Supervisor, local_slots
from wn_rl.compare.progress import Display
from wn_rl.compare.ray_launcher import RayLauncher
from wn_rl.config import PresetName, Role, SuiteName, names_of
from wn_rl.config_checks import Bound, Count, CountOrNone, CountOrZero, Seed
from wn_rl.errors import UserError, say
from wn_rl.registry import PRESETS, SUITES, did_you_mean, import_flags
from wn_rl.run.signals import StopRequest
from wn_rl.run.wandb_sink import sync_command


@dataclass(frozen=True)
class Compare:
    """Train every run of a grid, games x arms x seeds, and then report them in DIR/report.

    The same command, given again, completes the comparison: finished runs are left alone, stopped ones are
    resumed, and failed ones are tried again.

    Every flag of `wn-rl train` that the grid leaves open can be given too, and applies to all runs: --steps, say.
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
    weight_norm+output-scale=1, normal+initialization=data_dependent."""
    seeds: Count = 3
    """Seeds, which are the runs of each arm on each game."""
    first_seed: Seed = 1
    """The first of the seeds; the others follow it."""
    preset: PresetName | None = None
    """Where the defaults come from, as in `wn-rl train`; None: the suite's own."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs) or cuda:N."""
    launcher: Literal["local", "ray"] = "local"
    """local: processes on this machine. ray: tasks on the cluster at RAY_ADDRESS, whose machines share the folder,
    or without that variable on a cluster on this machine."""
    workers: CountOrNone = None
    """local: runs at once; None: cores / --torch-threads (1 unless given), and only as many as the GPUs hold."""
    gpu_share: Annotated[float | None, Bound("greater than 0 and at most 1", lambda share: 0 < share <= 1)] = None
    """Part of a GPU that a run takes, e.g. 0.25 for four runs on each; None: a whole one."""
    retries: CountOrZero = 1
    """Attempts after a failed one, for each run."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN ...")] = ()
    """Train only these runs of the grid (names as --dry-run prints them), and write no report."""
    dry_run: bool = False
    """Print the runs and, if some have made progress, the time that is left, and start nothing."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl compare`."""
    options, others = parse_flags(Compare, arguments, return_unknown_args=True)
    _check(options, others)
    runs = _runs_of(options, others)
    _require_possible(options, runs)
    chosen = _chosen(runs, options.only)
    threads, share = max(run.config.torch_threads for run in chosen), options.gpu_share
    slots = list[Slot]()
    if options.launcher == "local":
        slots = local_slots(options.device, threads=threads, workers=options.workers, gpu_share=share)
    entries = [look(run) for run in chosen]
    if options.dry_run:
        Display(entries, len(slots) or 1).print_progress(*get_args(State))
        return 0
    launcher: Launcher = LocalLauncher(slots)
    if not slots:
        launcher = RayLauncher(options.device, threads=threads, gpu_share=share)
    write_grid(runs, ["wn-rl", *import_flags(), *_command(options, others)])
    exit_code = _train(entries, launcher, options.retries)
    if sync := sync_command(options.out / "runs"):
        say(f"wandb: upload the offline runs with: {sync}")
    if not options.only and exit_code <= 1 and any(entry.state == "finished" for entry in entries):
        print(write(Report((options.out,), options.out / "report")))
    return exit_code


def _check(options: Compare, others: Sequence[str]) -> None:
    """ValueError on flags that exclude each other, or that the grid decides."""
    require_free(others, names_of(Role.METHOD), "--arms")
    require_free(others, ["seed"], "--seeds and --first-seed")
    require_free(others, [*OF_ONE_RUN, "config"], "--games, --arms and --out")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is a file: name a folder")
    if options.launcher == "ray" and options.workers is not None:
        raise ValueError("--workers is for --launcher local: Ray starts what its cluster has room for")
    if options.launcher == "ray" and options.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu or cuda with --launcher ray, got {options.device!r}")


def _runs_of(options: Compare, others: Sequence[str]) -> tuple[Run, ...]:
    """The grid: the flags of `wn-rl train` for each game, times arms and seeds."""
    own_suite = options.suite or (PRESETS[options.preset]("any").suite if options.preset else "atari")
    shared = ["--device", options.device, *(["--preset", options.preset] if options.preset else []), *others]
    bases = []
    for name in options.games:
        suite, slash, game = name.partition("/")
        if not slash or (own_suite == "gymnasium" and suite not in SUITES):  # an id may have a slash
            suite, game = own_suite, name
        bases.append(read_flags([game, "--suite", suite, *shared]).config)
        require_evaluations(bases[-1])
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    return expand(bases, parse_arms(options.arms), seeds, options.out)


def _require_possible(options: Compare, runs: Sequence[Run]) -> None:
    """ValueError or UserError, before anything starts, on a device or a network that does not fit the runs."""
    from wn_rl.agents.experiment import make_online_network, make_training_environments, require_device
    from wn_rl.machine import resolve_device

    specs = {}
    for config in {(run.config.suite, run.config.game): run.config for run in runs}.values():
        if options.launcher == "local":
            require_device(config, resolve_device(config.device))
        environments = make_training_environments(changed(config, {"num_envs": 1, "environment.processes": 0}))
        environments.close()
        specs[config.suite, config.game] = environments.spec
    networks = {
        (run.config.suite, run.config.game, run.config.parameterization, run.config.network): run.config
        for run in runs
    }
    for config in networks.values():
        make_online_network(config, specs[config.suite, config.game])


def _chosen(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs of these names, or all if there are no names."""
    by_name = {run.name: run for run in runs}
    for name in names:
        if name not in by_name:
            raise UserError(f"--only: the grid has no run {name!r}{did_you_mean(name, by_name)}")
    return [by_name[name] for name in dict.fromkeys(names) or by_name]


def _train(entries: Sequence[Entry], launcher: Launcher, retries: int) -> int:
    """Train and show what is to run, and say what became of it; the exit code."""
    stop, display = StopRequest(counts=True), Display(entries, launcher.at_once)
    with stop.listening():
        try:
            Supervisor(entries, launcher, retries=retries, stop=stop).run(display.update)
        finally:
            display.update()
            display.print_progress()
    lost = [entry for entry in entries if entry.state in ("failed", "unreadable")]
    for entry in lost:
        log = f" (its log: {entry.run.log})" if entry.state == "failed" else ""
        say(f"{entry.state}: {entry.run.name}: {entry.message}{log}")
    if stop.signal_number is not None:
        finished = sum(entry.state == "finished" for entry in entries)
        say(f"stopped with {finished} of {len(entries)} runs finished; the same command continues")
        return 128 + stop.signal_number
    return 1 if lost else 0


def _command(options: Compare, others: Sequence[str]) -> list[str]:
    """`compare` with the flags that give the whole grid."""
    whole = vars(dataclasses.replace(options, only=()))
    return ["compare", *differing_flags(whole, vars(Compare(games=(), out=Path()))), *others]
