"""The pages in a real browser: headless Chromium found on PATH; nothing may leave the machine.

On a machine without Chromium, or without the tests' browser packages, the whole group is skipped with one reason.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import Built, Watch, build, build_full, build_hostile, build_mirrored, build_outputs

from made_once import once

READY = "html[data-ready=yes]"
PATIENCE = 120_000
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PACKAGES = ("playwright", "pytest_playwright", "axe_playwright_python")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def why_not() -> str | None:
    """Why the browser tests cannot run on this machine; None where they can."""
    missing = [name.replace("_", "-") for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return f"the browser tests need pip install {' '.join(missing)}"
    if chromium() is None:
        return "the browser tests need Chromium on PATH: apt-get install chromium"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")
            # pytest-base-url's own fixture, not ours.
            item.add_marker(pytest.mark.filterwarnings("ignore:Session-scoped fixtures defined as instance methods"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    # Before any fixture: without a browser nothing is measured for it, and all skips share this line and this reason.
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return browser_type_launch_args | {"executable_path": chromium(), "args": list(FLAGS), "headless": True}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    return browser_context_args | {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two small sweeps, a feature run and layer arithmetic, and the report on them."""
    return Built.at(once(tmp_path_factory, "built", build))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same of things whose every name wants to be code."""
    return Built.at(once(tmp_path_factory, "hostile", build_hostile))


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on sweeps whose fills repeat the picture."""
    return build_mirrored(tmp_path_factory.mktemp("mirrored"))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pages with masks and boxes."""
    return once(tmp_path_factory, "kept", build_outputs)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A page of the full size: 65 x 65 shifts, 500 images, feature maps."""
    return Built.at(once(tmp_path_factory, "full", build_full))


@pytest.fixture
def watch(page: Any) -> Iterator[Watch]:
    """Every test that opens a page with it also holds that the page is silent."""
    found = Watch(page)
    yield found
    assert found.requests
    found.hold()


@pytest.fixture(scope="module")
def alive(browser: Any, browser_context_args: dict[str, Any], built: Built) -> Iterator[tuple[Any, Watch]]:
    """The report, opened once: to load it costs a second, and the tests of its controls are many."""
    page = browser.new_context(**browser_context_args).new_page()
    page.set_default_timeout(PATIENCE)
    found = Watch(page)
    page.goto(built.report.as_uri())
    page.wait_for_selector(READY, state="attached")
    yield page, found
    page.context.close()


@pytest.fixture
def report(alive: tuple[Any, Watch]) -> Iterator[Any]:
    """The report as it is when it has just come alive; held to be silent at the end."""
    page, found = alive
    page.select_option("#map-sweep-0", "accuracy")
    page.uncheck("#all-images-sweep-0")
    page.locator("#heatmap-sweep-0 canvas").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    yield page
    found.hold()


@pytest.fixture
def page(page: Any) -> Any:
    """A busy machine is slow, not broken."""
    page.set_default_timeout(PATIENCE)
    return page
