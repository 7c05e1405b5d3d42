"""What pages are made with: templates that escape all text, and a policy that allows no script."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from trimtab.report import happenings, tables
from trimtab.report.words import counted, prose, quantity_text, seconds_text, value_text, visible


def render(template: str, **values: Any) -> str:
    """The page that a template makes of the values, with the house's style sheet.

    All text is escaped; the page's policy allows no script, no request and no style but its own.
    """
    style = _template_text("page.css")
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(style),
            style_hash=_csp_hash(style),
            trimtab_version=version("trimtab"),
            **values,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_template_text),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        value=value_text,
        seconds=seconds_text,
        counted=counted,
        quantity=quantity_text,
        prose=prose,
    )
    environment.globals.update(
        event_text=happenings.event_text,
        spikes_text=happenings.spikes_text,
        meaning=tables.meaning,
        decided=tables.decided_value,
    )
    return environment


def _finalized(value: Any) -> Any:
    """Every text that the template prints goes through here, so none can turn the page around."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _template_text(name: str) -> str:
    return files("trimtab.report").joinpath("templates", name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
