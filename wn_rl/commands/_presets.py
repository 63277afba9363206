"""Which suite a command takes, and which preset its defaults come from, if none is named."""

from wn_rl.config import SuiteName
from wn_rl.presets import default_preset, preset_for_frames
from wn_rl.registry import PRESETS, SUITES


def suite_of(suite: SuiteName | None, preset: str | None) -> str:
    """The suite that was named, else that of the preset, else Atari."""
    return suite or (PRESETS[preset]("any").suite if preset else "atari")


def preset_of(suite: str, game: str, device: str) -> str:
    """By the suite, and by what there is: a CUDA device, and what a Gymnasium environment shows.

    Raises:
        ValueError: the environment is unknown or cannot be trained on, or a suite of the user's has no preset.
    """
    if suite == "gymnasium":
        from wn_rl.envs import gymnasium_lanes

        return preset_for_frames(gymnasium_lanes.describe(game).spec.frame_shape)
    name = default_preset(suite, suite == "atari" and _has_cuda(device))
    if name not in PRESETS and suite in SUITES:
        raise ValueError(
            f"the suite {suite} has no preset of its own: give --preset, "
            "classic for vectors, minatar for small grids or laptop for images"
        )
    return name


def _has_cuda(device: str) -> bool:
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()
