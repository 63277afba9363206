"""torch's private interfaces: without them, public operations give the same."""

import copy
import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_tools import seeded
from torch import Tensor

from wn_rl.nn import OPTIMIZERS, Layers, Normalized, fold, make_optimizer, products, refill, weights
from wn_rl.nn import private_torch as private
from wn_rl.nn.products import dense_product

FOREACH = {name: getattr(private, name) for name in dir(private) if name.startswith("foreach_")}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def test_this_torch_has_what_we_use() -> None:
    """Otherwise the tests here would compare the public operations with themselves."""
    assert private.one_weight_norm is torch._weight_norm
    assert all(operation is getattr(torch, f"_{name}") for name, operation in FOREACH.items())
    assert not private.functorch_is_active()
    assert not private.forward_mode_is_active()
    assert torch.func.vmap(lambda x: x + private.functorch_is_active())(torch.zeros(1)) == 1
    with torch.autograd.forward_ad.dual_level():
        assert private.forward_mode_is_active()


def test_a_torch_without_them_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        for name in FOREACH:
            changed.delattr(torch, f"_{name}")
        changed.delattr(torch, "_weight_norm")
        changed.delattr(torch._C, "_are_functorch_transforms_active")
        changed.delattr(torch._C, "_is_tracing")
        changed.delattr(torch.autograd.forward_ad, "_current_level")
        changed.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        bare = importlib.reload(private)
        assert bare.one_weight_norm is bare.onednn_linear is None
        assert bare.functorch_is_active()
        assert bare.is_tracing()
        assert bare.forward_mode_is_active()
        assert bare.foreach_abs([torch.tensor(-2.0)]) == [2]
    importlib.reload(private)


@pytest.mark.parametrize("name", FOREACH)
def test_one_by_one_is_all_at_once(name: str) -> None:
    operation = name.removeprefix("foreach_")
    kind = operation.removesuffix("_")
    two, named = {"addcdiv": (True, {"value": -0.3}), "addcmul": (True, {"value": -0.3})}.get(kind, (False, {}))
    found = []
    for run in (FOREACH[name], lambda *given, **rest: private.one_by_one(operation, *given, **rest)):
        tensors = [normal(3, 2).abs(), normal(5, seed=1).abs()]
        others = [normal(3, 2, seed=2) + 3, normal(5, seed=3) + 3]
        rest = {"add": [0.5], "mul": [0.5], "abs": [], "sqrt": [], "lerp": [others, 0.25]}.get(kind, [others])
        results = run(tensors, *rest, *([others] if two else []), **named)
        found.append(tensors if operation.endswith("_") else results)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][0], normal(3, 2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_refills_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Layers("weight_norm", generator=seeded()).dense(3, 2)
    found = []
    for one_by_one in (False, True):
        if one_by_one:
            for each in FOREACH:
                operation = each.removeprefix("foreach_")
                alone = lambda *given, operation=operation, **named: private.one_by_one(operation, *given, **named)  # noqa: E731
                monkeypatch.setattr(private, each, alone)
                if each == "foreach_copy_":
                    monkeypatch.setattr("wn_rl.nn.surgery.foreach_copy_", alone)
        twin = copy.deepcopy(network)
        folded, optimizer = fold(twin), make_optimizer(name, twin.parameters(), 0.1)
        for seed in range(3):
            optimizer.apply([normal(*p.shape, seed=seed) for p in twin.parameters()])
        refill(folded, twin)
        found.append([*twin.parameters(), *folded.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][0], network.weight.v)


@given(seed=st.integers(0, 2**31), out=st.integers(1, 6), inputs=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_weight_norm_by_plain_operations(seed: int, out: int, inputs: int) -> None:
    weight, towards = Normalized(normal(out, inputs, seed=seed)), normal(out, inputs, seed=seed + 1)
    weight.set_g(normal(out, seed=seed + 2))
    found = []
    for one_operation in (private.one_weight_norm, None):
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(weights, "one_weight_norm", one_operation)
            w = weight()
        found.append([w, *torch.autograd.grad(w, [weight.v, weight.g], towards)])
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["forward_mode_is_active", "functorch_is_active"])
def test_where_transforms_cannot_be_seen_products_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if products.onednn_linear is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "MKL_IS_FASTER", False)
    x, weight, bias = normal(1024, 64), normal(64, 64, seed=1), normal(64, seed=2)
    with torch.no_grad():
        expected = dense_product(x, weight, bias)
        monkeypatch.setattr(products, name, lambda: True)
        torch.testing.assert_close(dense_product(x, weight, bias), expected, atol=1e-4, rtol=1e-4)
