"""The generated pages of the documentation: commands, configuration, published results.

  python scripts/make_reference.py            # write docs/reference/
  python scripts/make_reference.py --check    # say what is not current, exit status 1

Commands come from the commands themselves, keys from the dataclasses of the configuration and
their docstrings, published results from the package's table.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from protenix_eba.cli.main import cli
from protenix_eba.cli.train import HELP
from protenix_eba.ebmfold.config import EBMFoldConfig
from protenix_eba.eval.catalogue import by_key
from protenix_eba.eval.definitions import PAPER_ROWS
from protenix_eba.eval.published import PublishedRow, published_rows
from protenix_eba.host.config import EBAConfig
from protenix_eba.host.settings import flatten
from protenix_eba.training.data.replay_config import ReplayConfig

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
# Sections of the configuration and what declares them; a test holds that none is missing.
SECTIONS = {"eba": EBAConfig, "ebmfold": EBMFoldConfig, "replay": ReplayConfig}
RECIPES = ("sft_stage1", "sft_stage2", "eba", "eba_dpo")
NOTE = "<!-- Written by scripts/make_reference.py: change what it reads, then run it again. -->\n"


def commands_page() -> str:
    """Return the page of all commands with their options."""
    parts = [
        NOTE,
        "# Commands\n",
        "`--help` of each command prints the same. Exit status of "
        "all: 0 done, 2 unusable input, 3 some targets or rows failed (they are named), 130 "
        "interrupted, 143 ended by SIGTERM.\n",
    ]
    root = click.Context(cli, info_name="protenix-eba")
    parts += [_command(command, context) for command, context in _leaves(cli, root)]
    usage = HELP.replace("{plugins}", "protenix_eba").strip()
    parts += ["## protenix-train\n", f"```text\n{usage}\n```\n"]
    return "\n".join(parts)


def _leaves(
    group: click.Group, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _leaves(command, inner)
        else:
            yield command, inner


def _command(command: click.Command, context: click.Context) -> str:
    # `label frames` is what `label` does when no other word is given.
    name = context.command_path.removesuffix(" frames")
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece)
    rows = [_option(option) for option in command.params if isinstance(option, click.Option)]
    table = ["| option | value | default | meaning |", "|---|---|---|---|", *rows]
    parts = [f"## {name}\n", *_prose(command.help), f"```text\n{name} {usage}\n```\n"]
    if rows:
        parts.append("\n".join(table) + "\n")
    return "\n".join([*parts, *_prose(command.epilog)])


def _prose(text: str | None) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that keep their lines hold commands."""
    kept = inspect.cleandoc(text or "")
    for paragraph in filter(None, map(str.strip, kept.split("\n\n"))):
        if paragraph.startswith("Example: "):  # on one line, or "Example: a. Then: b"
            yield "Example:\n"
            yield _code(paragraph.removeprefix("Example: ").replace(". Then: ", "\n").splitlines())
        elif paragraph.startswith("\b\n"):
            lines = paragraph.splitlines()[1:]
            if lines[0].endswith(":"):
                yield lines.pop(0).strip() + "\n"
            yield _code(lines)
        else:
            yield _escaped(" ".join(paragraph.split())) + "\n"


def _code(lines: list[str]) -> str:
    code = inspect.cleandoc("\n".join(["", *lines]))
    return f"<!-- parse: an example of the help text -->\n```bash\n{code}\n```\n"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    default = "required" if option.required else _default(option)
    meaning = _escaped(re.sub(r"\s*\[default: [^]]*\]$", "", option.help or ""))
    return f"| {names} | {_value(option)} | {default} | {meaning} |"


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    kind: Any = option.type
    if option.metavar:
        words = option.metavar
    elif isinstance(kind, click.Choice):
        words = ", ".join(map(str, kind.choices))
    elif isinstance(kind, click.IntRange | click.FloatRange):
        bounds = [f"above {kind.min}" if kind.min_open else f"at least {kind.min}"]
        bounds += [f"at most {kind.max}"] if kind.max is not None else []
        number = "integer" if isinstance(kind, click.IntRange) else "number"
        words = ", ".join([number, *bounds])
    else:
        words = {"text": "text", "integer": "integer", "float": "number"}.get(kind.name, "path")
    return _escaped(words + (", repeatable" if option.multiple else ""))


def _default(option: click.Option) -> str:
    """Return the default that is declared, or the one that the help states."""
    if isinstance(option.show_default, str):
        return option.show_default
    if option.show_default:
        return f"`{option.default}`"
    said = re.search(r"\[default: ([^]]*)\]$", option.help or "")
    return _escaped(said[1]) if said else ""


