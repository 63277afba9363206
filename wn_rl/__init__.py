"""Deep Q-Networks (Mnih et al. 2015) with weight normalization (Salimans & Kingma 2016).

Importing it gives Gymnasium our games: `gymnasium.make("wn_rl/Atari-Breakout-v0")`. And
`wn_rl.train(wn_rl.PRESETS["minatar"]("breakout"), "runs/first")`, then `wn_rl.load_run("runs/first").network`.
"""

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from wn_rl.registry import register_with_gymnasium

if TYPE_CHECKING:
    from wn_rl.config import Config
    from wn_rl.registry import PRESETS
    from wn_rl.run.loading import load_run
    from wn_rl.run.training import train

__version__ = "0.1.0"
__all__ = ["PRESETS", "Config", "__version__", "load_run", "train"]

_MODULES = {"Config": "config", "PRESETS": "registry", "load_run": "run.loading", "train": "run.training"}

with contextlib.suppress(ImportError):  # the layers alone do without Gymnasium
    register_with_gymnasium()


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, since the last two import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
