"""Weight normalization for any torch network, its initialization, and Q-networks made of it; torch only."""

from wn_rl.nn.init import data_dependent_init, default_init, standardize_outputs
from wn_rl.nn.layers import Conv, Dense, Layer, Layers, Parameterization, bound_v, norms
from wn_rl.nn.networks import Preprocess, make_network, scale_in_first_convolution
from wn_rl.nn.products import FastConv2d, FastLinear
from wn_rl.nn.shifts import BatchNorm, Bias, MeanOnlyBatchNorm
from wn_rl.nn.surgery import fold, move_toward, refill, reparameterize, shares_all_tensors
from wn_rl.nn.torch_keys import from_torch_weight_norm, to_torch_weight_norm
from wn_rl.nn.update.held import held_weights, hold_weights, refill_held
from wn_rl.nn.update.optimizers import (
    Adamax,
    AuthorsAdamax,
    CenteredRMSProp,
    anneal,
    load_optimizer_tree,
    make_optimizer,
    optimizer_tree,
    relative_steps,
)
from wn_rl.nn.update.steps import make_step
from wn_rl.nn.weights import Direct, Normalized, TensorLike
from wn_rl.registry import NETWORKS, OPTIMIZERS, PARAMETERIZATIONS

__all__ = [
    "NETWORKS",
    "OPTIMIZERS",
    "PARAMETERIZATIONS",
    "Adamax",
    "AuthorsAdamax",
    "BatchNorm",
    "Bias",
    "CenteredRMSProp",
    "Conv",
    "Dense",
    "Direct",
    "FastConv2d",
    "FastLinear",
    "Layer",
    "Layers",
    "MeanOnlyBatchNorm",
    "Normalized",
    "Parameterization",
    "Preprocess",
    "TensorLike",
    "anneal",
    "bound_v",
    "data_dependent_init",
    "default_init",
    "fold",
    "from_torch_weight_norm",
    "held_weights",
    "hold_weights",
    "load_optimizer_tree",
    "make_network",
    "make_optimizer",
    "make_step",
    "move_toward",
    "norms",
    "optimizer_tree",
    "refill",
    "refill_held",
    "relative_steps",
    "reparameterize",
    "scale_in_first_convolution",
    "shares_all_tensors",
    "standardize_outputs",
    "to_torch_weight_norm",
]
