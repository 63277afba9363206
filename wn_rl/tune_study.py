"""The memory of a search: trials, their values and scores, kept by Optuna in a file that outlives any kill.

    OUT/study.journal        one JSON object a line; a trial is in it before its run begins

Who opens it holds the lock of OUT, so that a lock which a killed process left is known to be no one's. The
values of a trial are a function of the seed, its number and the trials told so far.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wn_rl.config import Config, from_json, to_json
from wn_rl.errors import UserError
from wn_rl.seeding import derive_seed
from wn_rl.compare.grid import difference_in_kind
from wn_rl.tune_space import Choice, Dimension, Value, as_text

STARTUP_TRIALS = 5  # drawn at random, and not pruned by one another

_NAME = "wn-rl tune"


@dataclass(frozen=True)
class Trial:
    """A point of the space. values: by field."""

    number: int
    values: dict[str, Value]


@dataclass(frozen=True)
class Result:
    """A trial that is over. score: None of one that failed. message: why it did."""

    trial: Trial
    state: str  # finished, pruned or failed
    score: float | None
    message: str = ""


class Study:
    """The trials of one search, in the order of their numbers. Scores are better the greater they are."""

    def __init__(self, out: Path, space: Sequence[Dimension], config: Config) -> None:
        """Open the study in a folder, or begin one.

        config: what the trials have in common.

        Raises:
            UserError: optuna is missing, or the folder holds a search for something else, or a damaged file.
        """
        optuna = _optuna()
        file = out / "study.journal"
        _mend(file)
        self._space = space
        self._seed = config.seed
        self._running: dict[int, Any] = {}
        try:
            storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
            self._study = optuna.create_study(
                study_name=_NAME,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
            )
        except (ValueError, KeyError) as error:
            raise UserError(f"{file} is damaged: {error}") from error
        self._require_same(out, [as_text(dimension) for dimension in space], config)

    def _require_same(self, out: Path, space: list[str], config: Config) -> None:
        saved = self._study.user_attrs
        if "config" not in saved:
            self._study.set_user_attr("space", space)
            self._study.set_user_attr("config", to_json(config))
            return
        if saved["space"] != space:
            theirs, ours = " ".join(saved["space"]), " ".join(space)
            raise UserError(f"{out} holds a search over {theirs}, not over {ours}: choose another --out")
        difference = difference_in_kind(from_json(saved["config"]), config)
        if difference:
            name, theirs, ours = difference
            raise UserError(f"{out} holds a search with {name} {theirs!r}, not {ours!r}: choose another --out")

    def __len__(self) -> int:
        """The trials so far, in whatever state."""
        return len(self._study.get_trials(deepcopy=False))

    def unfinished(self) -> list[Trial]:
        """The trials that have begun and are not over: of a search that was stopped."""
        optuna, trials = _optuna(), []
        for frozen in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            self._study.sampler = self._sampler(frozen.number)
            trials.append(self._complete(optuna.trial.Trial(self._study, frozen._trial_id)))
        return trials

    def ask(self) -> Trial:
        """Begin a trial."""
        self._study.sampler = self._sampler(len(self))
        return self._complete(self._study.ask())

    def _sampler(self, number: int) -> Any:
        return _optuna().samplers.TPESampler(
            seed=derive_seed(self._seed, "tune", number), n_startup_trials=STARTUP_TRIALS
        )

    def _complete(self, optuna_trial: Any) -> Trial:
        """The trial with a value for every dimension: those it has, and new ones where a kill came between."""
        values = {dimension.field: _suggest(optuna_trial, dimension) for dimension in self._space}
        self._running[optuna_trial.number] = optuna_trial
        return Trial(optuna_trial.number, values)

    def report(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Note the scores of a trial's tests so far; whether the trial is to be ended as worse than others."""
        optuna_trial = self._running[trial.number]
        known = len(self._study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        for test, score in enumerate(scores[known:], start=known):
            optuna_trial.report(score, test)
        return bool(scores) and bool(optuna_trial.should_prune())

    def finish(self, trial: Trial, score: float) -> None:
        """Note the end of a trial that reached its last step."""
        self._study.tell(trial.number, score)

    def prune(self, trial: Trial) -> None:
        """Note the end of a trial that `report` found worse."""
        self._study.tell(trial.number, state=_optuna().trial.TrialState.PRUNED)

    def fail(self, trial: Trial, message: str) -> None:
        """Note that a trial could not be tried."""
        self._running[trial.number].set_user_attr("message", message)
        self._study.tell(trial.number, state=_optuna().trial.TrialState.FAIL)

    def results(self) -> list[Result]:
        """The trials that are over."""
        names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        return [
            Result(
                Trial(frozen.number, dict(frozen.params)),
                names[frozen.state.name],
                frozen.value,
                frozen.user_attrs.get("message", ""),
            )
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state.name in names
        ]


def best_of(results: Sequence[Result]) -> list[Result]:
    """The finished trials, the best first."""
    finished = [result for result in results if result.state == "finished" and result.score is not None]
    return sorted(finished, key=lambda result: -(result.score or 0.0))


def _suggest(optuna_trial: Any, dimension: Dimension) -> Value:
    """The trial's value, which is kept from the first time it is asked for."""
    value: Value
    if isinstance(dimension, Choice):
        value = optuna_trial.suggest_categorical(dimension.field, dimension.values)
        return value
    suggest = optuna_trial.suggest_int if dimension.whole else optuna_trial.suggest_float
    options = {"step": dimension.step} if dimension.step else {"log": dimension.log}
    value = suggest(dimension.field, dimension.low, dimension.high, **options)
    return value


def _mend(file: Path) -> None:
    """Remove what a killed process left: its lock, and the line that it was writing."""
    for lock in file.parent.glob(f"{file.name}.lock*"):
        lock.unlink()
    with contextlib.suppress(FileNotFoundError):
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with file.open("rb+") as journal:
                journal.truncate(whole)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError('wn-rl tune needs optuna: pip install "wn-rl[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
