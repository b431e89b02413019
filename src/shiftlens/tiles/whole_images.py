"""A net and its images as a tile report takes them: maps of whole images, or of as much of them as fits at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.arithmetic import net_of
from shiftlens.data.images import ImageSet
from shiftlens.devices import input_dtype
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph.sites import Pair
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.tasks.outputs import OutputForm, form_of, numbers_of
from shiftlens.tiles.tile_steps import ROUNDING


class WholeImages:
    """Images one at a time, and the map that a net makes of one.

    Parameters
    ----------
    model, images, size
        Brought together by `on_input_grid`; (h, w) of an image.
    task
        A key of `NUMBERS`.
    device
        Where the net is.

    Attributes
    ----------
    size
        (h, w) of what is taken of each image: all of it, or as much of its middle as fits at once.
    notes
        What a reader must know of that.

    Raises
    ------
    InputError
        The net gives no map, another one each time, or does not take the image.
    """

    def __init__(self, model: Model, images: ImageSet, size: Pair, task: str, device: torch.device) -> None:
        self.model, self.images, self.task = model, images, task
        self._device, self._module = device, net_of(model)
        self._dtype = input_dtype(self._module)
        self._form: OutputForm | None = None
        self.notes: list[str] = []
        self.size = size
        self._fit()

    def map(self, x: Tensor) -> Tensor:
        """The net's map [1, k, h', w'] of one image."""
        raw = self._module(x)
        if self._form is None:
            try:
                self._form = form_of(raw, 1)
            except ModelOutputError as error:
                raise InputError(f"{self.model.name}: {error}") from None
            self._refuse_no_map(self._form)
        made = numbers_of(raw, self._form)
        return made if made.ndim == 4 else made.unsqueeze(1)

    def _refuse_no_map(self, form: OutputForm) -> None:
        if form.is_detections:
            raise InputError(
                f"{self.model.name} gives lists of boxes, which are merged, not stitched: report on its raw maps"
            )
        if len(form.shape) not in (2, 3) or max(form.shape[-2:]) == 1:
            raise InputError(f"{self.model.name} gives {form.said}, no map: there is nothing to tile")
        if self.task == "segmentation" and (len(form.shape) == 2 or form.shape[0] < 2):
            raise InputError(
                f"{self.model.name} gives a single map of numbers: segmentation needs scores of at least 2 classes; "
                "use the task dense"
            )

    def _fit(self) -> None:
        """Take less of the images until the net can take it at once, and run the net twice."""
        whole = size = self.size
        while True:
            self.size = size
            x = self.image(0)
            try:
                first, second = self.map(x), self.map(x)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or min(size) < 64:
                    raise _refused(self.model, size, error) from error
                size = (max(32, size[0] // 2 // 32 * 32), max(32, size[1] // 2 // 32 * 32))
            except (ValueError, TypeError) as error:
                raise _refused(self.model, size, error) from error
        if size != whole:
            self.notes.append(
                f"an image of {whole[0]}x{whole[1]} does not fit at once: the largest tile that does, "
                f"{size[0]}x{size[1]} px from its middle, is taken for the whole image"
            )
        if not torch.isfinite(first).all():
            raise InputError(f"{self.model.name} gives numbers that are not finite")
        span = float(first.max() - first.min())
        off = float((first - second).abs().max())
        if off > ROUNDING * max(span, 1e-30):
            raise InputError(
                f"{self.model.name} gives another output when it is run again (by up to {off:.3g}): tiles cannot be "
                "compared with it; switch its random layers off"
            )

    def pixels(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [c, h, w]: as much of its middle as fits at once."""
        pixels = self.images.batch([position])[0]
        h, w = self.size
        top, left = (pixels.shape[1] - h) // 2, (pixels.shape[2] - w) // 2
        return np.ascontiguousarray(pixels[:, top : top + h, left : left + w])

    def image(self, position: int) -> Tensor:
        """The same, normalised, as a batch of one."""
        pixels = torch.from_numpy(self.pixels(position)[None]).to(self._device)
        return self.model.preprocessing.normalise(pixels).to(self._dtype)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "memory" in str(error).lower()


def _refused(model: Model, size: Pair, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return InputError(f"{model.name}: {error}")
    return InputError(f"{model.name} does not take an image of {size[0]}x{size[1]} px: {one_line(error)}")
