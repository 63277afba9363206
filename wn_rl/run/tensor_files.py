"""A run's state as two files of plain data: structure in JSON, arrays in safetensors; nothing is unpickled.

A state is a tree of dict (with str keys), list, None, bool, int, float, str, numpy arrays and scalars, and
torch tensors. What comes back has the same types and the same bits; tuples come back as lists, tensors on
the CPU. JSON cannot express some of these, so they are written as a dict of one key that begins with `$`.
"""

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from wn_rl.config import Config, identity
from wn_rl.envs.base import EnvironmentSpec
from wn_rl.errors import UserError, refusing
from wn_rl.run.files import MAX_TENSORS, parse_json, read_file, replace_file

STRUCTURE_FILE = "state.json"
TENSORS_FILE = "tensors.safetensors"

_DTYPES = {
    *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32),
    *(torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
}
_MAX_JSON_INT = 2**63  # a larger one goes as hexadecimal: Python limits the decimal digits that it parses


class StateError(ValueError):
    """The files do not hold a state, or the state is not plain data."""


def pack(state: Any) -> dict[str, bytes]:
    """The two files of a state: {name: content}.

    Raises:
        StateError: a value has another type than those above; its place in the tree is named.
    """
    tensors: dict[str, Tensor] = {}
    structure = _encode(state, "state", tensors)
    return {
        STRUCTURE_FILE: json.dumps(structure, allow_nan=False).encode("ascii"),
        TENSORS_FILE: safetensors.torch.save(tensors),
    }


def unpack(files: dict[str, bytes]) -> Any:
    """The state that `pack` made the files of. StateError: they are damaged."""
    with refusing("not a saved state", StateError):
        return _decode(parse_json(files[STRUCTURE_FILE]), safetensors.torch.load(files[TENSORS_FILE]))


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    # numpy's float64 is a float too, and bool is an int: the order of the cases matters.
    if isinstance(value, np.generic | np.ndarray):
        kind = "$array" if isinstance(value, np.ndarray) else "$scalar"
        return {kind: _add(tensors, _tensor_of_array(value, place), place)}
    if isinstance(value, Tensor):
        return {"$tensor": _add(tensors, value, place)}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _MAX_JSON_INT else {"$int": hex(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    if isinstance(value, list | tuple):
        return [_encode(item, f"{place}[{index}]", tensors) for index, item in enumerate(value)]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise StateError(f"cannot save {place}: a dict's keys must be strings")
        encoded = {key: _encode(item, f"{place}[{key!r}]", tensors) for key, item in value.items()}
        return {"$dict": encoded} if any(key.startswith("$") for key in value) else encoded
    raise StateError(f"cannot save {place}: {type(value).__name__} is not plain data")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    match list(node.items()):
        case [("$tensor", name)]:
            return tensors[name]
        case [("$array", name)]:
            return tensors[name].numpy()
        case [("$scalar", name)]:
            return tensors[name].numpy()[()]
        case [("$int", digits)]:
            return int(digits, 16)
        case [("$float", digits)]:
            return struct.unpack(">d", bytes.fromhex(digits))[0]
        case [("$dict", content)]:
            node = content
    return {key: _decode(item, tensors) for key, item in node.items()}


def _tensor_of_array(array: Any, place: str) -> Tensor:
    try:
        # np.array copies: torch cannot share a read-only array, or one that runs backwards.
        return torch.from_numpy(np.array(array, order="C"))
    except (TypeError, ValueError) as error:
        raise StateError(f"cannot save {place}: an array of {array.dtype} is not plain data") from error


def _add(tensors: dict[str, Tensor], value: Tensor, place: str) -> str:
    if value.dtype not in _DTYPES or value.layout != torch.strided:
        raise StateError(f"cannot save {place}: a {value.layout} tensor of {value.dtype} is not plain data")
    name = str(len(tensors))
    # Its own copy: safetensors refuses tensors that share memory.
    tensors[name] = value.detach().to("cpu", copy=True).contiguous()
    return name


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(safetensors.torch.save({"": tensor}))
    return digest.hexdigest()


def write_network_file(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata at once. OSError if they could not be written; the file before is then whole."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace_file(path, safetensors.torch.save(plain, {**metadata, "sha256": _digest(plain, metadata)}))


def read_network_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata that `write_network_file` wrote. UserError: the file is damaged."""
    with refusing(f"{path} is damaged"):
        data = read_file(path, MAX_TENSORS)
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
        metadata = dict(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}))
        if metadata.pop("sha256", None) != _digest(tensors, metadata):
            raise ValueError("it does not match its digest")
        return tensors, metadata


def read_best_network(path: Path, wanted: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """The tensors of the network of a run's best evaluation, and its step. wanted: the run's `run_identity`.

    Raises:
        UserError: the file is damaged, or of a run with another config or environment.
    """
    tensors, metadata = read_network_file(path)
    with refusing(f"{path} is not the best network of a run"):
        difference = difference_of_identity(dict(parse_json(metadata["identity"])), wanted)
        if difference:
            raise UserError(f"the network {path} {difference}")
        return tensors, int(metadata["step"])


SPACES = "environment.spaces"


def run_identity(config: Config, spec: EnvironmentSpec) -> dict[str, Any]:
    """What a checkpoint or a saved network shares with its run: `identity`, and what the game shows and takes."""
    shown = f"{spec.dtype} {list(spec.frame_shape)} times {spec.scale:.6g}"
    return {**identity(config), SPACES: f"{shown}, {spec.num_actions} actions"}


def difference_of_identity(saved: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """Why a file with a saved `run_identity` does not belong to a run; None if it does.

    The spaces are compared where both have them.
    """
    if not {SPACES} >= saved.keys() ^ wanted.keys():
        return (
            "was saved by another version of wn_rl, whose settings have other names: use that version for this run"
        )
    pairs = [(name, saved[name], wanted[name]) for name in sorted(saved.keys() & wanted.keys())]
    differing = [f"{name} is {other!r}, not {own!r}" for name, other, own in pairs if other != own]
    return f"is of another run: {'; '.join(differing)}" if differing else None
