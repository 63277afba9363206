"""`wn-rl doctor`: show what this machine has and which preset it would use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wn_rl.commands._shared import parse_flags
from wn_rl.errors import UserError, in_one_line
from wn_rl.presets import default_preset


@dataclass(frozen=True)
class Doctor:
    """Show what this machine has and which preset it would use."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl doctor`."""
    parse_flags(Doctor, arguments)
    for name, value in describe().items():
        print(f"{name:<22} {value}")
    return 0


def describe() -> dict[str, str]:
    """What this machine has, as lines of name and value."""
    import torch

    from wn_rl.machine import GIGABYTE, available_memory_bytes, cuda_obstacle, git_commit, processor, versions
    from wn_rl.run.video import ffmpeg_path
    from wn_rl.run.wandb_sink import wandb_mode

    obstacle = cuda_obstacle()
    lines = {name: version or "not installed" for name, version in versions().items() if name != "git_commit"}
    lines["git commit"] = git_commit() or "none: not run from a checkout"
    lines["cpu"] = processor()
    lines["free memory"] = f"{available_memory_bytes() / GIGABYTE:.1f} GB"
    if obstacle:
        lines["cuda"] = f"no: {obstacle}"
    for index in [] if obstacle else range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(index)
        lines[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / GIGABYTE:.1f} GB"
    try:
        lines["ffmpeg"] = ffmpeg_path()
    except UserError as error:
        lines["ffmpeg"] = f"no: {error}"
    try:
        known = {"online": "configured", None: "none: runs are logged offline"}
        lines["wandb key"] = known.get(mode := wandb_mode(), f"not used: W&B is set to {mode}")
    except Exception as error:  # W&B raises many kinds on what it refuses
        lines["wandb key"] = f"none: {in_one_line(error)}"
    lines["atari preset"] = f"{default_preset('atari', torch.cuda.is_available())}: wn-rl train breakout"
    lines["minatar preset"] = "wn-rl train breakout --suite minatar"
    return lines
