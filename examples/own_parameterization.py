"""A parameterization of your own, in training: python examples/own_parameterization.py [STEPS].

And held against others, from this folder:
wn-rl --import own_parameterization compare --suite minatar --games breakout --arms gained normal --out runs/gains
"""

import dataclasses
import sys

import torch
from torch import Tensor, nn

from wn_rl.nn import PARAMETERIZATIONS, Bias, Parameterization
from wn_rl.presets import minatar
from wn_rl.run.training import train


class Gained(nn.Module):
    """w = g v with one g an output unit: weight normalization without its norm."""

    def __init__(self, v: Tensor) -> None:  # at first w = v: the start is the same for all parameterizations
        super().__init__()
        self.v = nn.Parameter(v)  # [out, in, ...]
        self.g = nn.Parameter(v.new_ones(len(v), *[1] * (v.dim() - 1)))

    def forward(self) -> Tensor:
        """The weights w of the layer."""
        return self.g * self.v

    @torch.no_grad()
    def set_multiple(self, scale: Tensor) -> None:
        """Make w = scale * v, with scale [out]: what the data-dependent initialization asks for."""
        self.g.copy_(scale.view_as(self.g))


PARAMETERIZATIONS["gained"] = Parameterization(Gained, Bias)

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    train(dataclasses.replace(minatar("breakout"), steps=steps, parameterization="gained"), "runs/gained")
