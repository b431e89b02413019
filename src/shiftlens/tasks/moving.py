"""Where content is after a shift: maps and boxes that move with it, and which of them are still in the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shiftlens.errors import InputError
from shiftlens.tasks.outputs import OutputForm

if TYPE_CHECKING:
    from torch import Tensor


FROM_NET = -1
"""A margin of as many pixels as the receptive field reaches to a side, where the net tells; see `inner_margin`."""


def inner_margin(margin: int, size: tuple[int, int]) -> int:
    """A margin for images of (h, w) pixels: a quarter of the shorter side at most, and where it is not known."""
    most = min(size) // 4
    return most if margin == FROM_NET else min(margin, most)


def map_shape(form: OutputForm, size: tuple[int, int], task: str) -> tuple[int, ...]:
    """[channel, h, w] of a model's map over images of (h, w) pixels; smaller maps are brought to that size.

    Raises
    ------
    InputError
        No map, or one that is larger than the image.
    """
    shape = (1, *form.shape) if len(form.shape) == 2 else form.shape
    if form.is_detections or len(shape) != 3:
        raise InputError(f"{task} needs a map over the image, the model gives {form.said}")
    if shape[1] > size[0] or shape[2] > size[1]:
        raise InputError(
            f"{task} takes maps of at most the image's size {size[0]}x{size[1]}, the model gives {form.said}"
        )
    return (shape[0], *size)


def shaped(outputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Outputs that come as one row a window, in their own shape."""
    return outputs.reshape(len(outputs), *shape) if shape else outputs


def moved_maps(maps: Tensor, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [n, ..., h, w] moved by whole pixels, and which places [n, h, w] show content that was in the frame.

    Parameters
    ----------
    maps
        One for each window.
    shifts
        [n, (dx, dy)]: what lay at (x, y) lies at (x + dx, y + dy) afterwards.
    """
    import torch

    h, w = maps.shape[-2:]
    rows = torch.arange(h, device=maps.device) - shifts[:, 1, None]
    columns = torch.arange(w, device=maps.device) - shifts[:, 0, None]
    valid = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    each = torch.arange(len(maps), device=maps.device)[:, None, None]
    last = maps.flatten(1, -3) if maps.ndim > 3 else maps[:, None]
    taken = last.permute(0, 2, 3, 1)[each, rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None, :]]
    moved = taken.permute(0, 3, 1, 2).reshape(maps.shape)
    return moved, valid


def interior(valid: Tensor, shifts: Tensor, margin: int) -> Tensor:
    """Those places [n, h, w] that lie at least `margin` px from every border of the frame, before and after."""
    import torch

    h, w = valid.shape[-2:]

    def inside(n: int, moved: Tensor) -> Tensor:
        places = torch.arange(n, device=valid.device)
        before = places - moved[:, None]
        return (places >= margin) & (places < n - margin) & (before >= margin) & (before < n - margin)

    return valid & inside(h, shifts[:, 1])[:, :, None] & inside(w, shifts[:, 0])[:, None, :]


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean [n] of values [n, ...] over the chosen places; NaN where none is chosen."""
    import torch

    chosen = chosen.expand(values.shape).flatten(1)
    values = values.flatten(1)
    if values.dtype == torch.bool:
        total = (values & chosen).sum(1).double()
    else:
        total = torch.where(chosen, values.double(), 0.0).sum(1)
    return total / chosen.sum(1)  # 0 / 0 is NaN


def moved_boxes(boxes: Tensor, shifts: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes [n, k, (left, top, right, bottom)] moved and clipped to (h, w), and the share of each area that is left."""
    moved = boxes + shifts[:, None, [0, 1, 0, 1]]
    clipped = clip_boxes(moved, size)
    area = box_area(moved)
    return clipped, box_area(clipped) / area.clamp(min=1e-12)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] cut to a frame of (h, w)."""
    h, w = size
    limits = boxes.new_tensor([w, h, w, h])
    return boxes.clamp(min=0).minimum(limits)


def box_area(boxes: Tensor) -> Tensor:
    """Area [...] of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def box_overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union, and intersection over the area of `boxes`, of boxes [..., 4] that belong together."""
    import torch

    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area = box_area(boxes)
    union = area + box_area(others) - common
    return common / union.clamp(min=1e-12), common / area.clamp(min=1e-12)
