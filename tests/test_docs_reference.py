"""The generated pages of the documentation are current, and the site has all pages."""

from __future__ import annotations

import dataclasses
import doctest
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

from protenix_eba.plugin import plugin

ROOT = Path(__file__).parent.parent


def test_the_site_has_every_page():
    def pages(tree):
        for entry in tree:
            (value,) = entry.values()
            yield from pages(value) if isinstance(value, list) else [value]

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    docs = ROOT / "docs"
    assert sorted(pages(nav)) == sorted(str(p.relative_to(docs)) for p in docs.rglob("*.md"))


@pytest.fixture(scope="module")
def reference():
    """The script that writes the generated pages."""
    path = ROOT / "scripts" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current(reference):
    for name, page in reference.PAGES.items():
        committed = (reference.FOLDER / name).read_text(encoding="utf-8")
        assert committed == page(), "run: python scripts/make_reference.py"


def test_every_section_and_every_key_is_explained(reference):
    assert reference.SECTIONS.keys() == {name for name, keys in plugin.config.items() if keys}
    for section in reference.SECTIONS.values():
        names = {field.name for field in dataclasses.fields(section)}
        assert reference.attribute_docs(section).keys() == names


PYTHON = re.findall(
    r"^::: (\S+)$", (ROOT / "docs/reference/python.md").read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("name", PYTHON)
def test_what_the_python_page_names_exists_and_its_examples_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = pkgutil.resolve_name(name)
    assert found.__doc__
    module = importlib.import_module(found.__module__)
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(found, name, module):
        assert runner.run(example).failed == 0
