"""`protenix-train`: Protenix's training with plugins."""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import click

from protenix_eba.cli.status import INTERRUPTED, TERMINATED, UNUSABLE_INPUT
from protenix_eba.core.errors import UserError
from protenix_eba.core.signals import Terminated, signal_interrupts
from protenix_eba.host.environment import TRAINERS, HookError, Plugin, load_plugins
from protenix_eba.plugin_api import (
    Arguments,
    Trainer,
    installed_plugins,
    plugin_names,
    split_args,
)

if TYPE_CHECKING:
    from ml_collections.config_dict import ConfigDict

__all__ = ["host_trainer", "leave", "main", "program", "run", "split", "train"]

HELP = """\
Usage: protenix-train [--plugin NAME[,NAME]] [--config FILE.yaml] [--SECTION.KEY VALUE]...

Train Protenix, or fine-tune it with what a plugin brings.

  --plugin NAMES        plugins to load, separated by commas; installed: {plugins}
  --config FILE.yaml    configuration, nested keys as Protenix has them
  --SECTION.KEY VALUE   a single key, stronger than the file; --KEY=VALUE works too, a list is
                        a,b,c and an empty value is --KEY=
  --print-config        print the resolved configuration as YAML and stop
  --dry-run             check all data, train a few steps in a scratch folder, print what the run
                        would take (time, memory, disk) and leave out, and stop
  --device-memory GIB   with --dry-run: whether a process fits in so much memory (of the GPU, if
                        there is one), or which key to change and the peak after the change
  -h, --help            this text

`protenix-eba train ...` does what `protenix-train --plugin protenix_eba ...` does.

The key `trainer` chooses who trains. The default is "af3", Protenix's own trainer; a plugin adds
others, and a recipe for it says for example `trainer: eba`.

Example: fine-tune on the conformations and energies of a recipe, two steps only

  protenix-train --plugin protenix_eba --config eba.yaml --max_steps 2 --eba.n_conformers 3
"""


# Options that are no keys of the configuration.
_OPTIONS: Final = ("--dry-run", "--device-memory", "--print-config")


class DryRunOptions(NamedTuple):
    """Options of `--dry-run`.

    Attributes:
        memory_gib: `--device-memory`, the memory in GiB that a process may take.
    """

    memory_gib: float | None


@TRAINERS.register("af3")
def host_trainer(configs: Any) -> Trainer:
    """Build Protenix's own trainer."""
    from runner.train import AF3Trainer

    trainer: Trainer = AF3Trainer(configs)
    return trainer


def run(argv: Sequence[str]) -> None:
    """Do what the command line asks for.

    Args:
        argv: The words after the name of the command.

    Raises:
        UserError: The command line, the configuration or the data cannot be used.
    """
    if "--help" in argv or "-h" in argv:
        print(HELP.format(plugins=", ".join(sorted(installed_plugins())) or "none"), end="")
        return
    arguments, dry = split(argv)
    plugins = load_plugins(arguments.plugins)
    configs = _resolve(arguments, plugins)
    if plugins:
        _check_ranges(configs)
    if "print-config" in arguments.flags:
        _print_config(configs)
    else:
        _train(configs, plugins, dry)


def split(argv: Sequence[str]) -> tuple[Arguments, DryRunOptions | None]:
    """Split the command line into what the host knows too, and what is ours.

    Args:
        argv: The words after the name of the command.

    Raises:
        UserError: It cannot be taken apart.
    """
    _refuse_other_spellings(argv)
    arguments = split_args([word for word in argv if word != "--dry-run"])
    word = arguments.overrides.pop("device-memory", None)
    if "--dry-run" not in argv:
        if word is not None:
            raise UserError("--device-memory stands without --dry-run", "add --dry-run")
        return arguments, None
    try:
        memory = None if word is None else float(word)
    except ValueError:
        memory = 0.0
    if memory is not None and not 0 < memory * 2**30 < math.inf:
        raise UserError(f"--device-memory: expected GiB, a number above 0, found {word!r}")
    return arguments, DryRunOptions(memory)


