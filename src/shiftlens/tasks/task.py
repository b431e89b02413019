"""The seam: what a task stores for each window, which metrics it gives, and how an output becomes numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.variable import CLASS as CLASS
from shiftlens.tasks.variable import OBJECT as OBJECT
from shiftlens.tasks.variable import PLACE as PLACE
from shiftlens.tasks.variable import RANK as RANK
from shiftlens.tasks.variable import SEVERAL as SEVERAL
from shiftlens.tasks.variable import WINDOW as WINDOW
from shiftlens.tasks.variable import ByPlace as ByPlace
from shiftlens.tasks.variable import Variable as Variable

if TYPE_CHECKING:
    from torch import Tensor

Read = Callable[[str], NDArray[Any]]
"""The stored values of a variable for some images."""

Weights = NDArray[np.float64]
"""How often each image counts [n]."""
OfDataset = Callable[[Weights], dict[str, float]]
"""From the weights of some images to metrics of all of them together, by name."""

State = Any
"""What a task keeps of each image: a tensor [image, ...], or a dictionary of such tensors."""

IGNORED_PIXEL = 255
"""Value of a mask where a pixel counts for nothing."""
NO_OBJECT = -1.0
"""Class of a row of a table of boxes that holds none."""
CROWD = -2.0
"""A row of class CROWD - k holds a crowd of objects of class k: neither missed, nor is what lies on it wrong."""

MARGIN = "margin"
"""A row that no task stores: how far the best answer of a window is from the second best (see `Task.has_margin`)."""


class Task:
    """What a model does, as far as its output must be understood: a subclass sets the attributes and has `outcome`.

    Attributes
    ----------
    name
        As `sweep(..., task=)` calls it.
    variables
        What is stored: numbers of windows, numbers of objects, accumulators.
    needs_labels
        Whether the metrics need class numbers.
    uses
        Which targets of the images `targets` is given: "masks", "boxes" or none.
    needs_reference
        Whether `prepare` needs the outputs on the unshifted images: one more forward pass for each image.
    needs_shifts
        Whether `outcome` needs to know how far each window is shifted.
    n_gallery
        How many of the first images, unshifted, are handed to `with_gallery` before anything is measured.
    needs_places
        Whether `targets` is given the places of the images among those of the sweep, instead of masks or boxes.
    has_margin
        Whether `outcome` has a row `margin`, below which rounding may change the window's answer. A sweep in bfloat16
        evaluates such windows again in float32; a task without margins is computed in float32 unless asked otherwise.
    controls
        Those that are defined for it.
    by_place
        What is shown by the place in the frame.
    dataset_metrics
        What `of_dataset` gives: metrics of all images under one shift together that are no mean over windows.

    Examples
    --------
    >>> class Darker(Task):
    ...     name = "darker"
    ...     variables = (Variable("level", "float32", "", "higher", "number", "mean output"),)
    ...     def outcome(self, outputs, shifts, state):
    ...         return {"level": outputs.flatten(1).mean(1)}
    >>> Darker().outcome(torch.ones(2, 3, 4, 4), None, None)["level"].tolist()
    [1.0, 1.0]
    """

    name: str
    variables: tuple[Variable, ...]
    needs_labels: bool = False
    uses: Literal["masks", "boxes"] | None = None
    needs_reference: bool = False
    needs_shifts: bool = False
    n_gallery: int = 0
    needs_places: bool = False
    has_margin: bool = False
    controls: tuple[str, ...] = ("occlusion", "flip", "canvas")
    by_place: ByPlace | None = None
    dataset_metrics: tuple[Variable, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What a user may set, for the file: JSON values by name."""
        return {}

    @property
    def axes(self) -> Mapping[str, int]:
        """Length of the axes "rank", "class" and "place" of its variables, where it has such; known once `fitted`."""
        return {}

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Task:
        """The same task for a model that returns outputs of a form for images of (h, w) pixels.

        Raises
        ------
        InputError
            Outputs that this task has no use for.
        """
        return self

    def with_gallery(self, outputs: Tensor) -> Task:
        """The same task with the model's outputs [image, ...] on the first `n_gallery` images; fewer if there are."""
        return self

    def targets(self, labels: NDArray[np.int64], values: NDArray[Any] | None) -> NDArray[Any]:
        """What some images are measured against: their classes, or the masks or boxes (None: they have none)."""
        return labels

    def refuse_unfit(self, highest: NDArray[np.int64], name: str) -> None:
        """Refuse images called `name` whose masks or boxes have a `highest` class [n] that a fitted task does not know.

        Raises
        ------
        InputError
            Names what does not fit.
        """

    def of_dataset(self, rows: Mapping[str, NDArray[Any]]) -> OfDataset:
        """Prepare the `dataset_metrics` of all images under one shift, NaN where undefined.

        Parameters
        ----------
        rows
            The variables that the metrics need (`Variable.needs`) of each image [n], or [n, k] where they have an axis.
        """
        return lambda weights: {}

    def metrics(self, *, labelled: bool) -> tuple[Variable, ...]:
        """What maps, areas and tests can be made of, the default first; with or without labels."""
        return tuple(each for each in self.variables if each.better and each.dims == WINDOW)

    def n_objects(self, targets: NDArray[Any]) -> NDArray[np.int64]:
        """How many objects each image has; only asked where a variable is over `OBJECT`."""
        raise NotImplementedError(f"{self.name} does not tell how many objects an image has")

    def compared(self, outputs: Tensor) -> Tensor:
        """Numbers [window, k] that are the same in two ways of computing whose outputs differ by rounding only.

        For outputs that rounding may put in another order, such as boxes by score.
        """
        return outputs

    def mirrored(self, targets: Tensor) -> Tensor:
        """The targets of images that are mirrored left to right."""
        return targets

    def prepare(self, reference: Any, targets: Tensor) -> State:
        """Make what `outcome` needs of some images: their outputs without a shift (or None), and their targets."""
        return targets

    def outcome(self, outputs: Any, shifts: Tensor | None, state: State) -> Mapping[str, Tensor]:
        """Make rows of the outputs of a batch of windows; runs on the device and must be pure.

        Parameters
        ----------
        outputs
            [window, ...], as the model gives them.
        shifts
            [window, (dx, dy)] in pixels, how far the content was moved; None unless `needs_shifts`.
        state
            From `prepare`, for the image of each window.

        Returns
        -------
        Mapping
            A tensor for each variable: [window]; [window, rank] or [window, class]; [window, object] with as many
            objects as that image has which has most of those that `prepare` saw together (what an image with fewer has
            there is not looked at); of an accumulator, the sum over the batch.
        """
        raise NotImplementedError(f"{self.name} is known by what it has stored: nothing new can be measured")

    def occluded(self, outputs: Any, shifts: Tensor, state: State) -> Mapping[str, Tensor]:
        """Make rows of windows of the control `occlusion`, where nothing moves; only asked if `needs_shifts`.

        Blank is what each of the shifts [window, (dx, dy)] would push out. By default these are windows that are
        shifted by 0: a task that compares content place by place must leave the blank part out of it.
        """
        return self.outcome(outputs, shifts * 0, state)

    def disagreement(
        self, found: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]], tolerance: float
    ) -> tuple[str, str] | None:
        """Compare the rows of one window computed in two ways.

        None where rounding may explain the difference; otherwise both in words. By default numbers may differ by
        `tolerance` and that share of themselves; what is whole may jump by rounding and is not compared, nor is
        what is stored by rank, which rounding may exchange.
        """
        for each in self.variables:
            if each.is_accumulator or each.dims == RANK or np.dtype(each.dtype).kind != "f":
                continue
            pair = [np.atleast_1d(rows[each.name]).astype(np.float64) for rows in (found, exact)]
            n = min(map(len, pair))  # there is room for the objects of the image that has most of them
            near = np.isclose(pair[0][:n], pair[1][:n], rtol=tolerance, atol=tolerance, equal_nan=True)
            if not near.all():
                place = int(np.argmin(near))
                a, b = (f"{each.name} {values[place]:.4g}" for values in pair)
                return a, b
        return None

    def measured(self, name: str, read: Read, labels: NDArray[np.int64], origin: tuple[int, int]) -> NDArray[Any]:
        """Make a metric (image, dy, dx) of stored variables, true classes (image,) and the cell of the shift (0, 0)."""
        return read(name)


