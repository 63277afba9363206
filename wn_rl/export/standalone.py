"""Q-values of an exported agent with torch and safetensors alone: copy this file, wn_rl is not needed."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor


class ExportedAgent:
    """The agent in a folder with config.json and model.safetensors. Neither can hold code."""

    def __init__(self, folder: str | Path) -> None:
        self.config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text())
        self.weights = load_file(Path(folder) / "model.safetensors")

    @torch.no_grad()
    def q_values(self, observations: Tensor) -> Tensor:
        """[B, stack, *frame] as the environment gives them -> [B, actions]."""
        observation = self.config["observation"]
        x: Tensor = (observations.float() * observation["scale"]).reshape(-1, *observation["merged_shape"])
        for layer in self.config["layers"]:
            x = self.apply(layer, x)
        return x

    def apply(self, layer: dict[str, Any], x: Tensor) -> Tensor:
        w, b = (self.weights.get(f"{layer['name']}.{part}") for part in ("weight", "bias"))
        match layer["kind"]:
            case "conv2d":
                return F.conv2d(x, w, b, *(layer[name] for name in ("stride", "padding", "dilation", "groups")))
            case "linear":
                return F.linear(x, w, b)
            case "relu":
                return F.relu(x)
            case "tanh":
                return torch.tanh(x)
            case "flatten":
                return x.flatten(layer["start_dim"], layer["end_dim"])
            case unknown:
                raise ValueError(f"unknown layer {unknown}")
