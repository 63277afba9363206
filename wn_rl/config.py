"""Everything that decides a run, as frozen dataclasses: validated, printed and saved before the first step.

Steps are agent steps; one is `frames_per_step` emulator frames (4 on Atari). The defaults are those of the
paper preset. Sources: WN is Salimans & Kingma 2016, section 5.4 unless another is named; Mnih is Mnih et al.
2015, Extended Data Table 1; deep_q_rl is the code that the authors of WN adapted.
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tyro

from wn_rl.config_checks import UnknownNameError, check

Parameterization = Literal["normal", "batch_norm", "weight_norm", "weight_norm_mean_only_bn"]
TrackerName = Literal["jsonl", "console", "wandb", "tensorboard"]
SuiteName = Literal["atari", "minatar", "classic", "gymnasium"]
PresetName = Literal["paper", "nature", "fast", "laptop", "minatar", "classic", "vectors", "images", "grids"]
ALIASES = {
    "parameterization": "Parameterization",
    "track": "TrackerName",
    "suite": "SuiteName",
    "preset": "PresetName",
}
"""Fields of Config whose names have an alias above, which commands use too; see wn_rl.api.allow."""


@dataclass(frozen=True)
class EnvironmentConfig:
    """The rules of the game in training."""

    life_loss_terminates: bool = True
    """Atari: a lost life sets the discount to 0; game and frame stack go on (Mnih, Methods; stack as dqn_zoo)."""
    max_episode_frames: int = 108_000
    """Emulator frames after which a game is cut (30 minutes); a cut game bootstraps (dqn_zoo)."""
    resize: Literal["area", "bilinear"] = "area"
    """How screens become 84x84: area, or bilinear as in the older codes (one lane only)."""
    emulator_threads: int = 0
    """Threads of the emulator of several Atari lanes; 0 is one for each core. Results do not depend on it."""
    processes: bool = False
    """Gymnasium: each lane in a process of its own; faster where a step takes a millisecond. Equal results."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    name: Literal["nature_cnn", "minatar_cnn", "mlp"] = "nature_cnn"
    """Architecture (nature_cnn: Mnih, Methods)."""
    stack: int = 4
    """Frames in one observation (Mnih: agent history length 4)."""
    initialization: Literal["data_dependent", "torch"] = "data_dependent"
    """WN section 3, for every parameterization; or torch's own."""
    init_states: int = 512
    """Replay states of the initialization batch (WN does not state it for DQN; its CIFAR code uses 500)."""
    log_scale: float | None = None
    """g = exp(c s) with this c instead of g (WN section 6.1; 3 seemed about optimal there)."""
    max_v_norm: float | None = None
    """Bound on |v| of each output unit after each update (WN section 6.2; not used for its results)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How gradients become updates."""

    name: Literal["adamax", "adamax_authors", "rmsprop_centered"] = "adamax"
    """adamax: torch's form, momentum 0.5 (WN). adamax_authors: openai/weightnorm's. rmsprop_centered: Mnih's."""
    learning_rate: float | None = None
    """None: 3e-4 for weight_norm*, else 1e-4 (WN: generally found to work well)."""


@dataclass(frozen=True)
class LearningConfig:
    """Q-learning from replay."""

    batch_size: int = 64
    """WN: 64; Mnih: 32."""
    discount: float = 0.99
    """Mnih: discount factor 0.99."""
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of the updates' products (tf32: CUDA only); weights, norms, targets, optimizer stay float32."""
    update_period: int = 4
    """Steps per update (Mnih: update frequency 4)."""
    target_period: int = 10_000
    """Steps between copies to the target network (deep_q_rl and DeepMind's code: 10,000 steps, 2,500 updates)."""
    clip_rewards: bool = True
    """Clip rewards to [-1, 1] in training (Mnih, Methods). Returns are always reported raw."""
    replay_capacity: int = 1_000_000
    """Steps held (Mnih: replay memory size 1,000,000)."""
    replay_start: int = 50_000
    """Steps before the first update, played at --learning.epsilon-start (Mnih: replay start size 50,000)."""
    epsilon_start: float = 1.0
    """Mnih: initial exploration 1."""
    epsilon_end: float = 0.1
    """Mnih: final exploration 0.1."""
    epsilon_steps: int = 1_000_000
    """Steps of the linear decay, counted after replay start (Mnih 1,000,000; both codes count so)."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Tests during training: own environments, raw reward, no life terminals (deep_q_rl's protocol)."""

    period: int = 250_000
    """Steps between tests; 0 for none (deep_q_rl: one epoch)."""
    steps: int = 125_000
    """Steps of one test; completed games count (deep_q_rl)."""
    epsilon: float = 0.05
    """Exploration in tests (Mnih, Methods)."""
    num_envs: int = 1
    """Lanes of a test. With several, every game that was started is finished and counts."""
    held_out_states: int = 500
    """States whose mean greatest Q is followed (DeepMind's code: 500)."""
    video_period: int = 10
    """Record one game to videos/ at every so many tests; 0 for none."""


