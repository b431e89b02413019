"""How a hostile file is given to readers and commands, and what must then be true of the outcome."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import pytest
import typer

from shiftlens.cli import app as application
from shiftlens.cli import main
from shiftlens.cli.console import error_line
from shiftlens.errors import ShiftlensError

SECRET = "the secret of somebody else"
CANARY = "canary"
"""What a payload makes when it is run, in the folder of its case."""

Expected = Literal["refused", "fine", "either"]


@dataclass(frozen=True)
class Case:
    """A hostile file.

    `build` makes it in an empty folder and gives its path. `refused` ends with exit code 2 and one line in which
    `says` occurs, or one of several where readers look at different things first; `fine` is strange and lawful;
    `either` depends on what a reader does with it, as it does for those of `unread`, which look at something else.
    """

    build: Callable[[Path], Path]
    expected: Expected = "refused"
    says: str | tuple[str, ...] = ""
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of a refusal; remarks and warnings before it do not count."""
        lines = [line for line in self.err.splitlines() if line.startswith("shiftlens: ")]
        return lines[-1] if lines else ""


def outside(folder: Path) -> Path:
    """A folder beside a case's own, with a secret that nothing has a reason to touch."""
    place = folder.parent / "outside"
    place.mkdir(exist_ok=True)
    secret = place / "secret.txt"
    if not secret.exists():
        secret.write_text(SECRET)
    return place


class _Opened:
    """Which files this process opens: Python tells by an audit event, and an audit hook stays for good."""

    def __init__(self) -> None:
        self.paths: list[str] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and self.paths is not None and isinstance(arguments[0], str | bytes):
            self.paths.append(os.fsdecode(arguments[0]))


_opened = _Opened()


@contextmanager
def opened_files() -> Iterator[list[str]]:
    _opened.paths = []
    try:
        yield _opened.paths
    finally:
        _opened.paths = None


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, links not followed: kind and content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            mode = path.lstat().st_mode
            what = oct(stat.S_IFMT(mode))
            if stat.S_ISLNK(mode):
                what += str(path.readlink())
            elif stat.S_ISREG(mode):
                what += hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = what
    return found


@cache
def _parser() -> Any:
    """The commands, put together once: Typer does it anew for each call, which takes longer than to refuse a file."""
    return typer.main.get_command(application.app)


def run(*arguments: str) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    parser = _parser()
    with (
        mock.patch.object(application, "app", parser),
        redirect_stdout(out),
        redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # a warning is a remark here, as for a user
        code = main([str(a) for a in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def assert_calm(outcome: Outcome) -> None:
    """No crash, nothing that steers a terminal, and one line where something was refused."""
    assert outcome.code in (0, 2), f"exit code {outcome.code}\n{outcome.err[-3000:]}"
    for line in (outcome.out + outcome.err).splitlines():
        assert line.isprintable(), repr(line)
    assert "Traceback" not in outcome.err, outcome.err
    if outcome.code == 2 and outcome.out and not outcome.err:
        return  # `verify` tells of damage as its result
    if outcome.code == 2:
        assert outcome.out == ""
        told = [line for line in outcome.err.splitlines() if line.startswith("shiftlens: ")]
        assert len(told) == 1, outcome.err
        assert len(told[0]) < 1500, f"{len(told[0])} characters"
        # Memory that ran out is not a refusal: without this machine's limit it would have been taken.
        assert "MemoryError" not in told[0], told[0]
        assert "allocate" not in told[0], told[0]


def read(reader: Callable[[], object]) -> Outcome:
    """What a command would say whose reader this is: an error of this tool's ends it, any other is a crash."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader()
            code = 0
        except ShiftlensError as error:
            error_line(str(error))
            code = error.exit_code
    return Outcome(code, out.getvalue(), err.getvalue())


def check(case: Case, folder: Path, way: str, use: Callable[[], Outcome]) -> Outcome:
    """Use a built case and hold the outcome against everything that is promised; `way` is a command or a reader."""
    beside = outside(folder)
    before = tree(beside)
    with opened_files() as paths:
        outcome = use()
    assert not list(folder.parent.rglob(CANARY)), "code was run"
    assert tree(beside) == before, "something outside was written"
    assert not [p for p in paths if p.startswith(str(beside))], "something outside was opened"
    assert SECRET not in outcome.out + outcome.err
    assert_calm(outcome)
    # A lawful sweep that is not of the same question cannot be taken over either, and says another thing.
    expected = "either" if way == "reuse" or way.split()[0] in case.unread else case.expected
    if expected == "refused":
        assert outcome.code == 2, f"{way}: {outcome.out}{outcome.err}"
        why = outcome.line or outcome.out
        assert any(each in why for each in ((case.says,) if isinstance(case.says, str) else case.says)), f"{way}: {why}"
    elif expected == "fine":
        assert outcome.code == 0, f"{way}: {outcome.err}"
    return outcome


def built(case: Case, folder: Path) -> tuple[Path, str]:
    """A place with the hostile file in it, and what names the file."""
    place = folder / "case"
    place.mkdir()
    return place, str(case.build(place))


def read_by_all(case: Case, folder: Path, readers: dict[str, Any], ground: Any) -> None:
    """Every reader on one case."""
    place, path = built(case, folder)
    for name, reader in readers.items():
        check(case, place, name, partial(read, partial(reader, ground, path)))


def run_one(case: Case, folder: Path, command: str, line: Any, ground: Any) -> None:
    """One command on one case, from its line to what it prints."""
    place, path = built(case, folder)
    out = folder / "out"
    out.mkdir(parents=True)
    check(case, place, command, partial(run, *line(ground, path, out)))


def for_each(commands: dict[str, Any], cases: dict[str, Case]) -> Any:
    """A case for each command, spread over those that it refuses, and, to be slow, a command for each case in turn."""
    pairs = []
    for k, command in enumerate(commands):
        refused = [name for name, case in cases.items() if case.expected == "refused" and command not in case.unread]
        pairs.append(pytest.param(command, refused[k * len(refused) // len(commands)]))
    for k, name in enumerate(cases):
        pairs.append(pytest.param(list(commands)[k % len(commands)], name, marks=pytest.mark.slow))
    return pytest.mark.parametrize(("command", "name"), pairs)
