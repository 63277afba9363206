"""What a layer does to t = w.x: add a bias, with the batch's statistics removed first or not."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOMENTUM = 0.1  # of the newest batch in the running statistics, as in the authors' code
EPSILON = 1e-6  # inside batch_norm's root, as in the authors' code


def _over_features(values: Tensor, axis: int) -> Tensor:
    """values [out] shaped to broadcast against a tensor whose features lie on `axis` (negative)."""
    return values.view(-1, *[1] * (-axis - 1))


def feature_statistics_axes(t: Tensor, axis: int) -> tuple[int, ...]:
    """All axes of t but the features' (negative) one: batch, and space where there is any."""
    return tuple(i for i in range(t.dim()) if i != t.dim() + axis)


class Bias(nn.Module):
    """t + b. The operation itself adds b (`operand`), which is cheaper than an addition of its own."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    @property
    def operand(self) -> Tensor | None:
        return self.bias

    def forward(self, t: Tensor, axis: int) -> Tensor:
        return t

    @torch.no_grad()
    def standardize(self, mean: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
        """Give scale * (t - mean) from now on, all [out]; returns the part of scale left to the weights."""
        self.bias.copy_(-mean * scale)
        return scale

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain layer that computes the same function in eval mode."""
        return weight, self.bias


class MeanOnlyBatchNorm(nn.Module):
    """t - mean[t] + b over the batch in training, t - running_mean + b in eval mode (eq. 6).

    Autograd through the batch's mean gives eq. 7.
    """

    operand = None
    running_mean: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)
        self.register_buffer("running_mean", torch.zeros_like(bias))

    def forward(self, t: Tensor, axis: int) -> Tensor:
        mean = self.running_mean
        if self.training:
            mean = t.mean(feature_statistics_axes(t, axis))
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), MOMENTUM)
        return (t + _over_features(self.bias - mean, axis)).to(t.dtype)  # under autocast it is not the bias's

    @torch.no_grad()
    def standardize(self, mean: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
        """As Bias.standardize: the mean becomes the running mean of the scaled t."""
        self.bias.zero_()
        self.running_mean.copy_(mean * scale)
        return scale

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As Bias.fold."""
        return weight, self.bias - self.running_mean


class BatchNorm(nn.Module):
    """scale * (t - mean[t]) / sqrt(variance[t] + 1e-6) + b, with running statistics in eval mode.

    Starts so that eval mode gives t + b.
    """

    operand = None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full_like(bias, math.sqrt(1 + EPSILON)))
        self.bias = nn.Parameter(bias)
        self.register_buffer("running_mean", torch.zeros_like(bias))
        self.register_buffer("running_var", torch.ones_like(bias))

    def forward(self, t: Tensor, axis: int) -> Tensor:
        if not self.training:
            factor, offset = self._affine()
            return (t * _over_features(factor, axis) + _over_features(offset, axis)).to(t.dtype)
        features_second = t.movedim(axis, 1)
        statistics = self.running_mean, self.running_var
        normalized = F.batch_norm(features_second, *statistics, self.scale, self.bias, True, MOMENTUM, EPSILON)
        return normalized.movedim(1, axis)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Factor and offset, both [out], of the eval-mode function."""
        factor = self.scale * torch.rsqrt(self.running_var + EPSILON)
        return factor, self.bias - factor * self.running_mean

    @torch.no_grad()
    def standardize(self, mean: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
        """As Bias.standardize, but this module takes the whole scale: the weights stay as they are.

        The root holds the same variance as in forward, so eps changes nothing here.
        """
        self.bias.zero_()
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)
        self.scale.copy_(scale * torch.sqrt(variance + EPSILON))
        return torch.ones_like(scale)

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """As Bias.fold."""
        factor, offset = self._affine()
        return weight * _over_features(factor, -weight.dim()), offset


class LayerNorm(nn.Module):
    """scale * (t - mean[t]) / sqrt(variance[t] + 1e-6) + b, with the statistics of one example over its features.

    In a convolution these are the channels at each pixel, as in PQN (Gallici et al. 2025). It depends on the
    example, so it is in no plain layer: a fold keeps it.
    """

    operand = None

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones_like(bias))
        self.bias = nn.Parameter(bias)

    def normalize(self, t: Tensor, axis: int) -> Tensor:
        """t with mean 0 and variance 1 over its features, which lie on `axis`."""
        variance, mean = torch.var_mean(t, axis, correction=0, keepdim=True)
        return (t - mean) * torch.rsqrt(variance + EPSILON)

    def forward(self, t: Tensor, axis: int) -> Tensor:
        if axis == -1:
            return F.layer_norm(t, t.shape[-1:], self.scale, self.bias, EPSILON)
        scale, bias = _over_features(self.scale, axis), _over_features(self.bias, axis)
        return torch.addcmul(bias, self.normalize(t, axis), scale).to(t.dtype)

    @torch.no_grad()
    def standardize(self, mean: Tensor, variance: Tensor, scale: Tensor) -> Tensor:
        """As Bias.standardize, with the statistics of what `normalize` gives; the weights stay as they are."""
        self.bias.copy_(-mean * scale)
        self.scale.copy_(scale)
        return torch.ones_like(scale)

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """ValueError: no plain layer computes the same function."""
        raise ValueError("layer norm is in no plain layer: its weight and bias have no counterpart")


Shift = Bias | MeanOnlyBatchNorm | BatchNorm | LayerNorm
