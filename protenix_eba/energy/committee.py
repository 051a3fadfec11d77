"""Several energies of the same frames in one table, and the one, or the sum, to be trained on."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import fingerprint
from protenix_eba.energy.choices import MEANINGS
from protenix_eba.energy.table import SHARED, EnergyLabels, labels_from_rows

__all__ = ["combine", "energies_by_name", "energy_of", "parse_mixture"]

_NAME: Final = re.compile(r"[\w.+-]+")
_KEY: Final = "energy_name"  # in the provenance of the chosen one
_SAME: Final = 1e-9
_TOLD: Final = "set eba.double_counting to true if this is meant"

Key = tuple[str, int, int]


def combine(tables: Mapping[str, EnergyLabels], chosen: str | None = None) -> EnergyLabels:
    """Put energies of the same frames into one table.

    A frame that one of the tables lacks stays, without that energy and with the reason. Energies
    keep their protocols and hashes, so that each stays comparable with itself alone.

    Args:
        tables: Each energy by its name.
        chosen: The one that stands in the columns of a table of one; None for the first.

    Returns:
        One row for each frame of any table.

    Raises:
        UserError: A name that is no word, fewer than two tables, one of several energies already,
            labels of one frame for different coordinates, or no frame that all have.
    """
    names = list(tables)
    first = names[0] if chosen is None and names else chosen
    if len(names) < 2 or first not in tables:
        raise UserError(
            f"energies to combine: {', '.join(names) or 'none'}; chosen: {first}",
            "give two tables at least, and choose one of their names",
        )
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            raise UserError(
                f"an energy of the name {name!r}", "use letters, digits, dots, + - and _ alone"
            )
        if table.others:
            raise UserError(
                f"the table of {name} has several energies: {', '.join(energies_by_name(table))}",
                "combine the tables that it was made from",
            )
    rows = {name: {_key(row): row for row in table.rows()} for name, table in tables.items()}
    frames = _frames(rows)
    aligned = {
        name: labels_from_rows(
            [rows[name].get(key) or _absent(row, name) for key, row in frames.items()],
            table.provenance,
        )
        for name, table in tables.items()
    }
    if not np.all([labels.ok for labels in aligned.values()], axis=0).any():
        raise UserError(
            f"no frame has an energy in all of {', '.join(names)}", "label the same frames"
        )
    top = aligned.pop(str(first))
    return replace(top, provenance={**top.provenance, _KEY: first}, others=aligned)


def _key(row: Mapping[str, Any]) -> Key:
    return row["target"], row["replica"], row["frame"]


def _frames(rows: Mapping[str, Mapping[Key, dict[str, Any]]]) -> dict[Key, dict[str, Any]]:
    """Return a row of each frame; raise UserError where tables speak of different coordinates."""
    frames: dict[Key, dict[str, Any]] = {}
    for name, table in rows.items():
        for key, row in table.items():
            known = frames.setdefault(key, row)
            for column in ("frame_hash", "n_residues"):
                if known[column] != row[column]:
                    raise UserError(
                        f"the {column} of {key[0]} replica {key[1]} frame {key[2]} is "
                        f"{row[column] or 'unknown'} in the table of {name}, and in another "
                        f"{known[column] or 'unknown'}",
                        "combine labels of the same trajectories",
                    )
    return frames


def _absent(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: row[key] for key in SHARED} | {
        "initial_energy_kj_mol": math.nan,
        "energy_kj_mol": math.nan,
        "rmsd_angstrom": math.nan,
        "status": "skipped",
        "reason": f"not in the table of {name}",
        "topology_hash": "",
        "protocol_hash": "",
    }


def energies_by_name(labels: EnergyLabels) -> dict[str, EnergyLabels]:
    """Return each energy of a table as a table of one, the chosen one first.

    The name of the energy of a table of one is empty.
    """
    provenance = dict(labels.provenance)
    name = provenance.pop(_KEY, "")
    return {name: replace(labels, provenance=provenance, others={}), **labels.others}


def parse_mixture(words: Sequence[str]) -> dict[str, float]:
    """Read "NAME" or "NAME=WEIGHT", each energy once; a name alone has the weight 1.

    Raises:
        UserError: A weight that is no number or 0, or a name twice.

    Examples:
        >>> parse_mixture(["charmm36=0.7", "gfn2-xtb=0.3"])
        {'charmm36': 0.7, 'gfn2-xtb': 0.3}
    """
    weights: dict[str, float] = {}
    for word in words:
        name, equals, number = word.partition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight) or weight == 0 or name in weights:
            raise UserError(
                f"eba.energy_column: {word!r} in {','.join(words)}",
                "give each energy once, as NAME or NAME=WEIGHT, with a weight other than 0",
            )
        weights[name] = weight
    return weights


def energy_of(
    labels: EnergyLabels, weights: Mapping[str, float], *, double_counting: bool = False
) -> EnergyLabels:
    """Return the labels of one energy of a table, or of a weighted sum of several.

    Args:
        labels: A table of one energy or several.
        weights: Weight of each energy by name; none for the chosen one of the table.
        double_counting: Whether a sum is taken in which a Boltzmann factor counts twice.

    Returns:
        A table of one energy. A row of a sum is ok where all its parts are; the sum has a protocol
        hash of its own, and no protocol by which other conformations could be labelled.

    Raises:
        UserError: A name that the table does not have, or a factor that counts twice.
    """
    known = energies_by_name(labels)
    if not weights:
        return next(iter(known.values()))
    if unknown := sorted(set(weights) - set(known)):
        there = ", ".join(known) if "" not in known else "a single energy without a name"
        raise UserError(
            f"eba.energy_column: the labels have no energy {', '.join(unknown)}: they have {there}",
            "name one of these, or put tables together by `protenix-eba label combine`",
        )
    parts = {name: known[name] for name in weights}
    if not double_counting:
        _refuse_double_counting(parts, weights)
    if list(weights.values()) == [1.0]:
        return parts.popitem()[1]
    return _sum(parts, weights)


def _meaning(labels: EnergyLabels) -> str:
    """Return what the labels are: an "energy", minus a "bias", or of "weights"."""
    text = labels.provenance.get("energy")
    return next((kind for kind, words in MEANINGS.items() if words == text), "energy")


def _refuse_double_counting(
    parts: Mapping[str, EnergyLabels], weights: Mapping[str, float]
) -> None:
    """Refuse sums that are not the energy of one ensemble.

    Labels E stand for weights exp(-E / kT) of the frames. Energies U have to add up to one U, or to
    a difference between two (from the energy of the MD to another one). Minus a bias, and
    -kT ln(weight), correct frames that the MD drew by U already: with them energies may add up to a
    difference only, and weights of estimators hold the bias already.
    """
    kinds = {name: _meaning(part) for name, part in parts.items()}
    total = sum(weights[name] for name, kind in kinds.items() if kind == "energy")
    corrections = {name: kind for name, kind in kinds.items() if kind != "energy"}
    energies = sorted(set(kinds) - set(corrections))
    if corrections and abs(total) > _SAME:
        raise UserError(
            f"eba.energy_column: {', '.join(corrections)} corrects frames that the MD drew by "
            f"exp(-U/kT), and {', '.join(energies)} would count this factor again",
            f"leave one of them out, or {_TOLD}",
        )
    if energies and min(abs(total), abs(total - 1)) > _SAME:
        raise UserError(
            f"eba.energy_column: the weights of {', '.join(energies)} add up to {total:g}: the "
            "Boltzmann factor would count so many times",
            f"let them add up to 1 (or to 0, for a difference), or {_TOLD}",
        )
    again = "weights" in corrections.values() and len(corrections) > 1
    if again or any(not 0 < weights[name] <= 1 for name in corrections):
        raise UserError(
            f"eba.energy_column: {', '.join(corrections)} would correct the same frames twice",
            f"take one of them, with a weight of at most 1, or {_TOLD}",
        )


def _sum(parts: Mapping[str, EnergyLabels], weights: Mapping[str, float]) -> EnergyLabels:
    first = next(iter(parts.values()))
    w = np.array([weights[name] for name in parts])[:, None]

    def added(column: str) -> NDArray[np.float64]:
        return np.asarray((w * [getattr(part, column) for part in parts.values()]).sum(axis=0))

    statuses = np.array([part.status for part in parts.values()])
    reasons = np.array(
        [[f"{name}: {why}" for why in part.reason] for name, part in parts.items()], dtype=np.str_
    )
    # of a row that is not ok, the first energy that is not
    place = (statuses != "ok").argmax(axis=0), np.arange(len(first))
    n_terms = {f"energy_{term}_kj_mol" for term in ("bonds", "angles", "torsions", "nonbonded")}
    variance = sum(
        (weights[name] * part.noise_kj_mol) ** 2 / part.repeats for name, part in parts.items()
    )
    unknown = np.full(len(first), math.nan)
    recipe = [[n, weights[n], sorted(set(p.protocol_hash.tolist()))] for n, p in parts.items()]
    return replace(
        first,
        **dict.fromkeys(n_terms | {"energy_solvent_kj_mol"}, unknown),
        initial_energy_kj_mol=added("initial_energy_kj_mol"),
        energy_kj_mol=added("energy_kj_mol"),
        rmsd_angstrom=unknown,
        rms_force_kj_mol_nm=unknown,
        iterations=np.full(len(first), -1),
        status=statuses[place],
        reason=np.where(statuses[place] == "ok", "", reasons[place]),
        repeats=np.ones(len(first), dtype=np.int64),
        noise_kj_mol=np.sqrt(variance),
        protocol_hash=np.full(len(first), fingerprint(recipe)),
        others={},
        provenance={"mixture": dict(weights), "of": {n: p.provenance for n, p in parts.items()}},
    )
