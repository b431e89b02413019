"""Windows without content: with a constant fill they are all the same image, which is evaluated once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.window_evaluator import EnginePath, Mask, WindowEvaluator, in_view
from shiftlens.errors import ModelOutputError


class BlankOnce(WindowEvaluator):
    """Evaluates the blank image once for each image size; all other windows go to the evaluator inside.

    Parameters
    ----------
    inside
        Evaluates windows with content.
    path
        Evaluates the blank image, by itself.
    """

    def __init__(self, inside: WindowEvaluator, path: EnginePath) -> None:
        if path.values is None:
            raise ValueError(f"fill {path.fill.name} is no constant: no window is blank")
        self._inside, self._path, self.grid = inside, path, inside.grid
        self._values = torch.tensor(path.values)[:, None, None]
        self._scores: dict[tuple[int, int], Tensor] = {}

    def begin(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None, wanted: Mask
    ) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        blank = wanted & np.stack([self._blank(image, control) for image in images])
        finish = self._inside.begin(images, labels, control, wanted & ~blank)

        def finished() -> Outcomes:
            found = finish()
            if blank.any():
                image, shift = np.nonzero(blank)
                scores = self._blank_scores(images.shape[1:]).expand(len(images), -1)
                found.put((image, shift), Outcomes.of(scores, torch.from_numpy(np.array(labels))).chosen(image))
            return found

        return finished

    def _blank(self, image: NDArray[np.uint8], control: str | None) -> Mask:
        """Which windows [shift] show nothing but fill: no row, or no column, that differs from it is in view."""
        content = (self._path.normalised(image[None], control)[0] != self._values).any(dim=0).numpy()
        rows, columns = (
            in_view(shifts, content.shape[axis]).astype(np.int64) @ content.any(axis=1 - axis).astype(np.int64) > 0
            for axis, shifts in enumerate((self.grid.dys, self.grid.dxs))
        )
        return np.asarray(~(rows[:, None] & columns[None, :]).ravel(), dtype=np.bool_)

    def _blank_scores(self, shape: tuple[int, ...]) -> Tensor:
        c, h, w = shape
        if (h, w) not in self._scores:
            try:
                scores = self._path.alone(self._values.expand(c, h, w)[None].to(self._path.device))
            except ModelOutputError as error:
                # No image is at fault, so none is named.
                raise ModelOutputError(
                    f"{error}: on the empty picture (nothing but fill) that is left when a shift pushes all "
                    "content out; a smaller max-shift or an index rule as fill avoids it; met"
                ) from error
            self._scores[h, w] = scores.cpu()
        return self._scores[h, w]
