"""A network of your own, in any parameterization: python examples/own_network.py [STEPS]."""

import dataclasses
import sys
from collections import OrderedDict

from torch import nn

from wn_rl.config import NetworkConfig
from wn_rl.nn import NETWORKS, Layers, Preprocess
from wn_rl.presets import minatar
from wn_rl.run.training import train


def two_convolutions(
    frame_shape: tuple[int, ...], stack: int, num_actions: int, scale: float, layers: Layers
) -> nn.Sequential:
    """For frames [C, H, W]: two padded convolutions and one dense layer. Preprocess comes first."""
    preprocess = Preprocess(frame_shape, stack, scale)  # merges the stack, scales, converts to float
    channels, height, width = preprocess.output_shape
    return nn.Sequential(
        OrderedDict(
            preprocess=preprocess,
            conv1=layers.conv(channels, 16, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=layers.conv(16, 16, 3, padding=1),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            output=layers.dense(16 * height * width, num_actions),
        )
    )


NETWORKS["two_convolutions"] = two_convolutions

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    config = minatar("breakout")
    config = dataclasses.replace(config, steps=steps, network=NetworkConfig(name="two_convolutions", stack=1))
    train(config, "runs/two_convolutions")
