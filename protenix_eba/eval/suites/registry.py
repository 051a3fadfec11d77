"""The interface of a suite: a question about ensembles, its needs, and how to answer it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.scene import Scene
from protenix_eba.eval.weighting import require_length
from protenix_eba.plugin_api import Registry
from protenix_eba.structures.sources import Conformations

__all__ = ["SUITES", "Compute", "Outcome", "Request", "Suite", "Value", "by_target"]

Float64s = NDArray[np.float64]

# What bad data can cause; a defect of ours (KeyError, TypeError) shall stop the run.
_DATA_ERRORS: Final = (UserError, ValueError, ArithmeticError, MemoryError, OSError)


@dataclass(frozen=True)
class Request:
    """The input of a suite.

    Attributes:
        samples: Target to its generated conformations; files that are not yet opened.
        reference: Folder or file of the suite's own data, as the user gave it.
        weights: Target to `[S]` weights of its conformations, which sum to 1. Of a target that is
            not among them all conformations have the same weight.
        settings: The suite's `Suite.settings`, changed as the user asked.
        seed: Seed of every draw.
        alone: Whether one target was given in all, so that all of the data are its own.
        jobs: Number of processes; more than one for suites that are `Suite.parallel` only.
    """

    samples: Mapping[str, Conformations]
    reference: Path
    weights: Mapping[str, Float64s]
    settings: Any
    seed: int
    alone: bool = False
    jobs: int = 1

    def weights_of(self, name: str) -> Float64s:
        """Return the weights of a target's conformations, `[S]`, equal if the user gave none."""
        source = self.samples[name]
        if name not in self.weights:
            n = sum(source.n_frames.values())
            return np.full(n, 1.0 / n)
        require_length(self.weights[name], source)
        return self.weights[name]


@dataclass(frozen=True)
class Value:
    """One number of the answer.

    Attributes:
        target: The protein; empty for a number over all proteins.
        item: What of it: a reference structure, a coupling; empty for the whole.
        key: What the number is, its name in the files.
        value: NaN where it is not defined.
        unit: Empty for a pure number.
        interval: 95% bootstrap interval, where there is one.
    """

    target: str
    item: str
    key: str
    value: float
    unit: str = ""
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is not defined is null."""
        known = self.interval and all(map(math.isfinite, self.interval))
        finite = {"value": self.value if math.isfinite(self.value) else None}
        return asdict(self) | finite | {"interval": self.interval if known else None}


@dataclass(frozen=True)
class Outcome:
    """The answer of a suite, and all that is shown of it: tables are made of the values.

    Attributes:
        values: All numbers.
        failed: Target to the reason why it has none.
        notes: Sentences for the reader.
        figures: What it draws.
        headline: Keys of the values to print; all when empty.
        findings: Sentences with the nearest, the worst and the like, to stand at the top.
        scenes: Conformations to be turned about.
        of_data: Keys of values that are the data's own, the same for every model.
    """

    values: Sequence[Value]
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    headline: Sequence[str] = ()
    findings: Sequence[str] = ()
    scenes: Sequence[Scene] = ()
    of_data: Sequence[str] = ()


class Compute(Protocol):
    """A function that answers a suite's question."""

    def __call__(self, request: Request, /) -> Outcome:
        """Answer the question.

        Raises:
            UserError: Not one target can be evaluated, or the suite's data cannot be used. What
                is wrong with one target stands in `Outcome.failed` instead.
        """


@dataclass(frozen=True)
class Suite:
    """A question about ensembles; registered in `SUITES` under its name.

    Attributes:
        name: Name for `evaluate --suite`.
        measures: What it answers, one sentence.
        reference: What `--reference` has to name.
        n_samples: How many conformations its papers take.
        data: Source and licence of its data.
        compute: Function that gives the answer; None for `atlas`, which `eval.evaluate` computes.
        settings: A frozen dataclass of what a user may change by `--set`, with its defaults.
        parallel: Whether it makes use of `Request.jobs`.
    """

    name: str
    measures: str
    reference: str
    n_samples: str
    data: str
    compute: Compute | None
    settings: Any = None
    parallel: bool = False


SUITES: Final[Registry[Suite]] = Registry("suite")


def by_target(
    names: Iterable[str], compute: Callable[[str], Sequence[Value]]
) -> tuple[list[Value], dict[str, str]]:
    """Compute values of each target; a target that fails is named and the rest continues.

    Args:
        names: Targets.
        compute: Gives the values of one.

    Returns:
        The values of all targets, and the reason of each failure by target.

    Raises:
        UserError: All of them failed.
    """
    values: list[Value] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            values += compute(name)
        except _DATA_ERRORS as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            failed[name] = f"{kind}{error}"
    if failed and not values:
        shown = "\n".join(f"{name}: {why}" for name, why in list(failed.items())[:4])
        raise UserError(f"no target could be evaluated:\n{shown}")
    return values, failed
