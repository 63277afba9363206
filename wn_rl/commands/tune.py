"""`wn-rl tune`: search for settings with Optuna. Each trial is a run, and the worse ones end early.

    OUT/study.journal                the trials and their scores, as Optuna keeps them
    OUT/runs/trial-0007/             the run of a trial, as `wn-rl train` makes it; its log is in OUT/logs/

A run that was stopped goes on as a new trial, in the folder of the old one.
"""

import math
import os
import queue
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.commands._shared import parse_flags, suite_of
from wn_rl.commands.compare import OF_ONE_RUN, require_free, share_cores, shared_config
from wn_rl.compare import grid
from wn_rl.compare.launch import LocalLauncher, Slot, Supervisor, local_slots
from wn_rl.compare.progress import rows_so_far
from wn_rl.config import Config, PresetName, Role, SuiteName, flat, names_of
from wn_rl.errors import UserError, counted, say
from wn_rl.machine import num_cores
from wn_rl.registry import PRESETS, command_line, did_you_mean
from wn_rl.run.folder import RunFolder
from wn_rl.run.signals import StopRequest

EVALUATIONS = 5  # of a trial, unless --evaluation.period is given
SCORED = 3  # of the last evaluations, whose mean is the score
STARTUP_TRIALS = 5  # drawn at random, and not pruned by one another
SHOWN = 5  # of the best trials, at the end
LONGER = 10  # times as many steps for the best one, where its preset does not have more itself

Space = Mapping[str, dict[str, Any]]
"""What is searched: settings, names with dots, each with the arguments of Optuna's `suggest_...` for it."""


