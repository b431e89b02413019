"""What the site takes from outside `docs/`: the project's own pages, and the example notebooks as pages.

Links are written so that the code's own site can follow them (`../CHANGELOG.md`, `../examples/course.ipynb`). Here they
are brought to the pages made of those files; a link to a file that has no page becomes its name.
"""

from __future__ import annotations

import base64
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: name for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")}
"""A file in the project's folder, and the page made of it."""

NOTEBOOKS = {
    f"examples/{name}.ipynb": f"examples/{name}.md" for name in ("course", "own-model", "detection", "segmentation")
}
STAGE, STAGE_PAGE = "images/stage.json", "stage.html"
"""What `draw_stage.py` wrote, and the page that the site makes of it."""
STAGE_MARK = "<!-- stage -->"
STAGE_FRAME = f"""<iframe id="stage-frame" src="{STAGE_PAGE}" title="An image to drag, and what a small VGG predicts"
style="width: 100%; border: 0; height: 60rem"></iframe>

<script>
window.addEventListener("message", (event) => {{
  const frame = document.getElementById("stage-frame");
  if (event.source === frame.contentWindow && Number.isFinite(event.data.stageHeight)) {{
    frame.style.height = `${{event.data.stageHeight}}px`;
  }}
}});
</script>

*A small VGG trained on handwritten digits, under all 1,089 shifts of at most 16 px. [Open it alone]({STAGE_PAGE}).*
"""
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
CODE = re.compile(r"^(?:```.*?^```|~~~.*?^~~~)|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that nobody gave a place in the navigation at its end; let a page of several versions name them.

    mike builds the site of each version and says so. Any other build has no list of versions to ask for.
    """
    docs = Path(config.docs_dir)
    there = {str(page) for page in _pages(config.nav)}
    rest = sorted({path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - there)
    if rest and config.nav is not None:
        config.nav.append({"More": rest})
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike", "default": "latest"}
    return config


def _pages(nav: Any) -> Iterator[str]:
    for each in nav.values() if isinstance(nav, dict) else nav or ():
        if isinstance(each, str):
            yield each
        else:
            yield from _pages(each)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside `docs/`."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for source, page in NOTEBOOKS.items():
        text, pictures = page_of(json.loads((ROOT / source).read_text(encoding="utf-8")), Path(page).stem)
        files.append(File.generated(config, page, content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, posixpath.join(posixpath.dirname(page), name), content=data))
    files.append(File.generated(config, STAGE_PAGE, content=stage_page(Path(config.docs_dir) / STAGE)))
    return files


def stage_page(path: Path) -> bytes:
    """The page with the image to drag."""
    from shiftlens.reporting.page import render_stage

    made = json.loads(path.read_text(encoding="utf-8"))
    return render_stage("shiftlens: drag an image", made["view"], made["data"])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Bring links that lead out of `docs/` to their pages."""
    uri = page.file.src_uri
    markdown = markdown.replace(STAGE_MARK, STAGE_FRAME)
    made_of = {page: source for source, page in (PAGES | NOTEBOOKS).items()}
    return relinked(markdown, made_of.get(uri, f"docs/{uri}"), uri)


def relinked(markdown: str, source: str, uri: str) -> str:
    """Text whose relative links hold on the site.

    Parameters
    ----------
    markdown
        As it is in the file.
    source
        The file, from the project's folder.
    uri
        Its page, from the site's folder.
    """

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found["target"]))
        page = (PAGES | NOTEBOOKS | {"README.md": "index.md"}).get(target)
        if page is None and target.startswith("docs/"):
            page = target.removeprefix("docs/")
        if page is None:
            # A wrong link stays as it is: the strict build names it.
            return f"{found['text']} (`{target}`)" if (ROOT / target).exists() else found[0]
        place = posixpath.relpath(page, posixpath.dirname(uri) or ".")
        return f"{found['image']}[{found['text']}]({place}{found['anchor'] or ''})"

    pieces, at = [], 0
    for code in CODE.finditer(markdown):
        pieces += [LINK.sub(moved, markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*pieces, LINK.sub(moved, markdown[at:])])


def page_of(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as text for the site, and its figures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Figure {len(pictures)} of this notebook]({picture})")
            elif "text/html" in data:
                parts.append(f"<div>\n{''.join(data['text/html']).strip()}\n</div>")
            else:
                text = "".join(output.get("text", data.get("text/plain", ""))).rstrip()
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n", pictures
