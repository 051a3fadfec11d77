# Copyright 2024 ByteDance and/or its affiliates.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Plugins: what a plugin offers, where its components are found, how it is asked for.

A plugin is named on the command line, never found by accident. It adds sections to the
configuration and registers components under names that the configuration then chooses
from: trainers, losses, dataloaders, batch samplers, datasets and heads. Each is a function
(or a class) that builds the component from the configuration. Two plugins that claim the
same name are an error.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

__all__ = [
    "DATALOADERS",
    "DATASETS",
    "ENTRY_POINT_GROUP",
    "HEADS",
    "LOSSES",
    "SAMPLERS",
    "TRAINERS",
    "Arguments",
    "Plugin",
    "Registry",
    "Trainer",
    "UserError",
    "did_you_mean",
    "installed_plugins",
    "load_plugins",
    "merge_sections",
    "plugin_names",
    "split_args",
]

ENTRY_POINT_GROUP: Final = "protenix.plugins"
# Options of the command itself; all else on the command line is a configuration key.
FLAGS: Final = {"--help": "help", "-h": "help", "--print-config": "print-config"}

T = TypeVar("T")
U = TypeVar("U")


class UserError(Exception):
    """Input or configuration that cannot be used: for users to read, without a traceback.

    Its message says what was expected, what was found and where; `hint` says what to do.

    Args:
        message: What is wrong, with the path or key it was found at.
        hint: What the user can do, one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  What to do: {self.hint}" if self.hint else message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known names, or with all of them when none is near.

    Args:
        word: The name that was not found.
        known: The names that exist.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.7)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are: {', '.join(names) or 'none'}"


class Trainer(Protocol):
    """What a registered trainer builds from the resolved configuration, all sections of it.

    Building raises `UserError` for a configuration or data that cannot be used.
    """

    def run(self) -> None:
        """Train until done.

        Raises:
            KeyboardInterrupt: A signal stopped the run; what was written is kept.
        """


class Registry(Generic[T]):
    """Components of one kind, each under a name.

    Args:
        kind: What is registered, for messages: "trainer".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._components: dict[str, T] = {}

    def register(self, name: str) -> Callable[[U], U]:
        """A decorator that puts a component under `name` and returns it unchanged.

        Raises:
            UserError: Another component has that name.
        """

        def decorate(component: U) -> U:
            # A class is a component too, but a type checker cannot know that U is a T.
            added: Any = component
            known: Any = self._components.setdefault(name, added)
            if known is not component:
                raise UserError(
                    f"{self.kind} {name!r} is registered twice: "
                    f"by {_origin(known)} and by {_origin(component)}",
                    "load only one of the plugins that they come from",
                )
            return component

        return decorate

    def get(self, name: str) -> T:
        """The component called `name`.

        Raises:
            UserError: There is none; the message lists those that exist.
        """
        if name not in self._components:
            hint = did_you_mean(name, self)
            raise UserError(
                f"there is no {self.kind} called {name!r}; "
                f"registered are: {', '.join(self) or 'none'}",
                f"{hint} A plugin registers its own when --plugin names it",
            )
        return self._components[name]

    def __contains__(self, name: object) -> bool:
        return name in self._components

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._components))


TRAINERS: Final[Registry[Callable[[Any], Trainer]]] = Registry("trainer")
LOSSES: Final[Registry[Callable[..., Any]]] = Registry("loss")
DATALOADERS: Final[Registry[Callable[..., Any]]] = Registry("dataloader")
SAMPLERS: Final[Registry[Callable[..., Any]]] = Registry("batch sampler")
DATASETS: Final[Registry[Callable[..., Any]]] = Registry("dataset")
HEADS: Final[Registry[Callable[..., Any]]] = Registry("head")


def _nothing() -> None:
    """For plugins that only add configuration."""


