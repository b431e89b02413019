"""The direct path: every shift of every image goes through the whole net.

Nothing is assumed about the model but that it maps a batch of normalised pictures to scores. All shifts of a picture
are windows of one canvas, so a batch is gathered, never interpolated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import resolve_device
from shiftlens.engine.folding import fold_batch_norm
from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.workers import Net, Workers, replicas
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model
from shiftlens.models.probing import scores_of
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid, canvas

MAX_CANVAS = 2**24
"""Most numbers in the canvases that are held at once (64 MB in float32)."""


def prepare_module(model: Model, plan: Plan) -> nn.Module:
    """The model's module as the plan wants it: a copy in eval mode, folded, cast, laid out.

    The caller's module is not touched.

    Raises
    ------
    InputError
        A bare callable, or a module that cannot be copied.
    """
    if not isinstance(model.module, nn.Module):
        raise InputError(f"{model.name} is a plain callable: there is no module to prepare")
    device = resolve_device(plan.device)
    try:
        net: nn.Module = copy.deepcopy(model.module)
    except Exception as error:  # what a user's module holds may refuse to be copied in any way
        raise InputError(
            f"{model.name} cannot be copied ({type(error).__name__}: {one_line(error)}); a sweep works on a "
            "copy of the net: keep computed tensors, locks and open files out of its attributes"
        ) from error
    net.eval().requires_grad_(False)
    if plan.fold_batch_norm:
        # In double precision first: folding costs no accuracy, whatever the net computes in afterwards.
        net, _ = fold_batch_norm(_cast(net, torch.float32, torch.float64))
    if plan.dtype != "float32" and any(tensor.is_complex() for tensor in chain(net.parameters(), net.buffers())):
        raise InputError(f"{model.name} has complex weights, which have no {plan.dtype}; use float32")
    net = _cast(net, torch.float64 if plan.fold_batch_norm else torch.float32, getattr(torch, plan.dtype))
    net = net.to(device=device)
    return net.to(memory_format=torch.channels_last) if plan.channels_last else net


def _cast(net: nn.Module, old: torch.dtype, new: torch.dtype) -> nn.Module:
    """The net with tensors of one format in another; those of any other format are computed with as they are."""
    apply: Callable[[Callable[[Tensor], Tensor]], nn.Module] = net._apply
    return apply(lambda tensor: tensor.to(new) if tensor.dtype == old else tensor)


def prepare_nets(model: Model, plan: Plan) -> Workers:
    """The prepared module, compiled or one a core; a bare callable as it is, in one thread: it may keep state."""
    if not isinstance(model.module, nn.Module):
        return Workers([model.module], plan.n_threads)
    net = prepare_module(model, plan)
    if plan.compiled:
        compiled: Net = torch.compile(net, dynamic=False, options={"freezing": True})
        return Workers([compiled], plan.n_threads)
    return Workers(replicas(net, torch.get_num_threads() if resolve_device(plan.device).type == "cpu" else 1))


class DirectEvaluator:
    """`engine.Evaluator` by evaluating every window; see there for arguments, results and errors."""

    CONTROLS: tuple[str | None, ...] = (None, "occlusion", "flip")
    """What it can be asked for."""

    def __init__(
        self, model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, tick: Callable[[int], None] | None = None
    ) -> None:
        self._tick = tick
        self._model = model
        self._n_done = 0
        self._plan = plan
        self._grid = grid
        self._fill = fill
        self._preprocessing = model.preprocessing
        # Nobody knows it of a net for pictures of any size until it is used.
        self._n_classes = None if model.input_size is None else model.n_classes
        self._device = resolve_device(plan.device)
        self._dtype: torch.dtype = getattr(torch, plan.dtype)
        self._workers = self._nets(model, plan)
        mean, std = model.preprocessing.mean, model.preprocessing.std
        self._values = fill.normalised(mean, std) if fill.is_constant else None
        self._blank_scores: dict[tuple[int, int], Tensor] = {}

    def _nets(self, model: Model, plan: Plan) -> Workers:
        """What evaluates whole pictures."""
        return prepare_nets(model, plan)

    def __call__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None = None) -> ChunkResult:
        """See `plan.Evaluator`."""
        if control not in self.CONTROLS:
            raise InputError(f"unknown control {control!r}; expected {' or '.join(c for c in self.CONTROLS if c)}")
        n, (ny, nx) = len(images), self._grid.shape
        self._n_done = 0
        found = Outcomes.room(n, ny * nx)
        c, h, w = images.shape[1:]
        # The canvases of a whole chunk of large pictures would not fit the memory bound: a few pictures at a time.
        reach_y, reach_x = self._reach(h, w)
        block = max(1, MAX_CANVAS // (c * (h + 2 * reach_y) * (w + 2 * reach_x)))
        for first in range(0, n, block):
            part = slice(first, first + block)
            try:
                outcomes = self._block(images[part], labels[part], control)
            except ModelOutputError as error:
                raise ModelOutputError(str(error), tuple(first + place for place in error.positions)) from error
            found.put(part, outcomes)
        return ChunkResult(
            found.prediction.reshape(n, ny, nx), found.loss.reshape(n, ny, nx), found.confidence.reshape(n, ny, nx)
        )

    def _block(self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None) -> Outcomes:
        pictures = self._normalised(images)
        if control == "flip":
            pictures = pictures.flip(-1)
        targets = torch.from_numpy(np.asarray(labels, dtype=np.int64)).to(self._device)
        n = len(images)
        found = Outcomes.room(n, self._grid.n_shifts)
        blank = self._blank(pictures)
        # With a constant fill all windows without content are one picture: it is evaluated once.
        if blank.any():
            exact = self._in_float32 if self._plan.settle else self
            for_all = Outcomes.of(exact._blank_score(pictures).expand(n, -1), targets)
            image, shift = np.nonzero(blank)
            found.put((image, shift), for_all.chosen(image))
        for image, shift, outcomes in self._evaluated(pictures, targets, blank, control):
            found.put((image, shift), outcomes)
            self._n_done += len(shift)
            if self._tick is not None:
                self._tick(self._n_done)
        near = (found.margin < self._plan.settle) & ~blank
        if near.any():
            for place, shift, outcomes in self._in_float32._image_by_image(pictures, targets, near, control):
                found.put((np.full(len(shift), place), shift), outcomes)
        return found

    def _normalised(self, images: NDArray[np.uint8]) -> Tensor:
        return self._preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images))).to(self._device)

    @cached_property
    def _in_float32(self) -> DirectEvaluator:
        """What settles near ties."""
        return DirectEvaluator(self._model, self._plan.in_float32(), self._grid, self._fill)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    def one(self, image: NDArray[np.uint8], label: int, shift: int, control: str | None) -> Outcomes:
        """Outcome of one picture [c, h, w] under one shift, by its place in the grid."""
        pictures = self._normalised(image[None])
        if control == "flip":
            pictures = pictures.flip(-1)
        targets = torch.tensor([label], device=self._device)
        if self._blank(pictures)[0, shift]:
            return Outcomes.of(self._blank_score(pictures), targets)
        gather = self._occluded(pictures) if control == "occlusion" else self._shifted(pictures)
        places = np.zeros(1, dtype=np.int64)
        (scores,) = self._workers.map(self._alone, [gather(places, np.array([shift]))])
        return Outcomes.of(scores, targets)

    def _alone(self, net: Net, window: Tensor) -> Tensor:
        """Scores [1, classes] of one window by itself; beside its own copy for a net that takes no batch of one."""
        places = np.zeros(1, dtype=np.int64)
        try:
            return self._scores(net, (window,), places)
        except ModelOutputError as error:
            try:
                return self._scores(net, (torch.cat([window, window]),), places.repeat(2))[:1]
            except ModelOutputError:
                raise error from None

    def margins(self, images: NDArray[np.uint8], shift: NDArray[np.int64]) -> NDArray[np.float32]:
        """Margins [n, shifts] of pictures [n, c, h, w] under some shifts, by their places in the grid; none blank."""
        pictures = self._normalised(images)
        targets = torch.zeros(len(images), dtype=torch.int64, device=self._device)
        wanted = np.zeros((len(images), self._grid.n_shifts), dtype=np.bool_)
        wanted[:, shift] = True
        return np.stack([found.margin for _, _, found in self._image_by_image(pictures, targets, wanted, None)])

    def _evaluated(
        self, pictures: Tensor, targets: Tensor, blank: NDArray[np.bool_], control: str | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Outcomes]]:
        """Places in the chunk, places in the grid and outcomes of all windows that are not blank, part by part."""
        every_image, every_shift = np.nonzero(~blank)
        size = self._plan.batch_size
        batches = [slice(start, start + size) for start in range(0, len(every_shift), size)]
        outcomes = self._outcomes(pictures, targets, control)

        def evaluate(net: Net, batch: slice) -> tuple[NDArray[np.int64], NDArray[np.int64], Outcomes]:
            image, shift = every_image[batch], every_shift[batch]
            return image, shift, outcomes(net, image, shift)

        yield from self._workers.map(evaluate, batches)

    def _image_by_image(
        self, pictures: Tensor, targets: Tensor, wanted: NDArray[np.bool_], control: str | None
    ) -> Iterator[tuple[int, NDArray[np.int64], Outcomes]]:
        """The same of the windows that are wanted, each picture by itself: no matter which others there are."""
        size = self._plan.batch_size
        outcomes = self._outcomes(pictures, targets, control)

        def evaluate(net: Net, image: int) -> tuple[int, NDArray[np.int64], Outcomes]:
            shift = np.flatnonzero(wanted[image])
            batches = np.split(shift, range(size, len(shift), size))
            return image, shift, Outcomes.joined([outcomes(net, np.full(len(b), image), b) for b in batches])

        yield from self._workers.map(evaluate, np.flatnonzero(wanted.any(axis=1)).tolist())

    def _outcomes(
        self, pictures: Tensor, targets: Tensor, control: str | None
    ) -> Callable[[Net, NDArray[np.int64], NDArray[np.int64]], Outcomes]:
        """What evaluates a batch of windows, by places in the chunk and in the grid."""
        gather = self._occluded(pictures) if control == "occlusion" else self._shifted(pictures)

        def evaluate(net: Net, image: NDArray[np.int64], shift: NDArray[np.int64]) -> Outcomes:
            scores = self._scores(net, (gather(image, shift),), image)
            return Outcomes.of(scores, targets[torch.from_numpy(image).to(self._device)])

        return evaluate

    def _blank(self, pictures: Tensor) -> NDArray[np.bool_]:
        """Which windows [image, shift] show nothing but fill: no row, or no column, that differs from it is in view."""
        n = len(pictures)
        if self._values is None:
            return np.zeros((n, self._grid.n_shifts), dtype=np.bool_)
        values = torch.tensor(self._values, dtype=pictures.dtype, device=pictures.device)[:, None, None]
        content = (pictures != values).any(dim=1)
        in_view = []
        for shifts, other_axis in ((self._grid.dys, 2), (self._grid.dxs, 1)):
            lines = content.any(dim=other_axis).cpu().numpy()
            in_view.append(lines.astype(np.int64) @ _in_view(shifts, lines.shape[1]).T.astype(np.int64) > 0)
        return np.asarray(~(in_view[0][:, :, None] & in_view[1][:, None, :]).reshape(n, -1), dtype=np.bool_)

    def _blank_score(self, pictures: Tensor) -> Tensor:
        size = (int(pictures.shape[-2]), int(pictures.shape[-1]))
        if size not in self._blank_scores:
            values = torch.tensor(self._values, dtype=pictures.dtype, device=pictures.device)
            empty = values[None, :, None, None].expand(1, pictures.shape[1], *size)
            try:
                (self._blank_scores[size],) = self._workers.map(self._alone, [self._as_input(empty)])
            except ModelOutputError as error:
                # No image is at fault, so none is named.
                raise ModelOutputError(
                    f"{error}: on the empty picture (nothing but fill) that is left when a shift pushes all "
                    "content out; a smaller max-shift or an index rule as fill avoids it; met"
                ) from error
        return self._blank_scores[size]

    def _reach(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of canvas on each side: with a constant fill never more than the picture's own size."""
        if self._values is None:
            return self._grid.max_y, self._grid.max_x
        return min(self._grid.max_y, h), min(self._grid.max_x, w)

    def _shifted(self, pictures: Tensor) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]:
        grid, (h, w) = self._grid, pictures.shape[-2:]
        reach_y, reach_x = self._reach(h, w)
        wide = canvas(pictures, reach_y, reach_x, self._fill.rule, self._values).to(self._dtype)
        # [n, first row, first column, c, h, w] without a copy; channels stay next to each other in memory.
        windows = wide.contiguous(memory_format=torch.channels_last).unfold(2, h, 1).unfold(3, w, 1)
        windows = windows.permute(0, 2, 3, 4, 5, 1)
        # Shifts beyond the reach are blank windows, which are never gathered: their starts only have to be numbers.
        rows = torch.from_numpy(np.repeat(reach_y - grid.dys, grid.shape[1])).to(self._device)
        columns = torch.from_numpy(np.tile(reach_x - grid.dxs, grid.shape[0])).to(self._device)

        def gather(image: NDArray[np.int64], shift: NDArray[np.int64]) -> Tensor:
            i, s = (torch.from_numpy(a).to(self._device) for a in (image, shift))
            return self._as_input(windows[i, rows[s], columns[s]].permute(0, 3, 1, 2))

        return gather

    def _occluded(self, pictures: Tensor) -> Callable[[NDArray[np.int64], NDArray[np.int64]], Tensor]:
        """The pixels that the shift pushes out are blanked where they are; all others stay in place."""
        grid, (h, w) = self._grid, pictures.shape[-2:]
        stays_y = _in_view(grid.dys, h)
        stays_x = _in_view(grid.dxs, w)
        values = torch.tensor(self._values, dtype=pictures.dtype, device=self._device)[:, None, None]

        def gather(image: NDArray[np.int64], shift: NDArray[np.int64]) -> Tensor:
            iy, ix = np.divmod(shift, grid.shape[1])
            seen = torch.from_numpy(stays_y[iy][:, :, None] & stays_x[ix][:, None, :]).to(self._device)
            chosen = pictures[torch.from_numpy(image).to(self._device)]
            return self._as_input(torch.where(seen[:, None], chosen, values))

        return gather

    def _as_input(self, batch: Tensor) -> Tensor:
        layout = torch.channels_last if self._plan.channels_last else torch.contiguous_format
        return batch.to(self._dtype).contiguous(memory_format=layout)

    def _scores(self, net: Net, inputs: tuple[Tensor, ...], image: NDArray[np.int64]) -> Float[Tensor, "n classes"]:
        """Scores in float32 (float64 nets: float64), checked; `image` are the pictures' places in the chunk."""
        n = len(inputs[0])
        if self._plan.compiled and n < self._plan.batch_size:
            # A compiled net is made for one batch size: fill up rather than compile again for the remainder.
            filled = torch.arange(self._plan.batch_size, device=inputs[0].device) % n
            inputs = tuple(batch[filled] for batch in inputs)
        try:
            with torch.no_grad():
                out: Any = net(*inputs)
        except Exception as error:
            raise ModelOutputError(
                f"the model raised {type(error).__name__} on a batch {tuple(inputs[0].shape)}: {one_line(error)}",
                tuple(sorted(set(image.tolist()))),
            ) from error
        scores = scores_of(out)
        expected = len(inputs[0]), self._n_classes or scores.shape[1]
        if tuple(scores.shape) != expected:
            raise ModelOutputError(
                f"expected scores {expected} for a batch of {expected[0]}, the model gave {tuple(scores.shape)}",
                tuple(sorted(set(image.tolist()))),
            )
        scores = scores[:n]
        scores = scores if scores.dtype == torch.float64 else scores.float()
        bad = ~(torch.isfinite(scores.amax(dim=1)) & torch.isfinite(scores.amin(dim=1)))  # a NaN is both
        if bad.any():
            places = tuple(sorted(set(image[bad.cpu().numpy()].tolist())))
            raise ModelOutputError("the model gave scores that are not finite (NaN or infinity)", places)
        return scores


def _in_view(shifts: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Which source positions [shift, position] are still inside after the shift."""
    moved = np.arange(n)[None, :] + shifts[:, None]
    return np.asarray((moved >= 0) & (moved < n), dtype=np.bool_)
