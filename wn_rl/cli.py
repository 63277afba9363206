"""The `wn-rl` command. Every subcommand is a dataclass of its flags and a function that runs it.

Exit codes: 0 done, 1 the run failed, 2 the user's input cannot be, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wn_rl.config import Config, TrackerName, from_json, to_json
from wn_rl.errors import say
from wn_rl.flags import parse_flags
from wn_rl.presets import PRESETS, default_preset

OVERVIEW = """usage: wn-rl COMMAND ...

Deep Q-Networks with weight normalization.

  train GAME       train an agent; --help lists every setting and where its default comes from
  resume RUN       go on with a run that stopped; --steps N makes it longer
  evaluate RUN     test a trained agent: 30 games by the protocol of Mnih et al. 2015
  play RUN         watch a trained agent: one game as an mp4
  games            the games of each suite
  doctor           what this machine has, and the preset it would use

wn-rl COMMAND --help says more. Try first: wn-rl train breakout --suite minatar --steps 100000
"""

RunPath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Train:
    """Train an agent on a game."""

    config: Annotated[Config, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """Folder of the run; it must be new or empty. None: one in runs/ named after time, game and settings."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run that stopped, from its last checkpoint."""

    run: RunPath
    """The run's folder."""
    steps: int | None = None
    """Train to this many steps instead: a run can be made longer."""
    keep_replay: bool | None = None
    """Keep the replay when the run finishes, or not; None: as it was started."""
    device: str | None = None
    """auto, cpu, cuda or cuda:N; None: as it was started."""
    track: tuple[TrackerName, ...] | None = None
    """Where metrics go; None: as it was started."""
    torch_threads: int | None = None
    """CPU threads of torch; None: as it was started, which alone goes on bit for bit."""


@dataclass(frozen=True)
class Evaluate:
    """Test a trained agent on raw scores, lives ending nothing, from random starts."""

    run: RunPath
    """The run's folder."""
    protocol: Literal["nature", "epoch"] = "nature"
    """nature: --episodes games of at most five minutes. epoch: as the tests in training."""
    episodes: int = 30
    """Games of the nature protocol (Mnih et al. 2015: 30)."""
    epsilon: float = 0.05
    """Exploration (Mnih et al. 2015: 0.05)."""
    num_envs: int = 1
    """Lanes; several are faster."""
    network: Literal["best", "latest"] = "best"
    """The network of the best test in training, or that of the last checkpoint."""
    random_policy: bool = False
    """Also test the random policy by the same protocol."""
    seed: int = 0
    """Seed of the games."""
    device: str = "cpu"
    """Where the network runs: auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Play:
    """Let a trained agent play one game and write a video of it."""

    run: RunPath
    """The run's folder."""
    video: Path | None = None
    """The mp4 file to write. None: videos/play-SEED.mp4 in the run's folder."""
    epsilon: float = 0.05
    """Exploration."""
    network: Literal["best", "latest"] = "best"
    """The network of the best test in training, or that of the last checkpoint."""
    seed: int = 0
    """Seed of the game."""


@dataclass(frozen=True)
class Games:
    """List the games of each suite."""

    suite: Literal["atari", "minatar", "classic"] | None = None
    """One suite only."""


@dataclass(frozen=True)
class Doctor:
    """Show what this machine has and which preset it would use."""


def train(arguments: Sequence[str]) -> int:
    """`wn-rl train`."""
    options = parse_flags(Train, arguments, default=Train(_preset_of(arguments)))
    from wn_rl import envs
    from wn_rl.agents.training import use_threads
    from wn_rl.machine import resolve_device, versions
    from wn_rl.runs import RunFolder, default_name

    if list(arguments).count("--track") > 1:
        raise ValueError("--track is given twice: name every place after one --track")
    config = options.config
    device = resolve_device(config.device)
    config = dataclasses.replace(
        config,
        game=envs.normalize_game(config.suite, config.game),
        device=str(device),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=config.learning_rate),
    )
    name = config.run_name or default_name(config.suite, config.game, config.parameterization, config.seed)
    folder = RunFolder(options.run_dir or Path("runs") / name)
    folder.require_new()
    config = use_threads(dataclasses.replace(config, run_name=name))
    record = {"config": to_json(config), "versions": versions(), "command": ["wn-rl", *sys.argv[1:]]}
    return _run(config, folder, record, resume=False)


