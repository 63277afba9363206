"""Exported agents made without training, and the Python of their model cards."""

import re
from pathlib import Path
from typing import Any

import torch

from wn_rl.export import Agent
from wn_rl.nn import fold, make_network


def small_agent(run: dict[str, Any] | None = None, seed: int = 0) -> Agent:
    """An agent on vectors of four numbers."""
    generator, sizes = torch.Generator().manual_seed(seed), {"frame_shape": (4,), "stack": 1, "num_actions": 2}
    network = make_network("mlp", **sizes, scale=1.0, parameterization="normal", generator=generator)
    return Agent(fold(network), "mlp", "float32", ("LEFT", "RIGHT"), "a small network", run or {})


def snippet_of(folder: Path, words: str) -> str:
    """The Python of an exported agent's model card that has these words."""
    snippets = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    (snippet,) = (snippet for snippet in snippets if words in snippet)
    return snippet
