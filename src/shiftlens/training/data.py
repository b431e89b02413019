"""Training images as one tensor on the device, and the batches that a run sees, decided by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from shiftlens.data.images import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.training.recipe import Recipe

DECODED_AT_ONCE = 1024


def check_images(images: ImageSet) -> None:
    """Refuse images of one class only, of a class without images, or of different sizes."""
    if not images.labelled:
        raise InputError(f"training needs class labels, {images.name} has none")
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        only = images.class_names[present[0]]
        raise InputError(f"training needs at least 2 classes, all {len(images):,} images of {images.name} are {only!r}")
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        named = ", ".join(f"{k} ({images.class_names[k]})" for k in missing[:5])
        more = "" if len(missing) <= 5 else f" and {len(missing) - 5} more"
        raise InputError(
            f"labels of {images.name} have gaps: no image of class {named}{more}; "
            f"number the classes 0 to {len(present) - 1}"
        )
    if images.size is None:
        raise InputError(f"pictures of {images.name} have different sizes; training needs one: resize them first")


def pixels(images: ImageSet) -> UInt8[Tensor, "n c h w"]:
    """All pictures, decoded once."""
    parts = [
        torch.from_numpy(images.batch(slice(start, start + DECODED_AT_ONCE)))
        for start in range(0, len(images), DECODED_AT_ONCE)
    ]
    return torch.cat(parts)


def preprocessing_of(pictures: UInt8[Tensor, "n c h w"], size: tuple[int, int]) -> Preprocessing:
    """Mean and standard deviation of each channel over the training pictures."""
    # Sums of whole numbers: the same on every machine and for every number of threads.
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in pictures.transpose(0, 1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = ((shares * (levels - mean[:, None]) ** 2).sum(1)).sqrt().clamp_min(1 / 255)
    return Preprocessing(
        mean=tuple(round(float(m), 6) for m in mean),
        std=tuple(round(float(s), 6) for s in std),
        size=size,
        declared=True,
    )


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch shows: the order of the images, and for each of them its mirror and its shift in pixels.

    `holes` are centres (y, x) of what `Recipe.cutout` takes, as shares of the sides; `patches`, of `Recipe.cutmix`,
    have the share of the area (0 for a picture left whole) and the centre (y, x).
    """

    order: Int64[Tensor, " n"]
    mirrored: Tensor
    dy: Int64[Tensor, " n"]
    dx: Int64[Tensor, " n"]
    holes: Float[Tensor, "n 2"] | None = None
    patches: Float[Tensor, "n 3"] | None = None

    def to(self, device: torch.device) -> EpochPlan:
        """The same plan where the pictures are."""
        given = {name: part.to(device) for name, part in vars(self).items() if part is not None}
        return replace(self, **given)


def _generator(*numbers: int) -> torch.Generator:
    """A stream of its own for each tuple of numbers of at least 0."""
    state = np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def epoch_plan(n: int, seed: int, epoch: int, recipe: Recipe, flip: str) -> EpochPlan:
    """Draw an epoch (from 0) of `n` images; nothing is remembered, so that a resumed run draws the same."""
    draw = _generator(seed, 1, epoch)
    order = torch.randperm(n, generator=draw)
    dy, dx = torch.randint(-recipe.crop, recipe.crop + 1, (2, n), generator=draw)
    if flip == "none":
        mirrored = torch.zeros(n, dtype=torch.bool)
    elif flip == "random":
        mirrored = torch.rand(n, generator=draw) < 0.5
    else:
        start = torch.rand(n, generator=_generator(seed, 2)) < 0.5
        mirrored = start ^ bool(epoch % 2)
    # From streams of their own: what a recipe without them draws stays the same.
    holes = torch.rand((n, 2), generator=_generator(seed, 3, epoch)) if recipe.cutout else None
    patches = None
    if recipe.cutmix:
        chance, *patch = torch.rand((4, n), generator=_generator(seed, 4, epoch))
        patch[0][chance >= recipe.cutmix] = 0
        patches = torch.stack(patch, 1)
    return EpochPlan(order, mirrored, dy, dx, holes, patches)