def has_sums(task: Task) -> bool:
    """Whether a variable is an accumulator."""
    return any(each.is_accumulator for each in task.variables)


def has_objects(task: Task) -> bool:
    """Whether a variable is over the objects of an image."""
    return any(each.dims == OBJECT for each in task.variables)


def objects_of(task: Task, targets: NDArray[Any]) -> NDArray[np.int64]:
    """`Task.n_objects` of the images [n] with these targets.

    Raises
    ------
    InputError
        It is no number of objects for each image.
    """
    counts = np.asarray(task.n_objects(targets))
    if counts.shape != targets.shape[:1] or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(
            f"{task.name} must tell how many objects each of {len(targets)} images has, got {counts!r:.80}"
        )
    return counts.astype(np.int64)


def beyond(n_objects: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Which places [image, object] of a table with room for `n` objects hold none."""
    return np.asarray(np.arange(n)[None, :] >= n_objects[:, None], dtype=np.bool_)


def can_settle(task: Task) -> bool:
    """Whether some windows can be evaluated again: they have margins, and nothing was summed over windows before."""
    return task.has_margin and not has_sums(task)


def row_types(task: Task) -> dict[str, np.dtype[Any]]:
    """The type of each row that `outcome` gives: a class number is int64 until it is stored, others are signed."""
    rows = {}
    for each in task.variables:
        dtype = np.dtype(each.dtype)
        signed = np.promote_types(dtype, np.int8) if each.axis else np.dtype(np.int64)
        rows[each.name] = dtype if dtype.kind in "bf" else signed
    return rows | ({MARGIN: np.dtype(np.float32)} if task.has_margin else {})


@dataclass(frozen=True)
class Stored(Task):
    """A task that is known by what it has stored: its metrics are variables, taken as they are."""

    variables: tuple[Variable, ...]
    name: str = "stored"
    needs_labels: bool = False
    stored_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """As the file has them."""
        return self.stored_settings
