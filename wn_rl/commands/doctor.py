"""`wn-rl doctor`: show what this machine has and which preset it would use."""

from collections.abc import Sequence
from dataclasses import dataclass

from wn_rl.flags import parse_flags
from wn_rl.presets import default_preset


@dataclass(frozen=True)
class Doctor:
    """Show what this machine has and which preset it would use."""


def run(arguments: Sequence[str]) -> int:
    """`wn-rl doctor`."""
    parse_flags(Doctor, arguments)
    import torch

    from wn_rl.machine import describe
    from wn_rl.registry import SUITES

    for name, value in describe().items():
        print(f"{name:<22} {value}")
    preset = default_preset("atari", torch.cuda.is_available())
    print(f"{'atari preset':<22} {preset}: wn-rl train breakout")
    missing = SUITES["minatar"].missing()
    print(f"{'minatar preset':<22} {missing or 'wn-rl train breakout --suite minatar'}")
    return 0
