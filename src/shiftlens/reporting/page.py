"""The page itself: template, scripts and styles in one file, and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from shiftlens.errors import InputError, StoreError
from shiftlens.reporting.encoding import Data, palette, script_json
from shiftlens.storage.locking import disk_errors, locked, siblings

SCRIPTS = (
    "vendor/plotly-cartesian.min.js",
    "page_data.js",
    "heatmap.js",
    "moved_picture.js",
    "report.js",
    "stage_parts.js",
    "stage_table.js",
    "kept_outputs.js",
    "way_chart.js",
    "stage_classes.js",
    "stage_outputs.js",
    "stage.js",
)
STAGE_SCRIPTS = (
    *(name for name in SCRIPTS if name != "report.js" and not name.startswith("vendor/")),
    "stage_in_frame.js",
)
STYLES = ("report.css", "stage.css")
COLOUR_SCALES = ("viridis", "magma", "RdBu_r", "RdBu")
ENDINGS = (".html", ".htm")


def web(name: str) -> str:
    """The text of one of the files under `web/`."""
    return files("shiftlens").joinpath("web", *name.split("/")).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A script or style as the policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def policy(scripts: list[str]) -> str:
    """The Content-Security-Policy: these scripts, inline styles, pictures from inside the file, and nothing else.

    Styles are not hashed: plotly.js writes them as it draws, and no data gets into one.
    """
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def render(view: Data, data: Data) -> bytes:
    """Return the page.

    Parameters
    ----------
    view
        What the template shows; every text is escaped there, and none of it is read as a template.
    data
        What the scripts read, put in as JSON.
    """
    colours = {name: base64.b64encode(palette(name).tobytes()).decode("ascii") for name in COLOUR_SCALES}
    return _rendered("report.html.j2", SCRIPTS, view, data | {"colours": colours})


def render_stage(title: str, view: Data, data: Data) -> bytes:
    """Return a page with the stage alone (`stage_part`), of images whose predicted class is followed."""
    return _rendered("stage_page.html.j2", STAGE_SCRIPTS, {"title": title, "stage": view}, {"stage": data})


def _rendered(template: str, names: Sequence[str], view: Data, data: Data) -> bytes:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    scripts = [web(name) for name in names]
    for script in scripts:
        if "</script" in script.lower():
            raise AssertionError("a script of the package would end its own element")
    environment = Environment(
        loader=FunctionLoader(web), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(
        **view,
        policy=policy(scripts),
        style=Markup("\n".join(map(web, STYLES))),
        scripts=[Markup(script) for script in scripts],
        page_data=Markup(script_json(data)),
    )
    return page.encode("utf-8", errors="backslashreplace")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place in one rename when the block ends well, else vanishes.

    It is made before the block runs: what cannot be written is refused before the work, not after.

    Raises
    ------
    InputError
        A name that does not end in .html.
    StoreError
        The place cannot be written.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"expected an output that ends in .html, got {path}")
    with disk_errors(path, "write"):
        if path.is_dir():
            raise StoreError(f"cannot write {path}: it is a directory")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    building = Path(name)
    # Its lock says that somebody writes it, until this process ends in whatever way.
    if sys.platform == "win32" or not locked(handle):
        os.close(handle)
        handle = -1
    try:
        yield building
        with disk_errors(path, "write"):
            # mkstemp's files are the owner's alone; a report is a file like any other.
            mask = os.umask(0)
            os.umask(mask)
            building.chmod(0o666 & ~mask)
            building.replace(path)
    finally:
        building.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that died left beside `path`; that of a living one is locked."""
    if sys.platform == "win32":
        return
    partial = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.partial")
    for old in siblings(path):
        if partial.fullmatch(old.name):
            with suppress(OSError), old.open("rb") as file:
                if locked(file.fileno()):
                    old.unlink()
