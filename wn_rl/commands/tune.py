"""`wn-rl tune`: search for settings with Optuna. Each trial is a run, and the worse ones end early.

OUT/study.journal                the trials and their scores, as Optuna keeps them
OUT/runs/trial-0007/             the run of a trial, as `wn-rl train` makes it; its log is in OUT/logs/
"""

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.commands._shared import OF_ONE_RUN, parse_flags, require_free, whole_number
from wn_rl.commands.train import read_flags
from wn_rl.compare import grid
from wn_rl.compare.launch import LocalLauncher, Slot, Supervisor, drop_replay, local_slots
from wn_rl.compare.progress import returns_in, rows_of
from wn_rl.config import Config, Role, flat, names_of
from wn_rl.config_checks import Count, CountOrNone
from wn_rl.errors import UserError, counted, say
from wn_rl.registry import did_you_mean
from wn_rl.run.folder import RunFolder
from wn_rl.run.signals import StopRequest

try:
    import optuna
    from optuna import distributions
    from optuna.trial import TrialState
except ImportError as error:
    raise UserError('wn-rl tune needs Optuna: python -m pip install "wn-rl[tune]"') from error

RANDOM = 5  # trials at the start, which are not pruned
EVALUATIONS = 5  # of a trial, unless --evaluation.period is given
SCORED = 3  # of the last evaluations, whose mean is the score


