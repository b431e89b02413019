"""One sentence for a name that nobody knows: what was expected, and the nearest name there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from shiftlens.errors import InputError


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar known name, upper and lower case being the same; None when nothing is similar."""
    by_key = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_key, n=1, cutoff=0.5)
    return by_key[found[0]] if found else None


def unknown_name(kind: str, name: object, known: Iterable[str], *, hint: str | None = None) -> InputError:
    """Build the error for an unknown name: the nearest one, and the whole list while it is short.

    Parameters
    ----------
    kind
        What the name should have been, e.g. "padding mode".
    name
        What came.
    known
        Every accepted name.
    hint
        A name to suggest instead of the nearest by spelling.

    Returns
    -------
    InputError
        Not raised: the caller does that, so that readers see where control leaves.

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
