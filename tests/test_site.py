"""The docs as a site: built strictly, complete, and silent on the network."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import shiftlens

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "video": "src", "audio": "src"}
NO_WAY_OUT = "http://127.0.0.1:9"


class Page(HTMLParser):
    """What a page loads by itself, what it links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = {name: value or "" for name, value in attrs}
        if "id" in facts:
            self.ids.add(facts["id"])
        if tag in LOADED and facts.get(LOADED[tag]):
            self.loads.append(facts[LOADED[tag]])
        if tag == "link" and facts.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(facts["href"])
        if tag == "a" and facts.get("href"):
            self.links.append(facts["href"])


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="the docs' tools are not installed: pip install 'shiftlens[docs]'")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its annotations are looked up in its own module by dataclasses and mkdocs alike.
    sys.modules["site_hooks"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the docs' tools are not installed: pip install 'shiftlens[docs]'")
    out = tmp_path_factory.mktemp("site")
    # A proxy that nobody listens at: whatever asks the network fails, and the build with it.
    silent = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NO_WAY_OUT)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | silent | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_nothing_on_the_site_is_loaded_from_outside(site: Path, pages: dict[Path, Page]) -> None:
    assert pages
    for path, page in pages.items():
        for target in page.loads:
            where = urlsplit(target)
            assert where.scheme in ("", "data"), (path, target)
            assert not where.netloc, (path, target)
            if where.scheme == "" and path.name != "404.html":
                assert (path.parent / unquote(where.path)).is_file(), (path, target)
    for style in site.rglob("*.css"):
        for target in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", style.read_text(encoding="utf-8")):
            assert not re.match(r"(?:[a-z]+:)?//", target), (style, target)


def test_the_front_page_has_an_image_to_drag(site: Path, pages: dict[Path, Page]) -> None:
    assert "stage.html" in pages[site / "index.html"].loads
    assert {"stage-frame", "stage-map-0", "page-data"} <= pages[site / "stage.html"].ids


def test_links_within_the_site_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for target in page.links:
            where = urlsplit(target)
            if where.scheme or where.netloc:
                continue
            there = (path.parent / unquote(where.path)).resolve() if where.path else path
            assert there.is_file(), (path, target)
            if where.fragment and there in pages:
                assert unquote(where.fragment) in pages[there].ids, (path, target)


def test_the_reference_has_every_public_name_with_its_text(site: Path) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    names = [*(name for name in shiftlens.__all__ if name != "nn"), *(f"nn.{name}" for name in shiftlens.nn.__all__)]
    missing = [f"::: shiftlens.{name}" for name in names if f'id="shiftlens.{name}"' not in text]
    assert missing == [], "to be put on a page under docs/reference"
    # Tables of parameters come from the docstrings: a page without them would be a list of names.
    assert "Parameters:" in text


def test_every_page_has_a_place_in_the_navigation(hooks: ModuleType, tmp_path: Path) -> None:
    from mkdocs.config.defaults import MkDocsConfig

    config = MkDocsConfig()
    (tmp_path / "deep").mkdir()
    for name in ("index.md", "a.md", "deep/b.md", "c.md", "deep/d.md"):
        (tmp_path / name).touch()
    config.docs_dir, config.nav = str(tmp_path), ["index.md", {"A": "a.md"}, {"Deep": [{"B": "deep/b.md"}]}]
    assert hooks.on_config(config).nav[-1] == {"More": ["c.md", "deep/d.md"]}
    assert len(hooks.on_config(config).nav) == 4


