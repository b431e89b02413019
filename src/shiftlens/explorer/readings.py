"""A model's output as the live page shows it: classes, a mask or boxes, and maps as bytes to colour."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.tasks.outputs import OutputForm, form_of, numbers_of

TOP = 5
"""Classes or detections that are listed."""
MOST_FILTERS = 16
MOST_BOXES = 20
LEAST_SCORE = 0.5
"""Of a detection that is shown."""
COLUMNS = 4
"""Maps side by side."""

FloatArray = NDArray[np.float32]

CLASSIFICATION, SEGMENTATION, DETECTION = "classification", "segmentation", "detection"


@dataclass(frozen=True)
class Answer:
    """What the model says of one shifted image.

    Attributes
    ----------
    said
        JSON: `classes`, each with `number`, `name`, `probability` (of a segmenter the share of the pixels, of a
        detector the score) and `logit`; `label` and `loss` where they are known; `boxes` of a detector, in pixels:
        left, top, right, bottom, score, class.
    mask
        Predicted class of each pixel [h, w]; of a segmenter.
    maps
        The first filters of the chosen layer [n, h, w].
    n_filters
        How many the layer has.
    """

    said: dict[str, Any]
    mask: NDArray[np.uint8] | None = None
    maps: FloatArray | None = None
    n_filters: int = 0


def task_of(model: Model, size: tuple[int, int]) -> tuple[str, OutputForm | None]:
    """Which task the model's output is for, and where the numbers are in it (None: `Model.scores` knows).

    Raises
    ------
    InputError
        A task without a live view.
    """
    if model.probed.n_classes is not None:
        return CLASSIFICATION, None
    with torch.no_grad(), model.evaluating():
        try:
            form = form_of(model.module(torch.zeros(1, model.n_channels, *size, device=model.device)), 1)
        except ModelOutputError as error:
            raise InputError(f"{model.name} has no live view: {error}") from None
    if form.is_detections:
        return DETECTION, form
    if len(form.shape) == 3 and 2 <= form.shape[0] <= 255:
        return SEGMENTATION, form
    raise InputError(
        f"{model.name} gives {form.said}, which has no live view: classifiers, segmenters (of 2 to 255 classes) and "
        "detectors have one; depth maps and embeddings have none"
    )


def classified(logits: Tensor, names: Sequence[str], label: int | None) -> Answer:
    """The largest logits [k], with their probabilities, and the loss in nats where the label is known."""
    logits = logits.double().cpu()
    logs = torch.log_softmax(logits, 0)
    best = torch.topk(logits, min(TOP, len(logits))).indices.tolist()
    classes = [_class(k, names, float(logs[k].exp()), float(logits[k])) for k in best]
    known = {} if label is None else {"label": _named(label, names), "loss": float(-logs[label])}
    return Answer({"classes": classes, "label": None, "loss": None} | known)


def segmented(raw: Any, form: OutputForm, size: tuple[int, int], names: Sequence[str]) -> Answer:
    """The class of each pixel, and the classes by their share of the image."""
    numbers = numbers_of(raw, form)
    if tuple(numbers.shape[-2:]) != size:
        numbers = F.interpolate(numbers, size, mode="bilinear", align_corners=False)
    mask = numbers[0].argmax(0).to(torch.uint8).cpu().numpy()
    found, counts = np.unique(mask, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:TOP]
    classes = [_class(int(found[k]), names, float(counts[k] / mask.size), None) for k in most]
    return Answer({"classes": classes}, mask)


def detected(raw: Any, form: OutputForm, names: Sequence[str]) -> Answer:
    """The detections of a score of at least `LEAST_SCORE`, the best first."""
    table = numbers_of(raw, form)[0].double().cpu()
    table = table[table[:, 4] >= LEAST_SCORE][:MOST_BOXES]
    classes = [_class(int(row[5]), names, float(row[4]), None) for row in table[:TOP]]
    return Answer({"classes": classes, "boxes": table.tolist()})


def _class(k: int, names: Sequence[str], probability: float, logit: float | None) -> dict[str, Any]:
    return {"number": k, "name": _named(k, names), "probability": probability, "logit": logit}


def _named(k: int, names: Sequence[str]) -> str:
    return names[k] if k < len(names) else f"class {k}"


def kept_share(before: NDArray[np.uint8], now: NDArray[np.uint8], dx: int, dy: int) -> float | None:
    """Share of the pixels still in view whose class has moved with the image; None where none is."""
    h, w = before.shape
    still = before[max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)]
    moved = now[max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)]
    return float(np.mean(still == moved)) if still.size else None


def framed(about: dict[str, Any], answers: Sequence[Answer]) -> bytes:
    """One message for the page: the length of the JSON (4 bytes, little-endian), the JSON, then bytes.

    Of each answer first its `mask`, then its `maps`: the filters side by side, four a row with a gap of one cell. A
    byte of `maps` is 1 to 255 from `low` to `high`, the same for all answers, and 0 in a gap. The JSON has the shape of
    each in `columns`.
    """
    low, high = _range([each.maps for each in answers if each.maps is not None])
    columns, parts = [], []
    for each in answers:
        sheet = None if each.maps is None else side_by_side(each.maps, low, high)
        columns.append(
            each.said
            | {
                "mask": None if each.mask is None else each.mask.shape,
                "maps": None if sheet is None else sheet.shape,
                "n_filters": each.n_filters,
            }
        )
        parts += [part.tobytes() for part in (each.mask, sheet) if part is not None]
    text = json.dumps(about | {"columns": columns, "low": low, "high": high}).encode()
    return b"".join((len(text).to_bytes(4, "little"), text, *parts))


def _range(maps: Sequence[FloatArray]) -> tuple[float, float]:
    low = min((float(each.min()) for each in maps), default=0.0)
    high = max((float(each.max()) for each in maps), default=0.0)
    if not (math.isfinite(low) and math.isfinite(high)):  # the map of a net that overflows
        finite = np.concatenate([each[np.isfinite(each)] for each in maps])
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return low, high


def side_by_side(maps: FloatArray, low: float, high: float) -> NDArray[np.uint8]:
    """Maps [n, h, w] as one sheet of bytes; see `framed`."""
    n, h, w = maps.shape
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    scaled = (maps - low) * np.float32(254 / ((high - low) or 1)) + np.float32(1.5)
    cells = np.nan_to_num(np.clip(scaled, 1, 255), nan=1).astype(np.uint8)
    spaced = np.pad(cells, ((0, rows * columns - n), (0, 1), (0, 1))).reshape(rows, columns, h + 1, w + 1)
    sheet = spaced.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1))
    return np.ascontiguousarray(sheet[:-1, :-1])
