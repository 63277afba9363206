"""The `wn-rl` command. Every subcommand is a dataclass of its flags and a function that runs it.

Exit codes: 0 done, 1 the run failed, 2 the user's input cannot be, 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from wn_rl.config import Config, from_json, to_json
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


@dataclass(frozen=True)
class Evaluate:
    """Test a trained agent on raw scores: games of at most five minutes from random starts."""

    run: RunPath
    """The run's folder."""
    episodes: int = 30
    """Games to play (Mnih et al. 2015: 30)."""
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


def say(line: str) -> None:
    """One line on standard error, where it is in no one's way."""
    print(line, file=sys.stderr, flush=True)


def train(arguments: Sequence[str]) -> int:
    """`wn-rl train`."""
    options = parse_flags(Train, arguments, default=Train(_preset_of(arguments)))
    from wn_rl import envs
    from wn_rl.agents.training import use_threads
    from wn_rl.machine import resolve_device
    from wn_rl.runs import RunFolder, default_name, write_json

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
    return _run(config, folder, lambda: write_json(folder.config_file, _record(config)), resume=False)


def resume(arguments: Sequence[str]) -> int:
    """`wn-rl resume`."""
    options = parse_flags(Resume, arguments)
    from wn_rl.agents.training import use_threads
    from wn_rl.runs import write_json

    folder, record, config = _open(options.run)
    if options.steps is not None:
        if options.steps < config.steps:
            raise ValueError(f"--steps {options.steps} is less than the run's {config.steps}: a run can only grow")
        config = dataclasses.replace(config, steps=options.steps)
    changed = {**record, "config": to_json(config)}
    use_threads(config)
    return _run(config, folder, lambda: write_json(folder.config_file, changed), resume=True)


def evaluate(arguments: Sequence[str]) -> int:
    """`wn-rl evaluate`."""
    options = parse_flags(Evaluate, arguments)
    from wn_rl.agents.evaluation import run_nature_test
    from wn_rl.machine import resolve_device

    if options.episodes < 1 or options.num_envs < 1 or not 0 <= options.epsilon <= 1:
        raise ValueError("--episodes and --num-envs must be at least 1, --epsilon between 0 and 1")
    folder, _, config = _open(options.run)
    network, step = _load_network(folder, config, options.network, resolve_device(options.device))
    policies = [(f"{options.network} network, step {step:,}", options.epsilon)]
    if options.random_policy:
        policies.append(("random policy", 1.0))
    for policy, epsilon in policies:
        games = run_nature_test(
            config,
            network,
            seed=options.seed,
            num_episodes=options.episodes,
            num_envs=options.num_envs,
            epsilon=epsilon,
        )
        result = {
            "policy": policy,
            "game": config.game,
            "suite": config.suite,
            "parameterization": config.parameterization,
            "protocol": "nature",
            "epsilon": epsilon,
            "seed": options.seed,
            "return_mean": games.return_mean,
            "return_std": games.return_std,
            "returns": list(games.returns),
        }
        with (folder.path / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        low, high = min(games.returns), max(games.returns)
        print(
            f"{config.game}, {policy}: {games.return_mean:.2f} mean raw return of {len(games.returns)} games "
            f"(standard deviation {games.return_std:.2f}, least {low:g}, greatest {high:g}; epsilon {epsilon:g})"
        )
    return 0


def play(arguments: Sequence[str]) -> int:
    """`wn-rl play`."""
    options = parse_flags(Play, arguments)
    import torch

    from wn_rl.agents.play import record_game

    if not 0 <= options.epsilon <= 1:
        raise ValueError(f"--epsilon must be between 0 and 1, got {options.epsilon}")
    folder, _, config = _open(options.run)
    network, step = _load_network(folder, config, options.network, torch.device("cpu"))
    path = options.video or folder.videos / f"play-{options.seed}.mp4"
    games = record_game(config, network, path, seed=options.seed, epsilon=options.epsilon, tick=lambda: None)
    print(f"{path}: {config.game} by the {options.network} network of step {step:,}, return {games.returns[0]:g}")
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
    except ValueError as error:
        say(f"wn-rl {arguments[0]}: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped at once; the last checkpoint is kept")
        sys.exit(130)


def _preset_of(arguments: Sequence[str]) -> Config:
    """The preset that the flags ask for: it decides the defaults of all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--preset", "--suite", "--device"):
        parser.add_argument(name)
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


def _record(config: Config) -> dict[str, Any]:
    """What config.json holds: the resolved config, and what it ran with."""
    from wn_rl.machine import versions

    return {"config": to_json(config), "versions": versions(), "command": ["wn-rl", *sys.argv[1:]]}


def _open(path: Path) -> tuple[Any, dict[str, Any], Config]:
    """The folder of an existing run, its config.json and the config in it."""
    from wn_rl.runs import RunFolder

    folder = RunFolder(path)
    record = folder.read_config()
    if "config" not in record:
        raise ValueError(f"{folder.config_file} is not the config of a run")
    return folder, record, from_json(record["config"])


def _run(config: Config, folder: Any, save_config: Callable[[], None], *, resume: bool) -> int:
    """Build everything before the folder is touched, then train in it under its lock."""
    from wn_rl.agents.experiment import Experiment
    from wn_rl.agents.training import run
    from wn_rl.machine import resolve_device
    from wn_rl.tracking import make_trackers

    experiment = Experiment(config, resolve_device(config.device))
    with folder.lock():
        if not resume:
            folder.require_new()  # again: another run may have begun here since
        save_config()
        say(f"run folder: {folder.path}")
        tracker = make_trackers(
            config.track,
            run_dir=folder.path,
            config=to_json(config),
            run_name=config.run_name or folder.path.name,
            group=config.group or f"{config.suite}-{config.game}",
            tags=[config.suite, config.game, config.parameterization, config.preset],
            total_steps=config.steps,
        )
        outcome = run(config, experiment, folder, tracker, say, resume=resume)
    say(outcome.message)
    return outcome.exit_code


def _load_network(folder: Any, config: Config, which: str, device: Any) -> tuple[Any, int]:
    """The acting network of a run, and the step it comes from."""
    from wn_rl.agents.training import load_network

    return load_network(config, folder, which, device)


if __name__ == "__main__":
    main()