class Batches:
    """Normalised, shifted, mirrored and resized batches, made where the pictures are: they go to `device` once."""

    def __init__(
        self,
        pictures: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        preprocessing: Preprocessing,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self._crop = min(recipe.crop, min(pictures.shape[2:]) - 1)
        margin = [self._crop] * 4
        parts = (pictures[start : start + 4096] for start in range(0, len(pictures), 4096))
        wide = [F.pad(part.float(), margin, mode="reflect").to(torch.uint8) for part in parts]
        # Channels last: a gather of pixels then is a batch in the layout that convolutions are fastest in.
        self._pixels = torch.cat(wide).permute(0, 2, 3, 1).contiguous().to(device)
        self._labels = labels.to(device)
        self._n_classes = int(labels.max()) + 1
        self._cutout = recipe.cutout
        self._size = (pictures.shape[2], pictures.shape[3])
        stats = torch.tensor([preprocessing.mean, preprocessing.std], device=device) * 255
        self._mean, self._std = (values.view(1, -1, 1, 1) for values in stats)
        self._device = device

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._labels)

    def epoch(
        self, plan: EpochPlan, batch: int, sizes: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Tensor]]:
        """Batches of an epoch, one for each entry of `sizes`, the size of its pictures."""
        plan = plan.to(self._device)
        for k, size in enumerate(sizes):
            yield self.batch(plan, plan.order[k * batch : (k + 1) * batch], size)

    def batch(
        self, plan: EpochPlan, chosen: Int64[Tensor, " b"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "b c h w"], Tensor]:
        """Some pictures, each mirrored or not and then moved by its (dx, dy), and their labels.

        With patches of the next picture of the batch in them, the labels are shares of each class [b, k].
        """
        h, w = self._size
        dy, dx = (part[chosen].clamp(-self._crop, self._crop) for part in (plan.dy, plan.dx))
        y, x = torch.arange(h, device=self._device), torch.arange(w, device=self._device)
        rows = self._crop + y - dy[:, None]
        columns = x - dx[:, None]
        columns = self._crop + torch.where(plan.mirrored[chosen, None], w - 1 - columns, columns)
        # Mirroring first and moving after: dx > 0 moves the picture right, mirrored or not.
        found = self._pixels[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
        shown = found.permute(0, 3, 1, 2).float()
        labels = self._labels[chosen]
        if plan.patches is not None:
            patches = plan.patches[chosen]
            inside = _boxes(patches[:, 1:], patches[:, :1].sqrt(), h, w)
            shown = torch.where(inside, shown.roll(-1, 0), shown)
            area = inside.float().mean((1, 2, 3))[:, None]
            of_class = F.one_hot(labels, self._n_classes).float()
            labels = of_class * (1 - area) + of_class.roll(-1, 0) * area
        if plan.holes is not None:
            side = torch.tensor([[self._cutout / h, self._cutout / w]], device=self._device)
            shown = torch.where(_boxes(plan.holes[chosen], side, h, w), self._mean, shown)
        if size != self._size:
            shown = F.interpolate(shown, size=size, mode="bilinear", antialias=True, align_corners=False)
        shown = shown.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)
        return shown, labels


def _boxes(centres: Float[Tensor, "b 2"], sides: Float[Tensor, "_ _"], h: int, w: int) -> Tensor:
    """Which pixels [b, 1, h, w] lie in each picture's box; centres and sides as shares of height and width."""
    begin, end = centres - sides / 2, centres + sides / 2
    y = (torch.arange(h, device=centres.device) + 0.5) / h
    x = (torch.arange(w, device=centres.device) + 0.5) / w
    rows = (y >= begin[:, :1]) & (y < end[:, :1])
    columns = (x >= begin[:, 1:]) & (x < end[:, 1:])
    return rows[:, None, :, None] & columns[:, None, None, :]
