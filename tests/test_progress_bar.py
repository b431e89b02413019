"""A bar where somebody watches: on a terminal, and in a notebook; nothing elsewhere, nothing beside one's own."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import shiftlens as sl
from shiftlens import progress_bar
from shiftlens.progress_bar import bar, shows_progress, text_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@shows_progress("counting", "sheep")
def counted(n: int, *, progress: object = None) -> object:
    """Counts."""
    if callable(progress):
        for k in range(n):
            progress(k + 1, n)
    return progress


def test_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    assert counted(3) is None
    assert capsys.readouterr() == ("", "")
    own = lambda done, total: None  # noqa: E731
    assert counted(3, progress=own) is own


def test_no_line_has_a_rate_of_nothing() -> None:
    assert text_of("sweeping", "evaluations", 0, 10, 0.0) == "sweeping: 0 of 10 evaluations"
    assert text_of("sweeping", "evaluations", 4, 10, 2.0) == "sweeping: 4 of 10 evaluations (2/s, 3 s left)"


def test_slow_work_says_how_long_each_takes() -> None:
    assert text_of("studying", "runs", 2, 45, 1 / 137) == "studying: 2 of 45 runs (137 s each, 5,891 s left)"
    assert text_of("studying", "runs", 2, 45, 0.9) == "studying: 2 of 45 runs (1 s each, 48 s left)"


def test_the_bar_says_pace_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    stream = Terminal()
    with bar("studying", "runs", Console(file=stream, force_terminal=True, width=120)) as update:
        monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
        update(0, 45)
        now[0] = 344.0  # two at a time: they end together
        update(2, 45)
    assert "runs 172 s each" in stream.getvalue()
    assert "2:03:16 left" in stream.getvalue()


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert callable(counted(3))
    assert "counting" in stream.getvalue()
    own = lambda done, total: None  # noqa: E731
    stream.truncate(0)
    assert counted(3, progress=own) is own
    assert "counting" not in stream.getvalue()


def test_a_notebook_has_one_line_that_changes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    images = sl.ImageSet(np.zeros((4, 4, 4, 3), np.uint8), np.zeros(4, np.int64), class_names=("a", "b"))
    model = sl.wrap(lambda x: x.mean(dim=(2, 3))[:, :2], mean=(0, 0, 0), std=(1, 1, 1))
    sl.evaluate(model, images)
    err = capsys.readouterr().err
    assert "\revaluating: 4 of 4 images" in err
    assert err.endswith("\r")


def test_the_public_functions_keep_their_signatures() -> None:
    import inspect

    for function in (sl.sweep, sl.evaluate, sl.consistency, sl.compare, sl.features, sl.neurons, sl.train, sl.report):
        assert "progress" in inspect.signature(function).parameters
        assert function.__doc__
