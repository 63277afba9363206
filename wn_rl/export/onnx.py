"""An exported agent as one ONNX file, checked against the network it was made from."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from wn_rl.errors import UserError
from wn_rl.export.agent import Agent

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # torch's exporter needs the first two, the check the last
TOLERANCE = 1e-5


def require_onnx() -> None:
    """UserError unless the packages that `write_onnx` needs are installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'ONNX needs more packages ({", ".join(missing)}): pip install "wn-rl[export]"')


def write_onnx(agent: Agent, path: Path) -> None:
    """Write the network: "observations" [batch, K, *O] as the environment gives them -> "q_values" [batch, A].

    The scaling of observations is inside, the batch has any size. The file is then run by onnxruntime.
    The agent is on the CPU, as one that was loaded is.

    Raises:
        UserError: packages are missing, or the file's values differ from the network's by more than 1e-5.
    """
    require_onnx()
    states = agent.random_observations(3, torch.Generator().manual_seed(0))
    with _quiet_exporter():
        program = torch.onnx.export(
            agent.network,
            (states,),
            dynamo=True,
            input_names=["observations"],
            output_names=["q_values"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    _check(agent, path)


def _check(agent: Agent, path: Path) -> None:
    """Compare the file with the network, on batches of other sizes than it was traced with."""
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 8):
        states = agent.random_observations(count, torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = agent.network(states)
        (found,) = session.run(["q_values"], {"observations": states.numpy()})
        if not torch.allclose(torch.from_numpy(found), expected, atol=TOLERANCE, rtol=TOLERANCE):
            worst = float((torch.from_numpy(found) - expected).abs().max())
            raise UserError(f"the values of {path} differ from the network's by {worst:.1e}: it is not used")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Within: torch's exporter says nothing of packages it could use and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
