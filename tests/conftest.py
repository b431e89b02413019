"""What every test shares: no network, few threads that do not spin, and where Hypothesis takes its examples from."""

from __future__ import annotations

import os

# Before numpy and torch are loaded: several test processes share the cores. A thread that spins while it waits for
# others takes a core from them: nets that compute with two threads took three times the processor time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import gc
import secrets
from pathlib import Path

import hypothesis
import pytest

from made_once import once

hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Tests that are not derandomised (the fuzzers) draw new examples in every run, all from one seed."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(secrets.randbelow(2**32))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("failed"):
        terminalreporter.write_line(
            f"fuzzers drew their examples with --hypothesis-seed={config.option.hypothesis_seed}"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that may run longer than others come first, so that no process is left alone with one at the end.

    They begin with the shortest of these timeouts: tests that kill, or start clusters, stay in one process.
    """
    usual = 300

    def limit(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return marker.args[0] if marker is not None and marker.args[0] > usual else float("inf")

    items.sort(key=limit)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: Python's search for garbage need not go through it again, thousands of times."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of seven images with known numbers; to be read or copied, not changed."""
    from sweeps import small_sweeps as small

    def make(folder: Path) -> None:
        small.fill(small.create(folder / "s.zarr"))

    return once(tmp_path_factory, "small_sweep", make) / "s.zarr"
