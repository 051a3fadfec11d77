"""The split of targets and replicas into those trained on and those held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from protenix_eba.core.errors import UserError
from protenix_eba.host.config import EBAConfig
from protenix_eba.plugin_api import did_you_mean

__all__ = ["check_split", "replicas_of"]

_MOST_NAMES: Final = 50


def check_split(config: EBAConfig, targets: Mapping[str, Sequence[int]]) -> None:
    """Check that the targets and replicas that the configuration names exist.

    Args:
        config: The section `eba`.
        targets: Name of each to the numbers of its replicas.

    Raises:
        UserError: There is no target of that name, a target has none of `replicas`, or no target
            has one of `validation_replicas`.
    """
    names = list(targets)
    for name in config.validation_targets:
        if name not in names:
            raise UserError(
                f"eba.validation_targets: no target {name!r} in {config.data_dir}; "
                f"it has {_listed(names)}",
                did_you_mean(name, names) if len(names) <= _MOST_NAMES else "check the names",
            )
    for name, numbers in targets.items():
        if config.replicas and not set(config.replicas) & set(numbers):
            raise UserError(
                f"eba.replicas: target {name} has none of {list(config.replicas)}, it has "
                f"{list(numbers)}",
                "name other replicas, or leave the target out",
            )
    known = {number for numbers in targets.values() for number in numbers}
    if missing := sorted(set(config.validation_replicas) - known):
        raise UserError(
            f"eba.validation_replicas: no target in {config.data_dir} has replica {missing[0]}; "
            f"there are {', '.join(map(str, sorted(known)))}"
        )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def replicas_of(
    config: EBAConfig, target: str, numbers: Sequence[int], *, held_out: bool
) -> tuple[int, ...]:
    """Return the replicas of a target that are trained on, or those that are held out.

    Held out are the `validation_targets` as a whole, and the `validation_replicas` of all others.
    What remains is trained on, of `replicas` only if there are any named.

    Args:
        config: The section `eba`.
        target: Its name.
        numbers: Numbers of all its replicas.
        held_out: Whether the held-out part is wanted.
    """
    if target in config.validation_targets:
        return tuple(numbers) if held_out else ()
    if held_out:
        return tuple(n for n in numbers if n in config.validation_replicas)
    wanted = config.replicas or numbers
    return tuple(n for n in numbers if n in wanted and n not in config.validation_replicas)
