"""The command `protenix-eba <verb>`, which does everything around the training."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final

import click

from protenix_eba.cli.status import INTERRUPTED, TERMINATED, UNUSABLE_INPUT
from protenix_eba.core.errors import UserError
from protenix_eba.core.signals import Terminated, signal_interrupts

__all__ = ["cli", "main", "run"]

# Verb -> one line of help. The module protenix_eba.cli.<verb> is imported only when the verb is
# used: torch and OpenMM take seconds. Python has reserved the name of one.
VERBS: Final = {
    "init": "Write a checkpoint to start from, for tests and the demo.",
    "import": "Bring MD trajectories into the layout that all commands read.",
    "label": "Compute the energies of trajectory frames with a force field.",
    "embed": "Store trunk embeddings, so that training skips the trunk.",
    "train": "Train: another name for `protenix-train --plugin protenix_eba`.",
    "sample": "Sample ensembles of conformations from sequences.",
    "evaluate": "Compare a model's sampled ensembles with molecular dynamics.",
    "suites": "List the questions that `evaluate --suite` answers, and what each needs.",
    "reweight": "Weight conformations so that their averages agree with measurements.",
    "compare": "Put evaluated models side by side, and beside published results.",
    "export": "Turn a training checkpoint into one that `protenix pred` reads.",
    "fold": "Fold C-alpha traces from predicted distances and orientations (EBM-Fold).",
    "refine": "Refine C-alpha traces with predicted distances and orientations (EBM-Fold).",
    "doctor": "Say what is installed and what this machine has, and what is missing.",
    "demo": "Run the whole pipeline on a small example.",
}


class LazyGroup(click.Group):
    """A command group that lists its commands from a table and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which they are used."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command that a verb names."""
        if cmd_name not in VERBS:
            close = difflib.get_close_matches(cmd_name, VERBS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            ctx.fail(f"No such command {cmd_name!r}.{hint}")
        name = "import_md" if cmd_name == "import" else cmd_name
        module = importlib.import_module(f"protenix_eba.cli.{name}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To train: protenix-train --help",
)
@click.version_option(package_name="protenix-eba", prog_name="protenix-eba")
def cli() -> None:
    """Energy-based alignment for Protenix: ensembles with Boltzmann weights."""


def run(argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        argv: The words after the name of the command.

    Returns:
        The exit status: 0 for success, 2 for input that cannot be used, 130 when interrupted, 143
        by SIGTERM.
    """
    try:
        with signal_interrupts():
            words = list(argv)  # also for a command that runs itself in several processes
            status = cli.main(words, prog_name="protenix-eba", standalone_mode=False, obj=argv)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        return UNUSABLE_INPUT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("interrupted; what is finished is kept", err=True)
        # click has a KeyboardInterrupt of a command's as the cause of its own.
        return TERMINATED if isinstance(error.__cause__ or error, Terminated) else INTERRUPTED
    except Exception as error:
        from protenix_eba.host.environment import (
            HookError,  # Protenix comes with it: only when it is needed
        )

        if not isinstance(error, HookError):
            raise
        click.echo(f"error: {error}", err=True)
        return UNUSABLE_INPUT
    return status if isinstance(status, int) else 0


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