def configuration_page() -> str:
    """Return the page of the plugin's keys, and of what the recipes set differently."""
    parts = [
        NOTE,
        "# Configuration\n",
        "A run is one YAML file; `--section.key value` on the command line of `protenix-train` "
        "wins over it. A list is `[a, b]` in the file and `a,b` on the command line; an empty one "
        "is `--key=`. A key that nobody declared, or a value of another type, is an error. All "
        "keys of Protenix are there too: `protenix-train --plugin protenix_eba --print-config` "
        "prints them with their values. The section `deepspeed` takes DeepSpeed's own keys.\n",
    ]
    for name, section in SECTIONS.items():
        parts += [f"## Section `{name}`\n", _section(section)]
    return "\n".join([*parts, "## Recipes side by side\n", _recipes()])


def _section(section: type[Any]) -> str:
    meanings = attribute_docs(section)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(section):
        if field.default is dataclasses.MISSING:
            continue  # no key
        shown = list(field.default) if isinstance(field.default, tuple) else field.default
        kind = re.sub(r"tuple\[(\w+), \.\.\.\]", r"list of \1", str(field.type))
        kind = re.sub(r" \| Literal\[['\"](\w+)['\"]\]", r" or \1", kind)
        default = yaml.safe_dump(shown, default_flow_style=True).split("\n")[0]
        rows.append(f"| `{field.name}` | {kind} | `{default}` | {_escaped(meanings[field.name])} |")
    return "\n".join(rows) + "\n"


def attribute_docs(section: type[Any]) -> dict[str, str]:
    """Return name and text of the part `Attributes:` of a docstring in Google's style."""
    text = inspect.getdoc(section) or ""
    part = re.search(r"^Attributes:\n((?:(?:    .*)?\n)+)", text + "\n", re.MULTILINE)
    assert part, f"{section.__name__}: a docstring without Attributes"
    entries = re.split(r"^    (\w+): ", part[1], flags=re.MULTILINE)[1:]
    return {
        name: " ".join(words.split())
        for name, words in zip(entries[::2], entries[1::2], strict=True)
    }


def _recipes() -> str:
    """Return the table of keys in which the recipes of the paper's stages differ."""
    found = {}
    for name in RECIPES:
        text = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        found[name] = {k: s.value for k, s in flatten(yaml.safe_load(text), name).items()}
    keys = list(dict.fromkeys(key for values in found.values() for key in values))
    rows = ["| key | " + " | ".join(f"`{name}`" for name in RECIPES) + " |"]
    rows.append("|---" * (len(RECIPES) + 1) + "|")
    for key in keys:
        cells = [str(values.get(key, "")) for values in found.values()]
        if len(set(cells)) > 1:
            rows.append(f"| `{key}` | " + " | ".join(_escaped(cell) for cell in cells) + " |")
    return (
        "Keys in which `configs/*.yaml` differ; each value's source stands beside it in the file. "
        "An empty cell is the default.\n\n" + "\n".join(rows) + "\n"
    )


def published_page() -> str:
    """Return the page of results that `compare --published` puts beside a user's own."""
    parts = [
        NOTE,
        "# Published results\n",
        "What `protenix-eba compare --published` puts beside your own numbers. ATLAS, AlphaFlow's "
        "protocol. A number that could not be traced to a table is left out.\n",
    ]
    groups: dict[str, list[PublishedRow]] = {}
    for row in published_rows():
        groups.setdefault(row.cite, []).append(row)
    for source, rows in groups.items():
        parts += [f"{_escaped(source)}.\n", _published(rows)]
    return "\n".join(parts)


def _published(rows: list[PublishedRow]) -> str:
    metrics = by_key()
    lines = ["| metric | " + " | ".join(row.label for row in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for key in ("pairwise_rmsd", *PAPER_ROWS):
        metric = metrics[key]
        cells = [
            _number(row.values[key], metric.digits) + "*" * (key in row.unsafe)
            if key in row.values
            else ""
            for row in rows
        ]
        unit = f", {metric.unit}" if metric.unit else ""
        if any(cells):
            lines.append(f"| {metric.label}{unit} | " + " | ".join(cells) + " |")
    caveats = dict.fromkeys(row.caveat for row in rows if row.caveat)
    return "\n".join([*lines, "", *(f"\\* {_escaped(caveat)}\n" for caveat in caveats)])


def _number(value: float, digits: int) -> str:
    """Format a number as the papers print it: two decimals, percentages as they are."""
    return f"{value:.2f}" if digits else f"{value:g}"


def _escaped(text: str) -> str:
    """Escape text so that Markdown finds neither columns nor tags outside of code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([|*<>_\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


PAGES = {
    "commands.md": commands_page,
    "configuration.md": configuration_page,
    "published.md": published_page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with status 1 if a page is not current",
    )
    check = parser.parse_args().check
    stale = False
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        print(f"{'not current' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    sys.exit(check and stale)


if __name__ == "__main__":
    main()
