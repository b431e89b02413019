"""Errors that a user can cause, and the one warning that a repair can give."""

from __future__ import annotations


class ShiftlensError(Exception):
    """Base of every error that shiftlens raises on purpose.

    The message is one line: what was requested, what was found, and where. The command line prints it and exits with
    `exit_code`; any other exception is a crash (exit code 3).

    Examples
    --------
    >>> try:
    ...     sl.open_sweep("nowhere.zarr")
    ... except ShiftlensError as error:
    ...     print(error)
    no sweep at nowhere.zarr: nothing is there
    """

    exit_code = 2


class InputError(ShiftlensError, ValueError):
    """Bad use or bad input: a path, a name, a number, a file, a model or images that cannot be served.

    Examples
    --------
    >>> sl.ShiftGrid(0)
    Traceback (most recent call last):
    ...
    shiftlens.errors.InputError: max-shift must be at least 1 pixel, got 0
    """


class DivergedError(InputError):
    """The loss or a weight was not finite any more: the recipe does not fit the net or the images."""


class StoreError(ShiftlensError):
    """A result on disk that is foreign, torn, busy, of another run, or that cannot be written.

    Examples
    --------
    >>> sl.verify_sweep("nowhere.zarr")
    Traceback (most recent call last):
    ...
    shiftlens.errors.StoreError: no sweep at nowhere.zarr: nothing is there
    """


class ModelOutputError(ShiftlensError):
    """The model raised, or gave something that is no finite table of scores, while it was being measured.

    `positions` are the places of the images concerned within the batch or chunk that was being evaluated, empty when
    no single image can be named.

    Examples
    --------
    >>> net = sl.wrap(lambda x: x.amax((2, 3)).log(), mean=0, std=1)  # the logarithm of 0 is not finite
    >>> sl.evaluate(net, sl.ImageSet(np.zeros((2, 8, 8), np.uint8), [0, 1]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    shiftlens.errors.ModelOutputError: the model gave scores that are not finite for images 0, 1 ...
    """

    def __init__(self, message: str, positions: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.positions = positions


class DeviceError(ShiftlensError):
    """A GPU failed while it computed, or has too little memory: its hardware, its driver, or a kernel of the net.

    What was finished before stays; the same command goes on from there.
    """


class NoEffectWarning(UserWarning):
    """A request was valid and changed nothing.

    Examples
    --------
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", NoEffectWarning)  # for scripts that must not go on without it
    ...     sl.repair(nn.Sequential(nn.Conv2d(3, 8, 3)), padding="reflect")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    shiftlens.errors.NoEffectWarning: repair(padding='reflect') changed nothing: ...
    """
