"""Layers in networks of other people: what a converted layer stands in for, and what is left and named."""

import copy
import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_tools import VARIANTS, every_variant
from torch import Tensor, nn

from wn_rl.nn import Layer, Layers, Normalized, data_dependent_init, default_init, fold, reparameterize

SIZE = 6


class Attention(nn.Module):
    """As in a Swin transformer: the layers' tensors and sizes are read, and they are never called."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(SIZE, 3 * SIZE), nn.Linear(SIZE, SIZE, bias=False)
        self.table = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        assert (self.qkv.in_features, self.qkv.out_features) == (SIZE, 3 * SIZE) == self.qkv.weight.shape[::-1]
        qkv = F.linear(input=x, weight=self.qkv.weight.to(x.dtype), bias=self.qkv.bias)
        first, second = torch.cat([self.qkv.weight, self.proj.weight]).split([3 * SIZE, SIZE])
        q, k, v = (qkv + x @ first.T + x @ self.qkv.weight.t()).chunk(3, -1)
        scores = (q @ k.transpose(-1, -2)).tanh() + self.table.sum()
        return F.linear(scores @ v, self.proj.weight, self.proj.bias) + F.linear(x, second) + x @ self.proj.weight


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Conv2d(2, 4, 3, stride=(1, 2), padding=1, groups=2)
        self.read = nn.Conv2d(4, 2, (1, 2), dilation=(1, 2), padding="same", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for conv, sizes in ((self.called, (2, 4, (3, 3), 2)), (self.read, (4, 2, (1, 2), 1))):
            assert (conv.in_channels, conv.out_channels, conv.kernel_size, conv.groups) == sizes
        images, read = self.called(input=x.reshape(-1, 2, 1, SIZE // 2)), self.read
        return x + F.conv2d(images, read.weight, read.bias, read.stride, read.padding, read.dilation).mean()


class Tied(nn.Module):
    """A decoder with the embedding's weights, by parameter, by storage or in a tuple; a list holds its layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embedding, self.decoder, self.free = nn.Embedding(5, SIZE), nn.Linear(SIZE, 5), nn.Linear(5, SIZE)
        self.list = [{"layer": self.free}]
        if how == "parameter":
            self.decoder.weight = self.embedding.weight
        elif how == "storage":
            self.free.weight.data = self.embedding.weight.data.t()
        elif how == "tuple":
            self.list.append({"tensor": (self.decoder.weight.detach(),)})

    def forward(self, x: Tensor) -> Tensor:
        return x + self.list[0]["layer"](self.decoder(x)) + self.embedding.weight.sum()


class Called(nn.Module):
    """A layer with LayerScale, layers without outputs or without inputs, and torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.nothing, self.constant = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 0), nn.Linear(0, SIZE)
        self.gamma, self.encoder = nn.Parameter(torch.rand(SIZE)), nn.TransformerEncoderLayer(SIZE, 2, 8, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x + self.gamma * self.layer(input=x) + self.constant(self.nothing(x)))


TIES = [lambda how=how: Tied(how) for how in ("parameter", "storage", "tuple", "")]
BLOCKS: list[Callable[[], nn.Module]] = [Attention, Convolutions, Called, *TIES]
OF_MODULES = [
    *("forward", "forward_pre", "full_backward", "full_backward_pre", "state_dict_post", "state_dict_pre"),
    *("load_state_dict_post", "load_state_dict_pre"),
]
OF_TENSORS = ["hook", "post_accumulate_grad_hook"]


def hook(layer: Any, kind: str, fired: list[str]) -> None:
    parameter = next(layer.parameters())
    if kind in OF_MODULES:
        getattr(layer, f"register_{kind}_hook")(lambda *_: fired.append(kind))
    elif kind in OF_TENSORS and parameter.requires_grad:
        getattr(parameter, f"register_{kind}")(lambda _: fired.append(kind))
    elif kind == "patch":
        forward = layer.forward
        layer.forward = lambda *given, **named: fired.append(kind) or forward(*given, **named)


def use(network: nn.Module, fired: list[str]) -> tuple[Tensor, list[str]]:
    """The network's outputs, and the hooks that fire in a pass there and back, and in saving and loading."""
    fired.clear()
    outputs = network(torch.linspace(-1, 1, 2 * 3 * SIZE).view(2, 3, SIZE).requires_grad_())
    outputs.sum().backward()
    network.load_state_dict(network.state_dict())
    return outputs.detach(), sorted(fired)