@dataclass(frozen=True)
class Plugin:
    """One plugin, as its entry point in the group `protenix.plugins` offers it.

    Attributes:
        name: The name of the entry point, and the one given to --plugin.
        config: Sections of configuration with their defaults, as Protenix writes them.
            An empty section takes any keys, for a library that checks them itself.
        register: Imports the modules whose decorators register components. Loading a
            plugin and reading its configuration must be fast: keep torch behind this call.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    register: Callable[[], None] = _nothing


def installed_plugins() -> dict[str, importlib.metadata.EntryPoint]:
    """The plugins that are installed, not yet imported, by name."""
    points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return {point.name: point for point in points}


def load_plugins(names: Iterable[str]) -> tuple[Plugin, ...]:
    """Import the named plugins, in the order given; their components come later.

    Raises:
        UserError: A plugin is unknown, cannot be imported or is no `Plugin`.
    """
    installed = installed_plugins()
    return tuple(_load_plugin(name, installed) for name in dict.fromkeys(names))


def _load_plugin(
    name: str,
    installed: Mapping[str, importlib.metadata.EntryPoint],
) -> Plugin:
    if name not in installed:
        known = ", ".join(sorted(installed)) or "none"
        raise UserError(
            f"there is no plugin called {name!r}; installed are: {known}",
            did_you_mean(name, installed),
        )
    point = installed[name]
    try:
        plugin = point.load()
    except (ImportError, AttributeError) as error:
        message = f"plugin {name!r} ({point.value}) cannot be imported: {error}"
        raise UserError(message) from error
    if not isinstance(plugin, Plugin) or plugin.name != name:
        expected = f"expected a Plugin called {name!r}"
        raise UserError(f"{point.value}: {expected}, found {plugin!r}")
    return plugin


def merge_sections(plugins: Iterable[Plugin], host: Iterable[str]) -> dict[str, Any]:
    """The configuration sections of all plugins.

    Args:
        plugins: Loaded plugins.
        host: The top-level keys of Protenix's own configuration.

    Raises:
        UserError: A section is Protenix's, or another plugin's.
    """
    owners = dict.fromkeys(host, "Protenix itself")
    sections: dict[str, Any] = {}
    for plugin in plugins:
        for key, section in plugin.config.items():
            if key in owners:
                raise UserError(
                    f"plugin {plugin.name!r} adds the configuration section {key!r}, "
                    f"which belongs to {owners[key]}",
                )
            owners[key] = f"plugin {plugin.name!r}"
            sections[key] = section
    return sections


class Arguments(NamedTuple):
    """A command line, taken apart but not yet judged against a configuration."""

    plugins: tuple[str, ...]
    config: str | None
    overrides: dict[str, str]
    flags: frozenset[str]


def split_args(argv: Sequence[str]) -> Arguments:
    """Take apart `--plugin A,B --config FILE --section.key value --section.key=value`.

    Values are kept as they are: blanks, empty strings and negative numbers survive. A
    value that begins with two dashes has to be written as `--key=--value`.

    Args:
        argv: The words after the name of the command.

    Raises:
        UserError: A key has no value or is given twice, or a word belongs to no key.
    """
    values: dict[str, str] = {}
    flags = set()
    words = iter(range(len(argv)))
    for index in words:
        if argv[index] in FLAGS:
            flags.add(FLAGS[argv[index]])
            continue
        key, equals, value = _key(argv[index]).partition("=")
        if not equals:
            value = _value_after(key, argv, index)
            next(words)
        if key in values:
            raise UserError(
                f"--{key} is given twice: {values[key]!r} and {value!r}",
                "keep one of them",
            )
        values[key] = value
    plugins = plugin_names(values.pop("plugin", ""))
    return Arguments(plugins, values.pop("config", None), values, frozenset(flags))


def plugin_names(word: str) -> tuple[str, ...]:
    """The names in the value of --plugin, `A,B`; empty ones are left out."""
    named = (name.strip() for name in word.split(","))
    return tuple(name for name in named if name)


def _key(word: str) -> str:
    if not word.startswith("--") or word == "--" or word.startswith("--="):
        raise UserError(
            f"expected --key value, found {word!r} where a key should be",
            "write a value with blanks in quotes, and a list as a,b,c without blanks",
        )
    return word[2:]


def _value_after(key: str, argv: Sequence[str], index: int) -> str:
    following = argv[index + 1 : index + 2]
    if not following or following[0].startswith("--"):
        raise UserError(
            f"--{key} has no value",
            f"write --{key} VALUE, or --{key}= for an empty one; "
            f"a value that begins with -- needs --{key}=VALUE",
        )
    return following[0]


def _origin(component: object) -> str:
    name = getattr(component, "__qualname__", type(component).__qualname__)
    return f"{getattr(component, '__module__', '?')}.{name}"
