"""A CUDA graph's rules on a CPU: operations are recorded with the very tensors they touched, and run again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

UNDECLARED = {"running_mean", "running_var"}  # native_batch_norm writes to these and does not say so


class Recorder(TorchDispatchMode):
    """Remembers every operation, and what the tensors held that were written to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a graph cannot read a number")
        named = dict(zip((argument.name for argument in function._schema.arguments), args, strict=False)) | kwargs
        for argument in function._schema.arguments:
            declared = argument.alias_info is not None and argument.alias_info.is_write
            if (declared or argument.name in UNDECLARED) and argument.name in named:
                for tensor in tree_leaves(named[argument.name]):
                    if isinstance(tensor, Tensor):
                        self.before.setdefault(id(tensor), (tensor, tensor.clone()))
        result = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, result))
        return result


def record(function: Callable[[], object]) -> Callable[[], None]:
    """What `capture_cuda_graph` does: nothing happens while recording; the result does it all, at the same places.

    A number that Python computed is fixed, as in a graph. Views are not made again: they see what they saw.
    """
    recorder = Recorder()
    with recorder:
        function()
    for tensor, value in reversed(recorder.before.values()):
        with torch.no_grad():
            tensor.copy_(value)

    @torch.no_grad()
    def replay() -> None:
        for operation, args, kwargs, recorded in recorder.calls:
            aliased = [result.alias_info is not None for result in operation._schema.returns]
            if aliased and all(aliased) and not operation._schema.is_mutable:
                continue  # a view
            results = operation(*args, **kwargs)
            if not any(aliased):
                for old, new in zip(tree_flatten(recorded)[0], tree_flatten(results)[0], strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)

    return replay
