"""Where the windows of a device's batches come from: buffers of fixed shape for the images that it works on.

Every window by itself is cut out of a canvas, or blanked where the control `occlusion` asks for it. Where computation
is shared across shifts, the buffers hold what the first layers make of each image for all shifts at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shiftlens.engine.recording import Replayed
from shiftlens.engine.shared.program import Program
from shiftlens.engine.window_evaluator import EnginePath, in_view
from shiftlens.shifts import canvas

MAX_NUMBERS = 2**28
"""Most numbers that the device holds at once for the images it works on (1 GB in float32)."""


class DeviceWindows(ABC):
    """The windows of images of one size, as a net takes them.

    Attributes
    ----------
    most
        How many images are held at once.
    net
        What takes the windows to scores.
    """

    def __init__(self, net: Callable[..., Any], numbers_each: int, n_images: int) -> None:
        self.net = net
        self.most = max(1, min(n_images, MAX_NUMBERS // numbers_each))

    @abstractmethod
    def hold(self, pictures: Tensor) -> None:
        """Take normalised images [n, c, h, w] in place of those before; n is `most` or less."""

    @abstractmethod
    def __call__(self, image: Tensor, iy: Tensor, ix: Tensor) -> tuple[Tensor, ...]:
        """What the net takes for some windows [n], by the image and the places of the shift in the grid."""


class ShiftedWindows(DeviceWindows):
    """Cut out of the images on their canvases."""

    def __init__(self, path: EnginePath, net: Callable[..., Any], shape: tuple[int, int, int], n_images: int) -> None:
        c, self._h, self._w = shape
        self._path, self._reach = path, path.reach(self._h, self._w)
        high, wide = self._h + 2 * self._reach[0], self._w + 2 * self._reach[1]
        super().__init__(net, c * high * wide, n_images)
        self._canvas = torch.zeros(self.most, high, wide, c, dtype=path.dtype, device=path.device)
        self._starts = tuple(torch.from_numpy(start).to(path.device) for start in path.starts(self._h, self._w))

    def hold(self, pictures: Tensor) -> None:
        """See `DeviceWindows`."""
        wide = canvas(pictures, *self._reach, self._path.fill.rule, self._path.values)
        send(wide.to(self._canvas.dtype).permute(0, 2, 3, 1), self._canvas)

    def __call__(self, image: Tensor, iy: Tensor, ix: Tensor) -> tuple[Tensor, ...]:
        """See `DeviceWindows`."""
        # [image, first row, first column, h, w, c] without a copy.
        windows = self._canvas.unfold(1, self._h, 1).unfold(2, self._w, 1).permute(0, 1, 2, 4, 5, 3)
        batch = windows[image, self._starts[0][iy], self._starts[1][ix]]
        return (self._path.as_input(batch.permute(0, 3, 1, 2)),)


class OccludedWindows(DeviceWindows):
    """The images where they are, without what a shift would push out."""

    def __init__(self, path: EnginePath, net: Callable[..., Any], shape: tuple[int, int, int], n_images: int) -> None:
        c, h, w = shape
        super().__init__(net, c * h * w, n_images)
        self._path = path
        self._images = torch.zeros(self.most, h, w, c, dtype=path.dtype, device=path.device)
        self._stays = tuple(
            torch.from_numpy(in_view(shifts, size)).to(path.device)
            for shifts, size in ((path.grid.dys, h), (path.grid.dxs, w))
        )
        self._empty = torch.tensor(path.values, dtype=torch.float32, device=path.device).to(path.dtype)

    def hold(self, pictures: Tensor) -> None:
        """See `DeviceWindows`."""
        send(pictures.to(self._images.dtype).permute(0, 2, 3, 1), self._images)

    def __call__(self, image: Tensor, iy: Tensor, ix: Tensor) -> tuple[Tensor, ...]:
        """See `DeviceWindows`."""
        seen = self._stays[0][iy][:, :, None] & self._stays[1][ix][:, None, :]
        batch = torch.where(seen[..., None], self._images[image], self._empty)
        return (self._path.as_input(batch.permute(0, 3, 1, 2)),)


class CellWindows(DeviceWindows):
    """Put together from the cells of the maps that the first layers make of an image for all shifts.

    Parameters
    ----------
    path
        Whose grid and number format these are.
    program, net
        The first layers, and the rest, which takes the windows to scores.
    shape
        [c, h, w] of the images.
    n_images
        How many of them there are at most.
    record
        Whether the first layers are recorded as a CUDA graph.
    """

    def __init__(
        self,
        path: EnginePath,
        program: Program,
        net: Callable[..., Any],
        shape: tuple[int, int, int],
        n_images: int,
        *,
        record: bool,
    ) -> None:
        shapes = program.crossing_shapes
        super().__init__(net, sum(rows * columns * c for rows, columns, c in shapes), n_images)
        self._program, self._dtype, self._last = program, path.dtype, path.plan.channels_last
        self._pictures = torch.zeros(self.most, *shape, device=path.device)
        self._maps = [torch.zeros(self.most, *each, dtype=path.dtype, device=path.device) for each in shapes]
        self._at = torch.zeros(1, dtype=torch.int64, device=path.device)
        self._next = Replayed(self._compute, "first layers", record=record)

    def hold(self, pictures: Tensor) -> None:
        """See `DeviceWindows`."""
        send(pictures, self._pictures)
        self._at.zero_()
        for _ in pictures:
            self._next()

    def _compute(self) -> None:
        """The maps of the next image."""
        picture = self._pictures.index_select(0, self._at)[0]
        for room, found in zip(self._maps, self._program.run(picture, self._dtype), strict=True):
            room.index_copy_(0, self._at, found[None])
        self._at += 1

    def __call__(self, image: Tensor, iy: Tensor, ix: Tensor) -> tuple[Tensor, ...]:
        """See `DeviceWindows`; the shifts leave some of the image in view."""
        return self._program.windows(self._maps, iy, ix, image, channels_last=self._last)


def send(what: Tensor, room: Tensor) -> None:
    """To the front of a buffer on the device, without waiting."""
    if room.is_cuda and not what.is_cuda:
        what = what.contiguous().pin_memory()
    room[: len(what)].copy_(what, non_blocking=True)
