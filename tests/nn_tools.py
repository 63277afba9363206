"""What the tests of layers share."""

import pytest
import torch

from wn_rl.nn import PARAMETERIZATIONS
from wn_rl.nn.shifts import LayerNorm

# Those that may compute the same function as plain layers. Layer norm has tests of its own.
PLAIN = [name for name in PARAMETERIZATIONS if PARAMETERIZATIONS[name].shift is not LayerNorm]
WITH_LAYER_NORM = [name for name in PARAMETERIZATIONS if name not in PLAIN]
VARIANTS = [*((name, None) for name in PLAIN), ("weight_norm", 3.0), ("weight_norm_mean_only_bn", 3.0)]
every_variant = pytest.mark.parametrize(("parameterization", "log_scale"), VARIANTS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
