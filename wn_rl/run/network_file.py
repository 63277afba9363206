"""A network's tensors in one safetensors file that knows its own digest."""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from wn_rl.config import Config, identity
from wn_rl.errors import UserError
from wn_rl.run.files import replace_file

_DIGEST = "sha256"


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(safetensors.torch.save({"": tensor}))
    return digest.hexdigest()


def write_network_file(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata at once. OSError if it cannot be; the file before is then whole."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(path, safetensors.torch.save(plain, {**metadata, _DIGEST: _digest(plain, metadata)}))


def read_network_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata that `write_network_file` wrote.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if metadata.pop(_DIGEST, None) != _digest(tensors, metadata):
        raise UserError(f"{path} is damaged: it does not match its digest")
    return tensors, metadata


def read_best_network(path: Path, config: Config) -> tuple[dict[str, Tensor], int]:
    """The tensors of the network of a run's best test, and the step that it is of.

    Raises:
        UserError: the file is damaged, or of a run with another config.
    """
    tensors, metadata = read_network_file(path)
    if json.loads(metadata["identity"]) != identity(config):
        raise UserError(f"{path} is the network of another run")
    return tensors, int(metadata["step"])
