"""Everything that decides a run, as frozen dataclasses: validated, printed and saved before the first step.

Steps are agent steps; one is `frames_per_step` emulator frames (4 on Atari). The defaults are those of the
paper preset. Sources: WN is Salimans & Kingma 2016, section 5.4 unless another is named; Mnih is Mnih et al.
2015, Extended Data Table 1; deep_q_rl is the code that the authors of WN adapted.

The type of a field says what it is, as in `Learning[Count]`: the setting's role, and the values that it may take.
"""

import ast
import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

import tyro

from wn_rl.config_checks import (
    Count,
    CountOrZero,
    Fraction,
    Lanes,
    MoreThanOne,
    NotNegativeOrNone,
    PositiveOrNone,
    Seed,
    ShareOrNone,
    Threads,
    check_values,
)
from wn_rl.registry import (
    NETWORKS,
    OPTIMIZERS,
    PARAMETERIZATIONS,
    PRESETS,
    SUITES,
    TRACKERS,
    Registry,
    UnknownNameError,
)


class Role(Enum):
    """What a setting decides. Comparisons, searches, reports and resumed runs treat a setting by its role."""

    METHOD = "what the arms of a comparison differ in"
    RUN = "which run of a comparison it is"
    LEARNING = "what is learned: the same in all runs of a comparison; a search may vary it"
    EVALUATION = "how runs are scored: the same in all runs of a comparison or a search"
    CIRCUMSTANCE = "where and how a run is computed, with the same results up to rounding"
    RECORD = "what is recorded of a run, without effect on its results"


T = TypeVar("T")
Method = Annotated[T, Role.METHOD]
Run = Annotated[T, Role.RUN]
Learning = Annotated[T, Role.LEARNING]
Evaluation = Annotated[T, Role.EVALUATION]
Circumstance = Annotated[T, Role.CIRCUMSTANCE]
Record = Annotated[T, Role.RECORD]


def _default(value: str) -> str:
    """The default in a help text, of which tyro gives the text of a list."""
    return f"(default: {' '.join(map(str, ast.literal_eval(value)))})" if value.startswith("[") else value


def _flag_of(registry: Registry[Any], make: Callable[[Any], Any] = lambda name: name) -> object:
    """For `Annotated`: the flag takes the names that the registry has when flags are read."""
    return tyro.conf.arg(
        constructor_factory=lambda: make(typing.cast(Any, Literal)[tuple(registry)]), help_behavior_hint=_default
    )


SuiteName = Annotated[str, SUITES, _flag_of(SUITES)]
PresetName = Annotated[str, PRESETS, _flag_of(PRESETS)]
ParameterizationName = Annotated[str, PARAMETERIZATIONS, _flag_of(PARAMETERIZATIONS)]
NetworkName = Annotated[str, NETWORKS, _flag_of(NETWORKS)]
OptimizerName = Annotated[str, OPTIMIZERS, _flag_of(OPTIMIZERS)]
TrackerNames = Annotated[tuple[str, ...], TRACKERS, _flag_of(TRACKERS, lambda name: tuple[name, ...])]  # type: ignore[valid-type]
Accelerate = Literal["eager", "compile", "cuda_graph"]


