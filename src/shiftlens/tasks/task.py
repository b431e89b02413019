"""The seam: what a task stores for each window, which metrics it gives, and how an output becomes numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = ("image", "dy", "dx")
OBJECT = ("object", "dy", "dx")
"""Ragged: the objects of all images one after the other; how many each image has is known from its target."""

Read = Callable[[str], NDArray[Any]]
"""The stored values of a variable for some images."""


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
        `WINDOW`; `OBJECT`; or the axes of an accumulator, which has neither image nor shift and is summed over windows.
    bounds
        What a value can be; intervals are cut there.
    optional
        A number that some windows do not have (NaN): they are left out, and n counts the others.
    needs
        Stored variables that a metric is made from; by default the one of its own name.
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
        name = self.name.replace("_", " ")
        return self.long_name if self.long_name.lower() == name else name

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


class Task(Protocol):
    """What a model does, as far as its output must be understood.

    `outcome` runs on the device for a batch of windows and must be pure. Its rows are one entry for each variable:
    [window] for `WINDOW`, [objects of all windows] for `OBJECT`, and the sum over the batch for an accumulator.
    """

    @property
    def name(self) -> str:
        """As `--task` calls it."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether the images must come with class numbers."""
        ...

    @property
    def variables(self) -> tuple[Variable, ...]:
        """What is stored: a number a window, numbers of objects, accumulators."""
        ...

    def metrics(self, *, labelled: bool) -> tuple[Variable, ...]:
        """What maps, areas and tests can be made of, the default first; with or without targets."""
        ...

    def prepare(self, reference: Any, targets: Any) -> Any:
        """Make what `outcome` needs of the outputs on the unshifted images and their targets, once an image."""
        ...

    def outcome(self, outputs: Any, shifts: Tensor | None, state: Any) -> Mapping[str, Tensor]:
        """Make rows of the outputs of a batch of windows, their shifts [window, (dx, dy)] and each window's state."""
        ...

    def measured(self, name: str, read: Read, labels: NDArray[np.int64], origin: tuple[int, int]) -> NDArray[Any]:
        """Make a metric (image, dy, dx) of stored variables, true classes (image,) and the cell of the shift (0, 0)."""
        ...


@dataclass(frozen=True)
class Stored:
    """A task that is known by what it has stored: its metrics are variables, taken as they are."""

    variables: tuple[Variable, ...]
    name: str = "stored"
    needs_labels: bool = False

    def metrics(self, *, labelled: bool) -> tuple[Variable, ...]:
        """Every variable of windows that has a better side."""
        return tuple(each for each in self.variables if each.better and each.dims == WINDOW)

    def prepare(self, reference: Any, targets: Any) -> Any:
        """Nothing is measured any more."""
        raise NotImplementedError

    def outcome(self, outputs: Any, shifts: Tensor | None, state: Any) -> Mapping[str, Tensor]:
        """Nothing is measured any more."""
        raise NotImplementedError

    def measured(self, name: str, read: Read, labels: NDArray[np.int64], origin: tuple[int, int]) -> NDArray[Any]:
        """The variable itself."""
        return read(name)
