"""What a command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from shiftlens import progress_bar
from shiftlens.errors import StoreError
from shiftlens.naming import printable

LONGEST_LINE = 1200
"""Characters of an error; most have a hundred."""

NARROWEST = 20
"""Columns of a terminal, at least: with fewer nothing can be read."""


@dataclass(frozen=True)
class Shell:
    """Where a command writes to, as `--quiet` and `--json` ask for it."""

    quiet: bool = False
    as_json: bool = False
    stderr: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    stdout: Console = field(default_factory=lambda: Console(file=sys.stdout, highlight=False, soft_wrap=True))

    def say(self, text: str) -> None:
        """A remark on the way; silent with `--quiet`."""
        if not self.quiet:
            self._remark(text)

    def warn(self, text: str) -> None:
        """What a reader of the result must know; also with `--quiet`."""
        self._remark(f"warning: {text}")

    def _remark(self, text: str) -> None:
        with suppress(OSError):  # where remarks cannot be written, the work goes on
            self.stderr.print(printable(text), markup=False, soft_wrap=True)

    def result(self, values: dict[str, Any], lines: list[str]) -> None:
        """The command's answer: one JSON object with `--json`, otherwise lines for people.

        Raises
        ------
        StoreError
            Standard output cannot be written (a full disk behind it).
        """
        try:
            if self.as_json:
                print(json.dumps(values, allow_nan=False), file=self.stdout.file, flush=True)
                return
            for line in lines:
                self.stdout.print(printable(line), markup=False)
        except BrokenPipeError:
            raise  # the reader has gone, which is no failure: see `app.main`
        except OSError as error:
            raise StoreError(f"cannot write the result: {error.strerror or error}") from None

    @contextmanager
    def progress(self, what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A bar with rate and time left on a terminal, plain lines elsewhere, nothing with `--quiet`.

        Yields a function to be called with how much is done and how much there is.
        """
        if self.quiet:
            yield lambda done, total: None
        elif self.stderr.is_terminal:
            with progress_bar.bar(what, unit, self.stderr) as update:
                yield update
        else:
            yield progress_bar.lines(what, unit, self.say)


@contextmanager
def remarks(shell: Shell) -> Iterator[None]:
    """Show what the library says through `logging` and `warnings` as remarks of the command."""
    import warnings

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                shell.warn(text)
            else:
                shell.say(text)

    logger = logging.getLogger("shiftlens")
    handler = Handler()
    previous = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # Libraries' own warnings are for developers; ours are for the user.
        if category.__module__.startswith("shiftlens") or issubclass(category, UserWarning):
            shell.warn(" ".join(str(message).split()))

    original, warnings.showwarning = warnings.showwarning, show
    try:
        # What a user's own model prints must not stand in front of our answer.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        warnings.showwarning = original
        logger.removeHandler(handler)
        logger.setLevel(previous[0])
        logger.propagate = previous[1]


def prepare_terminal() -> None:
    """Make the best of streams that are closed or know few characters, and of a width that is none.

    Does nothing to streams that are not the process's own, such as those of tests.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us; what is opened next must not take its place
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the interpreter ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name, least in (("COLUMNS", NARROWEST), ("LINES", 1)):
        text = os.environ.get(name)
        if text is not None and not (re.fullmatch("[0-9]{1,4}", text) and int(text) >= least):
            del os.environ[name]


def flush_streams() -> OSError | None:
    """Write out what is left in both streams' buffers; the error of standard output, if there is one.

    What cannot be written goes nowhere, or the interpreter complains about it when it ends.
    """
    failed: OSError | None = None
    for stream in (sys.stderr, sys.stdout):
        failed = None
        try:
            stream.flush()
        except OSError as error:
            failed = error
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return failed


def error_line(text: str, notes: Sequence[str] = ()) -> None:
    """One clear line on stderr, and an error's notes; what a file or an argument puts into it cannot make it a page."""
    line = printable(" ".join(text.split()))
    with suppress(OSError):  # the exit code still says it
        print(
            f"shiftlens: {line if len(line) <= LONGEST_LINE else f'{line[:LONGEST_LINE]}...'}",
            file=sys.stderr,
            flush=True,
        )
        for note in "\n".join(notes).splitlines():
            print(printable(note), file=sys.stderr, flush=True)
