"""How long the choice of a plan may take: a small share of the sweep that it is for."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.03
"""Of the sweep's time, as far as it is known by then."""
FLOOR = 3.0
"""Seconds that a choice may always take."""
CAP = 60.0
"""Seconds after which nothing more is begun; the choice for the reference case takes 10 to 40, by the machine."""


class Budget:
    """The time for a choice, from now on.

    What is measured is measured by its clock too, so that with a clock of its own a test decides what is fast.

    Parameters
    ----------
    clock
        Seconds from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._begin = clock()
        self.seconds = FLOOR
        """That may be spent."""
        self.cut_short = False
        """Whether something was left out that would have been tried otherwise."""

    def fit(self, sweep_seconds: float) -> None:
        """The sweep would take so long by what is known now."""
        self.seconds = min(CAP, max(FLOOR, SHARE * sweep_seconds))

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self._begin

    def over(self, part: float = 1.0) -> bool:
        """Whether a part of it is gone."""
        return self.elapsed >= part * self.seconds

    def spent(self, part: float = 1.0) -> bool:
        """The same, asked before something that is left out then: `cut_short` remembers it."""
        gone = self.over(part)
        self.cut_short |= gone
        return gone
