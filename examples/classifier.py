"""Weight-normalized layers in a network of your own, a classifier: python examples/classifier.py [UPDATES]."""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from wn_rl.nn import Layers, data_dependent_init, fold

UPDATES = int(sys.argv[1]) if len(sys.argv) > 1 else 500

generator = torch.Generator().manual_seed(1)
arm = torch.arange(600) % 3  # three spiral arms
radius = torch.rand(600, generator=generator)
angle = 2.1 * arm + 4 * radius + 0.1 * torch.randn(600, generator=generator)
points = torch.stack([radius * angle.sin(), radius * angle.cos()], dim=1)

layers = Layers("weight_norm", generator=generator)
network = nn.Sequential(layers.dense(2, 64), nn.ReLU(), layers.dense(64, 64), nn.ReLU(), layers.dense(64, 3))
data_dependent_init(network, points)  # in place, before the optimizer's first step
optimizer = torch.optim.Adamax(network.parameters(), lr=3e-3)
for _ in range(UPDATES):
    optimizer.zero_grad()
    F.cross_entropy(network(points), arm).backward()
    optimizer.step()

plain = fold(network)  # plain nn.Linear layers with the same function
with torch.no_grad():
    print(f"{(plain(points).argmax(1) == arm).float().mean():.0%} of the points classified")
    torch.testing.assert_close(plain(points), network(points))
