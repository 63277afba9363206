"""Backward of weight norm, Adamax and the next weights in one Triton kernel, for CUDA devices.

Plain torch does this in some fifteen kernels, each of which a small update waits for, and passes over the weights
five times. Here one program has one output unit's row of v in its registers: it reads the row's gradient,
mean and maximum once and writes v, both, and the new row of w. So weight-normalized layers cost what normal
ones do.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from wn_rl.nn.layers import layers_of
from wn_rl.nn.update.optimizers import Adamax, MultiTensorOptimizer
from wn_rl.nn.weights import FixedGain, Normalized, Weight

WARPS = 4  # of a program, for rows up to 4096; on an H100 8 and 16 were slower by a tenth there

# What a row is: of a parameter itself, of one of which a copy is held, of a fixed gain's or a normalized weight.
PLAIN, HELD, FIXED_GAIN, NORMALIZED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _adamax(value, gradient, mean, maximum, rate, beta1, beta2, eps):  # type: ignore[no-untyped-def]
    """As `wn_rl.nn.Adamax`; rate is lr / (1 - beta1^t)."""
    mean += (gradient - mean) * (1 - beta1)
    maximum = tl.maximum(maximum * beta2, tl.abs(gradient) + eps)
    return value - rate * mean / maximum, mean, maximum


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _update_row(  # type: ignore[no-untyped-def]
    row, tensors, rate, beta1, beta2, eps, log_scale, max_v_norm,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr,
    HAS_LOG_SCALE: tl.constexpr, BOUNDED: tl.constexpr,
):  # fmt: skip
    """One row of a parameter: everything from the gradient of its weights w to the next w.

    tensors: 0 the parameter, 1 the gradient, 2 Adamax's mean, 3 its maximum, 4 where the next w goes, 5 the gain
    or its parameter, 6 its mean, 7 its maximum. PLAIN has no 4, PLAIN and HELD no 5, and what is not NORMALIZED no
    6 and 7: others stand there.
    """
    entry = tl.arange(0, BLOCK)
    mask = entry < SIZE
    place = row * SIZE + entry
    v = tl.load(tensors[0] + place, mask=mask, other=0.0)
    gradient = tl.load(tensors[1] + place, mask=mask, other=0.0).to(tl.float32)
    mean = tl.load(tensors[2] + place, mask=mask, other=0.0)
    maximum = tl.load(tensors[3] + place, mask=mask, other=0.0)
    gain = 1.0
    if KIND == FIXED_GAIN:
        gain = tl.load(tensors[5] + row)
        gradient *= gain
    if KIND == NORMALIZED:
        parameter = tl.load(tensors[5] + row)  # g, or s where g = exp(c s)
        gain = tl.exp(log_scale * parameter) if HAS_LOG_SCALE else parameter
        # Loaded before the sums: in those all threads meet, so that none reads what another has stored below.
        gain_mean = tl.load(tensors[6] + row)
        gain_maximum = tl.load(tensors[7] + row)
        norm = tl.sqrt(tl.sum(v * v, axis=0))
        gradient_of_gain = tl.sum(gradient * v, axis=0) / norm  # eq. 3
        gradient = (gradient - v * (gradient_of_gain / norm)) * (gain / norm)
        if HAS_LOG_SCALE:
            gradient_of_gain *= log_scale * gain
        parameter, gain_mean, gain_maximum = _adamax(
            parameter, gradient_of_gain, gain_mean, gain_maximum, rate, beta1, beta2, eps
        )
        gain = tl.exp(log_scale * parameter) if HAS_LOG_SCALE else parameter
        tl.store(tensors[5] + row, parameter)
        tl.store(tensors[6] + row, gain_mean)
        tl.store(tensors[7] + row, gain_maximum)
    v, mean, maximum = _adamax(v, gradient, mean, maximum, rate, beta1, beta2, eps)
    weight = v * gain if KIND == FIXED_GAIN else v
    if KIND == NORMALIZED:
        norm = tl.sqrt(tl.sum(v * v, axis=0))
        if BOUNDED:
            shrink = tl.minimum(max_v_norm / norm, 1.0)
            v *= shrink
            norm *= shrink
        weight = v * (gain / norm)
    tl.store(tensors[0] + place, v, mask=mask)
    tl.store(tensors[2] + place, mean, mask=mask)
    tl.store(tensors[3] + place, maximum, mask=mask)
    if KIND != PLAIN:
        tl.store(tensors[4] + place, weight.to(tensors[4].dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _update_rows(  # type: ignore[no-untyped-def]
    parameters, decay, learning_rate, beta1, beta2, eps, log_scale, max_v_norm,
    STARTS: tl.constexpr, SIZES: tl.constexpr, BLOCKS: tl.constexpr, KINDS: tl.constexpr,
    HAS_LOG_SCALE: tl.constexpr, BOUNDED: tl.constexpr,
):  # fmt: skip
    """Program p has row p - STARTS[i] of the parameter i to which that belongs."""
    program = tl.program_id(0)
    rate = learning_rate / (1 - tl.load(decay))
    for number in tl.static_range(len(parameters)):
        if (program >= STARTS[number]) & (program < STARTS[number + 1]):
            _update_row(
                program - STARTS[number], parameters[number], rate, beta1, beta2, eps, log_scale, max_v_norm,
                SIZES[number], BLOCKS[number], KINDS[number], HAS_LOG_SCALE, BOUNDED,
            )  # fmt: skip


class FusedAdamax:
    """The step of a network with an Adamax, to rounding that of `wn_rl.nn.update.steps.PlainStep`.

    Layers whose weights are held (`hold_weights`) are differentiated by those, others by their parameters.

    Raises:
        ValueError: the optimizer is not an Adamax, or the layers cannot be updated by one kernel.
    """

    def __init__(self, network: nn.Module, optimizer: MultiTensorOptimizer, max_v_norm: float | None) -> None:
        if not isinstance(optimizer, Adamax) or len(optimizer.param_groups) != 1:
            raise ValueError("only an Adamax of one parameter group is fused")
        self._group = optimizer.param_groups[0]
        self._max_v_norm = max_v_norm
        parameters: list[Tensor] = self._group["params"]
        optimizer.make_buffers(parameters)
        state = {id(p): (optimizer.state[p]["mean"], optimizer.state[p]["maximum"]) for p in parameters}
        normalized = [layer for layer in layers_of(network) if isinstance(layer.weight, Normalized)]
        if max_v_norm is not None and any(layer.held is None for layer in normalized):
            raise ValueError("where |v| is bounded, the weights of normalized layers must be held")
        scales = {layer.weight.log_scale for layer in normalized if layer.held is not None}
        if len(scales) > 1:
            raise ValueError(f"all layers must have one log-scale, not {scales}")
        self._log_scale = next(iter(scales), None)

        self.leaves: list[Tensor] = []
        self._rows: list[tuple[Tensor, ...]] = []  # per leaf: parameter, mean, maximum, held, g and its two
        self._kinds: list[tl.constexpr] = []
        done = set()
        for layer in layers_of(network):
            if layer.held is not None:
                v, (gain, kind) = layer.weight.v, _gain(layer.weight)
                state_of_gain = state.get(id(gain), (gain, gain))
                self._add(layer.held, kind, (v, *state[id(v)], layer.held, gain, *state_of_gain))
                done |= {id(v), id(gain)}
        for parameter in parameters:
            if id(parameter) not in done:
                row = parameter, *state[id(parameter)], parameter, parameter, *state[id(parameter)]
                self._add(parameter, PLAIN, row)
        num_rows = [len(leaf) if leaf.dim() > 1 else 1 for leaf in self.leaves]
        self._starts = tuple(sum(num_rows[:number]) for number in range(len(num_rows) + 1))
        self._sizes = tuple(leaf.numel() // rows for leaf, rows in zip(self.leaves, num_rows, strict=True))
        self._blocks = tuple(triton.next_power_of_2(size) for size in self._sizes)

    def _add(self, leaf: Tensor, kind: tl.constexpr, tensors: tuple[Tensor, ...]) -> None:
        """tensors: the leaf's row of `self._rows`, whose first four must lie in memory alike, row after row."""
        channels_last = leaf.dim() == 4 and leaf.is_contiguous(memory_format=torch.channels_last)
        if not (leaf.is_contiguous() or channels_last) or {t.stride() for t in tensors[:4]} != {leaf.stride()}:
            raise ValueError("parameters must be contiguous, or in channels-last format")
        self.leaves.append(leaf)
        self._kinds.append(kind)
        self._rows.append(tuple(tensor.detach() for tensor in tensors))

    @torch.no_grad()
    def apply(self, gradients: Sequence[Tensor]) -> None:
        """As `PlainStep.apply`."""
        beta1, beta2 = self._group["betas"]
        decay = self._group["decay"].mul_(beta1)
        parameters = tuple(
            (values, _laid_out_as(values, gradient), *others)
            for (values, *others), gradient in zip(self._rows, gradients, strict=True)
        )
        _update_rows[(self._starts[-1],)](
            parameters,
            decay,
            self._group["lr"],
            beta1,
            beta2,
            self._group["eps"],
            self._log_scale or 1.0,
            self._max_v_norm or 1.0,
            STARTS=self._starts,
            SIZES=self._sizes,
            BLOCKS=self._blocks,
            KINDS=tuple(kind.value for kind in self._kinds),
            HAS_LOG_SCALE=self._log_scale is not None,
            BOUNDED=self._max_v_norm is not None,
            num_warps=min(32, max(WARPS, max(self._blocks) // 1024)),
            enable_fp_fusion=True,  # Triton's default so far, which newer versions ask for
        )


def _laid_out_as(values: Tensor, gradient: Tensor) -> Tensor:
    if gradient.stride() == values.stride():
        return gradient
    return torch.empty_like(values, dtype=gradient.dtype).copy_(gradient)


def _gain(weight: Weight) -> tuple[Tensor, tl.constexpr]:
    """g or s, or v where the kernel needs none, and the kind of the rows."""
    if isinstance(weight, FixedGain):
        return weight.g, FIXED_GAIN
    if not isinstance(weight, Normalized):
        return weight.v, HELD
    return (weight.g if weight.log_scale is None else weight.s), NORMALIZED
