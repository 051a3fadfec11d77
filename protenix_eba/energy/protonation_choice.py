"""The choice of protonation for residues whose hydrogens a file does not show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.protein.titration import STATES, USUAL_STATES, standard_state

__all__ = ["FROM_FRAMES", "NamedState", "Protonation"]

FROM_FRAMES: Final = "frames"
_PH: Final = 7.0
_PH_WORD: Final = re.compile(r"pH:(\d+(?:\.\d+)?)", re.IGNORECASE)
_RESIDUE: Final = re.compile(r"(?:([^/=,]+)/)?(?:([^:/=,]*):)?([A-Z]{3})(-?\d+)([A-Z]?)=(\w+)")
_HINT: Final = (
    "give frames, ph:7.4 or residues such as A:HIS12=HIP, of one target among several "
    "TARGET/A:HIS12=HIP, separated by commas"
)


@dataclass(frozen=True)
class NamedState:
    """A residue whose protonation the user names.

    Attributes:
        chain: Its chain's name in the file; None where it was not given.
        residue: Standard name.
        number: Residue number with its insertion code, "52A".
        state: AMBER's name.
        target: Whose residue it is; None where each target has it.
    """

    chain: str | None
    residue: str
    number: str
    state: str
    target: str | None = None

    def __str__(self) -> str:
        target = "" if self.target is None else f"{self.target}/"
        chain = "" if self.chain is None else f"{self.chain}:"
        return f"{target}{chain}{self.residue}{self.number}={self.state}"

    def is_of(self, residue: Any) -> bool:
        """Tell whether the state is that of an OpenMM residue."""
        number = f"{residue.id}{residue.insertionCode.strip()}"
        if (residue.name, number) != (self.residue, self.number):
            return False
        return self.chain is None or residue.chain.id.strip() == self.chain


@dataclass(frozen=True)
class Protonation:
    """A choice of protonation; hydrogens that a file shows come before it.

    Attributes:
        ph: Decides on residues that neither hydrogens nor the user name.
        named: Residues whose state the user names.
    """

    ph: float = _PH
    named: tuple[NamedState, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Protonation:
        """Parse "frames", "ph:7.4", "A:HIS12=HIP", "1abc/A:HIS12=HIP", or several of these.

        Several have commas between them. The last form is of one target among several.

        Raises:
            UserError: None of these, or a state that the residue does not have.
        """
        ph, named = _PH, []
        for word in filter(None, (part.strip() for part in text.split(","))):
            if word == FROM_FRAMES:
                continue
            if found := _PH_WORD.fullmatch(word):
                ph = float(found[1])
            else:
                named.append(_named(word))
        if not 0 <= ph <= 14:
            raise UserError(f"protonation: expected a pH from 0 to 14, found {ph:g}", _HINT)
        return cls(ph, tuple(sorted(named, key=str)))

    def __str__(self) -> str:
        """Return one text for one choice, which is part of the hash of a protocol."""
        ph = [] if self.ph == _PH else [f"ph:{self.ph:g}"]
        return ",".join([*ph, *map(str, self.named)]) or FROM_FRAMES

    def of(self, target: str) -> Protonation:
        """Return the part of the choice that is for one target."""
        own = [one for one in self.named if one.target in (None, target)]
        return Protonation(self.ph, tuple(replace(one, target=None) for one in own))

    def check_targets(self, names: Sequence[str]) -> None:
        """Refuse residues of other targets than these.

        Raises:
            UserError: There is one.
        """
        for one in self.named:
            if one.target not in (None, *names):
                shown = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
                raise UserError(
                    f"protonation {one}: no target {one.target} among {shown}",
                    "name the target as its folder or its files are named",
                )

    def by_residue(self, residues: Sequence[Any]) -> dict[int, NamedState]:
        """Return the named state of each residue, by its position in `residues`.

        Raises:
            UserError: A name that fits no residue, or several.
        """
        states: dict[int, NamedState] = {}
        for one in self.named:
            where = [i for i, residue in enumerate(residues) if one.is_of(residue)]
            if len(where) != 1 or where[0] in states:
                found = "one that is named twice" if len(where) == 1 else f"{len(where)} residues"
                raise UserError(
                    f"protonation {one}: expected one residue of that chain, name and number, "
                    f"found {found}",
                    "name chain, residue and number as in the target's own PDB file: A:HIS12=HIP",
                )
            states[where[0]] = one
        return states


def _named(word: str) -> NamedState:
    found = _RESIDUE.fullmatch(word)
    if not found:
        raise UserError(f"protonation: {word!r} is none of the choices", _HINT)
    target, chain, residue, number, insertion, given = found.groups()
    state = standard_state(given)
    if state not in STATES.get(residue, ()):
        known = ", ".join(STATES.get(residue, ())) or "none"
        raise UserError(
            f"protonation: {residue} has no state {given}; known are {known}",
            f"other than usual can be {', '.join(sorted(STATES))}; usual is "
            f"{', '.join(sorted(USUAL_STATES))}",
        )
    return NamedState(chain, residue, f"{number}{insertion}", state, target)
