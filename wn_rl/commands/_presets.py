"""Which preset a command takes its defaults from, if none is named."""

from wn_rl.presets import default_preset, preset_for_frames


def preset_of(suite: str, game: str, device: str) -> str:
    """By the suite, and by what there is: a CUDA device, and what a Gymnasium environment shows.

    Raises:
        ValueError: the environment is unknown, or cannot be trained on.
    """
    if suite == "gymnasium":
        from wn_rl.envs import gymnasium_lanes

        return preset_for_frames(gymnasium_lanes.describe(game).spec.frame_shape)
    return default_preset(suite, suite == "atari" and _has_cuda(device))


def _has_cuda(device: str) -> bool:
    if device == "cpu":
        return False
    import torch

    return torch.cuda.is_available()
