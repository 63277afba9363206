"""Running a function of static tensors as one CUDA graph.

A captured function reads and writes tensors that stay where they are, and Python integers that are its
arguments; what changes from call to call must be in a tensor before the call. The same function runs
eagerly elsewhere, so a test on a CPU tests what is captured.
"""

import contextlib
import functools
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

WARM_UPS = 3  # eager calls before a capture: libraries, compilers and optimizer state come into being there

Launch = Callable[[], object]


def capture_cuda_graph(function: Launch) -> Launch:
    """Record what the function asks of the device, without doing it; the result does it all in one launch."""
    # What graphs of earlier learners hold goes now: while they are captured and replayed, nothing may be freed
    # behind the back of those that share their stream.
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    # Other threads (sinks of metrics) may use CUDA meanwhile: only this thread's calls belong to the graph.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        function()
    return graph.replay


class Captured:
    """A function of Python integers that becomes one graph for each set of arguments it is called with.

    The first calls with new arguments run eagerly, on a stream of their own as CUDA graphs ask for: they count
    as real calls, so nothing has to be undone.
    """

    def __init__(
        self, function: Callable[..., None], capture: Callable[[Launch], Launch] = capture_cuda_graph
    ) -> None:
        self._function = function
        self._capture = capture
        self._calls: Counter[tuple[int, ...]] = Counter()
        self._graphs: dict[tuple[int, ...], Launch] = {}

    def __call__(self, *arguments: int) -> None:
        self._calls[arguments] += 1
        if self._calls[arguments] <= WARM_UPS:
            with _on_side_stream():
                self._function(*arguments)
            return
        if arguments not in self._graphs:
            self._graphs[arguments] = self._capture(lambda: self._function(*arguments))
        self._graphs[arguments]()


@contextlib.contextmanager
def _on_side_stream() -> Iterator[None]:
    """Context manager: CUDA work goes to another stream, in order with what came before and comes after."""
    if not torch.cuda.is_available():
        yield
        return
    main, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
    side.wait_stream(main)
    with torch.cuda.stream(side):
        yield
    main.wait_stream(side)


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One for each device: each stream that computes products keeps memory for them for good."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def accelerated(function: Callable[..., None], mode: str) -> Callable[..., None]:
    """The function as `--accelerate` asks: captured for cuda_graph, else itself (compile works inside it)."""
    return Captured(function) if mode == "cuda_graph" else function


class Transfer:
    """Sets of tensors on their way to a device: through pinned memory, to tensors that stay in place.

    There is one set for each number of rows (the length of the set's tensors), and a CUDA graph may read it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[int, list[Tensor]] = {}
        self._received: dict[int, list[Tensor]] = {}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def send(self, tensors: Sequence[Tensor]) -> None:
        """Start to copy a set in host memory; the device keeps working meanwhile."""
        size = len(tensors[0])
        if size not in self._pinned:
            pin = self._copied is not None
            self._pinned[size] = [torch.empty(x.shape, dtype=x.dtype, pin_memory=pin) for x in tensors]
            self._received[size] = [torch.empty(x.shape, dtype=x.dtype, device=self._device) for x in tensors]
        if self._copied is not None:
            self._copied.synchronize()  # of the last copy alone: the device may be at work
        for source, pinned, received in zip(tensors, self._pinned[size], self._received[size], strict=True):
            pinned.copy_(source)
            received.copy_(pinned, non_blocking=True)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))  # by default that of another device

    def receive(self, size: int) -> list[Tensor]:
        """The last set sent with this number of rows, on the device."""
        return self._received[size]


def set_tf32(allowed: bool, device: torch.device) -> None:
    """Whether CUDA may round the factors of float32 products to 10 bits; by torch's default convolutions do.

    These are torch's older switches, which set the newer ones (fp32_precision) too. The newer alone leave the
    older ones behind, and torch's compiler, which reads both, refuses that.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


def allow_compiled_programs(count: int) -> None:
    """Let torch.compile make this number of further programs of one function, for batches of different sizes.

    It counts those of all learners that a process has had. Beyond its limit, 8 by default, it would continue in
    eager mode and say so in a log alone; now it fails.
    """
    from torch._dynamo import config as dynamo  # only here: it takes a second to import

    dynamo.recompile_limit += count
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, dynamo.recompile_limit)
    dynamo.fail_on_recompile_limit_hit = True
