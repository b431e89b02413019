"""What a model makes of one object at every position of a background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.naming import Printed

NEAR = 4
"""Pixels within which two positions are neighbours, for the swing of the confidence."""


@dataclass(frozen=True, repr=False)
class PositionMap(Printed):
    """What a model makes of one object at every position of one background.

    Attributes
    ----------
    task, label
        "classification" or "detection", and the class that is looked for.
    label_name
        Its name, or its number as text.
    xs, ys
        Left and top end of the object, pixels of the input, ascending.
    confidence
        [y, x], 0 to 1: probability of the class; of a detector the best score of the class at IoU 0.5 or more, 0 where
        there is none.
    found
        [y, x]: the class is predicted; of a detector, the confidence is at least 0.5.
    size, object_size
        (h, w) of the input and of the object's box, pixels.
    model, pasted, background
        Names of what was measured.

    Examples
    --------
    >>> colour = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the strongest colour is the class
    >>> red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    >>> found = sl.probe(sl.wrap(colour, mean=0.5, std=0.25), red, size=(12, 12), step=4)
    >>> found.label, found.xs.tolist(), bool(found.found.all())
    (0, [0, 4, 8], True)
    >>> found.swing < 0.001
    True
    """

    task: str
    label: int
    label_name: str
    xs: NDArray[np.int64]
    ys: NDArray[np.int64]
    confidence: NDArray[np.float64]
    found: NDArray[np.bool_]
    size: tuple[int, int]
    object_size: tuple[int, int]
    model: str
    pasted: str
    background: str

    @property
    def swing(self) -> float | None:
        """Largest difference of the confidence of two positions at most 4 px apart on each axis; None without any."""
        from scipy.ndimage import maximum_filter, minimum_filter

        step = [int(each[1] - each[0]) if len(each) > 1 else 1 for each in (self.ys, self.xs)]
        window = tuple(NEAR // s + 1 for s in step)
        if max(window) == 1:
            return None
        high, low = (f(self.confidence, window, mode="nearest") for f in (maximum_filter, minimum_filter))
        return float((high - low).max())

    def _at(self, extreme: int) -> list[int]:
        row, column = divmod(extreme, len(self.xs))
        return [int(self.xs[column]), int(self.ys[row])]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens probe --json`."""
        return {
            "model": self.model,
            "task": self.task,
            "label": self.label,
            "label_name": self.label_name,
            "object": self.pasted,
            "object_size": list(self.object_size),
            "background": self.background,
            "size": list(self.size),
            "n_positions": int(self.confidence.size),
            "found": float(self.found.mean()),
            "confidence": float(self.confidence.mean()),
            "lowest": float(self.confidence.min()),
            "lowest_at": self._at(int(self.confidence.argmin())),
            "highest": float(self.confidence.max()),
            "highest_at": self._at(int(self.confidence.argmax())),
            "swing": self.swing,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        told = self.to_dict()
        (x, y), verb = told["lowest_at"], "found" if self.task == "detection" else "predicted"
        changes = f"no two positions are within {NEAR} px of each other"
        if told["swing"] is not None:
            changes = f"it changes by up to {told['swing']:.3f} within {NEAR} px"
        return [
            f"{self.model}: {self.label_name} ({self.pasted} on {self.background}) is {verb} at "
            f"{100 * told['found']:.1f} % of {told['n_positions']:,} positions",
            f"confidence {told['confidence']:.3f} on average, {told['lowest']:.3f} at its lowest, where the object's "
            f"top left corner is at (x, y) = ({x}, {y}); {changes}",
            "one object on one background: a sweep over many images says whether others behave alike",
        ]