@dataclass(frozen=True)
class EnvironmentConfig:
    """The rules of the game in training."""

    life_loss_terminates: Learning[bool] = True
    """Atari: a lost life sets the discount to 0; episode and stack continue (Mnih, Methods; stack as dqn_zoo)."""
    max_episode_frames: Evaluation[Count] = 108_000
    """Emulator frames after which an episode is cut (30 minutes); a cut episode bootstraps (dqn_zoo)."""
    repeat_action_probability: Learning[Fraction] = 0.0
    """Probability that the game repeats the action before (sticky actions): Atari and MinAtar."""
    full_action_set: Learning[bool] = False
    """Offer all actions (18 on Atari, 6 in MinAtar) instead of those that have an effect in the game."""
    resize: Evaluation[Literal["area", "bilinear"]] = "area"
    """How screens become 84x84: area, or bilinear as in the older codes."""
    processes: Circumstance[Threads] = 0
    """Processes that step the lanes, with the same results; 0: one per core for several lanes of Atari, none for
    other games, where they help if a step takes a millisecond."""
    channels: Evaluation[Literal["auto", "first", "last"]] = "auto"
    """Gymnasium: the axis of an image that has its channels; auto guesses it and says so."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    name: Learning[NetworkName] = "nature_cnn"
    """Architecture (nature_cnn: Mnih, Methods)."""
    stack: Learning[Count] = 4
    """Frames in one observation (Mnih: agent history length 4)."""
    initialization: Method[Literal["auto", "data_dependent", "torch"]] = "auto"
    """data_dependent: WN section 3. torch: uniform, as Mnih's. auto: torch for normal, else data_dependent."""
    output_scale: Method[NotNegativeOrNone] = None
    """Standard deviation of each action's first values over the batch; None: as the initialization gives it, and
    data_dependent gives 1 (WN section 3)."""
    init_states: Learning[MoreThanOne] = 512
    """Replay states of the initialization batch (WN does not state it for DQN; its CIFAR code uses 500)."""
    log_scale: Method[PositiveOrNone] = None
    """g = exp(c s) with this c instead of g (WN section 6.1; 3 seemed about optimal there)."""
    override: Method[tuple[str, ...]] = ()
    """Layers with a parameterization of their own, e.g. output=normal dense=spectral_norm."""
    max_v_norm: Method[PositiveOrNone] = None
    """Bound on |v| of each output unit after each update (WN section 6.2; not used for its results)."""

    def __post_init__(self) -> None:
        """Take `override` from JSON, and from an arm, which has commas in it."""
        given: Any = self.override
        words = given.split(",") if isinstance(given, str) else given
        object.__setattr__(self, "override", tuple(filter(None, words)))


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: Learning[OptimizerName] = "adamax"
    """adamax: torch's form, momentum 0.5 (WN). adamax_authors: openai/weightnorm's. rmsprop_centered: Mnih's."""
    learning_rate: Method[PositiveOrNone] = None
    """None: 3e-4 for weight_norm*, else 1e-4 (WN: generally found to work well)."""
    anneal: Learning[bool] = False
    """Let the rate fall linearly, after each update, to 0 at --steps (as PQN and NaP)."""


@dataclass(frozen=True)
class LearningConfig:
    """Q-learning from replay."""

    batch_size: Learning[Count] = 64
    """WN: 64; Mnih: 32."""
    discount: Learning[Fraction] = 0.99
    """Mnih: discount factor 0.99."""
    precision: Learning[Literal["float32", "tf32", "bfloat16"]] = "float32"
    """Arithmetic of the updates' products (tf32: CUDA only); weights, norms, targets, optimizer stay float32."""
    update_period: Learning[Count] = 4
    """Steps per update (Mnih: update frequency 4)."""
    updates_per_period: Learning[Count] = 1
    """Updates in each update period, for more than one update per step."""
    target_period: Learning[Count] = 10_000
    """Steps between copies to the target network (deep_q_rl and DeepMind's code: 10,000 steps, 2,500 updates)."""
    target_smoothing: Learning[ShareOrNone] = None
    """Instead of copies: how far the target's weights move to the online ones at each update (SAC: 0.005)."""
    clip_rewards: Learning[bool] = True
    """Clip rewards to [-1, 1] in training (Mnih, Methods). Returns are always reported raw."""
    replay_capacity: Learning[Count] = 1_000_000
    """Steps held (Mnih: replay memory size 1,000,000)."""
    replay_start: Learning[Count] = 50_000
    """Steps before the first update, played at --learning.epsilon-start (Mnih: replay start size 50,000)."""
    epsilon_start: Learning[Fraction] = 1.0
    """Mnih: initial exploration 1."""
    epsilon_end: Learning[Fraction] = 0.1
    """Mnih: final exploration 0.1."""
    epsilon_steps: Learning[Count] = 1_000_000
    """Steps of the linear decay, counted after replay start (Mnih 1,000,000; both codes count so)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluations during training: own environments, raw reward, no life terminals (deep_q_rl's protocol)."""

    period: Evaluation[CountOrZero] = 250_000
    """Steps between evaluations; 0 for none (deep_q_rl: one epoch)."""
    steps: Evaluation[Count] = 125_000
    """Steps of one evaluation; completed episodes count (deep_q_rl)."""
    epsilon: Evaluation[Fraction] = 0.05
    """Exploration in evaluations (Mnih, Methods)."""
    averaging: Evaluation[ShareOrNone] = None
    """Evaluate a running average of the parameters that keeps this share at each update, e.g. 0.999 (WN 6.2)."""
    num_envs: Evaluation[Lanes] = 1
    """Lanes of an evaluation. With several, every episode that was started is finished and counts."""
    held_out_states: Record[Count] = 500
    """States whose mean maximum Q is followed (DeepMind's code: 500)."""
    video_period: Record[CountOrZero] = 10
    """Evaluations between episodes that are recorded to videos/; 0 for none."""


