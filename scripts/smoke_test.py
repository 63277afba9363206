"""Try an installed wn_rl: imports, the real emulator, a short MinAtar run, its resume and its evaluation."""

import subprocess
import sys
import tempfile
from pathlib import Path

import wn_rl
from wn_rl import agents, envs, nn
from wn_rl.config import EnvironmentConfig


def wn_rl_command(*arguments: str) -> None:
    """Run `wn-rl` of this very environment and fail if it does."""
    subprocess.run([str(Path(sys.executable).with_name("wn-rl")), *arguments], check=True)


def main() -> None:
    """Run every step; an exception is a failure."""
    print(f"wn_rl {wn_rl.__version__} from {Path(wn_rl.__file__).parent}")
    print("subpackages:", agents.__name__, envs.__name__, nn.__name__)
    atari = envs.make("atari", "breakout", EnvironmentConfig(), num_envs=2, seed=1)
    print("atari frame:", atari.reset().observation.shape)
    atari.close()
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        short = ["--learning.replay-start", "500", "--evaluation.steps", "200"]
        game = ["breakout", "--suite", "minatar", "--steps", "2000"]
        wn_rl_command("train", *game, "--run-dir", run, "--keep-replay", *short)
        wn_rl_command("resume", run, "--steps", "3000")
        wn_rl_command("evaluate", run, "--episodes", "3")
    print("smoke test passed")


if __name__ == "__main__":
    main()
