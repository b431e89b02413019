"""Words for errors: the nearest name to one that nobody knows, and text from elsewhere made fit for one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from shiftlens.errors import InputError


def printable(text: str) -> str:
    """Text from a file, a path or a library, with every character that could steer a terminal written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(error: BaseException, limit: int = 200) -> str:
    """The first line of an error's message, printable and shortened; the error's type if it has no message."""
    lines = str(error).strip().splitlines()
    return printable(" ".join(lines[0].split()) if lines else type(error).__name__)[:limit]


class Printed:
    """A result that prints itself: `print` shows its lines, a list or a traceback the first of them."""

    def lines(self) -> list[str]:
        """The result in lines of text."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.lines()[0]}>"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def count_of(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 image`, `1,000 images`; `plural` where an s does not make it."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def of_source(n: int, n_source: int | None) -> str:
    """How many images were used, and of how many where that is more: `6 of 30 images`."""
    return count_of(n, "image") if n_source in (None, n) else f"{n:,} of {n_source:,} images"


def distinct(names: Iterable[str]) -> list[str]:
    """The same names, the second and later of the same name numbered: some published sets name two classes alike.

    Examples
    --------
    >>> distinct(["crane", "drake", "crane"])
    ['crane', 'drake', 'crane (2)']
    """
    names = list(names)
    taken = set(names)
    found: dict[str, None] = {}
    for name in names:
        unique, k = name, 1
        while unique in found or (k > 1 and unique in taken):
            k += 1
            unique = f"{name} ({k})"
        found[unique] = None
    return list(found)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, upper and lower case being the same; None when nothing is similar."""
    by_key = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_key, n=1, cutoff=0.5)
    return by_key[found[0]] if found else None


def unknown_name(kind: str, name: object, known: Iterable[str], *, hint: str | None = None) -> InputError:
    """Build the error for an unknown name: the nearest one, and the whole list while it is short.

    `hint` is suggested in place of the nearest by spelling. Not raised here, so that readers see where control leaves.

    Examples
    --------
    >>> str(unknown_name("head", "gab", ["gap", "max", "flatten"]))
    "unknown head 'gab'; did you mean 'gap'? (known: gap, max, flatten)"
    """
    names = list(known)
    best = hint or nearest(str(name), names)
    text = f"unknown {kind} {name!r}"
    listed = ", ".join(names) if names and len(names) <= 12 else ""
    if best:
        text += f"; did you mean {best!r}?" + (f" (known: {listed})" if listed else "")
    elif listed:
        text += f"; expected one of {listed}"
    return InputError(text)
