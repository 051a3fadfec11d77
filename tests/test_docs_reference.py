"""The generated pages of the documentation are current, and the site has all pages."""

from __future__ import annotations

import dataclasses
import importlib.util
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
