"""The suite `states`: which of a user's own reference structures are visited, and how often.

A conformation belongs to the reference that is nearest to it by C-alpha RMSD, if that is within
a cutoff, and to none otherwise. RMSD after the best superposition is a metric, so that with a
cutoff of half the distance of two references no conformation is within it of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.eval.metrics.distributions import evenly
from protenix_eba.eval.metrics.energies import effective_sample_size
from protenix_eba.eval.protocol.alignment import superpose
from protenix_eba.eval.report.figure import Figure
from protenix_eba.eval.report.plots.style import label_colours, small_multiples
from protenix_eba.eval.report.scene import BACKGROUND, Choice, Layer, Scene
from protenix_eba.eval.suites.ensembles import bootstrap_interval
from protenix_eba.eval.suites.references import SharedResidues, find_structures, shared_residues
from protenix_eba.eval.suites.registry import Float64s, Outcome, Request, Suite, Value, by_target
from protenix_eba.eval.suites.superposition import rmsd, tm_scores

__all__ = ["STATES", "States", "StatesSettings", "populations", "states_of"]

ELSEWHERE: Final = "elsewhere"
_N_NAMED: Final = 4
# More structures on top of each other are no longer seen apart.
_MAX_SHOWN: Final = 12
_MAX_SCENES: Final = 12


@dataclass(frozen=True)
class StatesSettings:
    """Settings that `--set` changes.

    Attributes:
        cutoff_angstrom: Largest C-alpha RMSD of a conformation to the state that it belongs to.
        tm_score: Whether to compute TM-scores, the slow part: some 15 ms for each conformation
            and reference of 150 residues.
    """

    cutoff_angstrom: float = 3.0
    tm_score: bool = True


@dataclass(frozen=True)
class States:
    """The samples of one target beside its reference structures.

    Attributes:
        names: `R` names of the references.
        rmsd: `[S, R]` C-alpha RMSD, angstrom.
        tm: `[S, R]` TM-scores, normalised by the shared residues; None if not wanted.
        between: `[R, R]` RMSD of the references to each other, angstrom.
    """

    names: tuple[str, ...]
    rmsd: Float64s
    tm: Float64s | None
    between: Float64s


def states_of(
    names: Sequence[str],
    samples: NDArray[np.floating],
    references: NDArray[np.floating],
    *,
    tm_score: bool = True,
) -> States:
    """Return distances of samples `[S, L, 3]` to references `[R, L, 3]`, in angstrom."""
    near = np.stack([rmsd(samples, reference) for reference in references], axis=1)
    tm = np.stack([tm_scores(samples, r) for r in references], axis=1) if tm_score else None
    between = np.stack([rmsd(references, reference) for reference in references], axis=1)
    return States(tuple(names), near, tm, between)


def populations(distance: Float64s, weights: Float64s, cutoff: float) -> Float64s:
    """Return the weight that is nearest to each reference and within the cutoff.

    Args:
        distance: `[S, R]` RMSD, angstrom.
        weights: `[..., S]`, which sum to 1.
        cutoff: Angstrom.

    Returns:
        `[..., R + 1]`; the last is the share that is near none. They sum to 1.
    """
    nearest = distance.argmin(axis=1)
    belongs = distance.min(axis=1) <= cutoff
    state = np.where(belongs, nearest, distance.shape[1])
    result: Float64s = weights @ np.eye(distance.shape[1] + 1)[state]
    return result


def _compute(request: Request) -> Outcome:
    settings: StatesSettings = request.settings
    if settings.cutoff_angstrom <= 0.0:
        raise UserError(
            f"cutoff_angstrom: expected a positive number, found {settings.cutoff_angstrom}",
            "3 is usual for whole domains, 1.5 for pockets",
        )
    found: dict[str, tuple[States, Float64s]] = {}
    notes: list[str] = []
    scenes: list[Scene] = []

    def compute(name: str) -> list[Value]:
        structures = find_structures(request.reference, name, request.alone)
        shared = shared_residues(request.samples[name], structures)
        names = [structure.name for structure in structures]
        states = states_of(names, shared.samples, shared.references, tm_score=settings.tm_score)
        weights = request.weights_of(name)
        found[name] = states, weights
        if len(scenes) < _MAX_SCENES:
            scenes.append(_scene(name, states, shared))
        notes.extend(f"{name}: {note}" for note in shared.notes)
        notes.extend(_overlaps(name, states, settings.cutoff_angstrom))
        return _values(name, states, weights, settings.cutoff_angstrom, request.seed)

    values, failed = by_target(sorted(request.samples), compute)
    headline = ("population", "nearest_rmsd", "tm_score_max")
    findings = [
        sentence
        for name, (states, _) in found.items()
        for sentence in _nearest(name, states, settings.cutoff_angstrom)
    ]
    return Outcome(values, failed, notes, _figures(found, values), headline, findings, scenes)


def _scene(name: str, states: States, shared: SharedResidues) -> Scene:
    """Return the references, the nearest sample of each, and a few more samples, superposed."""
    near = states.rmsd.argmin(axis=0)[:_MAX_SHOWN]
    rows = np.unique([*near, *evenly(len(shared.samples), _MAX_SHOWN)])
    target = shared.references[0]
    colours = label_colours(states.names)
    layers = [Layer("samples", BACKGROUND, superpose(shared.samples[rows], target))]
    placed = superpose(shared.references[:_MAX_SHOWN], target)
    layers += [
        Layer(state, colours[state], xyz[None], stays=True, thick=True)
        for state, xyz in zip(states.names, placed, strict=False)
    ]
    choices = [
        Choice(
            f"nearest to {states.names[n]}: sample {row}, {states.rmsd[row, n]:.2f} Å",
            0,
            int(np.searchsorted(rows, row)),
        )
        for n, row in enumerate(near)
    ]
    atoms = [(row, "CA") for row in range(len(shared.residues))]
    return Scene(name, ["trace"], shared.residues, atoms, layers, choices)


def _nearest(name: str, states: States, cutoff: float) -> list[str]:
    """Name the states that are not visited, and the nearest sample of each of the first few."""
    nearest, rows = states.rmsd.min(axis=0), states.rmsd.argmin(axis=0)
    absent = [state for state, d in zip(states.names, nearest, strict=True) if d > cutoff]
    count = f"{name}: {len(states.names) - len(absent)} of {len(states.names)} states are visited"
    each = [
        f"to {state} sample {row} ({distance:.2f} Å)"
        for state, row, distance in zip(states.names, rows, nearest, strict=True)
    ]
    more = ", and so on, see the table" if len(each) > _N_NAMED else ""
    return [
        count + (f"; not visited: {', '.join(absent[:_N_NAMED])}." if absent else "."),
        f"{name}: nearest {', '.join(each[:_N_NAMED])}{more}.",
    ]


def _figures(found: Mapping[str, tuple[States, Float64s]], values: Sequence[Value]) -> list[Figure]:
    maps = {name: both for name, both in found.items() if len(both[0].names) > 1}
    labels = "RMSD to the first reference (Å)", "RMSD to the second (Å)"
    drawn = []
    if maps:
        caption = (
            "Each conformation by its C-alpha RMSD to the first two references of the table, its "
            "area by its weight. "
            "Diamonds are the references themselves; a cross marks the nearest sample of each."
        )
        map_of = small_multiples(maps, _draw_map, *labels)
        drawn.append(Figure("states", "Samples between the states", caption, map_of))
    shares = {n: [v for v in values if v.target == n and v.key == "population"] for n in found}
    caption = "Share of each state, with its 95% interval; elsewhere is within the cutoff of none."
    bars = small_multiples(shares, _draw_populations, "population", "")
    return [*drawn, Figure("populations", "Populations", caption, bars)]


def _overlaps(name: str, states: States, cutoff: float) -> list[str]:
    """Find pairs of references to which one conformation can be near at once."""
    rows, columns = np.triu_indices(len(states.names), 1)
    close = [
        f"{states.names[i]} and {states.names[j]} ({states.between[i, j]:.1f} Å)"
        for i, j in zip(rows, columns, strict=True)
        if states.between[i, j] < 2.0 * cutoff
    ]
    if not close:
        return []
    more = f" and {len(close) - 3} more pairs" if len(close) > 3 else ""
    return [
        f"{name}: {', '.join(close[:3])}{more} are less than two cutoffs apart: a conformation can "
        "be within the cutoff of both and belongs to the nearer one."
    ]


def _values(name: str, states: States, weights: Float64s, cutoff: float, seed: int) -> list[Value]:
    share = populations(states.rmsd, weights, cutoff)
    low, high = bootstrap_interval(
        lambda drawn: populations(states.rmsd, drawn, cutoff), weights, seed
    )
    values = [
        Value(name, item, "population", float(share[n]), "", (float(low[n]), float(high[n])))
        for n, item in enumerate((*states.names, ELSEWHERE))
    ]
    for n, item in enumerate(states.names):
        distance = states.rmsd[:, n]
        values += [
            Value(name, item, "visited", float((distance <= cutoff).any())),
            Value(name, item, "nearest_sample", float(distance.argmin())),
            Value(name, item, "nearest_rmsd", float(distance.min()), "Å"),
            Value(name, item, "mean_rmsd", float(weights @ distance), "Å"),
        ]
        if states.tm is not None:
            values.append(Value(name, item, "tm_score_max", float(states.tm[:, n].max())))
            values.append(Value(name, item, "tm_score_mean", float(weights @ states.tm[:, n])))
    visited = np.mean((states.rmsd <= cutoff).any(axis=0))
    values.append(Value(name, "", "visited_states", float(visited)))
    values.append(Value(name, "", "effective_samples", effective_sample_size(weights)))
    return values


def _draw_map(axes: Axes, item: tuple[States, Float64s]) -> None:
    """Draw conformations by their distances to two references, with areas by weight."""
    states, weights = item
    x, y = states.rmsd[:, 0], states.rmsd[:, 1]
    size: Any = 12.0 * weights * len(weights)
    axes.scatter(x, y, s=size, color="#0072B2", alpha=0.35, linewidths=0)
    for n, name in enumerate(states.names):
        here = states.between[n, 0], states.between[n, 1]
        axes.plot(*here, marker="D", color="#D55E00", markersize=5, clip_on=False)
        if len(states.names) <= 6:
            axes.annotate(name, here, xytext=(4, 4), textcoords="offset points", fontsize=7.5)
    nearest = states.rmsd.argmin(axis=0)
    axes.scatter(x[nearest], y[nearest], marker="x", s=30.0, color="#1c2430", linewidths=1.0)
    axes.set_xlim(left=0.0)
    axes.set_ylim(bottom=0.0)


def _draw_populations(axes: Axes, shares: Sequence[Value]) -> None:
    """Draw a bar for each state; with its interval."""
    share = np.array([value.value for value in shares])
    ends = np.array([value.interval or (value.value, value.value) for value in shares]).T
    bars: Any = np.maximum([share - ends[0], ends[1] - share], 0.0)
    axes.barh(range(len(share)), share, xerr=bars, color="#0072B2", alpha=0.75, height=0.6)
    axes.set_yticks(range(len(share)), [value.item for value in shares])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 1.0)


STATES: Final = Suite(
    name="states",
    measures="Which of your own reference structures are visited, how often, and how nearly.",
    reference="Structures: NAME/*.pdb or *.cif for each target (apo and holo, crystal forms), or "
    "NAME.pdb with the models of an NMR entry.",
    n_samples="250 or more; an interval stands beside each population",
    data="your own",
    compute=_compute,
    settings=StatesSettings(),
)