@dataclass(frozen=True)
class Tune:
    """Search over settings: trials at values that Optuna chooses, scored by the mean raw return of their last
    three evaluations, and ended early where they are worse than half of the others at the same evaluation. What
    ends early keeps no replay, unless --keep-replay is given.

    The same command, given again after any kind of stop, goes on; with more --trials, it searches on. Every other
    flag of `wn-rl train` can be given too, and holds for all trials: --steps, say.

    All trials have the same seed: what is best here may owe it to luck, so train it again with others.
    """

    game: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GAME")]
    """A game of the suite, as in `wn-rl train`."""
    space: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUES ...")]
    """What is searched. learning_rate=log:1e-5:1e-2 is a range by factors, discount=0.9:0.999 a range,
    target_period=500:4000:500 one with steps, parameterization=normal,weight_norm a choice."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the search."""
    suite: SuiteName | None = None
    """Where the game comes from; None: the preset's, atari without one."""
    trials: int = 20
    """Trials, those of earlier invocations counted."""
    preset: PresetName | None = None
    """Where the defaults come from; None: the suite's own, as in `wn-rl train`."""
    device: str = "auto"
    """auto, cpu, cuda (all GPUs) or cuda:N."""
    workers: int | None = None
    """Trials at once; None: cores / --torch-threads (1 unless given), and no more than GPUs."""
    wandb_sweep: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the same space as a sweep that W&B's agents can run (`wandb sweep FILE`), and start nothing."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl tune`."""
    options, flags = parse_flags(Tune, arguments, return_unknown_args=True)
    for name in ("trials", "workers"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(options, name)}")
    require_free(flags, OF_ONE_RUN, "GAME and --out")
    suite = suite_of(options.suite, options.preset)
    asked = config = shared_config(suite, options.game, options.preset, options.device, flags)
    if not any(flag.startswith("--evaluation.period") for flag in flags):
        config = grid.changed(config, {"evaluation.period": max(1, config.steps // EVALUATIONS)})
    grid.require_evaluations(config)
    space = dict(_parse(text, config) for text in options.space)
    if not 0 < len(space) == len(options.space):
        raise UserError("--space: name at least one setting, and each one once")
    require_free(flags, space, "--space")
    if options.wandb_sweep is not None:
        return _write_sweep(options.wandb_sweep, options, space, config)
    stop = StopRequest(counts=True)
    with RunFolder(options.out).lock(), stop.listening():
        trials = _search(options, space, config, stop)
    if stop.signal_number is not None:
        say(f"stopped with {counted(len(trials), 'trial')} over; the same command goes on")
        return 128 + stop.signal_number
    return _print_best(trials, asked)


def _parse(text: str, config: Config) -> tuple[str, dict[str, Any]]:
    """A setting and its values. ValueError: they are invalid."""
    field, _, values = text.partition("=")
    name = _setting(field, flat(config))
    try:
        arguments = _values_of(values, flat(config)[name])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"--space: {text!r} does not say what {name} may be: give different values as A,B,C; or a range of "
            f"numbers as LOW:HIGH, as log:LOW:HIGH with LOW above 0, or in whole numbers as LOW:HIGH:STEP"
        ) from None
    for value in arguments.get("choices") or (arguments["low"], arguments["high"]):
        try:
            grid.changed(config, {name: value})
        except ValueError as error:
            if str(error).count("--") == 1:  # otherwise it may be valid beside another value of another setting
                raise
    return name, arguments


def _setting(field: str, known: Iterable[str]) -> str:
    """The full name of a setting that decides what is learned, from that or its last part."""
    wanted = field.replace("-", "_")
    found = [name for name in known if wanted in (name, name.rpartition(".")[2])]
    if not found:
        raise UserError(f"--space: no setting {field!r}{did_you_mean(wanted, known)}")
    if len(found) > 1 and wanted not in found:
        raise UserError(f"--space: {field!r} is {' or '.join(found)}: give the whole name")
    name = wanted if wanted in found else found[0]
    if name not in names_of(Role.METHOD, Role.LEARNING):
        raise UserError(
            f"--space: {name} does not decide what is learned, so all trials share it: give it as a flag"
        )
    return name


def _values_of(text: str, default: Any) -> dict[str, Any]:
    """The arguments of Optuna's `suggest_...`. ValueError, KeyError or TypeError: the text is invalid."""
    convert: Any = {bool: _to_bool, int: int, str: str}.get(type(default), _to_float)
    if ":" not in text:
        choices = [convert(value) for value in text.split(",")]
        if "" in choices or len(set(choices)) < len(choices):
            raise ValueError
        return {"choices": choices}
    is_log = text.startswith("log:")
    low, high, *steps = map(convert, text.removeprefix("log:").split(":"))
    if not (0 if is_log else -math.inf) < low < high < math.inf:
        raise ValueError
    if not steps:
        return {"low": low, "high": high, "log": is_log}
    [step] = steps
    if is_log or not isinstance(step, int) or not 0 < step <= high - low:
        raise ValueError
    return {"low": low, "high": high - (high - low) % step, "step": step}


def _to_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _to_float(text: str) -> float | None:
    return None if text == "none" else float(text)


def _kind(arguments: Mapping[str, Any]) -> str:
    """Of Optuna's `suggest_...`: categorical, int or float."""
    return "categorical" if "choices" in arguments else type(arguments["low"]).__name__


def _search(options: Tune, space: Space, config: Config, stop: StopRequest) -> list[Any]:
    """Try what is left to try, all together `options.trials`; the trials that are over."""
    study = _open_study(options.out, space, config)
    for trial in study.get_trials(deepcopy=False):
        if trial.state.name == "RUNNING":  # its search was killed
            _try_again(study, trial)
            study.tell(trial.number, state=optuna_module().trial.TrialState.FAIL)
    slots = local_slots(options.device, threads=config.torch_threads or 1, workers=options.workers)
    free = queue.SimpleQueue[Slot]()
    for slot in slots:
        free.put(slot)
    shared = share_cores(config, max(1, num_cores() // len(slots)))

    def objective(trial: Any) -> float:
        slot = free.get()
        try:
            values = {name: getattr(trial, f"suggest_{_kind(it)}")(name, **it) for name, it in space.items()}
            one = grid.changed(shared, {**values, "run_name": _run_name(trial)})
            return _train(trial, grid.Run(grid.beside_others(one, options.out), options.out), slot, stop)
        except (ValueError, OSError) as error:
            trial.set_user_attr("message", str(error))
            raise
        finally:
            free.put(slot)

    study.optimize(
        objective,
        max(0, options.trials - len(_over(study))),
        n_jobs=len(slots),
        catch=(ValueError, OSError),
        callbacks=[lambda study, trial: say(_in_words(trial))],
    )
    return _over(study)


def optuna_module() -> Any:
    """Optuna, which prints nothing itself. UserError: it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError('wn-rl tune needs Optuna: python -m pip install "wn-rl[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open_study(out: Path, space: Space, config: Config) -> Any:
    """The study in a folder, whose lock the caller holds; a new one if there is none."""
    from wn_rl.seeding import derive_seed

    optuna, file = optuna_module(), out / "study.journal"
    Path(f"{file}.lock").unlink(missing_ok=True)  # a killed process left it, since we hold the lock of the folder
    if file.exists():
        os.truncate(file, file.read_bytes().rfind(b"\n") + 1)  # a kill may have torn the last line
    journal = optuna.storages.journal
    backend = journal.JournalFileBackend(str(file), journal.JournalFileOpenLock(str(file)))
    try:
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    seed = derive_seed(config.seed, "tune", len(study.get_trials(deepcopy=False)))
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    asked = {"space": dict(space), **flat(config)}
    if "search" not in study.user_attrs:
        study.set_user_attr("search", asked)
    difference = grid.decisive_difference(study.user_attrs["search"], asked)
    if difference:
        name, theirs, ours = difference
        raise UserError(f"{out} holds a search with {name} {theirs!r}, not {ours!r}: choose another --out")
    return study


def _train(trial: Any, run: grid.Run, slot: Slot, stop: StopRequest) -> float:
    """Train the run of a trial to its end; its score.

    Raises:
        TrialPruned: its scores were worse than those of others.
        InterruptedError: it was stopped, and goes on with the search.
        UserError: it failed.
    """
    entry, launcher, scores, is_worse = grid.look(run), LocalLauncher([slot]), list[float](), False

    def report() -> None:
        nonlocal is_worse
        for score in scores_of(run)[len(scores) :]:
            trial.report(score, len(scores))
            scores.append(score)
            if trial.should_prune() and not is_worse:
                is_worse = True
                launcher.stop(at_once=False)

    Supervisor([entry], launcher, retries=0, stop=stop).run(report)
    report()
    if entry.state == "finished" and scores:
        return scores[-1]
    if entry.state == "finished":
        raise UserError("no episode ended in its evaluations, so it has no score")
    if stop and not is_worse:
        _try_again(trial.study, trial)
        trial.study.stop()
        raise InterruptedError
    _drop_replay(run)
    if is_worse:
        raise optuna_module().TrialPruned
    raise UserError(f"{entry.message} (its log: {run.log})")


def scores_of(run: grid.Run) -> list[float]:
    """The score of a run after each evaluation so far: the mean raw return of the last SCORED that have one."""
    rows = rows_so_far(RunFolder(run.path))
    returns = [row["eval/return_mean"] for row in rows if row.get("eval/return_mean") is not None]
    return [statistics.mean(returns[max(0, end - SCORED) : end]) for end in range(1, len(returns) + 1)]


def _drop_replay(run: grid.Run) -> None:
    """Free the disk of a run that ended early; a finished one does so itself."""
    from wn_rl.run.loading import checkpoint_store

    folder = RunFolder(run.path)
    if run.config.keep_replay or not folder.checkpoints.exists():
        return
    try:
        with folder.lock():
            checkpoint_store(run.config, run.path).drop_replay()
    except (OSError, UserError) as error:
        say(f"warning: the replay of {run.name} could not be dropped: {error}")


def _try_again(study: Any, trial: Any) -> None:
    """Let a trial that was stopped go on, in its folder, when the search does."""
    study.enqueue_trial(trial.params, user_attrs={"run": _run_name(trial)})


def _run_name(trial: Any) -> str:
    return str(trial.user_attrs.get("run", f"trial-{trial.number:04d}"))


def _over(study: Any) -> list[Any]:
    """The trials that are over; one that was stopped failed without a message."""
    trials = study.get_trials(deepcopy=False)
    return [it for it in trials if it.state.name in ("COMPLETE", "PRUNED") or it.user_attrs.get("message")]


def _in_words(trial: Any) -> str:
    """A trial in a line: its run, how it ended and its values, of which numbers are rounded."""
    end = "stopped" if trial.value is None else f"score {trial.value:.4g}"
    if trial.state.name == "PRUNED":
        end = f"pruned at evaluation {trial.last_step + 1}, {end}"
    end = trial.user_attrs.get("message") or end
    values = ((name, f"{it:.4g}" if isinstance(it, float) else it) for name, it in trial.params.items())
    return f"{_run_name(trial)}  {end}  {', '.join(f'{name} {value}' for name, value in values)}"


def _print_best(trials: Sequence[Any], asked: Config) -> int:
    """Print the best trials, and how to train the best of them for longer; the exit code."""
    counts = Counter(trial.state.name for trial in trials)
    states = f"{counts['COMPLETE']} finished, {counts['PRUNED']} pruned, {counts['FAIL']} failed"
    print(f"{counted(len(trials), 'trial')}: {states}")
    for trial in trials:
        if trial.state.name == "FAIL":
            print(f"  failed: {_in_words(trial)}")
    best = sorted((trial for trial in trials if trial.state.name == "COMPLETE"), key=lambda trial: -trial.value)
    if not best:
        print("no trial finished, so there is no best one")
        return 1
    print(f"the best, by the mean raw return of the last {SCORED} evaluations:")
    for trial in best[:SHOWN]:
        print(f"  {_in_words(trial)}")
    preset_steps = PRESETS[asked.preset](asked.game).steps
    steps = preset_steps if preset_steps > asked.steps else LONGER * asked.steps
    longer = grid.flags_of(grid.changed(asked, {**best[0].params, "steps": steps}))
    print(f"train the best for longer: {command_line('train', *longer)}")
    return 0


def _write_sweep(file: Path, options: Tune, space: Space, config: Config) -> int:
    """Write the space as a sweep of W&B."""
    parameters = {name.replace("_", "-"): _wandb_parameter(name, arguments) for name, arguments in space.items()}
    metric = {"name": "eval/return_mean", "goal": "maximize"}
    sweep = {"method": "bayes", "parameters": parameters, "metric": metric, "run_cap": options.trials}
    command = ["train", *grid.flags_of(config)]
    grid.write_wandb_sweep(file, config.track, command, name=options.out.resolve().name, **sweep)
    return 0


def _wandb_parameter(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What W&B's agents choose from. UserError: a switch, which they cannot set both ways."""
    choices = arguments.get("choices", [])
    if any(isinstance(choice, bool) for choice in choices):
        raise UserError(f"--wandb-sweep: an agent cannot set the switch {name}: leave it out")
    if "step" in arguments:
        choices = range(arguments["low"], arguments["high"] + 1, arguments["step"])
    if choices:
        return {"values": [str(choice) for choice in choices]}
    uniform = {"int": ("int_uniform", "q_log_uniform_values"), "float": ("uniform", "log_uniform_values")}
    distribution = uniform[_kind(arguments)][arguments["log"]]
    return {"distribution": distribution, "min": arguments["low"], "max": arguments["high"]}