def test_only_a_site_of_several_versions_asks_for_their_list(
    hooks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mkdocs.config.defaults import MkDocsConfig

    def extra() -> dict[str, object]:
        config = MkDocsConfig()
        config.docs_dir, config.nav, config.extra = str(tmp_path), [], {}
        return dict(hooks.on_config(config).extra)

    monkeypatch.delenv("MIKE_DOCS_VERSION", raising=False)
    assert extra() == {}
    monkeypatch.setenv("MIKE_DOCS_VERSION", '{"version": "0.2"}')
    assert extra()["version"] == {"provider": "mike", "default": "latest"}


def written_pages() -> dict[Path, str]:
    """Every page that a person reads in the code's own site, without its blocks of code."""
    paths = [path for folder in ("docs", "src", ".github", "examples") for path in (ROOT / folder).rglob("*.md")]
    code = re.compile("^```.*?^```", re.MULTILINE | re.DOTALL)
    made = {path: code.sub("", path.read_text(encoding="utf-8")) for path in (*ROOT.glob("*.md"), *paths)}
    for path in (ROOT / "examples").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        made[path] = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return made


def anchors_of(text: str) -> set[str]:
    """As GitHub and the site make them of headings."""
    titles = re.findall(r"^#+ +(.*?) *$", text, flags=re.MULTILINE)
    plain = (re.sub(r"\(\S+\)", "", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def test_links_lead_to_files_and_their_headings() -> None:
    pages, found = written_pages(), 0
    for path, text in pages.items():
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
            if not urlsplit(target).scheme:
                to = (path.parent / target).resolve() if target else path
                assert to.exists(), (path, target)
                if anchor and to in pages:
                    assert anchor in anchors_of(pages[to]), (path, target, anchor)
                found += 1
    assert found > 200


def test_pages_that_the_code_names_are_there() -> None:
    """In docstrings, messages and comments: `docs/tiles.md`."""
    page = re.compile(r"\b(?:docs|examples|benchmarks)/[\w/.-]*\w\.(?:md|ipynb|toml|py|json)")
    code = [path for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".js", ".j2", ".toml")]
    named = {name for path in code for name in page.findall(path.read_text(encoding="utf-8"))}
    assert len(named) >= 3
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("link", "source", "uri", "expected"),
    [
        ("[a](../CHANGELOG.md#x)", "docs/index.md", "index.md", "[a](CHANGELOG.md#x)"),
        ("[a](../../examples/course.ipynb)", "docs/reference/nn.md", "reference/nn.md", "[a](../examples/course.md)"),
        ("![a](images/a.png)", "docs/index.md", "index.md", "![a](images/a.png)"),
        ("[a](docs/metrics.md)", "CONTRIBUTING.md", "CONTRIBUTING.md", "[a](metrics.md)"),
        ("[a](../docs/repair.md)", "examples/course.ipynb", "examples/course.md", "[a](../repair.md)"),
        ("[a](../README.md)", "docs/metrics.md", "metrics.md", "[a](index.md)"),
        ("[a](../pyproject.toml)", "docs/index.md", "index.md", "a (`pyproject.toml`)"),
        ("[a](../nothing.md)", "docs/index.md", "index.md", "[a](../nothing.md)"),
        ("[a](https://example.org/x.md)", "docs/index.md", "index.md", "[a](https://example.org/x.md)"),
        ("`x[a](../CHANGELOG.md)`", "docs/index.md", "index.md", "`x[a](../CHANGELOG.md)`"),
        ("```\n[a](../CHANGELOG.md)\n```\n", "docs/index.md", "index.md", "```\n[a](../CHANGELOG.md)\n```\n"),
    ],
)
def test_links_are_brought_to_their_pages(hooks: ModuleType, link: str, source: str, uri: str, expected: str) -> None:
    assert hooks.relinked(link, source, uri) == expected


def test_a_notebook_becomes_a_page(hooks: ModuleType) -> None:
    png = "iVBORw0KGgo="
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": "1\n"},
                {"output_type": "display_data", "data": {"image/png": png, "text/plain": "<Figure>"}},
                {"output_type": "execute_result", "data": {"text/html": "<b>x</b>", "text/plain": "x"}},
                {"output_type": "execute_result", "data": {"text/plain": ["y"]}},
            ],
        },
    ]
    text, pictures = hooks.page_of(json.loads(json.dumps({"cells": cells})), "mine")
    assert text == (
        "# Title\ntext\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n"
        "![Figure 1 of this notebook](mine-1.png)\n\n<div>\n<b>x</b>\n</div>\n\n```text\ny\n```\n"
    )
    assert pictures == {"mine-1.png": b"\x89PNG\r\n\x1a\n"}