def resume(arguments: Sequence[str]) -> int:
    """`wn-rl resume`."""
    options = parse_flags(Resume, arguments)
    from wn_rl.agents.training import use_threads
    from wn_rl.machine import resolve_device, versions

    folder, record, config = _open(options.run)
    changes = {name: getattr(options, name) for name in ("steps", "keep_replay", "track", "torch_threads")}
    if options.device is not None:
        changes["device"] = str(resolve_device(options.device))
    changed = dataclasses.replace(config, **{name: value for name, value in changes.items() if value is not None})
    if changed.steps < config.steps:
        raise ValueError(f"--steps {changed.steps} is less than the run's {config.steps}: a run can only grow")
    if folder.is_finished() and changed.steps == config.steps:
        say(f"{folder.path} is finished at {config.steps:,} steps; --steps N makes it longer")
        return 0
    now = versions()
    differing = [
        f"{name} was {old}, is {now.get(name)}" for name, old in record["versions"].items() if old != now.get(name)
    ]
    if differing:
        say(f"warning: {'; '.join(differing)}: the run may not go on bit for bit")
    changed = use_threads(changed)
    if changed.torch_threads != config.torch_threads:
        say(f"warning: {changed.torch_threads} torch threads instead of {config.torch_threads}: not bit for bit")
    return _run(changed, folder, {**record, "config": to_json(changed)}, resume=True)


def evaluate(arguments: Sequence[str]) -> int:
    """`wn-rl evaluate`."""
    options = parse_flags(Evaluate, arguments)
    from wn_rl.agents.evaluation import run_epoch_test, run_nature_test
    from wn_rl.agents.training import load_network
    from wn_rl.machine import resolve_device

    if options.episodes < 1 or not 0 <= options.epsilon <= 1:
        raise ValueError("--episodes must be at least 1, and --epsilon between 0 and 1")
    folder, _, config = _open(options.run)
    test = dataclasses.replace(config.evaluation, epsilon=options.epsilon, num_envs=options.num_envs)
    config = dataclasses.replace(config, evaluation=test)
    network, name = load_network(config, folder, options.network, resolve_device(options.device))
    policies = [(name, options.epsilon)]
    if options.random_policy:
        policies.append(("random policy", 1.0))
    for policy, epsilon in policies:
        config = dataclasses.replace(config, evaluation=dataclasses.replace(test, epsilon=epsilon))
        tick = _progress(policy)
        if options.protocol == "epoch":
            games = run_epoch_test(config, network, seed=options.seed, tick=tick)
        else:
            games = run_nature_test(config, network, seed=options.seed, num_episodes=options.episodes, tick=tick)
        _tell_result(folder, config, policy, options, games)
    if config.suite == "atari":
        _tell_references(config.game)
    return 0


def _progress(policy: str) -> Callable[[], None]:
    """A function to call at every step of a test: it says every ten seconds that it goes on."""
    started = said = time.monotonic()
    steps = 0

    def tick() -> None:
        nonlocal said, steps
        steps += 1
        if time.monotonic() - said > 10:
            said = time.monotonic()
            say(f"testing the {policy}: {steps:,} rows of steps in {said - started:.0f} s")

    return tick