def ties(network: nn.Module) -> set[tuple[str, str]]:
    named = [
        (name, p.untyped_storage().data_ptr()) for name, p in network.named_parameters(remove_duplicate=False)
    ]
    return {(a, b) for (a, x), (b, y) in combinations(named, 2) if x == y and x}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch: empty layers, backward hooks without gradients
@given(data=st.data(), variant=st.sampled_from(VARIANTS), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_layer_stands_in_for_the_plain_one_or_is_left_and_named(data: Any, variant: Any, seed: int) -> None:
    torch.manual_seed(seed)
    blocks = data.draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4))
    network = nn.Sequential(*(make() for make in blocks)).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(data.draw(st.booleans()))
    plain = {name: part for name, part in network.named_modules() if type(part) in (nn.Linear, nn.Conv2d)}
    learns = {
        name: parameter.requires_grad for name, parameter in network.named_parameters(remove_duplicate=False)
    }
    fired: list[str] = []
    hooks = st.tuples(st.sampled_from(list(plain)), st.sampled_from([*OF_MODULES, *OF_TENSORS, "patch"]))
    for name, kind in data.draw(st.lists(hooks, max_size=2)):
        hook(plain[name], kind, fired)
    (outputs, fires), tied = use(network, fired), ties(network)
    left = {line.split(": ")[0] for line in reparameterize(network, *variant)[1]}
    again, fires_again = use(network, fired)
    torch.testing.assert_close(again, outputs, atol=1e-4, rtol=1e-4)
    assert (fires_again, ties(network)) == (fires, tied)
    ours = {name: layer for name, layer in plain.items() if isinstance(layer, Layer)}
    assert plain.keys() - ours.keys() == plain.keys() & left
    for name, layer in ours.items():
        weight_learns = learns[f"{name}.weight"]
        assert network.get_submodule(name) is layer
        assert all(parameter.requires_grad == weight_learns for parameter in layer.weight.parameters())
        assert layer.shift.bias.requires_grad == learns.get(f"{name}.bias", weight_learns)

    hooked = [(name, kind) for name, kind in data.draw(st.lists(hooks, max_size=2)) if name in ours]
    for name, kind in hooked:
        hook(ours[name], kind, fired)
    outputs, fires = use(copy.deepcopy(network), fired)  # in which torch leaves out the hooks of tensors
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folded = fold(network)
    left = {str(warning.message).split(" is not folded")[0] for warning in caught}
    again, fires_again = use(folded, fired)
    torch.testing.assert_close(again, outputs, atol=1e-4, rtol=1e-4)
    assert fires_again == fires
    assert left >= {name for name, kind in hooked if kind == "patch"}
    assert left >= {name for name, kind in hooked if kind in OF_TENSORS and learns[f"{name}.weight"]}
    for name in ours:
        part = folded.get_submodule(name)
        assert isinstance(part, Layer) == (name in left)
        if name not in left:
            assert part.weight.requires_grad == learns[f"{name}.weight"]
            assert part.bias.requires_grad == learns.get(f"{name}.bias", learns[f"{name}.weight"])


class Quarrelsome(nn.Module):
    """It asks of layers what ours do not offer."""

    def __init__(self) -> None:
        super().__init__()
        self.good, self.typed, self.differs = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float) -> dict[str, Any]:
        assert isinstance(self.typed, nn.Linear)
        noise = F.dropout(scale * self.good(x), training=True)
        return {"out": [self.differs(self.typed(noise)) + (0 if isinstance(self.differs, nn.Linear) else 0.1)]}