@dataclass(frozen=True)
class Config:
    """One run."""

    game: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="GAME")]
    """A game of the suite, e.g. breakout (`wn-rl games` lists them); of gymnasium: ID or MODULE:ID."""
    suite: SuiteName = "atari"
    """Where the game comes from; gymnasium: any environment registered there."""
    preset: PresetName = "paper"
    """Where the defaults come from."""
    parameterization: Parameterization = "weight_norm"
    """How every conv and dense layer is parameterized."""
    steps: int = 50_000_000
    """Agent steps of training (Mnih: 50 million; deep_q_rl: 200 epochs of 250,000)."""
    seed: int = 1
    """Decides every random number of the run."""
    num_envs: int = 1
    """Lanes of the game stepped in lockstep. One follows the papers step for step."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    accelerate: Literal["eager", "compile", "cuda_graph"] = "eager"
    """compile: fuse the update with torch.compile, on a CPU the optimizer's part alone. cuda_graph: and run each
    round as one CUDA graph."""
    track: tuple[TrackerName, ...] = ("jsonl", "console")
    """Where metrics go; jsonl is always written."""
    run_name: str | None = None
    """Name of the run and, unless --run-dir is given, of its folder in runs/; None: time, game and settings."""
    group: str | None = None
    """W&B group of the run; None: suite and game."""
    log_period: int = 10_000
    """Steps between rows of metrics."""
    checkpoint_period: int = 250_000
    """Steps between checkpoints."""
    keep_replay: bool = False
    """Keep the replay of a finished run, so that `wn-rl resume RUN --steps N` can lengthen it."""
    torch_threads: int = 0
    """CPU threads of torch; 0: torch's own choice. Saved as resolved, since results depend on it."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    learning: LearningConfig = field(default_factory=LearningConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def learning_rate(self) -> float:
        """The optimizer's rate, the default of the parameterization resolved."""
        if self.optimizer.learning_rate is not None:
            return self.optimizer.learning_rate
        return 3e-4 if self.parameterization.startswith("weight_norm") else 1e-4


METHOD_OPTIONS: dict[str, float | str | None] = {
    "log_scale": None,
    "max_v_norm": None,
    "initialization": "data_dependent",
}
"""Fields of NetworkConfig that say how layers are parameterized, with their defaults: with the parameterization
and the learning rate, what arms of a comparison differ in."""


def method_options(network: Mapping[str, Any]) -> dict[str, float | str]:
    """Those of `METHOD_OPTIONS` among a network's settings that are not at their defaults.

    >>> method_options({"name": "mlp", "log_scale": 3.0, "initialization": "data_dependent"})
    {'log_scale': 3.0}
    """
    values = {name: network.get(name, default) for name, default in METHOD_OPTIONS.items()}
    return {name: value for name, value in values.items() if value != METHOD_OPTIONS[name]}


def identity(config: Config) -> dict[str, Any]:
    """What a checkpoint or a saved network must share with a run to be loaded into it."""
    return {
        "suite": config.suite,
        "game": config.game,
        "parameterization": config.parameterization,
        "num_envs": config.num_envs,
        "seed": config.seed,
        "optimizer": config.optimizer.name,
        "replay_capacity": config.learning.replay_capacity,
        "network.name": config.network.name,
        "network.stack": config.network.stack,
        "network.log_scale": config.network.log_scale,
    }


def choices(name: str) -> tuple[str, ...]:
    """The names that a field of Config takes now, those added with wn_rl.api.allow among them.

    >>> choices("accelerate")
    ('eager', 'compile', 'cuda_graph')
    """
    return typing.get_args(typing.get_type_hints(Config)[name])


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain JSON values; `from_json` reverses it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config))))


def from_json(values: dict[str, Any]) -> Config:
    """The config that `to_json` gave.

    Raises:
        ValueError: a field is unknown or missing (a file of another version), or its value cannot be.
    """
    nested = {
        "environment": EnvironmentConfig,
        "network": NetworkConfig,
        "optimizer": OptimizerConfig,
        "learning": LearningConfig,
        "evaluation": EvaluationConfig,
    }
    try:
        parts = {name: kind(**_whole(kind, values[name])) for name, kind in nested.items()}
        rest = {name: value for name, value in _whole(Config, values).items() if name not in nested}
        return Config(**{**rest, "track": tuple(rest["track"]), **parts})
    except (TypeError, KeyError) as error:
        raise ValueError(f"the saved config does not fit this version: {error}") from error
    except UnknownNameError as error:
        raise ValueError(f"the saved config: {error}; a name of your own needs --import as before") from error


def _whole(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values, if every field is among them: a default of today need not be that of the run."""
    for known in dataclasses.fields(kind):
        if known.name not in values:
            raise TypeError(f"{kind.__name__} has no {known.name}")
    return values
