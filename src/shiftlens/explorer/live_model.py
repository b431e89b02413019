"""What the live page asks of a model: its answer and one layer's maps under a shift, as it is and repaired."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shiftlens.arithmetic import graph_of
from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError
from shiftlens.explorer.readings import (
    CLASSIFICATION,
    DETECTION,
    MOST_FILTERS,
    Answer,
    classified,
    detected,
    kept_share,
    segmented,
    task_of,
)
from shiftlens.explorer.shown_images import ShownImages, remembered
from shiftlens.graph import Site
from shiftlens.indexing import FILL_RULES
from shiftlens.lens.capture import capture
from shiftlens.models.loading import model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import scores_of
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line, unknown_name
from shiftlens.narrative.words import plain
from shiftlens.nn import PADDING_MODES
from shiftlens.shifts import Fill, canvas
from shiftlens.surgery.planning import repadded

ORIGINAL = "original"
FILLS = ("black", "mean", *FILL_RULES)
MOST_REPAIRED = 3
MOST_UNSHIFTED = 64
"""Answers on unshifted images that are kept."""
MOST_SHIFTS, LEAST_SHIFTS = 2500, 289
"""Shifts of a small sweep of images up to 64 x 64 pixels, at most: with more, every second one is taken, and so on. Of
larger images fewer, but 17 x 17 may always be."""
MOST_PIXELS = 2**16
"""In a batch of a small sweep: the page is not kept waiting for long."""

_MAPS = ("conv", "transposed conv", "max pool", "average pool", "lp pool", "adaptive pool", "sum")


class LiveModel:
    """A model, the images it is shown, and its repaired copies, ready to answer.

    One answer at a time: a net in a server's threads is still one net.

    Parameters
    ----------
    model, images
        As everywhere: a `Model`, an `nn.Module` or a spec; an `ImageSet` or a spec.
    device
        `auto`, `cpu` or `cuda`.
    note
        What the page says of the images.

    Raises
    ------
    InputError
        A model of a task without a live view, or one that does not take the images.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> live = LiveModel(sl.wrap(net, mean=0.5, std=0.25, size=20), "digits")
    >>> (answer,) = live.answers("0", dx=2, dy=-1)
    >>> live.task, len(answer.said["classes"])
    ('classification', 4)
    """

    def __init__(
        self,
        model: Model | nn.Module | str | Path,
        images: ImageSet | str,
        *,
        device: str = "auto",
        note: str = "",
    ) -> None:
        model, images = model_and_images(model, images, device=device)
        self.images, self.size = on_input_grid(model, images)
        self.model = model.at(self.size)
        self.note = note
        self.task, self._form = task_of(self.model, self.size)
        if isinstance(self.model.module, nn.Module):
            self.model.module.eval()
        self.class_names = [plain(name) for name in self._names()]
        self.paddings = (ORIGINAL, *PADDING_MODES) if self.model.is_module else (ORIGINAL,)
        self.shown = ShownImages(self.images, self.model, self.size)
        self._repaired: OrderedDict[str, tuple[Model, dict[str, Site]]] = OrderedDict()
        self._unshifted: OrderedDict[tuple[str, str], Answer] = OrderedDict()
        self._lock = threading.Lock()
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="shiftlens-beside")
        self._threads = torch.get_num_threads()
        self.sites = self._sites(self.model)

    def _names(self) -> Sequence[str]:
        """Class names: the model's, else the images', else numbers."""
        if self.model.class_names:
            return self.model.class_names
        if self.task == CLASSIFICATION:
            named = self.images.class_names if self.images.labelled else ()
            n = self.model.n_classes
            return named if len(named) == n else [f"class {k}" for k in range(n)]
        return ()

    def _sites(self, model: Model) -> dict[str, Site]:
        if not isinstance(model.module, nn.Module):
            return {}
        try:
            sites = graph_of(model, self.size, on_meta=False).of_kind(*_MAPS)
        except InputError:
            return {}  # a net that cannot be followed still has an output
        return {site.name: site for site in sites if max(site.out_size) > 1}

    def about(self) -> dict[str, Any]:
        """What the page offers, as JSON."""
        return {
            "model": plain(self.model.name),
            "task": self.task,
            "data": plain(self.images.name),
            "note": self.note,
            "n_images": len(self.images),
            "size": list(self.size),
            "class_names": self.class_names,
            "paddings": list(self.paddings),
            "fills": [{"name": name, "rgb": self._colour(name), "rule": name} for name in FILLS],
            "layers": [
                {"name": name, "said": f"{name}: {site.kind}, {site.out_size[0]} x {site.out_size[1]}"}
                for name, site in self.sites.items()
            ],
            "thumbnails": self.shown.thumbnails(),
        }

    def _colour(self, fill: str) -> list[int] | None:
        """A constant fill as (red, green, blue), 0 to 255; None for a rule."""
        if fill in FILL_RULES:
            return None
        mean = self.model.preprocessing.for_channels(3).mean if fill == "mean" else (0.0,) * 3
        return [round(255 * min(max(value, 0.0), 1.0)) for value in mean]

    def label(self, image: str) -> int | None:
        """The image's class where it has one that the model knows by the same number; None for a photo."""
        same = tuple(self.images.class_names or ()) == tuple(self.class_names)
        return self.shown.label(image) if same else None

    def with_padding(self, padding: str) -> tuple[Model, dict[str, Site]]:
        """The model as it is, or a copy that pads otherwise, with its layers by name; `InputError` where it cannot."""
        if padding == ORIGINAL:
            return self.model, self.sites
        if padding not in self.paddings:
            raise unknown_name("padding", padding, self.paddings)
        return remembered(self._repaired, padding, lambda: self._made(padding), MOST_REPAIRED)

    def _made(self, padding: str) -> tuple[Model, dict[str, Site]]:
        try:
            made = replace(self.model, module=repadded(_net(self.model), padding))
            self._read(_output(made, torch.zeros(1, made.n_channels, *self.size, device=made.device)), None)
        except Exception as error:  # a net that does not take the larger maps raises what it likes
            raise InputError(f"this net cannot pad with {padding}: {one_line(error)}") from error
        return made, self._sites(made)

    def _canvas(self, image: str, fill: str, reach: tuple[int, int]) -> Tensor:
        """The normalised image [1, c, h, w] with what can enter around it."""
        parsed, rule = Fill.parse(fill), self.model.preprocessing
        pixels = torch.from_numpy(np.ascontiguousarray(self.shown.pixels(image)))[None].to(self.model.device)
        normal = rule.normalise(pixels)
        values = None
        if parsed.is_constant:
            few = rule.for_channels(normal.shape[1])
            values = parsed.normalised(few.mean, few.std)
        return canvas(normal, *reach, parsed.rule, values)

    def answers(
        self,
        image: str,
        *,
        dx: int = 0,
        dy: int = 0,
        fill: str = "black",
        paddings: Sequence[str] = (ORIGINAL,),
        layer: str | None = None,
    ) -> list[Answer]:
        """What the model says of an image that has moved by `dx`, `dy` px, with each padding.

        `said` has, beside what `Answer` tells, `padding`, the `unshifted` answer's first class (None where nothing was
        detected), and `kept`, of a segmenter the share of pixels whose class has moved with the image.

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
        with self._lock, _one_core(self._threads):
            around = self._canvas(image, fill, (abs(dy), abs(dx)))
            x = around[..., abs(dy) - dy :, abs(dx) - dx :][..., :h, :w].contiguous()
            known = {padding: self.with_padding(padding) for padding in paddings}
            jobs = [partial(self._answer, *known[each], each, image, x, (dx, dy), layer) for each in paddings]
            # A second core computes the second column.
            others = [self._beside.submit(self._on_one_core, job) for job in jobs[1:]]
            try:
                return [jobs[0](), *(each.result() for each in others)]
            finally:
                wait(others)

    def _on_one_core(self, job: Callable[[], Answer]) -> Answer:
        with _one_core(self._threads):
            return job()

    def _answer(
        self,
        model: Model,
        sites: dict[str, Site],
        padding: str,
        image: str,
        x: Tensor,
        shift: tuple[int, int],
        layer: str | None,
    ) -> Answer:
        made: list[Tensor] = []
        site = None if layer is None else _same_place(self.sites[layer], sites)
        watched = nullcontext() if site is None else capture(_net(model), [site], lambda _, maps: _keep(made, maps))
        with watched:
            raw = _output(model, x)
        found = self._read(raw, self.label(image))
        first = remembered(
            self._unshifted,
            (image, padding),
            lambda: (
                found if shift == (0, 0) else self._read(_output(model, self._canvas(image, "black", (0, 0))), None)
            ),
            MOST_UNSHIFTED,
        )
        classes = first.said["classes"]
        said = found.said | {"padding": padding, "unshifted": classes[0] if classes else None}
        if found.mask is not None and first.mask is not None:
            said["kept"] = kept_share(first.mask, found.mask, *shift)
        if "boxes" in first.said:
            said["n_unshifted"] = len(first.said["boxes"])
        if site is None or not made:
            return replace(found, said=said)
        return replace(found, said=said, maps=made[0].numpy(), n_filters=site.out_channels)

    def _read(self, raw: Any, label: int | None) -> Answer:
        if self._form is None:
            return classified(scores_of(raw)[0], self.class_names, label)
        if self.task == DETECTION:
            return detected(raw, self._form, self.class_names)
        return segmented(raw, self._form, self.size, self.class_names)

    def refuse_unknown(self, image: str, fill: str, padding: str) -> None:
        """Raise `InputError` where `sweep` would: a page is told before the first row is on its way."""
        if self.task != CLASSIFICATION:
            raise InputError(f"{self.model.name} predicts no single class, so there is no shift at which it flips")
        Fill.parse(fill)
        self.shown.pixels(image)
        with self._lock:
            self.with_padding(padding)

    def grid(self) -> tuple[list[int], list[int]]:
        """The dys and dxs of a small sweep: half the image to each side, in the smallest step that is quick."""
        most = min(MOST_SHIFTS, max(LEAST_SHIFTS, MOST_SHIFTS * 64 * 64 // (self.size[0] * self.size[1])))
        step = 1
        while True:
            dys, dxs = (list(range(-(n // 2 // step) * step, n // 2 + 1, step)) for n in self.size)
            if len(dys) * len(dxs) <= most:
                return dys, dxs
            step += 1

    def sweep(self, image: str, *, fill: str = "black", padding: str = ORIGINAL) -> Iterator[list[int]]:
        """Yield a classifier's predicted class at every shift of `grid`, a row (dy) at a time."""
        h, w = self.size
        dys, dxs = self.grid()
        n_at_once = max(1, MOST_PIXELS // (h * w))
        with self._lock:
            around, (model, _) = self._canvas(image, fill, (h, w)), self.with_padding(padding)
        for dy in dys:
            row: list[int] = []
            for start in range(0, len(dxs), n_at_once):
                some = dxs[start : start + n_at_once]
                windows = [around[0, :, h - dy : 2 * h - dy, w - dx : 2 * w - dx] for dx in some]
                with self._lock:
                    row += model.scores(torch.stack(windows)).argmax(1).tolist()
            yield row


def _same_place(site: Site, others: dict[str, Site]) -> Site | None:
    """The site of a copy that stands for another: it may have become several layers below the same path."""
    below = [each for each in others.values() if f"{each.path}.".startswith(f"{site.path}.") and each.call == site.call]
    return below[-1] if below else None


def _output(model: Model, x: Tensor) -> Any:
    with torch.no_grad(), model.evaluating():
        return model.module(x)


def _net(model: Model) -> nn.Module:
    assert isinstance(model.module, nn.Module)
    return model.module


def _keep(made: list[Tensor], maps: Tensor) -> None:
    """A copy of the filters that are shown: the net may overwrite them."""
    made.append(maps[0, :MOST_FILTERS].float().cpu().clone())


@contextmanager
def _one_core(before: int) -> Iterator[None]:
    """One image gains little from several cores, and on a busy machine they wait for each other: ten times as long."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
