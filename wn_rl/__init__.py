"""Deep Q-Networks (Mnih et al. 2015) with weight normalization (Salimans & Kingma 2016).

`wn_rl.train(wn_rl.PRESETS["minatar"]("breakout"), "runs/first")`, then `wn_rl.load_run("runs/first").network`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wn_rl.config import Config
    from wn_rl.registry import PRESETS
    from wn_rl.run.loading import load_run
    from wn_rl.run.training import train

__version__ = "0.1.0"
__all__ = ["PRESETS", "Config", "__version__", "load_run", "train"]

_MODULES = {"Config": "config", "PRESETS": "registry", "load_run": "run.loading", "train": "run.training"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, since the last two import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
