"""Surgery: conversions, folds and torch's own checkpoint keys keep the function."""

import copy
import io
import pickle

import pytest
import torch
from nn_tools import VARIANTS, every_variant, seeded
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from wn_rl.nn import (
    PARAMETERIZATIONS,
    Conv,
    Dense,
    Layer,
    Layers,
    Normalized,
    fold,
    from_torch_weight_norm,
    products,
    refill,
    reparameterize,
    to_torch_weight_norm,
)
from wn_rl.nn.products import ScaledLinear


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def plain_network() -> nn.Sequential:
    """Convolutions with groups, dilation, stride and 'same' padding; a layer without bias; a nested part."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same", dilation=2, groups=2),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Sequential(nn.Linear(6 * 9, 8), nn.Tanh(), nn.Linear(8, 3)),
    ).eval()


def images(count: int = 7) -> Tensor:
    return torch.randn(count, 2, 6, 6, generator=seeded(1))


def trained(parameterization: str, log_scale: float | None = None) -> nn.Module:
    """A reparameterized network with running statistics, norms and biases that training has moved."""
    network, _ = reparameterize(plain_network(), parameterization, log_scale)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        network(images() + 1).square().mean().backward()
        optimizer.step()
    return network


@every_variant
def test_reparameterize_keeps_the_function(parameterization: str, log_scale: float | None) -> None:
    network = plain_network()
    expected = network(images())
    converted, left = reparameterize(network, parameterization, log_scale)
    assert converted is network
    assert left == []
    assert sum(isinstance(module, Layer) for module in network.modules()) == 4
    assert not any(type(module) in (nn.Linear, nn.Conv2d) for module in network.modules())
    torch.testing.assert_close(network(images()), expected, atol=1e-6, rtol=1e-6)


@every_variant
def test_reparameterize_from_every_parameterization(parameterization: str, log_scale: float | None) -> None:
    for name, scale in VARIANTS:
        network = trained(name, scale).eval()
        expected = network(images())
        _, left = reparameterize(network, parameterization, log_scale)
        assert left == []
        torch.testing.assert_close(network(images()), expected, atol=2e-6, rtol=1e-5)


@every_variant
def test_fold_is_plain_and_keeps_the_function(parameterization: str, log_scale: float | None) -> None:
    network = trained(parameterization, log_scale)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold(network)
    assert not any(isinstance(module, Layer) for module in folded.modules())
    assert not any(module.training for module in folded.modules())
    assert network.training
    torch.testing.assert_close(folded(images()), network.eval()(images()), atol=1e-6, rtol=1e-6)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    addresses = {tensor.data_ptr() for tensor in network.state_dict().values()}
    assert not addresses & {tensor.data_ptr() for tensor in folded.state_dict().values()}
    loaded = plain_network()
    loaded[2] = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    loaded.load_state_dict(folded.state_dict())
    assert torch.equal(loaded(images()), folded(images()))
    assert torch.equal(pickle.loads(pickle.dumps(folded))(images()), folded(images()))


@every_variant
def test_refill_equals_a_new_fold_in_place(parameterization: str, log_scale: float | None) -> None:
    network = trained(parameterization, log_scale)
    stale = fold(reparameterize(copy.deepcopy(network), parameterization, log_scale)[0])
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.add_(0.5 * torch.rand_like(tensor) if tensor.is_floating_point() else 1)
    addresses = [tensor.data_ptr() for tensor in stale.state_dict().values()]
    refill(stale, network)
    assert [tensor.data_ptr() for tensor in stale.state_dict().values()] == addresses
    fresh = fold(network)
    for key, value in fresh.state_dict().items():
        assert torch.equal(stale.state_dict()[key], value), key
    assert network.training
    assert all(parameter.grad_fn is None for parameter in stale.parameters())


@every_variant
def test_a_shared_fold_changes_with_its_module(parameterization: str, log_scale: float | None) -> None:
    network = trained(parameterization, log_scale)
    folded = fold(network, share=True)
    torch.testing.assert_close(folded(images()), network.eval()(images()), atol=1e-6, rtol=1e-6)
    own = {id(parameter) for parameter in network.parameters()}
    layers = [folded.get_submodule(name) for name, module in network.named_modules() if isinstance(module, Layer)]
    has_statistics = PARAMETERIZATIONS[parameterization].has_batch_statistics
    has_w = parameterization in ("normal", "projected")
    as_they_are = ["weight", "bias"] if has_w else [] if has_statistics else ["bias"]
    for layer in layers:
        assert [name for name, parameter in layer.named_parameters() if id(parameter) in own] == as_they_are
    addresses = [tensor.data_ptr() for tensor in folded.state_dict().values()]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    refill(folded, network)
    assert [tensor.data_ptr() for tensor in folded.state_dict().values()] == addresses
    for key, value in fold(network).state_dict().items():
        assert torch.equal(folded.state_dict()[key], value), key


@every_variant
def test_a_fast_shared_fold_scales_the_outputs_of_large_dense_layers(
    parameterization: str, log_scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "SMALLEST", 8 * 6)
    network = nn.Sequential(*(Layers(parameterization, log_scale).dense(*sizes) for sizes in ((6, 8), (8, 5))))
    folded = fold(network, fast=True, share=True)
    assert isinstance(folded[0], ScaledLinear) == PARAMETERIZATIONS[parameterization].is_normalized
    assert not isinstance(folded[1], ScaledLinear), "it is small"
    x = torch.rand(7, 6)
    for _ in range(2):
        with torch.no_grad():
            for tensor in [*network.parameters(), *network.buffers()]:
                tensor.add_(0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else 1)
        before = [parameter.clone() for parameter in network.parameters()]
        addresses = [tensor.data_ptr() for tensor in folded.state_dict().values()]
        refill(folded, network)
        assert [tensor.data_ptr() for tensor in folded.state_dict().values()] == addresses
        torch.testing.assert_close(folded(x), network.eval()(x), atol=1e-6, rtol=1e-6)
        assert all(torch.equal(p, kept) for p, kept in zip(network.parameters(), before, strict=True))
    if PARAMETERIZATIONS[parameterization].is_normalized:
        assert folded[0].weight is network[0].weight.v


def test_a_shared_fold_keeps_the_parameters_of_modules_that_are_none_of_ours() -> None:
    network = nn.Sequential(Layers("normal").dense(3, 4), nn.LayerNorm(4))
    folded = fold(network, share=True)
    assert {id(p) for p in folded.parameters()} == {id(p) for p in network.parameters()}
    assert folded[1] is not network[1]


def test_a_single_layer_is_replaced_itself() -> None:
    linear = nn.Linear(3, 2)
    layer, left = reparameterize(linear, "weight_norm")
    assert isinstance(layer, Dense)
    assert left == []
    assert isinstance(fold(layer), nn.Linear)
    conv, _ = reparameterize(nn.Conv2d(3, 2, 3), "normal")
    assert isinstance(conv, Conv)
    assert isinstance(fold(conv), nn.Conv2d)


class Branches(nn.Module):
    """A module that stands in two places, weights that two modules share, and layers of other kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Linear(4, 4)
        self.again = self.twice
        self.embedding = nn.Embedding(5, 4)
        self.tied = nn.Linear(4, 5)
        self.tied.weight = self.embedding.weight
        self.up = nn.ConvTranspose2d(2, 2, 2)
        self.reflected = nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")
        self.hooked = nn.Linear(2, 2)
        self.hooked.register_forward_hook(lambda *_: None)
        self.parametrized = weight_norm(nn.Linear(2, 2))
        self.recurrent = nn.GRU(2, 2)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(4)


