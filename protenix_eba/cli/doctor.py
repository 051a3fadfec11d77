"""`protenix-eba doctor`: what is installed, what the machine has, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from protenix_eba.cli.status import UNUSABLE_INPUT

if TYPE_CHECKING:
    from protenix_eba.cli.doctor_checks import Check

__all__ = ["doctor"]


@click.command(
    epilog="Exit status: 0 all that a run on a CPU needs is there, 2 some of it is missing."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the answer as JSON, for issue reports."
)
def doctor(as_json: bool) -> int:
    """Say what is installed and what this machine has, and what to do about what is missing.

    It looks at versions, Protenix and its patches, the GPU, OpenMM's platforms, the C compiler, the
    chemical components, free memory and disk, and plugins. This takes some seconds, because it
    imports what it names, and compiles the routine for energies if that was not done yet.

    Example: protenix-eba doctor
    """
    from protenix_eba.cli.doctor_checks import CHECKS, run_check

    checks = [run_check(name, check) for name, check in CHECKS.items()]
    usable = all(check.state != "failed" for check in checks)
    click.echo(_json(checks, usable) if as_json else _text(checks, usable))
    return 0 if usable else UNUSABLE_INPUT


def _json(checks: Sequence[Check], usable: bool) -> str:
    rows = [
        {"name": c.name, "state": c.state, "found": c.found, "advice": c.advice} for c in checks
    ]
    return json.dumps({"usable": usable, "checks": rows}, indent=2)


def _text(checks: Sequence[Check], usable: bool) -> str:
    lines = []
    for check in checks:
        lines.append(f"{check.state:<7}{check.name:<17} {check.found}")
        if check.advice:
            lines.append(f"{'':<25}What to do: {check.advice}")
    lines.append("ready for a run on a CPU" if usable else "a run on a CPU lacks what failed")
    return "\n".join(lines)
