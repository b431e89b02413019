"""What the live page asks of a model: its scores and one layer's maps under a shift, as it is and repaired."""

from __future__ import annotations

import secrets
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.arithmetic import graph_of
from shiftlens.data.decode import SizeRule, decode, fit, with_channels
from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError
from shiftlens.graph import Site
from shiftlens.indexing import FILL_RULES
from shiftlens.lens.capture import capture
from shiftlens.models.loading import model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line, unknown_name
from shiftlens.narrative.words import plain
from shiftlens.nn import PADDING_MODES
from shiftlens.reporting.encoding import packed
from shiftlens.shifts import Fill, canvas
from shiftlens.surgery import repair

ORIGINAL = "original"
FILLS = ("black", "mean", *FILL_RULES)
MOST_PHOTOS = 20
MOST_REPAIRED = 3
TOP = 5
MOST_FILTERS = 16
MOST_SHIFTS = 2500
"""Shifts of a small sweep, at most: with more, every second one is taken, and so on."""

BATCH = 64
_MAPS = ("conv", "transposed conv", "max pool", "average pool", "lp pool", "adaptive pool", "sum")


class LiveModel:
    """A classifier, the images it is shown, and its repaired copies, ready to answer.

    One answer at a time: a net in a server's threads is still one net.

    Parameters
    ----------
    model, images
        As everywhere: a `Model`, an `nn.Module` or a spec; an `ImageSet` or a spec.
    device
        `auto`, `cpu` or `cuda`.

    Raises
    ------
    InputError
        A model that is no classifier, or does not take the images.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> live = LiveModel(sl.wrap(net, mean=0.5, std=0.25, size=20), "digits")
    >>> answer = live.answer("0", dx=2, dy=-1)
    >>> len(answer["classes"]), answer["dx"]
    (4, 2)
    """

    def __init__(self, model: Model | nn.Module | str | Path, images: ImageSet | str, *, device: str = "auto") -> None:
        model, images = model_and_images(model, images, device=device)
        self.images, self.size = on_input_grid(model, images)
        self.model = model.at(self.size)
        self.n_classes = self.model.n_classes
        if isinstance(self.model.module, nn.Module):
            self.model.module.eval()
        self.class_names = [
            plain(name) for name in self.model.class_names or self.images.class_names or map(str, range(self.n_classes))
        ]
        self.paddings = (ORIGINAL, *PADDING_MODES) if self.model.is_module else (ORIGINAL,)
        self._photos: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._repaired: OrderedDict[str, tuple[Model, dict[str, Site]]] = OrderedDict()
        self._lock = threading.Lock()
        self.sites = self._sites(self.model)

    def _sites(self, model: Model) -> dict[str, Site]:
        if not isinstance(model.module, nn.Module):
            return {}
        try:
            sites = graph_of(model, self.size).of_kind(*_MAPS)
        except InputError:
            return {}  # a net that cannot be followed still has scores
        return {site.name: site for site in sites if max(site.out_size) > 1}

    def about(self) -> dict[str, Any]:
        """What the page offers, as JSON."""
        return {
            "model": plain(self.model.name),
            "data": plain(self.images.name),
            "n_images": len(self.images),
            "size": list(self.size),
            "class_names": self.class_names,
            "paddings": list(self.paddings),
            "fills": [{"name": name, "rgb": self._colour(name), "rule": name} for name in FILLS],
            "layers": list(self.sites),
            "reach": [min(n, 64) for n in self.size],
        }

    def _colour(self, fill: str) -> list[int] | None:
        """A constant fill as (red, green, blue), 0 to 255; None for a rule."""
        if fill in FILL_RULES:
            return None
        mean = self.model.preprocessing.for_channels(3).mean if fill == "mean" else (0.0,) * 3
        return [round(255 * min(max(value, 0.0), 1.0)) for value in mean]

    def add(self, data: bytes) -> str:
        """Take a photo of the reader's, brought to the model's size as its images are; return its name.

        Raises
        ------
        InputError
            No picture, or one that is damaged or too large to decode safely.
        """
        rule = self.model.preprocessing
        pixels = decode(data, "the photo")
        fitted = fit(pixels, SizeRule(self.size, rule.resize, rule.interpolation), lambda: "the photo")
        shown = np.ascontiguousarray(with_channels(fitted, self.model.n_channels).transpose(2, 0, 1))
        name = f"photo-{secrets.token_hex(4)}"
        self._photos[name] = shown
        while len(self._photos) > MOST_PHOTOS:
            self._photos.popitem(last=False)
        return name

    def pixels(self, image: str) -> NDArray[np.uint8]:
        """Pixels [c, h, w] of an image by its number, or of a photo by its name; `InputError` where there is none."""
        if image in self._photos:
            return self._photos[image]
        if not image.isascii() or not image.isdigit() or len(image) > 9 or int(image) >= len(self.images):
            raise InputError(f"expected an image from 0 to {len(self.images) - 1}, or a photo that was added")
        found: NDArray[np.uint8] = self.images.batch([int(image)])[0]
        return found

    def label(self, image: str) -> int | None:
        """The image's class where it has one that the model knows by the same number; None for a photo."""
        if image in self._photos or not len(self.images.labels):
            return None
        same = tuple(self.images.class_names or ()) == tuple(self.class_names)
        return int(self.images.labels[int(image)]) if same else None

    def with_padding(self, padding: str) -> tuple[Model, dict[str, Site]]:
        """The model as it is, or a copy that pads otherwise, with its layers by name; `InputError` where it cannot."""
        if padding == ORIGINAL:
            return self.model, self.sites
        if padding not in self.paddings:
            raise unknown_name("padding", padding, self.paddings)
        if padding not in self._repaired:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that nothing changed shows on the page
                try:
                    made, _ = repair(self.model, padding)
                    assert isinstance(made, Model)
                    made.scores(torch.zeros(1, self.model.n_channels, *self.size, device=self.model.device))
                except Exception as error:  # a net that does not take the larger maps raises what it likes
                    raise InputError(f"this net cannot pad with {padding}: {one_line(error)}") from error
            if isinstance(made.module, nn.Module):
                made.module.eval()
            self._repaired[padding] = made, self._sites(made)
            while len(self._repaired) > MOST_REPAIRED:
                self._repaired.popitem(last=False)
        return self._repaired[padding]

    def _canvas(self, image: str, fill: str, reach: tuple[int, int]) -> Tensor:
        """The normalised image [1, c, h, w] with what can enter around it."""
        parsed, rule = Fill.parse(fill), self.model.preprocessing
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels(image)))[None].to(self.model.device)
        normal = rule.normalise(pixels)
        values = None
        if parsed.is_constant:
            few = rule.for_channels(normal.shape[1])
            values = parsed.normalised(few.mean, few.std)
        return canvas(normal, *reach, parsed.rule, values)

    def answer(
        self,
        image: str,
        *,
        dx: int = 0,
        dy: int = 0,
        fill: str = "black",
        padding: str = ORIGINAL,
        layer: str | None = None,
    ) -> dict[str, Any]:
        """What the model says of an image that has moved by `dx`, `dy` px.

        Returns
        -------
        dict
            `classes`: the largest scores, each with class number, name, logit and probability; `loss` in nats where the
            label is known; `maps`: the layer's first filters side by side on one scale (see `side_by_side`), or None.

        Raises
        ------
        InputError
            An image, fill, padding or layer that there is not, or a shift of more than the image's own size.
        """
        h, w = self.size
        if abs(dy) > h or abs(dx) > w:
            raise InputError(f"expected a shift of at most {w} px across and {h} px down, got {dx}, {dy}")
        if layer is not None and layer not in self.sites:
            raise unknown_name("layer", layer, tuple(self.sites))
        with self._lock, _one_core():
            around = self._canvas(image, fill, (abs(dy), abs(dx)))
            x = around[..., abs(dy) - dy :, abs(dx) - dx :][..., :h, :w].contiguous()
            model, sites = self.with_padding(padding)
            made: list[Tensor] = []
            if layer is None:
                logits = model.scores(x)[0]
            else:
                assert isinstance(model.module, nn.Module)
                if layer not in sites:
                    raise InputError(f"{layer} has no map of its own in the copy that pads with {padding}")
                with capture(model.module, [sites[layer]], lambda _, maps: made.append(maps[0].clone())):
                    logits = model.scores(x)[0]
        return {
            "dx": dx,
            "dy": dy,
            "padding": padding,
            **self._said(logits, self.label(image)),
            "maps": side_by_side(made),
        }

    def _said(self, logits: Tensor, label: int | None) -> dict[str, Any]:
        logits = logits.double().cpu()
        logs = torch.log_softmax(logits, 0)
        best = torch.topk(logits, min(TOP, len(logits))).indices.tolist()
        return {
            "classes": [
                {"number": k, "name": self._named(k), "logit": float(logits[k]), "probability": float(logs[k].exp())}
                for k in best
            ],
            "label": None if label is None else self._named(label),
            "loss": None if label is None else float(-logs[label]),
        }

    def _named(self, k: int) -> str:
        return self.class_names[k] if k < len(self.class_names) else str(k)

    def refuse_unknown(self, image: str, fill: str, padding: str) -> None:
        """Raise `InputError` where `sweep` would: a page is told before the first row is on its way."""
        Fill.parse(fill)
        self.pixels(image)
        with self._lock:
            self.with_padding(padding)

    def grid(self) -> tuple[list[int], list[int]]:
        """The dys and dxs of a small sweep: half the image to each side, in the smallest step that is quick."""
        step = 1
        while True:
            dys, dxs = (list(range(-(n // 2 // step) * step, n // 2 + 1, step)) for n in self.size)
            if len(dys) * len(dxs) <= MOST_SHIFTS:
                return dys, dxs
            step += 1

    def sweep(self, image: str, *, fill: str = "black", padding: str = ORIGINAL) -> Iterator[list[int]]:
        """Yield the predicted class at every shift of `grid`, a row (dy) at a time."""
        h, w = self.size
        dys, dxs = self.grid()
        with self._lock:
            around, (model, _) = self._canvas(image, fill, (h, w)), self.with_padding(padding)
        for dy in dys:
            row: list[int] = []
            for start in range(0, len(dxs), BATCH):
                windows = [around[0, :, h - dy : 2 * h - dy, w - dx : 2 * w - dx] for dx in dxs[start : start + BATCH]]
                with self._lock:
                    row += model.scores(torch.stack(windows)).argmax(1).tolist()
            yield row


@contextmanager
def _one_core() -> Iterator[None]:
    """One image gains little from several cores, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(made: list[Tensor]) -> dict[str, Any] | None:
    """The first filters of a layer's maps [c, h, w], four a row with a gap of one cell, for a page to colour.

    `cells`: one byte each (`reporting.encoding.packed`), 1 to 255 from `low` to `high`, 0 for the gaps.
    """
    if not made:
        return None
    maps = made[0][:MOST_FILTERS].float().cpu().numpy()
    n, h, w = maps.shape
    rows, columns = -(-n // 4), min(n, 4)
    low, high = float(np.nanmin(maps)), float(np.nanmax(maps))
    scaled = np.nan_to_num((maps - low) / ((high - low) or 1))
    sheet = np.zeros((rows * (h + 1) - 1, columns * (w + 1) - 1), np.uint8)
    for k, each in enumerate(np.rint(1 + 254 * np.clip(scaled, 0, 1)).astype(np.uint8)):
        top, left = k // 4 * (h + 1), k % 4 * (w + 1)
        sheet[top : top + h, left : left + w] = each
    return {"cells": packed(sheet), "low": low, "high": high, "n_filters": int(made[0].shape[0])}
