"""What a task stores for each window, and metrics made of it: names, units, which way is better, and the axes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

WINDOW = ("image", "dy", "dx")
OBJECT = ("object", "dy", "dx")
"""Ragged: a number for each object of an image under each shift; `Task.n_objects` tells how many objects there are."""
RANK = ("rank", "dy", "dx")
"""A number for each of the best detections of a window, the best first; `Task.axes` tells how many there are."""
CLASS = ("class", "dy", "dx")
"""A number for each class; `Task.axes` tells how many there are."""
PLACE = ("place", "dy", "dx")
"""A number for each cell of an output map, row after row; `Task.axes` tells how many there are."""
SEVERAL = (OBJECT, RANK, CLASS, PLACE)


@dataclass(frozen=True)
class Variable:
    """What is stored for each window, or a metric made from it.

    Attributes
    ----------
    name
        As in the file.
    dtype
        NumPy's name of the type. A share is "bool".
    unit
        "share" (differences are said in percentage points), "nats", "px", ...
    better
        Which way is better; None for what is no metric, such as a class number.
    kind
        "share": yes or no for each window, so that a mean is a share of images (Wilson, McNemar). "number": anything
        else (Student's t, paired bootstrap). None for what is no metric.
    long_name
        For axes and tables.
    dims
        `WINDOW`; one of `SEVERAL`; or the axes of an accumulator (of `y`, `x`, those of the image), which has neither
        image nor shift and is summed over windows.
    bounds
        What a value can be; intervals are cut there.
    optional
        A number that some windows do not have (NaN): they are left out, and n counts the others.
    needs
        Stored variables that a metric is made from; by default the one of its own name.

    Examples
    --------
    >>> Variable("count_error", "float32", "objects", "lower", "number", bounds=(0, np.inf)).called
    'count error'
    """

    name: str
    dtype: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    kind: Literal["share", "number"] | None = None
    long_name: str = ""
    dims: tuple[str, ...] = WINDOW
    bounds: tuple[float, float] = (-np.inf, np.inf)
    optional: bool = False
    needs: tuple[str, ...] = ()

    @property
    def is_share(self) -> bool:
        """Whether each window is a yes or a no."""
        return self.kind == "share"

    @property
    def axis(self) -> str | None:
        """The axis of a variable that has several numbers for each window: "object", "rank", "class" or "place"."""
        return self.dims[0] if self.dims in SEVERAL else None

    @property
    def is_accumulator(self) -> bool:
        """Whether it is summed over the windows of a chunk: one row a chunk."""
        return self.dims != WINDOW and self.axis is None

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return -1 if self.better == "lower" else 1

    @property
    def factor(self) -> float:
        """What values are multiplied by before they are shown: shares become per cent, their differences points."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def called(self) -> str:
        """The name in a sentence; as the long name writes it where that is the same word ("MAE")."""
        name = re.sub(r"^n_(.*)", r"\1_count", self.name).replace("_", " ")
        if self.long_name.lower() == name:
            return self.long_name
        name = re.sub(r"\biou\b", "IoU", name).replace("self consistency", "self-consistency")
        return re.sub(r"\b(ap|ap50|psnr|mae|mse)\b", lambda found: found[0].upper(), name)

    @property
    def shown_unit(self) -> str:
        """Unit of a value times `factor`: shares are shown in per cent."""
        return "%" if self.unit == "share" else self.unit

    @property
    def difference_unit(self) -> str:
        """Unit of differences."""
        return "points" if self.unit == "share" else self.unit

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """What a difference of two values can be."""
        span = self.bounds[1] - self.bounds[0]
        return -span, span


@dataclass(frozen=True)
class ByPlace:
    """A rate by the place in the frame: one sum over windows divided by another.

    Attributes
    ----------
    name
        In words: "share of windows whose class changes".
    total, count
        Accumulators over (y, x).
    unit
        "share" is shown in per cent.
    better
        Which way is better.

    Examples
    --------
    >>> rate = ByPlace("recall of objects centred there", "found", "shown", "share", "higher")
    >>> f"{rate.name}: {rate.total} / {rate.count}"
    'recall of objects centred there: found / shown'
    """

    name: str
    total: str
    count: str
    unit: str
    better: Literal["higher", "lower"]
