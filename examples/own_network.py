"""A network of your own, in any parameterization: python examples/own_network.py [STEPS]."""

import dataclasses
import sys

from torch import nn

from wn_rl.config import NetworkConfig
from wn_rl.nn import NETWORKS, Layers, Preprocess
from wn_rl.presets import minatar
from wn_rl.run.training import train


def two_convolutions(
    frame_shape: tuple[int, ...], stack: int, num_actions: int, scale: float, layers: Layers
) -> nn.Sequential:
    """Two padded convolutions and one dense layer, for frames [C, H, W]."""
    preprocess = Preprocess(frame_shape, stack, scale)  # comes first: merges the stack, scales, converts to float
    channels, height, width = preprocess.output_shape
    return nn.Sequential(
        preprocess,
        layers.conv(channels, 16, 3, padding=1),
        nn.ReLU(),
        layers.conv(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        layers.dense(16 * height * width, num_actions),
    )


NETWORKS["two_convolutions"] = two_convolutions

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    config = minatar("breakout")
    config = dataclasses.replace(config, steps=steps, network=NetworkConfig(name="two_convolutions", stack=1))
    train(config, "runs/two_convolutions")
