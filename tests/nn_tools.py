"""What the tests of layers share."""

import pytest
import torch

from wn_rl.nn import PARAMETERIZATIONS

VARIANTS = [*((name, None) for name in PARAMETERIZATIONS), ("weight_norm", 3.0), ("weight_norm_mean_only_bn", 3.0)]
every_variant = pytest.mark.parametrize(("parameterization", "log_scale"), VARIANTS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