def _refuse_other_spellings(argv: Sequence[str]) -> None:
    """Refuse an option of ours in another spelling, before it is taken for a key."""
    plain = {_plain(option): option for option in _OPTIONS}
    for word in argv:
        name = word.partition("=")[0]
        meant = plain.get(_plain(name)) if name.startswith("--") else None
        if meant and name != meant:
            raise UserError(f"there is no option {name}", f"did you mean {meant}?")
        if meant in ("--dry-run", "--print-config") and "=" in word:
            raise UserError(f"{word}: {meant} takes no value", f"write {meant} alone")


def _plain(option: str) -> str:
    return option.replace("-", "").replace("_", "").lower()


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line asks for; turn failures into an exit status and a message.

    Args:
        argv: The words after the name of the command; those of this process when None.

    Raises:
        SystemExit: Status 2 for unusable input, 130 for an interrupt, 143 for SIGTERM.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        with signal_interrupts():
            run(words)
    except (UserError, HookError, OSError) as error:
        # A full disk, a folder that cannot be written: the operating system's message says which.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(UNUSABLE_INPUT)
    except KeyboardInterrupt as error:
        kept = "" if "--dry-run" in words else "; checkpoints that were written are kept"
        print(f"interrupted{kept}", file=sys.stderr)
        sys.exit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED)


def program(argv: Sequence[str] | None = None) -> NoReturn:
    """Do as `main` does and end the process: the entry point of the console script."""
    status = 0
    try:
        main(argv)
    except SystemExit as ended:
        status = int(ended.code or 0)
    leave(status)


# A word that click does not know is a key of the configuration, and --help that of protenix-train.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--plugin", default="", help="Plugins to load besides this package.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--SECTION.KEY VALUE]...")
def train(plugin: str, words: tuple[str, ...]) -> NoReturn:
    """Do what `protenix-train --plugin protenix_eba` does with the same words."""
    names = dict.fromkeys(["protenix_eba", *plugin_names(plugin)])
    program(["--plugin", ",".join(names), *words])


def leave(status: int) -> NoReturn:
    """End the process after its exit handlers, without taking the interpreter down.

    DeepSpeed keeps gloo's threads alive. One that lets go of a tensor while the interpreter goes
    down aborts the process after all work is done, and torchrun reports a failure (PyTorch's pull
    request 179291).

    Args:
        status: Exit status of the process.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _resolve(arguments: Arguments, plugins: Sequence[Plugin]) -> ConfigDict:
    """Resolve the configuration in the environment that the run will have."""
    from protenix_eba.host import environment
    from protenix_eba.host.config import resolve_config

    environment.prepare_environment()
    if plugins:
        # Protenix's own training brings its own data; what plugins train on needs only these
        # chemical components. They are made now only if the configuration is then used.
        if "print-config" in arguments.flags:
            environment.point_to_ccd_cache()
        else:
            environment.ensure_ccd_cache()
    return resolve_config(plugins, arguments.config, arguments.overrides)


def _check_ranges(configs: ConfigDict) -> None:
    """Refuse values outside their ranges before they are printed as if they could be used."""
    from protenix_eba.host.config import check_ranges, section_from
    from protenix_eba.plugin import SECTIONS

    check_ranges(configs)
    for name, section in SECTIONS.items():
        if name in configs:
            section_from(configs[name], section)


def _print_config(configs: ConfigDict) -> None:
    import yaml

    print(yaml.safe_dump(configs.to_dict(), sort_keys=False), end="")


def _train(configs: ConfigDict, plugins: Sequence[Plugin], dry: DryRunOptions | None) -> None:
    from protenix_eba.host.config import check_required

    check_required(configs)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO
    )
    if plugins:
        # Protenix's own trainer reports through logging; a plugin's has its progress bar.
        logging.getLogger("protenix").setLevel(logging.WARNING)
    # A dependency of DeepSpeed declares its settings in a way that pydantic comments on.
    warnings.filterwarnings("ignore", module="pydantic")
    for plugin in plugins:
        plugin.register()
    build = TRAINERS.get(configs.trainer)
    logging.getLogger(__name__).debug(
        "trainer %r of %s; plugins: %s",
        configs.trainer,
        ", ".join(TRAINERS),
        ", ".join(plugin.name for plugin in plugins) or "none",
    )
    if dry:
        from protenix_eba.cli.dry_run import print_dry_run

        print_dry_run(build, configs, dry.memory_gib)
    else:
        build(configs).run()


if __name__ == "__main__":
    program()
