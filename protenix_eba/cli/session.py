"""Options, configuration and failures, for the commands that use the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from protenix_eba.cli.status import SOME_FAILED, UNUSABLE_INPUT
from protenix_eba.core.sharding import Shard

__all__ = [
    "config_option",
    "exit_with_failures",
    "load_configuration",
    "msa_option",
    "plugin_option",
    "shard_option",
]

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """Add the option `--config`, the YAML file of the model that `protenix-train` takes too."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        required=True,
        help="YAML configuration of the model: the same file that protenix-train takes.",
    )(function)


def plugin_option(function: F) -> F:
    """Add the option `--plugin`, which loads plugins before the command looks for components.

    The command gets their names as `plugins`, for the configuration and for its worker processes.
    """
    return click.option(
        "--plugin",
        "plugins",
        metavar="NAME[,NAME]",
        default="",
        callback=lambda context, option, value: _use_plugins(value),
        help="Plugins to load, separated by commas. Their components and their sections of the "
        "configuration can then be used.",
    )(function)


def _use_plugins(word: str) -> tuple[str, ...]:
    from protenix_eba.plugin_api import plugin_names

    names = plugin_names(word)
    if names:
        from protenix_eba.host.environment import use_plugins

        use_plugins(names)
    return names


def msa_option(function: F) -> F:
    """Add the option `--msa`."""
    return click.option(
        "--msa",
        "msa_path",
        type=click.Path(path_type=Path),
        default=None,
        help="Multiple sequence alignments: a folder with NAME.a3m or NAME/*.a3m for each "
        "protein, a folder that Protenix's own search wrote (pairing.a3m, non_pairing.a3m), or a "
        "single a3m file.  [default: none]",
    )(function)


def shard_option(then: str) -> Callable[[F], F]:
    """Add the option `--shard i/n`; the command gets it as a `Shard`, or None for all targets.

    Args:
        then: What becomes of the parts, for the help.
    """
    return click.option(
        "--shard",
        metavar="i/n",
        callback=lambda context, option, value: value and Shard.parse(value),
        help="Take only part i of n of the targets, i from 1 to n, for job arrays. " + then,
    )


def exit_with_failures(failures: Mapping[str, str], n_targets: int) -> None:
    """Print why targets failed and end the command; do nothing if none failed.

    Args:
        failures: Target -> reason.
        n_targets: All of them.

    Raises:
        click.exceptions.Exit: Status 3 if some failed, 2 if all did.
    """
    from protenix_eba.core.progress import tell

    for name, reason in failures.items():
        tell(f"failed: {name}: {reason}")
    if failures:
        raise click.exceptions.Exit(UNUSABLE_INPUT if len(failures) == n_targets else SOME_FAILED)


def load_configuration(
    config_path: Path | None, plugins: Sequence[str] = (), **overrides: str
) -> Any:
    """Resolve the configuration, in an environment where Protenix can be imported.

    Args:
        config_path: YAML file, or None for the defaults.
        plugins: Names of those that add sections, besides our own.
        overrides: Keys, their dots written as `__`.
    """
    from protenix_eba.host import environment
    from protenix_eba.host.config import resolve_config

    environment.prepare_environment()
    environment.ensure_ccd_cache()
    # Protenix logs each featurised input; our progress bars say the same.
    logging.getLogger("protenix").setLevel(logging.WARNING)
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve_config(environment.load_plugins(["protenix_eba", *plugins]), config_path, dotted)
