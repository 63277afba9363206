"""Running a function of static tensors as one CUDA graph.

A captured function reads and writes tensors that stay where they are, and Python integers that are its
arguments; what changes from call to call must stand in a tensor before the call. The same function runs
eagerly elsewhere, so a test on a CPU tests what is captured.
"""

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator

import torch

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
        self._calls: dict[tuple[int, ...], int] = {}
        self._graphs: dict[tuple[int, ...], Launch] = {}

    def __call__(self, *arguments: int) -> None:
        calls = self._calls[arguments] = self._calls.get(arguments, 0) + 1
        if calls <= WARM_UPS:
            with aside():
                self._function(*arguments)
            return
        if arguments not in self._graphs:
            self._graphs[arguments] = self._capture(lambda: self._function(*arguments))
        self._graphs[arguments]()


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Within: CUDA work goes to another stream, in order with what came before and comes after."""
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