@dataclass(frozen=True)
class Tune:
    """Search for settings: Optuna chooses those of each trial, whose score is the mean raw return of its last
    three evaluations. A trial that is worse than half of the others at the same evaluation ends early, without its
    replay (but see --keep-replay). All trials have the same seed, so train the best settings with other seeds too.

    The same command, given again after any kind of stop, continues; with more --trials, it searches further. Every
    other flag of `wn-rl train` can be given too, and applies to all trials: --suite and --steps, say.
    """

    game: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GAME")]
    """A game, as in `wn-rl train`."""
    space: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUES ...")]
    """What to search. learning_rate=log:1e-5:1e-2 is a range by factors, discount=0.9:0.999 a range,
    parameterization=normal,weight_norm a choice."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the search."""
    trials: Count = 20
    """Trials, those of earlier invocations counted."""
    workers: CountOrNone = None
    """Trials at once; None: cores / --torch-threads (1 unless given), and at most one per GPU."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl tune`."""
    options, flags = parse_flags(Tune, arguments, return_unknown_args=True)
    require_free(flags, OF_ONE_RUN, "GAME and --out")
    config = read_flags([options.game, *flags]).config
    if not any(flag.startswith("--evaluation.period") for flag in flags):
        config = grid.changed(config, {"evaluation.period": max(1, config.steps // EVALUATIONS)})
    grid.require_evaluations(config)
    space = dict(_parse(text, config) for text in options.space)
    if not 0 < len(space) == len(options.space):
        raise UserError("--space: name at least one setting, and each one once")
    require_free(flags, space, "--space")
    stop = StopRequest(counts=True)
    with RunFolder(options.out).lock(), stop.listening():
        study = _open_study(options, config)
        slots = local_slots(config.device, threads=config.torch_threads or 1, workers=options.workers)
        left = iter(range(options.trials - len(_over(study))))

        def work(slot: Slot) -> None:
            while not stop and next(left, None) is not None:
                _try(study.ask(space), config, options.out, slot, stop)

        with ThreadPoolExecutor(len(slots)) as pool:
            list(pool.map(work, slots))
    if stop.signal_number is not None:
        say(f"stopped with {counted(len(_over(study)), 'trial')} over; the same command continues")
        return 128 + stop.signal_number
    return _print_best(_over(study))


def _parse(text: str, config: Config) -> tuple[str, Any]:
    """A setting, and Optuna's distribution of it, whose values must be valid beside the config's other ones."""
    field, _, values = text.partition("=")
    wanted, known = field.replace("-", "_"), names_of(Role.METHOD, Role.LEARNING)
    found = sorted(name for name in known if f".{name}".endswith(f".{wanted}"))
    if len(found) != 1:
        hint = f"; did you mean {' or '.join(found)}?" if found else did_you_mean(wanted, known)
        raise UserError(f"--space: {field!r} is not a setting that decides what is learned{hint}")
    [name] = found
    try:
        distribution = _distribution(values, flat(config)[name])
    except (ValueError, KeyError, TypeError):
        forms = "values as A,B,C, or a range as LOW:HIGH or log:LOW:HIGH"
        raise UserError(f"--space: {text!r} does not say what {name} may be: give {forms}") from None
    for value in getattr(distribution, "choices", None) or (distribution.low, distribution.high):
        grid.changed(config, {name: value})
    return name, distribution


def _distribution(text: str, default: Any) -> Any:
    """E.g. of 8,16 or log:1e-5:1e-2. ValueError, KeyError or TypeError: the text is invalid."""
    convert: Any = {bool: {"true": True, "false": False}.__getitem__, int: whole_number, str: str}.get(
        type(default), float
    )
    if ":" not in text:
        choices = [None if value == "none" else convert(value) for value in text.split(",")]
        return distributions.CategoricalDistribution(choices)
    low, high = map(convert, text.removeprefix("log:").split(":"))
    kind = distributions.IntDistribution if isinstance(default, int) else distributions.FloatDistribution
    return kind(low, high, log=text.startswith("log:"))


def _open_study(options: Tune, config: Config) -> Any:
    """The study in a folder, whose lock the caller holds; a new one if the folder has no study yet."""
    from wn_rl.seeding import derive_seed

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = options.out / "study.journal"
    Path(f"{file}.lock").unlink(missing_ok=True)  # a killed process left it, since we hold the lock of the folder
    if file.exists():
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)  # a kill may have torn the last line
    journal = optuna.storages.journal
    backend = journal.JournalFileBackend(str(file), journal.JournalFileOpenLock(str(file)))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    trials = study.get_trials(deepcopy=False)
    seed = derive_seed(config.seed, "tune", len(trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=RANDOM)
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=RANDOM, seed=seed)
    asked = {"space": sorted(options.space), **flat(config)}
    grid.require_same(options.out, study.user_attrs.get("search", asked), asked)
    study.set_user_attr("search", asked)
    for trial in trials:
        if trial.state.name == "RUNNING":  # its search was killed or stopped
            study.enqueue_trial(trial.params, user_attrs={"run": _run_name(trial)})
            study.tell(trial.number, state=TrialState.FAIL)
    return study


def _try(trial: Any, config: Config, out: Path, slot: Slot, stop: StopRequest) -> None:
    """Train the run of a trial, and tell its study how it ended, unless it was stopped and is to be resumed."""
    try:
        one = grid.run_beside_others(grid.changed(config, trial.params), _run_name(trial), out)
        end = _train(trial, one, slot, stop)
    except (ValueError, OSError) as error:
        trial.set_user_attr("message", str(error) or repr(error))
        end = {"state": TrialState.FAIL}
    say(_in_words(trial.study.tell(trial, **end)) if end else f"{_run_name(trial)}  stopped")


def _train(trial: Any, run: grid.Run, slot: Slot, stop: StopRequest) -> dict[str, Any]:
    """What to tell the study of the end of a trial; empty if it was stopped. UserError: the run failed."""
    entry, launcher, scores, is_worse = grid.look(run), LocalLauncher([slot]), list[float](), False

    def report() -> None:
        nonlocal is_worse
        returns = returns_in(rows_of(run))
        for end in range(len(scores) + 1, len(returns) + 1):
            scores.append(statistics.mean(returns[max(0, end - SCORED) : end]))
            trial.report(scores[-1], end - 1)
            if trial.should_prune() and not is_worse:
                is_worse = True
                launcher.stop(at_once=False)

    Supervisor([entry], launcher, retries=0, stop=stop).run(report)
    report()
    if entry.state == "finished" and scores:
        return {"values": scores[-1]}
    if stop and not is_worse and entry.state != "finished":
        return {}
    drop_replay(run)
    if is_worse:
        return {"state": TrialState.PRUNED}
    raise UserError(f"{entry.message or 'no episode ended in its evaluations'} (its log: {run.log})")


def _run_name(trial: Any) -> str:
    return str(trial.user_attrs.get("run", f"trial-{trial.number:04d}"))


def _over(study: Any) -> list[Any]:
    """The trials that are over; one that was resumed as another failed without a message."""
    trials = study.get_trials(deepcopy=False)
    return [it for it in trials if it.state.name in ("COMPLETE", "PRUNED") or it.user_attrs.get("message")]


def _in_words(trial: Any) -> str:
    """A trial in a line: its run, how it ended and its values, of which numbers are rounded."""
    end = trial.user_attrs.get("message") or f"{trial.state.name.lower()}, score {trial.value:.4g}"
    values = (f"{name} {it:.4g}" if isinstance(it, float) else f"{name} {it}" for name, it in trial.params.items())
    return f"{_run_name(trial)}  {end}  {', '.join(values)}"


def _print_best(trials: Sequence[Any]) -> int:
    """Print how the trials ended, and the best of them; the exit code."""
    counts = Counter(trial.state.name for trial in trials)
    ends = f"{counts['COMPLETE']} finished, {counts['PRUNED']} pruned, {counts['FAIL']} failed"
    print(f"{counted(len(trials), 'trial')}: {ends}")
    best = sorted((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: -trial.value)
    print(f"the best, by the mean raw return of the last {SCORED} evaluations:" if best else "no trial finished")
    print(*(f"  {_in_words(trial)}" for trial in best[:5]), sep="\n")
    return 0 if best else 1
