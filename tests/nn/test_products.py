"""Our products give what torch's give, and leave alone what they cannot do."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nn_tools import PLAIN, seeded
from torch import Tensor, nn
from torch.autograd import forward_ad

from wn_rl.nn import (
    PARAMETERIZATIONS,
    FastConv2d,
    FastLinear,
    Layers,
    data_dependent_init,
    fold,
    make_network,
    refill,
)
from wn_rl.nn import products as module
from wn_rl.nn.products import dense_product, normalized_dense_product

OUT, IN = 160, 257  # no round numbers


@pytest.fixture(autouse=True)
def small_products_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row through a layer of these sizes is enough for oneDNN, nine through eight outputs are not."""
    monkeypatch.setattr(module, "SMALLEST", 2**15)


def tensors(
    batch: int = 9, dtype: torch.dtype = torch.float32, out: int = OUT
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = seeded(batch)
    shapes = (batch, IN), (out, IN), (out,), (batch, out)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)  # type: ignore[return-value]


def geometry_of(plain: nn.Conv2d) -> module.Geometry:
    geometry: Any = plain.stride, plain.padding, plain.dilation, plain.groups
    return module.Geometry(*geometry)


def assert_near(ours: Sequence[Tensor], theirs: Sequence[Tensor], dtype: torch.dtype, tolerance: float) -> None:
    """Ours have this dtype, and differ from theirs by less than so much of their norms."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() < tolerance * other.norm()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the products that go through oneDNN, on an Intel processor too."""
    monkeypatch.setattr(module, "MKL_IS_FASTER", False)
    if module.onednn_linear is None:
        pytest.skip("this build of torch has no oneDNN")
    calls: list[int] = []
    through = module._product

    def counted(*arguments: Tensor | None) -> Tensor:
        calls.append(1)
        return through(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_product", counted)
    return calls


@pytest.mark.parametrize("batch", [1, 9, 64])
@pytest.mark.parametrize("with_bias", [True, False])
def test_value_and_gradients_are_those_of_linear(batch: int, with_bias: bool, taken: list[int]) -> None:
    x, weight, bias, gradient = tensors(batch)
    arguments = [x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()][: 3 if with_bias else 2]
    results = []
    for product in (dense_product, F.linear):
        y = product(x, weight, bias if with_bias else None)
        results.append([y, *torch.autograd.grad(y, arguments, gradient)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
        assert ours.stride() == theirs.stride()
    assert len(taken) == 3


def test_any_strides_do(taken: list[int]) -> None:
    x, weight, bias, gradient = tensors()
    strided = x.t().contiguous().t().requires_grad_()
    turned = weight.flip(0).t().contiguous().t().requires_grad_()
    y = dense_product(strided, turned, bias)
    torch.testing.assert_close(y, F.linear(x, turned, bias), atol=2e-5, rtol=2e-5)
    expanded = torch.ones(()).expand_as(gradient)  # what .sum().backward() sends: every stride zero
    ours = torch.autograd.grad(y, (strided, turned), expanded)
    theirs = torch.autograd.grad(F.linear(strided, turned, bias), (strided, turned), expanded)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert taken


def test_gradients_are_made_only_where_they_are_wanted(taken: list[int]) -> None:
    x, weight, bias, gradient = tensors()
    y = dense_product(x, weight.requires_grad_(), bias)
    torch.autograd.grad(y, weight, gradient)
    assert len(taken) == 2  # forward and the weights' gradient, not that of x


def test_products_without_gradients_need_no_function_of_ours(
    taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias, _ = tensors()
    monkeypatch.setattr(module, "_DenseProduct", None)
    with torch.no_grad():
        y = dense_product(x, weight.requires_grad_(), bias)
    torch.testing.assert_close(y, F.linear(x, weight, bias), atol=2e-5, rtol=2e-5)
    assert len(taken) == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself
def test_what_needs_more_than_backward_is_left_to_torch(taken: list[int]) -> None:
    """The operation alone would lose the tangent without a word."""
    x, weight, bias, _ = tensors()
    with torch.no_grad(), forward_ad.dual_level():
        dual = forward_ad.unpack_dual(dense_product(forward_ad.make_dual(x, x), weight, bias))
    assert torch.equal(dual.tangent, F.linear(x, weight))
    _, tangent = torch.func.jvp(lambda x: dense_product(x, weight, bias), (x,), (x,))
    assert torch.equal(tangent, F.linear(x, weight))
    assert not taken


def test_what_it_cannot_do_is_left_to_torch(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, _ = tensors()
    too_small = tensors(out=8)[:3]
    for arguments in (tensors(dtype=torch.float64)[:3], too_small, (x[None], weight, bias)):
        assert torch.equal(dense_product(*arguments), F.linear(*arguments))
    with torch.autocast("cpu", torch.bfloat16):
        assert dense_product(x, weight, bias).dtype == torch.bfloat16
    monkeypatch.setattr(module, "onednn_linear", None)
    assert torch.equal(dense_product(x, weight, bias), F.linear(x, weight, bias))
    assert not taken


@pytest.mark.parametrize("with_bias", [True, False])
def test_normalized_product_is_that_of_normalized_weights(with_bias: bool, taken: list[int]) -> None:
    x, v, bias, gradient = tensors()
    gain = (torch.randn(OUT, 1, generator=seeded(3)) * 2).requires_grad_()
    wanted = [x.requires_grad_(), v.requires_grad_(), gain, bias.requires_grad_()][: 4 if with_bias else 3]
    b = bias if with_bias else None
    ours = normalized_dense_product(x, v, gain, b)
    theirs = F.linear(x, gain * v / v.norm(dim=1, keepdim=True), b)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    of_ours, of_theirs = (torch.autograd.grad(product, wanted, gradient) for product in (ours, theirs))
    torch.testing.assert_close(of_ours, of_theirs, atol=1e-4, rtol=1e-4)
    assert len(taken) == 3


def test_normalized_product_under_autocast_rounds_its_factors_alone() -> None:
    x, v, bias, gradient = tensors(64)
    gain = torch.rand(OUT, 1, generator=seeded(3)).requires_grad_()
    wanted = [x.requires_grad_(), v.requires_grad_(), gain, bias.requires_grad_()]
    with torch.autocast("cpu", torch.bfloat16):
        ours = normalized_dense_product(x, v, gain, bias)
    assert ours.dtype == torch.float32
    theirs = F.linear(x, gain * v / v.norm(dim=1, keepdim=True), bias)
    torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    of_ours, of_theirs = (torch.autograd.grad(product, wanted, gradient) for product in (ours, theirs))
    assert_near(of_ours, of_theirs, torch.float32, 0.01)


def test_a_graph_that_is_kept_has_the_same_gradients_again() -> None:
    x, v, bias, gradient = tensors(64)
    wanted = [x.requires_grad_(), v.requires_grad_(), torch.full((OUT, 1), 2.0, requires_grad=True)]
    with torch.autocast("cpu", torch.bfloat16):
        ours = normalized_dense_product(*wanted, bias)
    first, second = (torch.autograd.grad(ours, wanted, gradient, retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, atol=0, rtol=0)


def test_normalized_layers_in_bfloat16_are_left_to_torch_up_to_a_larger_size(
    taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = Layers("weight_norm").dense(IN, OUT), tensors()[0]
    precise = F.linear(x, layer.weight(), layer.shift.bias)
    for smallest, products in ((9 * IN * OUT + 1, 0), (9 * IN * OUT, 1)):
        monkeypatch.setattr(module, "SMALLEST_IN_BFLOAT16", smallest)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(x)
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), precise, atol=0.05, rtol=0.05)
        assert len(taken) == products


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
@pytest.mark.parametrize("log_scale", [None, 3.0])
def test_a_layer_gives_the_same_through_onednn_and_without(
    parameterization: str, log_scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if log_scale is not None and not parameterization.startswith("weight_norm"):
        pytest.skip("a log-scale belongs to weight norm")
    x, _, _, gradient = tensors()
    results = []
    for through, mkl_is_faster in ((module.onednn_linear, False), (module.onednn_linear, True), (None, False)):
        monkeypatch.setattr(module, "onednn_linear", through)
        monkeypatch.setattr(module, "MKL_IS_FASTER", mkl_is_faster)
        layer = Layers(parameterization, log_scale, seeded(2)).dense(IN, OUT)
        data_dependent_init(layer, x)
        y = layer(x)
        results.append([y, *torch.autograd.grad(y, list(layer.parameters()), gradient)])
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, atol=2e-4, rtol=2e-4)


def test_the_processor_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for vendor, is_intel in (("GenuineIntel", True), ("AuthenticAMD", False)):
        monkeypatch.setattr(Path, "read_text", lambda path, vendor=vendor: f"vendor_id\t: {vendor}\n")
        assert module._is_intel() == is_intel
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert not module._is_intel()


@pytest.mark.parametrize("parameterization", PLAIN)
def test_large_layers_on_a_cpu_have_first_derivatives_alone(parameterization: str, taken: list[int]) -> None:
    x, *_ = tensors()
    large = Layers(parameterization).dense(IN, OUT).eval()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        differentiate_twice(large, x)
    assert taken
    large(x.requires_grad_()).sum().backward()
    torch.testing.assert_close(torch.func.grad(lambda x: large(x).sum())(x), x.grad, atol=1e-4, rtol=1e-4)
    differentiate_twice(fold(large), x)
    differentiate_twice(large.double(), x.double())


def differentiate_twice(layer: nn.Module, x: Tensor) -> None:
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    first.sum().backward()


def test_a_fold_with_fast_layers_has_the_plain_fold_s_keys_and_values() -> None:
    network = make_network(
        "minatar_cnn",
        frame_shape=(4, 10, 10),
        stack=1,
        scale=1.0,
        num_actions=3,
        parameterization="weight_norm",
        generator=seeded(),
    )
    states = torch.randint(0, 2, (5, 1, 4, 10, 10), generator=seeded(1))
    plain, fast = fold(network), fold(network, fast=True)
    assert [type(layer) for layer in fast if isinstance(layer, nn.Linear)] == [FastLinear] * 2
    assert [type(layer) for layer in plain if isinstance(layer, nn.Linear)] == [nn.Linear] * 2
    assert plain.state_dict().keys() == fast.state_dict().keys()
    torch.testing.assert_close(plain(states), fast(states), atol=1e-5, rtol=1e-5)
    again = copy.deepcopy(fast)
    refill(fast, network)
    assert torch.equal(again(states), fast(states))


# The last does not fit.
@pytest.mark.parametrize(("size", "kernel", "stride"), [(84, 8, 4), (20, 4, 2), (23, 4, 2), (9, 3, 1), (10, 3, 2)])
def test_a_convolution_over_blocks_is_that_of_torch(
    size: int, kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA. Values and gradients of x, weight and bias."""
    monkeypatch.setattr(module, "BLOCKS_ON", ("cpu",))
    generator = seeded()
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=generator, requires_grad=True)
    plain = nn.Conv2d(3, 5, kernel, stride, dtype=torch.float64)
    fast = FastConv2d(3, 5, kernel, stride, dtype=torch.float64)
    fast.load_state_dict(plain.state_dict())
    geometry = geometry_of(plain)
    assert module.cuts_into_blocks(plain.weight, geometry) == (stride > 1 and kernel % stride == 0)
    ours, theirs = fast(x), plain(x)
    torch.testing.assert_close(ours, theirs)
    of_ours = torch.autograd.grad(ours.square().sum(), [x, *fast.parameters()])
    of_theirs = torch.autograd.grad(theirs.square().sum(), [x, *plain.parameters()])
    torch.testing.assert_close(of_ours, of_theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride"),
    [(84, 84, (8, 8), 4), (21, 20, (4, 4), 2), (20, 24, (8, 16), 8), (12, 8, (4, 8), 4)],
)
def test_a_convolution_over_rows_is_that_of_torch(
    height: int,
    width: int,
    kernel: tuple[int, int],
    stride: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> None:
    """Values and gradients of weight and bias, of bytes from a part of a longer stack as a replay gives it."""
    generator = seeded()
    frames = torch.randint(0, 256, (16, 5, height, width), dtype=torch.uint8, generator=generator)
    frames = frames[:, 1:5]
    assert module.rows_are_faster(frames, stride)
    rows = module.pixel_rows(frames, stride)
    assert torch.equal(rows.flatten(3), frames)
    precise = nn.Conv2d(4, 5, kernel, stride, dtype=torch.float64)
    fast = FastConv2d(4, 5, kernel, stride).to(memory_format=memory_format)  # type: ignore[call-overload]
    fast.load_state_dict(precise.state_dict())
    fast.to(dtype)
    ours = fast(rows.to(dtype).mul_(1 / 255))
    assert ours.is_contiguous(memory_format=torch.channels_last)
    theirs = precise(frames.double() / 255)
    of_ours = torch.autograd.grad(ours.float().square().sum(), fast.parameters())
    of_theirs = torch.autograd.grad(theirs.square().sum(), precise.parameters())
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    assert_near((ours, *of_ours), (theirs, *of_theirs), dtype, tolerance)


def test_rows_are_made_of_many_images_of_bytes_in_their_places() -> None:
    images = torch.zeros(module.MANY_IMAGES, 4, 12, 12, dtype=torch.uint8)
    assert module.rows_are_faster(images, 4)
    odd = torch.zeros(images.numel() + 1, dtype=torch.uint8)[1:].view_as(images)  # begins within a row of pixels
    many_channels = torch.zeros(16, module.FEW_CHANNELS + 1, 12, 12, dtype=torch.uint8)
    others = odd, many_channels, images[1:], images.float(), images[..., 2:], images.mT, images[..., ::2]
    for x in others:
        assert not module.rows_are_faster(x, 4)
    assert not module.rows_are_faster(images, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("channels", "height", "width", "kernel", "stride"),
    [(4, 84, 84, 8, 4), (32, 20, 20, 4, 2), (3, 21, 20, 4, 2), (3, 20, 21, 4, 2)],
)
def test_channels_last_images_lie_in_rows(
    channels: int, height: int, width: int, kernel: int, stride: int, dtype: torch.dtype
) -> None:
    """The layers of nature_cnn in a batch of its size, for which oneDNN has other kernels, and odd ones."""
    generator = seeded()
    given = torch.randn(64, channels, height, width, generator=generator).to(dtype)
    x = given.to(memory_format=torch.channels_last).requires_grad_()
    precise = nn.Conv2d(channels, 64, kernel, stride, dtype=torch.float64)
    fast = FastConv2d(channels, 64, kernel, stride)
    fast.load_state_dict(precise.state_dict())
    fast.to(dtype)
    assert module.lies_in_rows(x, stride) == (width % stride == 0)
    ours = fast(x)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    copy = x.detach().double().requires_grad_()
    theirs = precise(copy)
    towards = torch.randn(theirs.shape, dtype=torch.float64, generator=generator)
    of_ours = torch.autograd.grad(ours, [x, *fast.parameters()], towards.to(dtype))
    of_theirs = torch.autograd.grad(theirs, [copy, *precise.parameters()], towards)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.01}[dtype]
    assert_near((ours, *of_ours), (theirs, *of_theirs), dtype, tolerance)


@pytest.mark.parametrize("changes", [{"padding": 2}, {"dilation": 2}, {"groups": 2}, {"stride": (2, 4)}])
def test_convolutions_that_do_not_go_over_blocks_are_torch_s(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCKS_ON", ("cpu",))
    plain = nn.Conv2d(4, 6, 4, **{"stride": 2, **changes})
    geometry = geometry_of(plain)
    x = torch.randn(2, 4, 12, 12)
    assert not module.cuts_into_blocks(plain.weight, geometry)
    assert torch.equal(module.convolution(x, plain.weight, plain.bias, geometry), plain(x))


def test_an_image_without_a_batch_is_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCKS_ON", ("cpu",))
    conv = FastConv2d(4, 6, 4, stride=2)
    image = torch.randn(4, 12, 12)
    torch.testing.assert_close(conv(image), conv(image[None])[0])


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_sum_of_products_is_a_linear_layer(has_bias: bool) -> None:
    generator = seeded()
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in [(7, 5), (3, 5), (3,)]
    )
    given = bias if has_bias else None
    torch.testing.assert_close(module.sum_of_products(x, weight, given), F.linear(x, weight, given))


def test_under_autocast_the_factors_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    x, v, bias, gradient = tensors(64)
    kinds: list[torch.dtype] = []
    through, added = module._product, Tensor.addmm_

    def noted(a: Tensor, b: Tensor, *rest: Tensor) -> Tensor:
        kinds.extend((a.dtype, b.dtype))
        return through(a, b, *rest)

    def noted_addmm(to: Tensor, a: Tensor, b: Tensor) -> Tensor:
        kinds.extend((a.dtype, b.dtype))
        return added(to, a, b)

    monkeypatch.setattr(module, "_product", noted)
    monkeypatch.setattr(Tensor, "addmm_", noted_addmm)
    with torch.autocast("cpu", torch.bfloat16):
        out = normalized_dense_product(x.requires_grad_(), v.requires_grad_(), torch.ones(OUT, 1), bias)
    torch.autograd.grad(out, [x, v], gradient)
    assert kinds == [torch.bfloat16] * 6
