"""`probe`: one object pasted at every position on a background, and what the model makes of it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.data.decode import opacity, with_channels
from shiftlens.data.example_images import picture_of
from shiftlens.data.imageset import ImageSet
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model, as_model
from shiftlens.models.matching import MAX_PIXELS, on_input_grid, scores_for
from shiftlens.models.probing import evaluating
from shiftlens.naming import one_line, unknown_name
from shiftlens.paths import read_file, with_home
from shiftlens.position_map import PositionMap
from shiftlens.progress_bar import shows_progress
from shiftlens.tasks.moving import box_overlap, clip_boxes
from shiftlens.tasks.outputs import detection_table, form_of

PROBED_TASKS = ("classification", "detection")
IOU = 0.5
"""From which a detection counts as one of the object."""
PLAIN = {"black": 0, "grey": 128, "white": 255}
"""Backgrounds without an image, and their value of 255."""
SCORE_THRESHOLD = 0.5
"""From which a detection counts as found."""


@shows_progress("probing", "positions")
def probe(
    model: Model | nn.Module | str | Path,
    pasted: Any,
    background: Any = "black",
    *,
    mask: Any = None,
    box: tuple[int, int, int, int] | None = None,
    label: int | str | None = None,
    task: str = "classification",
    step: int = 1,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PositionMap:
    """Paste one object at every position of a background, and measure the model's confidence there.

    The object is moved by whole pixels and lies wholly in view; nothing else changes. It is never resized.

    Parameters
    ----------
    model
        A `Model`, an `nn.Module` or a spec: a classifier or, with `task="detection"`, a detector.
    pasted
        The object: an image file, a Pillow image, or an array [h, w] or [h, w, 3], uint8. What is transparent in a file
        is not pasted.
    background
        An image, brought to the model's input as any; or "black", "grey" or "white".
    mask
        [h, w] of the object, where it is pasted: bool, or 0 to 255 as opacity.
    box
        (left, top, right, bottom) of the object in its image, pixels: what is cut out. Without, the whole image.
    label
        Number or name of the class. Without: what the model makes of the object in the middle.
    task
        "classification" or "detection".
    step
        Pixels between positions.
    size
        (h, w) of the input, where neither the model nor the background has one.
    device, batch_size
        As in `evaluate`.
    progress
        Called with (positions done, positions in all).

    Returns
    -------
    PositionMap
        It prints itself; `sl.plot` draws it.

    Raises
    ------
    InputError
        An object larger than the input, without a visible pixel, or with a mask or box that is none; a class that the
        model does not have, or none that it finds in the middle.
    ModelOutputError
        The model raised or gave numbers that are not finite.

    Source
    ------
    The traffic light of arXiv 2010.02178, figure 1, for any object and model.

    Examples
    --------
    >>> digit = sl.load_images("digits", limit=1).batch([0])[0].transpose(1, 2, 0)[6:26, 6:26]
    >>> found = probe("pretrained:detector-digits", digit, size=(96, 96), task="detection", step=16)
    >>> found.confidence.shape
    (5, 5)
    """
    if task not in PROBED_TASKS:
        raise unknown_name("task of probe", task, PROBED_TASKS)
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise InputError(f"step must be a whole number of at least 1, got {step!r:.40}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"a batch holds at least one image, got batch-size {batch_size}")
    target = resolve_device(device)
    plain = isinstance(background, str) and background in PLAIN
    scene = None if plain else _image_of(background, "background")
    images = None if scene is None else ImageSet([scene])
    model = as_model(model, images, device=device)
    if images is None:
        known = size or model.input_size
        if known is None:
            raise InputError(f"{model.name} declares no input size: give one (--input-size, size=)")
        images = ImageSet(np.full((1, model.n_channels, *known), PLAIN[str(background)], np.uint8))
    images, (h, w) = on_input_grid(model, images)
    model = model.at((h, w))
    ink, alpha = _object(pasted, mask, box, model.n_channels)
    oh, ow = alpha.shape
    if oh > h or ow > w:
        raise InputError(f"the object of {oh}x{ow} px is larger than the input of {h}x{w}; cut or resize it")
    ground = images.batch([0])[0].astype(np.uint16)
    xs, ys = (np.arange(0, side - part + 1, step, dtype=np.int64) for side, part in ((w, ow), (h, oh)))
    places = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2)
    if isinstance(model.module, nn.Module):
        model.module.to(target)

    def inputs(some: NDArray[np.int64]) -> Tensor:
        batch = np.broadcast_to(ground, (len(some), *ground.shape)).copy()
        for each, (y, x) in zip(batch, some.tolist(), strict=True):
            part = each[:, y : y + oh, x : x + ow]
            part[...] = np.minimum(ink + (part * (255 - alpha) + 127) // 255, 255)
        return model.preprocessing.normalise(torch.from_numpy(batch.astype(np.uint8)).to(target))

    measured = _detected if task == "detection" else _classified
    with evaluating(model.module), torch.no_grad():
        middle = places[[np.abs(places - ((h - oh) // 2, (w - ow) // 2)).sum(1).argmin()]]
        number = _label(
            label, model, task, lambda: _best_class(model, inputs(middle.repeat(2, 0)), middle, (oh, ow), task)
        )
        confidence, found = np.empty(len(places)), np.empty(len(places), np.bool_)
        batch = batch_size or max(1, MAX_PIXELS // (h * w))
        for some in _slices(len(places), batch):
            confidence[some], found[some] = measured(model, inputs(places[some]), places[some], (oh, ow), number)
            if progress is not None:
                progress(min(some.stop, len(places)), len(places))
    names = model.class_names or ()
    return PositionMap(
        task=task,
        label=number,
        label_name=names[number] if number < len(names) else f"class {number}",
        xs=xs,
        ys=ys,
        confidence=confidence.reshape(len(ys), len(xs)),
        found=found.reshape(len(ys), len(xs)),
        size=(h, w),
        object_size=(oh, ow),
        model=model.name,
        pasted=_name_of(pasted, "object"),
        background=_name_of(background, "background"),
    )


def _slices(n: int, batch: int) -> Iterator[slice]:
    return (slice(first, min(first + batch, n)) for first in range(0, n, batch))


def _name_of(given: Any, what: str) -> str:
    return Path(given).name if isinstance(given, str | Path) else what


def _image_of(given: Any, what: str) -> NDArray[np.uint8]:
    """8-bit pixels [h, w, c] of a file or of an image in memory."""
    if isinstance(given, str | Path):
        from shiftlens.data.decode import decode

        return decode(read_file(with_home(given), f"{what} {given}"), f"{what} {given}")
    return picture_of(given, f"the {what}")


def _object(
    pasted: Any, mask: Any, box: tuple[int, int, int, int] | None, n_channels: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Pixels [c, h, w] times opacity, and opacity [h, w], 0 to 255, of what is visible of the object."""
    pixels = with_channels(_image_of(pasted, "object"), n_channels)
    h, w = pixels.shape[:2]
    alpha = np.full((h, w), 255, np.uint16)
    on_black = False
    if mask is not None:
        given = np.asarray(mask if not isinstance(mask, str | Path) else _image_of(mask, "mask")[:, :, 0])
        if given.shape != (h, w) or (given.dtype != np.bool_ and given.dtype != np.uint8):
            raise InputError(f"expected a mask {h}x{w} of bool or 0 to 255 (uint8), got {given.dtype} {given.shape}")
        alpha = np.where(given, 255, 0).astype(np.uint16) if given.dtype == np.bool_ else given.astype(np.uint16)
    elif isinstance(pasted, str | Path):
        alpha = opacity(read_file(with_home(pasted), f"object {pasted}"), f"object {pasted}").astype(np.uint16)
        on_black = True  # files are decoded so
    left, top, right, bottom = box or (0, 0, w, h)
    if not (0 <= left < right <= w and 0 <= top < bottom <= h):
        raise InputError(f"box {[left, top, right, bottom]} is none of the object's image of {h}x{w}")
    pixels, alpha = pixels[top:bottom, left:right], alpha[top:bottom, left:right]
    rows, columns = (np.flatnonzero((alpha > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise InputError("the object has no visible pixel: its mask is empty, or it is transparent")
    seen = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    ink, alpha = pixels[seen].transpose(2, 0, 1).astype(np.uint16), alpha[seen]
    ink = ink if on_black else (ink * alpha + 127) // 255
    return np.broadcast_to(ink, (n_channels, *ink.shape[1:])), alpha


def _label(label: int | str | None, model: Model, task: str, guess: Callable[[], int]) -> int:
    names = model.class_names or ()
    if label is None:
        return guess()
    n_classes = len(names) or (None if task == "detection" else model.n_classes)
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, str) and not label.isdecimal():
        if not names:
            most = "" if n_classes is None else f" to {n_classes - 1}"
            raise InputError(
                f"{model.name} knows no class names, got {label!r}; give the class's number, from 0{most}: of a "
                "model that was trained on a folder, the place of the class among the folders' sorted names"
            )
        raise unknown_name(f"class of {model.name}", label, names)
    number = int(label)
    if number < 0 or (n_classes is not None and number >= n_classes):
        raise InputError(f"class {number} is none of {model.name}, which has {n_classes}")
    return number


def _best_class(model: Model, x: Tensor, places: NDArray[np.int64], size: tuple[int, int], task: str) -> int:
    """What the model makes of the object where it was pasted."""
    if task == "classification":
        return int(scores_for(model, x, np.arange(len(x)))[0].argmax())
    iou, scores, classes = _overlaps(model, x, places.repeat(len(x), 0), size)
    scores = torch.where((iou >= IOU) & (classes >= 0), scores, -1.0)
    if float(scores[0].max()) <= 0:
        raise InputError(f"{model.name} finds nothing where the object lies in the middle: say its class (--label)")
    return int(classes[0, int(scores[0].argmax())])


Measured = tuple[NDArray[np.float64], NDArray[np.bool_]]


def _classified(model: Model, x: Tensor, places: NDArray[np.int64], size: tuple[int, int], label: int) -> Measured:
    scores = scores_for(model, x, np.arange(len(x)))
    return scores.double().softmax(1)[:, label].cpu().numpy(), (scores.argmax(1) == label).cpu().numpy()


def _detected(model: Model, x: Tensor, places: NDArray[np.int64], size: tuple[int, int], label: int) -> Measured:
    iou, scores, classes = _overlaps(model, x, places, size)
    best = torch.where((iou >= IOU) & (classes == label), scores, 0.0).amax(1).cpu().numpy()
    return best, best >= SCORE_THRESHOLD


def _overlaps(
    model: Model, x: Tensor, places: NDArray[np.int64], size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """IoU with the object, score and class [n, rank] of the detections of each image."""
    try:
        raw = model.module(x)
        form = form_of(raw, len(x))
    except ModelOutputError as error:
        raise InputError(f"{model.name} cannot be probed as a detector: {error}") from None
    except Exception as error:
        raise ModelOutputError(f"the model raised {type(error).__name__}: {one_line(error)}") from error
    if not form.is_detections:
        raise InputError(f"{model.name} cannot be probed as a detector: it gives {form.said}")
    table = detection_table(raw).double()
    if not torch.isfinite(table).all():
        raise ModelOutputError("the model gave boxes or scores that are not finite")
    corner = torch.from_numpy(places[:, ::-1].copy()).to(table)
    boxes = torch.cat([corner, corner + corner.new_tensor([size[1], size[0]])], 1)
    iou, _ = box_overlap(clip_boxes(table[:, :, :4], (x.shape[2], x.shape[3])), boxes[:, None])
    return iou, table[:, :, 4], table[:, :, 5]
