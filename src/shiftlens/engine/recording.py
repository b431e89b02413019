"""Work on a GPU that is always the same: recorded once, and the host only says "go" from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from weakref import WeakMethod

import torch

from shiftlens.devices import captured, on_side_stream
from shiftlens.naming import one_line

logger = logging.getLogger(__name__)

WARMING = 2
"""Calls before one is recorded: libraries choose their ways and take their memory in the first."""


class Replayed:
    """Work on buffers that stay where they are, on a GPU recorded after its first calls and played again.

    What cannot be recorded (it asks the device for a number, for one) is done call by call.

    Parameters
    ----------
    work
        A method that reads and writes buffers on the device; its object is not kept alive by this.
    what
        What it does, for the log.
    record
        Whether it is recorded.
    """

    def __init__(self, work: Callable[[], None], what: str, *, record: bool) -> None:
        # An object that holds this would keep its buffers until Python looks for cycles.
        self._method, self._what, self._record = WeakMethod(work), what, record
        self._n_warm = 0
        self._replay: Callable[[], None] | None = None

    @property
    def recorded(self) -> bool:
        """Whether it is played from a recording."""
        return self._replay is not None

    def __call__(self) -> None:
        """Do the work once, or have the device begin on it."""
        if self._record and self._n_warm == WARMING:
            self._record = False
            self._replay = self._recorded()
        if self._replay is not None:
            self._replay()
        elif self._record:
            self._n_warm += 1
            on_side_stream(self._work)
        else:
            self._work()

    def _work(self) -> None:
        method = self._method()
        assert method is not None
        method()

    def _recorded(self) -> Callable[[], None] | None:
        try:
            return captured(self._work)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the net's own code does
            logger.info("%s are not recorded: %s: %s", self._what, type(error).__name__, one_line(error))
            return None
