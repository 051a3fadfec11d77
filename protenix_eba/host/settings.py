"""Settings of a user, from a YAML file or the command line, checked by their default's type.

Defaults are trees in Protenix's notation (`protenix.config.extend_types`): a value stands for
itself and its type, marks say that null is allowed or that a key follows another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from protenix_eba.core.errors import UserError
from protenix_eba.core.files import require_file
from protenix_eba.plugin_api import did_you_mean

if TYPE_CHECKING:
    from protenix.config.extend_types import ListValue, ValueMaybeNone

__all__ = [
    "COMMAND_LINE",
    "Declared",
    "Setting",
    "apply_setting",
    "declarations",
    "flatten",
    "list_value",
    "load_yaml",
    "number_or_word",
    "take_section",
]

COMMAND_LINE: Final = "command line"
NULL_WORDS: Final = ("None", "none", "null")  # as Protenix reads its own command line


class Setting(NamedTuple):
    """A value that the user gave: a string from the command line, anything from YAML."""

    value: Any
    origin: str


class Declared(NamedTuple):
    """The type and the words that a key may hold."""

    dtype: type
    is_list: bool
    nullable: bool
    words: tuple[str, ...] = ()  # that may stand in the place of a number

    def __str__(self) -> str:
        name = f"list of {self.dtype.__name__}" if self.is_list else self.dtype.__name__
        name = " or ".join([name, *self.words])
        return f"{name} or null" if self.nullable else name


class _Loader(yaml.SafeLoader):
    """A loader of safe YAML that refuses repeated keys and reads 1e-4 as a number (YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key_node.value!r} is given twice",
                    problem_mark=key_node.start_mark,
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UserError: The file is absent, is no YAML, has a key twice or is not a mapping.
    """
    path = require_file(path, "configuration")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid configuration: {error}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UserError(f"{path}: expected keys with values (`key: value`), found {found}")
    return content


def flatten(tree: Mapping[Any, Any], path: str, prefix: str = "") -> dict[str, Setting]:
    """Return settings by dotted key; an empty mapping stays, so that its name is checked too.

    Args:
        tree: What `load_yaml` read.
        path: The file it came from, for messages.
        prefix: The dotted key of `tree`, ending with a dot.

    Raises:
        UserError: A key is no word, or is given both nested and dotted.
    """
    flat: dict[str, Setting] = {}
    for name, value in tree.items():
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise UserError(f"{path}: {prefix}{name}: a key must be a word, found {name!r}")
        key = f"{prefix}{name}"
        nested = isinstance(value, dict) and value
        found = flatten(value, path, f"{key}.") if nested else {key: Setting(value, path)}
        if twice := flat.keys() & found.keys():
            raise UserError(f"{path}: {', '.join(sorted(twice))}: given twice")
        flat |= found
    return flat


def take_section(
    name: str, settings: Mapping[str, Setting]
) -> tuple[dict[str, Setting], dict[str, Any]]:
    """Take all settings below one top-level key out of the others, and nest them again.

    Args:
        name: The key.
        settings: By dotted key; words of the command line are read as YAML.

    Returns:
        The settings that are left, and the section.

    Raises:
        UserError: A key is both a section and a value.
    """
    rest = {k: s for k, s in settings.items() if k.partition(".")[0] != name}
    section: dict[str, Any] = {}
    for key, setting in settings.items():
        if key in rest or (key == name and not setting.value):
            continue
        inner, (*path, last) = section, key.split(".")[1:] or [""]
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"{setting.origin}: {key}: {part} is already set to {inner!r}")
        if not last:
            raise UserError(f"{setting.origin}: {name} is a section, found {setting.value!r}")
        word = setting.origin == COMMAND_LINE
        inner[last] = yaml.load(setting.value, _Loader) if word else setting.value
    return rest, section


def declarations(
    tree: Mapping[str, Any], top: Mapping[str, Any], prefix: str = ""
) -> dict[str, Declared]:
    """Return for each dotted key what it may hold, by its default.

    Args:
        tree: Defaults in Protenix's notation.
        top: The whole tree, where a linked key is looked up.
        prefix: Dotted key of `tree` within `top`, ending with a dot.
    """
    declared: dict[str, Declared] = {}
    for name, default in tree.items():
        if isinstance(default, dict):
            declared |= declarations(default, top, f"{prefix}{name}.")
        else:
            declared[f"{prefix}{name}"] = _declaration(default, top)
    return declared


def _declaration(default: Any, top: Mapping[str, Any]) -> Declared:
    from protenix.config import extend_types as host

    if isinstance(default, host.GlobalConfigValue):
        return _declaration(top[default.global_key], top)
    if isinstance(default, list):
        return Declared(type(default[0]), is_list=True, nullable=False)
    if isinstance(default, host.ListValue):
        return Declared(default.dtype, is_list=True, nullable=False)
    if words := getattr(default, "words", ()):
        return Declared(default.dtype, is_list=False, nullable=False, words=words)
    if isinstance(default, host.DefaultNoneWithType | host.ValueMaybeNone | host.RequiredValue):
        return Declared(default.dtype, is_list=False, nullable=True)
    return Declared(type(default), is_list=False, nullable=False)


def apply_setting(
    key: str, setting: Setting, declared: Mapping[str, Declared], tree: dict[str, Any]
) -> None:
    """Put one setting into a tree of defaults.

    Args:
        key: Dotted key.
        setting: The value that the user gave.
        declared: What each key may hold.
        tree: Defaults in Protenix's notation, changed in place.

    Raises:
        UserError: The key is unknown or the value has another type.
    """
    from protenix.config.extend_types import DefaultNoneWithType

    if key not in declared:
        _refuse_or_skip(key, setting, declared)
        return
    kind = declared[key]
    value = _checked(key, setting, kind)
    *sections, name = key.split(".")
    for section in sections:
        tree = tree[section]
    if value is None:
        tree[name] = DefaultNoneWithType(kind.dtype)
    else:
        tree[name] = list_value(value, kind.dtype) if kind.is_list else value


def _refuse_or_skip(key: str, setting: Setting, declared: Iterable[str]) -> None:
    """Refuse a value in place of a section; one without content is fine, all in comments."""
    inside = [known for known in declared if known.startswith(f"{key}.")]
    if not inside:
        raise UserError(f"{setting.origin}: unknown key {key!r}", _hint(key, declared))
    if setting.value is not None and setting.value != {}:
        raise UserError(
            f"{setting.origin}: {key} is a section, found {setting.value!r}",
            f"set its keys, for example {inside[0]}",
        )


def _hint(key: str, declared: Iterable[str]) -> str:
    last = key.rpartition(".")[2]
    same_name = [known for known in declared if known.rpartition(".")[2] == last]
    if same_name:
        return f"did you mean {' or '.join(same_name[:3])}?"
    hint = did_you_mean(key, declared)
    return hint if hint.startswith("did") else "--print-config lists all keys"


def _checked(key: str, setting: Setting, kind: Declared) -> Any:
    if isinstance(setting.value, str) and setting.value in kind.words:
        return setting.value
    try:
        read = _from_word if setting.origin == COMMAND_LINE else _from_yaml
        return read(setting.value, kind)
    except ValueError:
        found = f"{setting.value!r} ({type(setting.value).__name__})"
        list_hint = "write 1,2" if setting.origin == COMMAND_LINE else "write [1, 2]"
        hint = list_hint if kind.is_list else ""
        raise UserError(f"{setting.origin}: {key}: expected {kind}, found {found}", hint) from None


def _from_word(word: str, kind: Declared) -> Any:
    """Return the value of a word of the command line, read as Protenix reads it."""
    from protenix.config.extend_types import get_bool_value

    if kind.nullable and word in NULL_WORDS:
        return None
    if kind.is_list:
        return [kind.dtype(part) for part in word.strip().split(",")] if word.strip() else []
    return get_bool_value(word) if kind.dtype is bool else kind.dtype(word)


def _from_yaml(value: Any, kind: Declared) -> Any:
    if value is None and kind.nullable:
        return None
    if kind.is_list:
        if not isinstance(value, list):
            raise ValueError
        return list(_typed(value, kind.dtype))
    return next(_typed([value], kind.dtype))


def _typed(values: Iterable[Any], dtype: type) -> Iterator[Any]:
    for value in values:
        if dtype is float and type(value) is int:
            yield float(value)
        elif type(value) is dtype:
            yield value
        else:
            raise ValueError


def list_value(value: list[Any], dtype: type) -> ListValue:
    """Return Protenix's mark of a list; its own constructor cannot hold an empty typed one."""
    from protenix.config.extend_types import ListValue

    mark = ListValue(None, dtype)
    mark.value = value
    return mark


def number_or_word(value: float, words: Iterable[str]) -> ValueMaybeNone:
    """Return a default that words may replace; Protenix reads a value that null may replace."""
    from protenix.config.extend_types import ValueMaybeNone

    mark = ValueMaybeNone(value)
    mark.words = tuple(words)
    return mark