def _tell_result(folder: Any, config: Config, policy: str, options: Evaluate, games: Any) -> None:
    """Print a result, then append it to evaluations.jsonl."""
    low, high = min(games.returns), max(games.returns)
    print(
        f"{config.game}, {policy}: {games.return_mean:.2f} mean raw return of {len(games.returns)} games "
        f"(standard deviation {games.return_std:.2f}, least {low:g}, greatest {high:g}; "
        f"{options.protocol} protocol, epsilon {config.evaluation.epsilon:g})"
    )
    result = {
        "policy": policy,
        "game": config.game,
        "suite": config.suite,
        "parameterization": config.parameterization,
        "protocol": options.protocol,
        "epsilon": config.evaluation.epsilon,
        "seed": options.seed,
        "return_mean": games.return_mean,
        "return_std": games.return_std,
        "returns": list(games.returns),
    }
    try:
        with (folder.path / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
    except OSError as error:
        say(f"warning: the result is not in the run's folder: {error}")


def _tell_references(game: str) -> None:
    """Print published scores beside ours, for the games that the papers share."""
    from wn_rl.envs.scores import REFERENCE_SCORES, SOURCES

    if game in REFERENCE_SCORES:
        print("published, some by other protocols, the agents after 200M frames or so:")
    for source, score in REFERENCE_SCORES.get(game, {}).items():
        print(f"  {score:>10,.1f}  {SOURCES[source]}")


def play(arguments: Sequence[str]) -> int:
    """`wn-rl play`."""
    options = parse_flags(Play, arguments)
    import torch

    from wn_rl.agents.play import record_game
    from wn_rl.agents.training import load_network

    if not 0 <= options.epsilon <= 1:
        raise ValueError(f"--epsilon must be between 0 and 1, got {options.epsilon}")
    folder, _, config = _open(options.run)
    network, name = load_network(config, folder, options.network, torch.device("cpu"))
    path = options.video or folder.videos / f"play-{options.seed}.mp4"
    tick = _progress(name)
    games = record_game(config, network, path, seed=options.seed, epsilon=options.epsilon, tick=tick)
    print(f"{path}: {config.game} by the {name}, return {games.returns[0]:g}")
    return 0


def games(arguments: Sequence[str]) -> int:
    """`wn-rl games`."""
    options = parse_flags(Games, arguments)
    from wn_rl import envs

    for suite in [options.suite] if options.suite else envs.SUITES:
        print(f"{suite}: {' '.join(envs.games(suite))}")
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """`wn-rl doctor`."""
    parse_flags(Doctor, arguments)
    import torch

    from wn_rl.machine import describe

    for name, value in describe().items():
        print(f"{name:<22} {value}")
    preset = default_preset("atari", torch.cuda.is_available())
    print(f"{'atari preset':<22} {preset}: wn-rl train breakout")
    minatar = "wn-rl train breakout --suite minatar" if importlib.util.find_spec("minatar") else "not installed"
    print(f"{'minatar preset':<22} {minatar}")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "play": play,
    "games": games,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(OVERVIEW, end="")
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        from wn_rl import __version__

        print(__version__)
        sys.exit(0)
    command = COMMANDS.get(arguments[0])
    if command is None:
        say(f"wn-rl: no command {arguments[0]!r}; there are {', '.join(COMMANDS)}")
        sys.exit(2)
    try:
        sys.exit(command(arguments[1:]))
    except (ValueError, OSError) as error:  # an OSError names its file: a folder that cannot be written, say
        say(f"wn-rl {arguments[0]}: {error}")
        sys.exit(2)
    except KeyboardInterrupt as stop:
        say("stopped at once")
        sys.exit(getattr(stop, "exit_code", 130))


def _preset_of(arguments: Sequence[str]) -> Config:
    """The preset that the flags ask for: it decides the defaults of all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--suite", "--device"):
        parser.add_argument(name, nargs="?")  # a missing value is tyro's to refuse
    chosen, _ = parser.parse_known_args([argument for argument in arguments if argument not in ("-h", "--help")])
    preset = chosen.preset
    if preset is None:
        preset = default_preset(chosen.suite or "atari", _cuda_wanted(chosen.suite, chosen.device))
    make = PRESETS.get(preset, PRESETS["paper"])  # an unknown name is tyro's to refuse
    return make(tyro.MISSING)


def _cuda_wanted(suite: str | None, device: str | None) -> bool:
    if suite not in (None, "atari") or device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


def _open(path: Path) -> tuple[Any, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it."""
    from wn_rl.runs import RunFolder

    folder = RunFolder(path)
    record = folder.read_config()
    if "config" not in record:
        raise ValueError(f"{folder.config_file} is not the config of a run")
    return folder, record, from_json(record["config"])


def _run(config: Config, folder: Any, record: dict[str, Any], *, resume: bool) -> int:
    """Build everything before the folder is touched, then train in it under its lock."""
    from wn_rl.agents.experiment import Experiment
    from wn_rl.agents.training import run
    from wn_rl.machine import resolve_device
    from wn_rl.tracking import make_trackers

    experiment = Experiment(config, resolve_device(config.device))
    with folder.lock():
        if not resume:
            folder.require_new()  # again: another run may have begun here since
        say(f"run folder: {folder.path}")
        say(f"settings: {json.dumps(record['config'])}")
        tracker = make_trackers(
            config.track,
            run_dir=folder.path,
            config=to_json(config),
            run_name=config.run_name or folder.path.name,
            group=config.group or f"{config.suite}-{config.game}",
            tags=[config.suite, config.game, config.parameterization, config.preset],
            total_steps=config.steps,
        )
        outcome = run(config, experiment, folder, tracker, say, record=record, resume=resume)
    say(outcome.message)
    return outcome.exit_code


if __name__ == "__main__":
    main()
