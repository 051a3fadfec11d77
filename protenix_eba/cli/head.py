"""Options of `fold` and `refine` that name a head, and the building of that head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from protenix_eba.cli.folding import ModelChoice, TargetChoice
from protenix_eba.cli.session import load_configuration, plugin_option

if TYPE_CHECKING:
    from protenix_eba.ebmfold.heads import Head

__all__ = ["EBMFOLD", "build_head", "head_options", "head_provenance"]

EBMFOLD: Final = "ebmfold"


def head_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--head`, `--weights` and `--plugin`."""
    for option in (
        plugin_option,
        click.option(
            "--weights",
            type=click.Path(path_type=Path),
            default=None,
            help="Trained network of the head ebmfold.  [default: ebmfold.weights of --config, "
            "else the one that is shipped]",
        ),
        click.option(
            "--head",
            default=EBMFOLD,
            show_default=True,
            metavar="NAME",
            help="Method that makes the traces: ebmfold, or a head that a plugin registers.",
        ),
    ):
        function = option(function)
    return function


def build_head(
    name: str,
    choice: TargetChoice,
    plugins: Sequence[str],
    *,
    weights: Path | None,
    sampler: str | None,
) -> tuple[Any, Head]:
    """Return the configuration (that of the model, if there is one) and the head built from it.

    Args:
        name: Name of a registered head.
        choice: The options.
        plugins: Names of the plugins whose sections the configuration has.
        weights: Weights to use in place of `ebmfold.weights`; None to keep those.
        sampler: Sampler to use in place of `ebmfold.sampler`; None to keep that.

    Raises:
        UserError: The configuration, or what it names, cannot be used.
        HookError: No such head.
    """
    source = choice.source
    path = source.config_path if isinstance(source, ModelChoice) else None
    settings = {"ebmfold__weights": weights, "ebmfold__sampler": sampler}
    given = {key: str(value) for key, value in settings.items() if value is not None}
    configs = load_configuration(path, plugins, **given)
    from protenix_eba.ebmfold import protenix_head  # noqa: F401  registers our own
    from protenix_eba.host import environment

    head: Head = environment.HEADS.get(name)(configs)
    return configs, head


def head_provenance(name: str, head: Head) -> dict[str, Any]:
    """Return what the traces of a head depend on, for their record."""
    # Records from before there was a choice name none: they are of EBM-Fold.
    return dict(head.provenance) | ({} if name == EBMFOLD else {"head": name})
