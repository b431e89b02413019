"""What a model returned, understood: where the numbers are, and as one tensor with a row for each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shiftlens.errors import ModelOutputError

if TYPE_CHECKING:
    from torch import Tensor

MOST_DETECTIONS = 100
"""Of an image, the best first; more are dropped."""
NAMES = ("logits", "out", "predicted_depth", "last_hidden_state", "pooler_output")
"""Where libraries keep the tensor that counts: transformers' attributes, torchvision's keys."""


@dataclass(frozen=True)
class OutputForm:
    """Where the numbers are in what a model returns.

    Attributes
    ----------
    access
        "" for a tensor itself, "detections" for a list with a table of boxes an image, else the kind of access and its
        key: "attribute", "key" or "item".
    key
        Name of the attribute or key, or place of the item.
    shape
        Of one image's numbers.

    Examples
    --------
    >>> OutputForm("key", "out", (21, 64, 64)).said
    'numbers of shape [21, 64, 64] an image'
    """

    access: str
    key: str | int
    shape: tuple[int, ...]

    @property
    def said(self) -> str:
        """In words."""
        return "lists of boxes" if self.is_detections else f"numbers of shape {list(self.shape)} an image"

    @property
    def is_detections(self) -> bool:
        """Whether each image has a table [rank, (left, top, right, bottom, score, class)]."""
        return self.access == "detections"


def form_of(raw: Any, n: int) -> OutputForm:
    """Find out what a model returned for `n` images.

    Raises
    ------
    ModelOutputError
        No floating-point tensor [n, ...] and no list of `{boxes, scores, labels}`.
    """
    if _is_detections(raw):
        if len(raw) != n:
            raise ModelOutputError(f"expected detections of {n} images, got {len(raw)}")
        return OutputForm("detections", "", (MOST_DETECTIONS, 6))
    for access, key in _places(raw):
        found = _reach(raw, access, key)
        if _is_tensor(found) and found.is_floating_point() and found.ndim >= 2 and len(found) == n:
            return OutputForm(access, key, tuple(found.shape[1:]))
    raise ModelOutputError(f"expected a tensor [{n}, ...] or a list of boxes, scores and labels, got {_said(raw)}")


def numbers_of(raw: Any, form: OutputForm) -> Tensor:
    """The numbers [n, ...] of what a model returned, of a form that is known.

    Raises
    ------
    ModelOutputError
        Detections without boxes, scores and labels, or no tensor where there was one.
    """
    if form.is_detections:
        return detection_table(raw)
    found: Tensor = _reach(raw, form.access, form.key)
    if not _is_tensor(found):
        raise ModelOutputError(f"expected a tensor as for the first images, got {_said(found)}")
    return found


def detection_table(raw: Any) -> Tensor:
    """Detections of some images as a table [n, 100, 6]; rows that hold none have class and score -1."""
    import torch

    if not _is_detections(raw):
        raise ModelOutputError(f"expected a list of boxes, scores and labels, got {_said(raw)}")
    first = raw[0]["scores"]
    dtype = first.dtype if first.is_floating_point() else torch.float32
    table = torch.full((len(raw), MOST_DETECTIONS, 6), -1.0, dtype=dtype, device=first.device)
    for row, found in zip(table, raw, strict=True):
        order = torch.argsort(found["scores"], descending=True, stable=True)[:MOST_DETECTIONS]
        columns = (found["boxes"], found["scores"][:, None], found["labels"][:, None])
        row[: len(order)] = torch.cat([column.to(dtype) for column in columns], 1)[order]
    return table


def _is_detections(raw: Any) -> bool:
    keys = {"boxes", "scores", "labels"}
    return isinstance(raw, list | tuple) and bool(raw) and all(isinstance(x, Mapping) and keys <= x.keys() for x in raw)


def _places(raw: Any) -> list[tuple[str, Any]]:
    if _is_tensor(raw):
        return [("", "")]
    if isinstance(raw, Mapping):
        names = [name for name in NAMES if name in raw]
        return [("key", name) for name in (*names, *(name for name in raw if name not in names))]
    if isinstance(raw, list | tuple):
        return [("item", k) for k in range(len(raw))]
    return [("attribute", name) for name in NAMES if hasattr(raw, name)]


def _reach(raw: Any, access: str, key: Any) -> Any:
    if access == "":
        return raw
    return getattr(raw, key) if access == "attribute" else raw[key]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "is_floating_point") and hasattr(value, "shape")


def _said(raw: Any) -> str:
    shape = f" {tuple(raw.shape)}" if _is_tensor(raw) else ""
    return f"{type(raw).__name__}{shape}"
