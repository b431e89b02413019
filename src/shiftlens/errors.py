"""Errors that a user can cause, and the one warning that a repair can give."""

from __future__ import annotations


class ShiftlensError(Exception):
    """Base of every error that shiftlens raises on purpose.

    The message is one line: what was requested, what was found, and where. The command line prints it and exits with
    `exit_code`; any other exception is a crash (exit code 3).
    """

    exit_code = 2


class InputError(ShiftlensError, ValueError):
    """Bad use or bad input: a path, a name, a number, a file, a model or images that cannot be served."""


class DivergedError(InputError):
    """The loss or a weight was not finite any more: the recipe does not fit the net or the images."""


class StoreError(ShiftlensError):
    """A result on disk that is foreign, torn, busy, of another run, or that cannot be written."""


class ModelOutputError(ShiftlensError):
    """The model raised, or gave something that is no finite table of scores, while it was being measured.

    `positions` are the places of the images concerned within the batch or chunk that was being evaluated, empty when
    no single image can be named.
    """

    def __init__(self, message: str, positions: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.positions = positions


class NoEffectWarning(UserWarning):
    """A request was valid and changed nothing."""
