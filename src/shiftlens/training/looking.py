"""How good a net is on validation images: a glance after each epoch, the whole set after the last."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from shiftlens.data.images import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models.probing import scores_of
from shiftlens.training.data import pixels

AT_ONCE = 250


class Validation:
    """Validation images of the net's size, decoded into memory; `dtype` is that of a glance."""

    def __init__(
        self, images: ImageSet, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.pictures, self._labels = pixels(images), torch.from_numpy(np.array(images.labels))
        self._preprocessing, self._device, self._dtype = preprocessing, device, dtype

    def __len__(self) -> int:
        """Number of images."""
        return len(self._labels)

    def look(self, net: nn.Module, most: int | None) -> tuple[int, float | None]:
        """How many images were looked at, and the share of right answers among them.

        All of them in float32, as `shiftlens evaluate` does it, or at most `most` in the training's own format.
        """
        n, right = len(self) if most is None else min(len(self), most), 0
        if not n:
            return 0, None
        # Spread evenly over the set, since sets are often sorted by class.
        chosen = torch.linspace(0, len(self) - 1, n, dtype=torch.float64).round().long()
        for some in torch.split(chosen, AT_ONCE):
            scores = self.scores(net, self.pictures[some], torch.float32 if most is None else self._dtype)
            right += int((scores.argmax(1).cpu() == self._labels[some]).sum())
        return n, right / n

    @torch.no_grad()
    def scores(self, net: nn.Module, pictures: UInt8[Tensor, "b c h w"], dtype: torch.dtype) -> Float[Tensor, "b k"]:
        """Scores in evaluation mode."""
        net.eval()
        x = self._preprocessing.normalise(pictures.to(self._device)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            scores = scores_of(net(x))
        return scores.float()