def test_what_is_left_is_named_with_its_reason() -> None:
    module, left = reparameterize(Branches(), "weight_norm")
    reasons = dict(line.split(": ", 1) for line in left)
    kind = "not an nn.Linear or nn.Conv2d"
    assert reasons == {
        "embedding": kind,
        "tied": "its weight is shared with another module",
        "up": kind,
        "reflected": "padding_mode 'reflect'",
        "hooked": "it carries hooks",
        "parametrized": "parametrized: remove_parametrizations first, or convert its state dict",
        "recurrent": kind,
        "attention.self_attn": kind,
        "attention.self_attn.out_proj": kind,
    }
    assert isinstance(module.twice, Dense)
    assert module.twice is module.again
    assert module.tied.weight is module.embedding.weight
    module.attention.eval()(torch.zeros(1, 3, 4))
    assert reparameterize(module, "normal")[1] == left, "weights and shifts of our layers are not named"


@pytest.mark.parametrize("parameterization", ["weight_norm", "weight_norm_mean_only_bn"])
def test_a_row_of_zeros_draws_v_and_takes_g_0(parameterization: str) -> None:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight[1].zero_()
    x = torch.rand(4, 3)
    expected = linear(x)
    generator = seeded(3)
    layer, _ = reparameterize(linear, parameterization, generator=generator)
    torch.testing.assert_close(layer.eval()(x), expected)
    assert layer.weight.g[1] == 0
    assert 0 < layer.weight.v[1].norm() < 1
    layer(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_a_row_of_zeros_has_no_log_scale() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight[0].zero_()
    with pytest.raises(ValueError, match="1: a log-scale g is positive"):
        reparameterize(network, "weight_norm", log_scale=3.0)
    assert type(network[0]) is nn.Linear, "the module is unchanged"


def test_dtype_device_mode_and_requires_grad_are_kept() -> None:
    linear = nn.Linear(3, 2, dtype=torch.float64).eval().requires_grad_(False)
    layer, _ = reparameterize(linear, "batch_norm")
    assert {tensor.dtype for tensor in layer.state_dict().values()} == {torch.float64}
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert not any(module.training for module in layer.modules())
    folded = fold(layer)
    assert folded.weight.dtype == torch.float64
    assert not folded.weight.requires_grad


def test_reparameterize_and_fold_leave_torchs_random_state_alone() -> None:
    network, state = plain_network(), torch.get_rng_state()
    fold(reparameterize(network, "weight_norm")[0])
    assert torch.equal(torch.get_rng_state(), state)


def torch_weight_normalized(*, old: bool = False) -> nn.Sequential:
    """A network under torch's own weight norm, with g that training has moved (one of them negative)."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2, bias=False))
    for index in (0, 2):
        network[index] = (nn.utils.weight_norm if old else weight_norm)(network[index])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("original0", "weight_g")):
                parameter.mul_(torch.linspace(-2, 2, len(parameter)).view_as(parameter) + 0.3)
    return network


def ours(log_scale: float | None = None) -> nn.Sequential:
    layers = Layers("weight_norm", log_scale)
    return nn.Sequential(layers.conv(2, 3, 3), nn.Flatten(), layers.dense(48, 2))


old_api = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")


@old_api
@pytest.mark.parametrize("log_scale", [None, 3.0])
@pytest.mark.parametrize("old", [False, True])
def test_torch_checkpoints_load(old: bool, log_scale: float | None) -> None:
    theirs, network = torch_weight_normalized(old=old), ours(log_scale)
    network.load_state_dict(from_torch_weight_norm(theirs.state_dict(), log_scale))
    torch.testing.assert_close(network(images()), theirs(images()), atol=1e-6, rtol=1e-6)


@old_api
@pytest.mark.parametrize("log_scale", [None, 3.0])
@pytest.mark.parametrize("old", [False, True])
def test_checkpoints_load_in_torch(old: bool, log_scale: float | None) -> None:
    network = ours(log_scale)
    state = to_torch_weight_norm(network.state_dict(), log_scale, old_keys=old)
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    theirs = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2))
    for index in (0, 2):
        theirs[index] = (nn.utils.weight_norm if old else weight_norm)(theirs[index])
    theirs.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(theirs(images()), network(images()), atol=1e-6, rtol=1e-6)
    back = from_torch_weight_norm(state, log_scale)
    assert back.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(back[key], value, atol=1e-6, rtol=1e-6)


def test_a_bare_layer_s_keys_are_converted() -> None:
    theirs, layer = weight_norm(nn.Linear(3, 2)), Layers("weight_norm").dense(3, 2)
    layer.load_state_dict(from_torch_weight_norm(theirs.state_dict()))
    torch.testing.assert_close(layer(torch.ones(3)), theirs(torch.ones(3)))
    assert to_torch_weight_norm(layer.state_dict()).keys() == theirs.state_dict().keys()


def test_conversion_leaves_other_keys() -> None:
    state = {"0.weight.v": torch.ones(2, 2), "0.shift.bias": torch.ones(2), "norm.weight": torch.ones(2)}
    assert to_torch_weight_norm(state) == state
    assert from_torch_weight_norm(state) == state


def test_conversion_errors() -> None:
    whole = weight_norm(nn.Linear(3, 2), dim=None)
    with pytest.raises(ValueError, match="not over one output unit each"):
        from_torch_weight_norm(nn.Sequential(whole).state_dict())
    dead = weight_norm(nn.Linear(3, 2))
    with torch.no_grad():
        dead.parametrizations.weight.original0[0] = 0
    with pytest.raises(ValueError, match="0: a log-scale g is positive"):
        from_torch_weight_norm(nn.Sequential(dead).state_dict(), log_scale=3.0)
    with pytest.raises(ValueError, match="0: it has a log-scale g; say which"):
        to_torch_weight_norm(ours(3.0).state_dict())
    centred = nn.Sequential(Layers("weight_norm_mean_only_bn").dense(2, 2))
    with pytest.raises(ValueError, match="0: torch's weight_norm has no running mean"):
        to_torch_weight_norm(centred.state_dict())


def test_normalized_weights_survive_a_fold_and_back() -> None:
    """fold then reparameterize: |v| becomes |w| = |g|, the direction stays (flipped where g < 0)."""
    layer = Layers("weight_norm").dense(3, 2)
    layer.weight.set_g(torch.tensor([-2.0, 3.0]))
    back, _ = reparameterize(fold(layer), "weight_norm")
    assert isinstance(back.weight, Normalized)
    torch.testing.assert_close(back.weight.g.flatten(), torch.tensor([2.0, 3.0]))
    torch.testing.assert_close(back.weight(), layer.weight())