def test_an_example_shows_which_layers_cannot_be_converted() -> None:
    network, example = Quarrelsome(), (torch.rand(3, 4), 2.0)
    state = torch.get_rng_state()
    _, left = reparameterize(network, "weight_norm", example=example)
    assert [line.split(":")[0] for line in left] == ["typed", "differs"]
    assert "Tensor-likes are not close" in left[1]
    assert isinstance(network.good, Layer)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TypeError):
        reparameterize(network, "normal", example=(1, 2, 3))
    assert isinstance(network.good.weight, Normalized), "nothing is changed"


@pytest.mark.parametrize("skip", ["0", ["0.0", "0.1"], lambda name, part: name != "1" and type(part) is nn.Linear])
def test_layers_are_skipped_by_name(skip: Any) -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network, left = reparameterize(nn.Sequential(inner, nn.Linear(2, 2)), "weight_norm", skip=skip)
    assert left == ["0.0: skipped", "0.1: skipped"]
    assert isinstance(network[1], Layer)
    with pytest.raises(ValueError, match="the network has no module 3"):
        reparameterize(network, "normal", skip=["1", "3"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_layers_of_other_kinds_are_named() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)))[0]
    derived, more = type("Derived", (nn.Linear,), {})(2, 2), nn.Linear(2, 2)
    more.adapter = nn.Tanh()
    parts = derived, quantized, torch.jit.script(nn.Linear(2, 2)), nn.Linear(2, 2, device="meta"), more
    _, left = reparameterize(nn.Sequential(*parts, nn.Linear(2, 2, dtype=torch.complex64)), "normal")
    assert [line.split(":")[0] for line in left] == ["0", "1", "2", "3", "4", "5"]
    assert type(fold(Layers("weight_norm").dense(2, 2).to("meta"))) is nn.Linear


@every_variant
def test_a_layer_that_is_read_learns_and_is_traced(parameterization: str, log_scale: float | None) -> None:
    network, x = reparameterize(Attention(), parameterization, log_scale)[0].eval(), torch.rand(2, 3, SIZE)
    expected = network(x)
    expected.sum().backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    torch.testing.assert_close(torch.func.vmap(network)(x), expected)
    torch.testing.assert_close(torch.func.functional_call(network, dict(network.named_parameters()), x), expected)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
    for write in (nn.init.zeros_, torch.relu_, lambda weight: weight.zero_()):
        with pytest.raises((TypeError, AttributeError)):
            write(network.qkv.weight)
    network.qkv.weight.v.requires_grad_(False)
    reparameterize(network, "normal")
    assert not network.qkv.weight.v.requires_grad
    assert network.qkv.shift.bias.requires_grad


@every_variant
@pytest.mark.parametrize("sizes", [(8, 0), (0, 8)])
def test_layers_without_weights(parameterization: str, log_scale: float | None, sizes: tuple[int, int]) -> None:
    layer, x = Layers(parameterization, log_scale).dense(*sizes), torch.rand(4, sizes[0])
    data_dependent_init(layer, x)
    default_init(layer)
    outputs = layer(x)
    outputs.sum().backward()
    assert outputs.shape == (4, sizes[1])
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    with pytest.raises(ValueError, match="have no norm: make them Direct"):
        Normalized(torch.empty(sizes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["torchvision swin_t", "torchvision maxvit_t", "timm levit_128s", "timm volo_d1_224"]
)
def test_models_of_torchvision_and_timm(name: str) -> None:
    library, model = name.split()
    module = pytest.importorskip(library)
    network = (module.create_model(model) if library == "timm" else module.models.get_model(model)).eval()
    plain = [part for part in network.modules() if type(part) in (nn.Linear, nn.Conv2d)]
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network(images)
        reparameterize(network, "weight_norm")
        assert all(isinstance(part, Layer) for part in plain)
        for each in (network, fold(network)):
            torch.testing.assert_close(each(images), expected, rtol=1e-3, atol=1e-4)
