"""Dense outputs (depth, restoration, heat maps): a map of numbers against the unshifted one moved along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.tasks.moving import FROM_NET, inner_margin, interior, map_shape, mean_where, moved_maps, shaped
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.task import ByPlace, OfDataset, State, Task, Variable, Weights

if TYPE_CHECKING:
    from torch import Tensor

_POSITIVE = (0.0, np.inf)
MAE = Variable("mae", "float32", "", "lower", "number", "MAE", bounds=_POSITIVE, optional=True)
MSE = Variable("mse", "float32", "", "lower", "number", "MSE", bounds=_POSITIVE, optional=True)
INTERIOR_MAE = Variable(
    "interior_mae", "float32", "", "lower", "number", "MAE away from every border", bounds=_POSITIVE, optional=True
)
LOWEST = Variable("reference_lowest", "float32", long_name="lowest output for the unshifted image")
HIGHEST = Variable("reference_highest", "float32", long_name="highest output for the unshifted image")
ERROR = Variable("error", "float64", long_name="sum of absolute errors", dims=("y", "x"))
SEEN = Variable("seen", "float64", long_name="windows with content from inside the frame", dims=("y", "x"))

PSNR = Variable(
    "psnr", "float64", "dB", "higher", "number", "PSNR by the range of the reference", bounds=(-np.inf, np.inf),
    optional=True, needs=("mse", "reference_lowest", "reference_highest"),
)  # fmt: skip

BY_PLACE = ByPlace("mean absolute error", "error", "seen", "", "lower")


@dataclass(frozen=True)
class Dense(Task):
    """Outputs [window, channel, h, w] to mean errors against the output for the unshifted image, moved along.

    Compared is what shows content that is in the frame before and after the shift, in the outputs' own unit. The range
    of the reference is stored with each image, so that PSNR can be derived of `mse`.

    Source
    ------
    EQ-T of arXiv 2106.12423, for whole pixels.

    Attributes
    ----------
    margin
        Pixels from every border of either frame beyond which `interior_mae` begins; by default as far as the receptive
        field reaches to a side. Never more than a quarter of the frame: the interior of a net that sees further is not
        free of the border.
    shape
        [channel, h, w] of a window's outputs, which the engine hands over as one row; () where they come as they are.

    Examples
    --------
    >>> task, image = Dense(), torch.arange(16.0).reshape(1, 1, 4, 4)
    >>> state = task.prepare(image, torch.zeros(1))
    >>> moved = image.roll(1, dims=3)  # an output that follows a shift by 1 px to the right
    >>> task.outcome(moved, torch.tensor([[1, 0]]), state)["mae"].item()
    0.0
    """

    margin: int = FROM_NET
    shape: tuple[int, ...] = ()
    name: str = "dense"
    needs_reference: bool = True
    needs_shifts: bool = True
    by_place: ByPlace | None = BY_PLACE
    variables: tuple[Variable, ...] = (MAE, MSE, INTERIOR_MAE, LOWEST, HIGHEST, ERROR, SEEN)
    dataset_metrics: tuple[Variable, ...] = (PSNR,)

    @property
    def settings(self) -> dict[str, Any]:
        """The margin."""
        return {"margin": self.margin}

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Dense:
        """For a model with a map of numbers."""
        return replace(self, shape=map_shape(form, size, self.name), margin=inner_margin(self.margin, size))

    def of_dataset(self, rows: Mapping[str, NDArray[Any]]) -> OfDataset:
        """PSNR of the mean squared error over images; the range is that of all their reference outputs."""
        mse, lowest, highest = (
            np.asarray(rows[name], np.float64) for name in ("mse", "reference_lowest", "reference_highest")
        )
        there = ~np.isnan(mse)

        def measured(weights: Weights) -> dict[str, float]:
            counted = weights * there
            if not counted.any():
                return {"psnr": float("nan")}
            mean = float(counted @ np.where(there, mse, 0) / counted.sum())
            return {"psnr": psnr(mean, float(lowest.min()), float(highest.max()))}

        return measured

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        """The outputs for the unshifted images, in float32."""
        return {"reference": shaped(reference, self.shape).float()}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of outputs; see the class."""
        assert shifts is not None
        outputs = shaped(outputs, self.shape)
        reference, valid = moved_maps(state["reference"], shifts)
        off = (outputs - reference).abs().double()
        everywhere = state["reference"].flatten(1)
        return {
            "mae": mean_where(off, valid[:, None]),
            "mse": mean_where(off.square(), valid[:, None]),
            "interior_mae": mean_where(off, interior(valid, shifts, self.margin)[:, None]),
            "reference_lowest": everywhere.amin(1),
            "reference_highest": everywhere.amax(1),
            "error": (off.mean(1) * valid).sum(0),
            "seen": valid.sum(0).double(),
        }

    def occluded(self, outputs: Tensor, shifts: Tensor, state: State) -> dict[str, Tensor]:
        """Rows of the maps moved along as the shift would: what it would push out is blank, and is not compared."""
        return self.outcome(moved_maps(shaped(outputs, self.shape), shifts)[0], shifts, state)


def psnr(mean_mse: float, lowest: float, highest: float) -> float:
    """PSNR in dB of a mean squared error, by the range of the reference outputs; infinite where there is no error."""
    if mean_mse == 0:
        return float("inf")
    return float(10 * np.log10((highest - lowest) ** 2 / mean_mse))
