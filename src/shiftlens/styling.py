"""How matplotlib draws for us: by its own defaults, whatever a file or a notebook has told it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def default_style() -> Iterator[None]:
    """A context, or a decorator, in which matplotlib's settings are its defaults; the user's are back afterwards.

    A `matplotlibrc`, one in the working folder as well, can make matplotlib start programs (`text.usetex`) and give the
    same numbers another picture.
    """
    import matplotlib.style

    with matplotlib.style.context("default"):
        yield
