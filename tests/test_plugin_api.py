import shlex
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from protenix_eba import plugin_api
from protenix_eba.core.errors import UserError
from protenix_eba.plugin_api import (
    Plugin,
    Registry,
    installed_plugins,
    load_plugins,
    merge_sections,
    split_args,
)

GOOD = Plugin("good", {"good": {"lr": 1.0}})


@pytest.fixture
def entry_points(monkeypatch):
    """Installed plugins: a good one, the same under another name, two that are none."""
    points = {}
    for name, value in {
        "good": "the_plugins:GOOD",
        "alias": "the_plugins:GOOD",
        "broken": "no_such_module_at_all:plugin",
        "other": "protenix_eba.core.errors:UserError",
    }.items():
        points[name] = EntryPoint(name, value, plugin_api.ENTRY_POINT_GROUP)
    monkeypatch.setitem(sys.modules, "the_plugins", SimpleNamespace(GOOD=GOOD))
    monkeypatch.setattr(plugin_api, "installed_plugins", lambda: points)


def test_registry_gives_back_what_was_registered():
    registry = Registry("loss")

    @registry.register("square")
    def square(x):
        return x * x

    assert registry.get("square") is square
    assert "square" in registry and list(registry) == ["square"]


def test_registry_lists_known_names_and_suggests():
    registry = Registry("loss")
    registry.register("square")(len)
    with pytest.raises(UserError, match=r"no loss called 'sqare'; registered are: square") as info:
        registry.get("sqare")
    assert "did you mean square?" in str(info.value)


def test_registry_refuses_a_second_component_of_the_same_name_only():
    registry = Registry("loss")
    registry.register("square")(len)
    assert registry.register("square")(len) is len
    with pytest.raises(UserError, match=r"loss 'square' is registered twice"):
        registry.register("square")(max)
    assert registry.get("square") is len


def test_our_own_plugin_is_installed():
    assert installed_plugins()["protenix_eba"].value == "protenix_eba.plugin:plugin"


@pytest.mark.usefixtures("entry_points")
def test_load_plugins_keeps_order_and_drops_repeats():
    assert load_plugins(["good", "good"]) == (GOOD,)
    assert load_plugins([]) == ()


@pytest.mark.usefixtures("entry_points")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("goood", r"no plugin called 'goood'; installed are: alias, broken, good, other"),
        ("broken", r"cannot be imported: No module named"),
        ("other", r"expected a Plugin called 'other'"),
        ("alias", r"expected a Plugin called 'alias'"),
    ],
)
def test_load_plugins_says_what_is_wrong(name, message):
    with pytest.raises(UserError, match=message):
        load_plugins([name])


def test_sections_that_clash_are_refused():
    twin = Plugin("twin", {"good": {}})
    assert merge_sections([GOOD], ["lr"]) == {"good": {"lr": 1.0}}
    with pytest.raises(UserError, match=r"'twin' adds .* 'good', which belongs to plugin 'good'"):
        merge_sections([GOOD, twin], ["lr"])
    with pytest.raises(UserError, match=r"belongs to Protenix itself"):
        merge_sections([GOOD], ["good"])


def test_split_args_keeps_values_as_they_are():
    words = shlex.split(
        "--plugin 'a, b' --config=run.yaml --x.name 'two words' --x.empty '' --x.none= "
        "--x.lr -1e-3 --x.list 1,2 --x.sum=a=b --x.dash=--y --print-config"
    )
    arguments = split_args(words)
    assert arguments.plugins == ("a", "b")
    assert arguments.config == "run.yaml"
    assert arguments.flags == {"print-config"}
    assert arguments.overrides == {
        "x.name": "two words",
        "x.empty": "",
        "x.none": "",
        "x.lr": "-1e-3",
        "x.list": "1,2",
        "x.sum": "a=b",
        "x.dash": "--y",
    }


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr"], "--lr has no value"),
        (["--lr", "--seed", "1"], "--lr has no value"),
        (["run.yaml"], "expected --key value, found 'run.yaml'"),
        (["--lr", "1", "2"], "found '2' where a key should be"),
        (["-x", "1"], "expected --key value, found '-x'"),
        (["--", "1"], "expected --key value, found '--'"),
        (["--=1"], "expected --key value, found .--=1"),
        (["--lr", "1", "--lr=2"], "--lr is given twice: '1' and '2'"),
        (["--config", "a", "--config", "b"], "--config is given twice"),
    ],
)
def test_split_args_says_what_is_wrong(argv, message):
    with pytest.raises(UserError, match=message):
        split_args(argv)