@dataclass(frozen=True)
class Config:
    """One run.

    >>> Config("breakout", steps=-1)
    Traceback (most recent call last):
    ValueError: --steps must be at least 1, got -1
    """

    game: Run[Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GAME")]]
    """A game of the suite, e.g. breakout (`wn-rl games` lists them); of gymnasium: ID or MODULE:ID."""
    suite: Run[SuiteName] = "atari"
    """Where the game comes from; gymnasium: any environment registered there."""
    preset: Record[PresetName] = "paper"
    """Where the defaults come from."""
    parameterization: Method[ParameterizationName] = "weight_norm"
    """How every conv and dense layer is parameterized."""
    steps: Run[Count] = 50_000_000
    """Agent steps of training (Mnih: 50 million; deep_q_rl: 200 epochs of 250,000)."""
    seed: Run[Seed] = 1
    """Decides every random number of the run."""
    num_envs: Learning[Lanes] = 1
    """Lanes of the game stepped in lockstep. One follows the papers step for step."""
    device: Circumstance[str] = "auto"
    """auto, cpu, cuda or cuda:N."""
    accelerate: Circumstance[Accelerate] = "eager"
    """compile: fuse the update with torch.compile, on a CPU the optimizer's part alone. cuda_graph: also run
    each round as one CUDA graph."""
    track: Record[TrackerNames] = ("jsonl", "console")
    """Where metrics go; jsonl is always written."""
    run_name: Record[str | None] = None
    """Name of the run and, unless --run-dir is given, of its folder in runs/; None: time, game and settings."""
    group: Record[str | None] = None
    """W&B group of the run; None: its game and arm, which are those of its other seeds."""
    log_period: Record[Count] = 10_000
    """Steps between rows of metrics."""
    checkpoint_period: Record[Count] = 250_000
    """Steps between checkpoints."""
    keep_replay: Record[bool] = False
    """Keep the replay of a finished run, which `wn-rl resume RUN --steps N` needs, even if it exceeds 1 GB."""
    torch_threads: Circumstance[Threads] = 0
    """CPU threads of torch; 0: torch's own choice. Saved as resolved, since results depend on it."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check_values(self)
        _check_combinations(self)

    @property
    def learning_rate(self) -> float:
        """The optimizer's rate, the default of the parameterization resolved."""
        if self.optimizer.learning_rate is not None:
            return self.optimizer.learning_rate
        return 3e-4 if self.parameterization.startswith("weight_norm") else 1e-4

    @property
    def initialization(self) -> str:
        """How the layers start: data_dependent or torch, the default of the parameterization resolved."""
        return resolved_initialization(self.network.initialization, self.parameterization)


def resolved_initialization(initialization: str, parameterization: str) -> str:
    """data_dependent or torch, for any value of --network.initialization."""
    if initialization != "auto":
        return initialization
    return "torch" if parameterization == "normal" else "data_dependent"


def _check_combinations(config: Config) -> None:
    """ValueError on values that exclude each other."""
    learning, network = config.learning, config.network
    if learning.target_period % learning.update_period:
        raise ValueError(
            f"--learning.target-period {learning.target_period} must be a multiple of "
            f"--learning.update-period {learning.update_period}: the target is copied after an update"
        )
    for flag, count in (
        ("learning.replay-start", learning.replay_start),
        ("learning.batch-size", learning.batch_size),
        ("network.init-states", network.init_states),
        ("evaluation.held-out-states", config.evaluation.held_out_states),
    ):
        if count > learning.replay_capacity:
            raise ValueError(
                f"--{flag} {count} is more than --learning.replay-capacity {learning.replay_capacity}"
            )
    minimum = config.num_envs * (network.stack + 1)
    if learning.replay_start < minimum:
        raise ValueError(
            f"--learning.replay-start {learning.replay_start} gives {config.num_envs} lanes too few frames "
            f"for a stack of {network.stack}: use at least {minimum}"
        )
    _check_parameterization(config)


def _check_parameterization(config: Config) -> None:
    """ValueError on settings that the parameterization, a user's own included, does not take."""
    name = config.parameterization  # looked up only where it matters, since that imports torch
    if config.learning.batch_size < 2 and PARAMETERIZATIONS[name].has_batch_statistics:
        raise ValueError(f"--learning.batch-size must be at least 2 for {name}")
    for flag, option in (("log-scale", config.network.log_scale), ("max-v-norm", config.network.max_v_norm)):
        if option is not None and not PARAMETERIZATIONS[name].is_normalized:
            raise ValueError(f"--network.{flag} needs a weight_norm parameterization, not {name}")


def settings(part: type[Any] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting's name, with dots, and its annotated type.

    >>> dict(settings())["learning.batch_size"]
    typing.Annotated[int, Bound(words='at least 1'), <Role.LEARNING: ...>]
    """
    for name, hint in typing.get_type_hints(part, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from settings(typing.cast(type[Any], hint), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


ROLES = {
    name: next(extra for extra in typing.get_args(hint) if isinstance(extra, Role)) for name, hint in settings()
}
"""What each setting decides, by its name with dots, e.g. "learning.batch_size"."""


def names_of(*roles: Role) -> frozenset[str]:
    """The settings of these roles, names with dots."""
    return frozenset(name for name, role in ROLES.items() if role in roles)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """A config, or the nested values of one, with dots in the names.

    >>> flat({"learning": {"discount": 0.99}})
    {'learning.discount': 0.99}
    """
    found: dict[str, Any] = {}
    for name, value in (values if isinstance(values, Mapping) else to_json(values)).items():
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def identity(config: Config) -> dict[str, Any]:
    """What a checkpoint or a saved network must share with a run to be loaded into it.

    That is all that decides results, but for the number of steps: a run can be made longer, unless its learning
    rate ends with it.
    """
    decisive = names_of(Role.METHOD, Role.RUN, Role.LEARNING, Role.EVALUATION)
    decisive -= set() if config.optimizer.anneal else {"steps"}
    return {name: value for name, value in flat(config).items() if name in decisive}


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain JSON values; `from_json` reverses it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def from_json(values: dict[str, Any]) -> Config:
    """The config that `to_json` gave.

    Raises:
        ValueError: a field is unknown or missing (a file of another version), or its value is invalid.
    """
    kinds: dict[str, type[Any]] = typing.get_type_hints(Config)
    nested = {name: kind for name, kind in kinds.items() if dataclasses.is_dataclass(kind)}
    try:
        parts = {name: kind(**_whole(kind, values[name])) for name, kind in nested.items()}
        rest = {name: value for name, value in _whole(Config, values).items() if name not in nested}
        for name, allowed in (("game", str), ("device", str), ("run_name", str | None), ("group", str | None)):
            if not isinstance(rest[name], allowed):
                raise TypeError(f"{name} is {rest[name]!r}")
        return Config(**{**rest, "track": tuple(rest["track"]), **parts})
    except UnknownNameError as error:
        raise ValueError(f"the saved config: {error}; a name of your own needs --import as before") from error
    except (TypeError, KeyError) as error:
        raise ValueError(f"the saved config does not fit this version: {error}") from error


_FIXED_DEFAULTS = {
    *("channels", "repeat_action_probability", "full_action_set", "output_scale", "override"),
    *("anneal", "updates_per_period", "target_smoothing", "averaging"),
}
"""Settings whose default is, for good, what the runs of earlier versions did, which do not name them."""


def _whole(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values, if every field is among them: a default of today need not be that of the run."""
    missing = [field.name for field in dataclasses.fields(kind) if field.name not in {*values, *_FIXED_DEFAULTS}]
    if missing:
        raise TypeError(f"{kind.__name__} has no {missing[0]}")
    return values
