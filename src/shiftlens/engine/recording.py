"""Work on a GPU that is always the same: recorded once, and the host only says "go" from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

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
        Moves `at` on by itself, and reads and writes buffers on the device.
    at
        Where the work is, on the device.
    record
        Whether it is recorded.
    """

    def __init__(self, work: Callable[[], None], at: Tensor, *, record: bool) -> None:
        self._work, self._at, self._record = work, at, record
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

    def _recorded(self) -> Callable[[], None] | None:
        at = self._at.clone()
        try:
            return captured(self._work)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the net's own code does
            logger.info("work is not recorded: %s: %s", type(error).__name__, one_line(error))
            self._at.copy_(at)
            return None
