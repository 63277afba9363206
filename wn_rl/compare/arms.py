"""Arms of a comparison, and how they are typed: weight_norm:3e-4, normal+output-scale=1:1e-4,3e-4."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from wn_rl.errors import UserError
from wn_rl.presets import METHOD_OPTIONS
from wn_rl.registry import PARAMETERIZATIONS, did_you_mean

_LABELS = {"weight_norm_mean_only_bn": "WN + mean-only BN"}


@dataclass(frozen=True)
class Arm:
    """A parameterization and the rate that it learns at; None: the rate that its config resolves to."""

    parameterization: str
    learning_rate: float | None = None
    options: tuple[tuple[str, float | str], ...] = ()
    """Values of some `METHOD_OPTIONS`, by name; the others are as in the settings that all runs share."""

    @property
    def method(self) -> "Arm":
        """The arm without its learning rate: how the layers are parameterized."""
        return dataclasses.replace(self, learning_rate=None)

    @property
    def label(self) -> str:
        """For tables and figures, e.g. "weight norm (log scale 3) at 0.0003"; a method has no rate."""
        name = _LABELS.get(self.parameterization, self.parameterization.replace("_", " "))
        options = ", ".join(f"{option.replace('_', ' ')} {_plain(value)}" for option, value in self.options)
        rate = "" if self.learning_rate is None else f" at {self.learning_rate:g}"
        return (f"{name} ({options})" if options else name) + rate


def _plain(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def parse_arms(texts: Iterable[str]) -> tuple[Arm, ...]:
    """Arms as they are typed: a parameterization, its options after plus signs, and after a colon its rates.

    >>> [arm.learning_rate for arm in parse_arms(["weight_norm", "normal:1e-4,3e-4"])]
    [None, 0.0001, 0.0003]
    >>> parse_arms(["weight_norm+log-scale=3:1e-4"])[0].options
    (('log_scale', 3.0),)

    Raises:
        UserError: a name is unknown, or the value of a rate or an option is not a number.
    """
    return tuple(arm for text in texts for arm in _parse_arm(text))


def _parse_arm(text: str) -> Iterator[Arm]:
    method, colon, rates = text.partition(":")
    name, *given = method.split("+")
    if name not in PARAMETERIZATIONS:
        known, hint = ", ".join(PARAMETERIZATIONS), did_you_mean(name, PARAMETERIZATIONS)
        raise UserError(f"--arms: unknown parameterization {name!r}: choose from {known}{hint}")
    options = tuple(_parse_option(option, text) for option in given)
    for rate in rates.split(",") if colon else [None]:
        yield Arm(name, None if rate is None else _parse_rate(rate, text), options)


def _parse_rate(text: str, arm: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UserError(f"--arms: {text!r} in {arm!r} is not a learning rate: give numbers above 0")


def _parse_option(text: str, arm: str) -> tuple[str, float | str]:
    """E.g. log-scale=3, max-v-norm=1 or initialization=data_dependent."""
    flag, _, value = text.partition("=")
    name = flag.replace("-", "_")
    if name not in METHOD_OPTIONS:
        known = ", ".join(METHOD_OPTIONS).replace("_", "-")
        raise UserError(f"--arms: unknown option {flag!r} in {arm!r}: choose from {known}")
    try:
        return name, value if isinstance(METHOD_OPTIONS[name], str) else float(value)
    except ValueError:
        raise UserError(f"--arms: {value!r} in {arm!r} is not a number") from None
