"""The pages' templates, which stand beside this file."""

from __future__ import annotations

import jinja2

__all__ = ["template"]


def template(name: str) -> jinja2.Template:
    """Return a template that escapes what it is given and refuses names that it is not given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("protenix_eba.eval.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
