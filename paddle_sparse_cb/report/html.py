"""`report.html`: one file for a colleague, with all pictures in it. It runs no script and loads nothing.

Names of classes, layers and files come from strangers: the template escapes every value, charts are built as XML, and
the page's own Content-Security-Policy forbids scripts and requests.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..utils.files import valid_text
from .view import make_view

_HERE = Path(__file__).parent
_PICTURE = re.compile(r"pictures/[a-z0-9_]+\.jpg")
_MAX_PICTURE = 2_000_000  # bytes


def report_html(report: dict[str, Any], output: Path) -> str:
    """Renders a report as HTML.

    Args:
        report: the content of `report.json`.
        output: the folder that the files of its pictures are relative to.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    view = make_view(report)
    for chart in view["charts"]:
        chart["svg"] = Markup(chart["svg"])  # noqa: S704  built by ElementTree, which escapes
    css = Markup((_HERE / "report.css").read_text(encoding="utf-8"))  # noqa: S704  a file of this package
    page = environment.get_template("report.html.j2").render(view={**view, **_pictures(report, output)}, css=css)
    return valid_text(page.strip()) + "\n"


def _pictures(report: dict[str, Any], output: Path) -> dict[str, Any]:
    pictures: dict[str, list[dict[str, Any]]] = {"train": [], "example": [], "eval": []}
    for picture in report.get("pictures") or []:
        panels = [
            {"title": panel["title"], "source": source}
            for panel in picture["panels"]
            if (source := _data_uri(output, panel["file"]))
        ]
        if panels and picture["split"] in pictures:
            pictures[picture["split"]].append({"image": picture["image"], "panels": panels})
    return {"training": pictures["train"], "examples": pictures["example"], "different": pictures["eval"]}


def _data_uri(output: Path, file: str) -> str:
    """Returns a picture as a URI; empty if there is no such picture in the output folder."""
    path = output / file
    if not _PICTURE.fullmatch(file) or not path.is_file() or path.stat().st_size > _MAX_PICTURE:
        return ""
    content = path.read_bytes()
    if not content.startswith(b"\xff\xd8\xff"):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
