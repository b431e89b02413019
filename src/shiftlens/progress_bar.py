"""How far a long call is: a bar on a terminal, one line that changes in a notebook, plain lines elsewhere."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")
Progress = Callable[[int, int], None]

SECONDS_BETWEEN_LINES = 5.0
"""Where no terminal is attached, progress is a plain line as often as this."""


class _Pace:
    """Rate since the first report (what a resume found finished does not count)."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._last_line = time.monotonic()

    def rate(self, done: int) -> float:
        now = time.monotonic()
        if self._start is None:
            self._start = (now, done)
        seconds = now - self._start[0]
        return (done - self._start[1]) / seconds if seconds > 0 else 0.0

    def due(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last_line < seconds:
            return False
        self._last_line = now
        return True


def pace_text(rate: float) -> str:
    """A rate for people: so many a second, or of slow work how long each takes; empty while it is not known."""
    if rate <= 0:
        return ""
    return f"{rate:,.0f}/s" if rate >= 1 else f"{1 / rate:,.0f} s each"


def text_of(what: str, unit: str, done: int, total: int, rate: float) -> str:
    """One line: how much is done of how much there is, the rate, and the time left."""
    pace = f" ({pace_text(rate)}, {(total - done) / rate:,.0f} s left)" if rate > 0 else ""
    return f"{what}: {done:,} of {total:,} {unit}{pace}"


def lines(what: str, unit: str, say: Callable[[str], None]) -> Progress:
    """A function that says a line every few seconds."""
    pace = _Pace()

    def line(done: int, total: int) -> None:
        rate = pace.rate(done)
        if pace.due(SECONDS_BETWEEN_LINES):
            say(text_of(what, unit, done, total, rate))

    return line


@contextmanager
def bar(what: str, unit: str, console: Console) -> Iterator[Progress]:
    """A bar with rate and time left, which vanishes at the end."""
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[rate]}"),
        rich.TimeElapsedColumn(),
        # Not rich's own: it looks at half a minute only, in which slow work reports nothing.
        rich.TextColumn("{task.fields[left]}"),
    )
    with rich.Progress(*columns, console=console, transient=True) as shown:
        task, pace = shown.add_task(what, total=None, rate="", left=""), _Pace()

        def update(done: int, total: int) -> None:
            rate = pace.rate(done)
            left = f"{timedelta(seconds=round((total - done) / rate))} left" if rate > 0 else ""
            shown.update(task, completed=done, total=total, rate=f"{unit} {pace_text(rate)}".rstrip(), left=left)

        yield update


@contextmanager
def _changing_line(what: str, unit: str) -> Iterator[Progress]:
    pace, longest = _Pace(), 0

    def update(done: int, total: int) -> None:
        nonlocal longest
        rate = pace.rate(done)
        if pace.due(0.5) or done >= total:
            text = text_of(what, unit, done, total, rate)
            longest = max(longest, len(text))
            print(f"\r{text:{longest}}", end="", file=sys.stderr, flush=True)

    yield update
    if longest:
        print(f"\r{'':{longest}}\r", end="", file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return type(found).__name__ == "ZMQInteractiveShell"


def shows_progress(what: str, unit: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function a bar where somebody watches and no `progress` was passed: on a terminal and in a notebook."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def shown(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs.get("progress") is not None:
                return function(*args, **kwargs)
            if _in_notebook():
                watched = _changing_line(what, unit)
            elif sys.stderr is not None and sys.stderr.isatty():
                from rich.console import Console

                watched = bar(what, unit, Console(stderr=True))
            else:
                return function(*args, **kwargs)
            with watched as report:
                kwargs["progress"] = report
                return function(*args, **kwargs)

        return shown

    return decorate
