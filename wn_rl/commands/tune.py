"""`wn-rl tune`: search for settings, each trial a run, the worse ones ended early."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from wn_rl.commands._presets import preset_of, suite_of
from wn_rl.commands.train import Train
from wn_rl.config import Config, PresetName, SuiteName
from wn_rl.errors import UserError, say
from wn_rl.extensions import command_line
from wn_rl.flags import parse_flags
from wn_rl.presets import PRESETS
from wn_rl.runs import RunFolder
from wn_rl.compare.grid import flags_of, one_of_many, require_tests, wandb_sweep, write_wandb_sweep
from wn_rl.tune_space import Dimension, as_wandb_parameter, ends, flags_for, parse_space

TESTS = 5  # of a trial, unless --evaluation.period says another number
SHOWN = 5  # of the best trials, at the end
LONGER = 10  # times as many steps, where the preset has not more itself


@dataclass(frozen=True)
class Tune:
    """Search over settings: trials at values that Optuna chooses, scored by the mean raw return of their last
    three tests, and ended early where they are worse than half of the others at the same test. What ends early
    keeps no replay, unless --keep-replay is given.

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
    options, others = parse_flags(Tune, arguments, return_unknown_args=True)
    for name in ("trials", "workers"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    space = parse_space(options.space)
    settings = _Settings.of(options, others)
    _check(space, settings, others)
    if options.wandb_sweep is not None:
        return _write_sweep(options, space, settings)
    return _search(options, space, settings)


@dataclass(frozen=True)
class _Settings:
    """What the trials have in common, as arguments of `wn-rl train`."""

    game: str
    preset: Train
    flags: tuple[str, ...]  # the user's
    device: str

    @classmethod
    def of(cls, options: Tune, others: Sequence[str]) -> "_Settings":
        """ValueError: the game is unknown."""
        from wn_rl import envs

        suite = suite_of(options.suite, options.preset)
        game = envs.normalize_game(suite, options.game)
        preset = PRESETS[options.preset or preset_of(suite, game, options.device)](tyro.MISSING)
        default = Train(dataclasses.replace(preset, suite=suite))
        return cls(game, default, tuple(others), options.device)

    def config(self, more: Sequence[str] = ()) -> Config:
        """The config with these flags too. ValueError: it cannot be."""
        parsed = parse_flags(Train, [self.game, *self.flags, *more], default=self.preset)
        config: Config = parsed.config
        return dataclasses.replace(config, device=self.device)

    def of_trials(self) -> "_Settings":
        """With some tests in each trial, unless the user says how many."""
        if "--evaluation.period" in _names(self.flags):
            return self
        period = max(1, self.config().steps // TESTS)
        return dataclasses.replace(self, flags=(*self.flags, "--evaluation.period", str(period)))


def _names(flags: Sequence[str]) -> set[str]:
    """The flags as tyro's help prints them."""
    return {word.partition("=")[0].replace("_", "-") for word in flags if word.startswith("--")}


def _check(space: Sequence[Dimension], settings: _Settings, others: Sequence[str]) -> None:
    """ValueError on values that can be in no trial."""
    searched = {dimension.field: flags_for({dimension.field: ends(dimension)[0]})[0] for dimension in space}
    for flag in sorted(_names(others)):
        if flag in searched.values():
            raise UserError(f"{flag} is searched by --space: give it there alone")
        if flag in ("--run-dir", "--run-name", "--env-id"):
            raise UserError(f"{flag} is decided by GAME and --out here")
    require_tests(settings.of_trials().config())
    for dimension in space:
        for value in ends(dimension):
            try:
                settings.config(flags_for({dimension.field: value}))
            except ValueError as error:
                # What is wrong only with the default of another field that is searched may be right in a trial.
                if not any(flag in str(error) for field, flag in searched.items() if field != dimension.field):
                    raise


def _search(options: Tune, space: Sequence[Dimension], settings: _Settings) -> int:
    from wn_rl.compare.launch import StopSignals
    from wn_rl.launch_local import LocalLauncher, local_slots
    from wn_rl.tune import Search, trial_name
    from wn_rl.tune_study import Study, Trial

    in_trials = settings.of_trials()

    def configure(trial: Trial) -> Config:
        config = one_of_many(in_trials.config(flags_for(trial.values)), options.out)
        optimizer = dataclasses.replace(config.optimizer, learning_rate=config.learning_rate)
        return dataclasses.replace(config, optimizer=optimizer, run_name=trial_name(trial.number))

    with RunFolder(options.out).lock():
        study = Study(options.out, space, in_trials.config())
        threads = in_trials.config().torch_threads or 1
        launcher = LocalLauncher(local_slots(options.device, threads=threads, workers=options.workers))
        stop = StopSignals()
        with stop.listening():
            Search(study, options.out, launcher, configure, options.trials, stop, say).run()
        return _tell(study.results(), settings, options) if not stop.count else _tell_stop(study, stop.number)


def _tell_stop(study: Any, signal_number: int) -> int:
    say(f"stopped with {len(study.results())} trials over; the same command goes on")
    return 128 + signal_number


def _tell(results: Sequence[Any], settings: _Settings, options: Tune) -> int:
    """Print the best trials, and how to train the best of them for longer; the exit code."""
    from wn_rl.tune import describe, trial_name
    from wn_rl.tune_study import best_of

    counts = {
        state: sum(result.state == state for result in results) for state in ("finished", "pruned", "failed")
    }
    print(f"{len(results)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items()))
    for result in results:
        if result.state == "failed":
            print(f"  failed: {trial_name(result.trial.number)} with {describe(result.trial)}: {result.message}")
    best = best_of(results)
    if not best:
        print("no trial finished, so there is no best one")
        return 1
    print("the best, by the mean raw return of the last three tests:")
    for result in best[:SHOWN]:
        print(f"  {trial_name(result.trial.number)}  {result.score:.4g}  {describe(result.trial)}")
    config = settings.config(flags_for(best[0].trial.values))
    preset_steps = PRESETS[config.preset](config.game).steps
    longer = dataclasses.replace(
        config, steps=preset_steps if preset_steps > config.steps else LONGER * config.steps
    )
    print(f"train the best for longer: {command_line('train', *flags_of(longer))}")
    return 0


def _write_sweep(options: Tune, space: Sequence[Dimension], settings: _Settings) -> int:
    """Write the space as a sweep of W&B."""
    assert options.wandb_sweep is not None
    base = settings.of_trials().config()
    sweep = wandb_sweep(
        options.out.resolve().name,
        "bayes",
        ["train", *flags_of(base)],
        dict(as_wandb_parameter(dimension) for dimension in space),
        metric={"name": "eval/return_mean", "goal": "maximize"},
        run_cap=options.trials,
    )
    write_wandb_sweep(options.wandb_sweep, sweep, base.track)
    return 0
