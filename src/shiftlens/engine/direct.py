"""The direct path: every shift of every image goes through the whole net.

Nothing is assumed about the model but that it maps a batch of normalised images to scores. All shifts of an image are
windows of one canvas, so a batch is gathered, never interpolated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.devices import resolve_device, tensors_of
from shiftlens.engine.folding import fold_batch_norm
from shiftlens.engine.outcomes import Chunk, Outcomes, Places, each_of
from shiftlens.engine.plan import Plan
from shiftlens.engine.window_evaluator import EnginePath, Mask, in_view
from shiftlens.engine.workers import Net, Workers, replicas
from shiftlens.errors import InputError
from shiftlens.models.probing import scores_of
from shiftlens.models.wrapping import Model
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
    device = resolve_device(plan.device, apple=True)
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
    if plan.channels_last:
        net = net.to(memory_format=torch.channels_last)
    return net.to(device=device) if tensors_of(device) == device else Elsewhere(net, device)


class Elsewhere(nn.Module):
    """A net on a device of its own, to which batches travel and from which scores come back.

    Parameters
    ----------
    net, device
        What computes, and where.
    """

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net, self.device = net.to(device), device

    def forward(self, x: Tensor) -> Tensor:
        """Batches [n, c, h, w] to scores [n, k], both where `x` is."""
        return scores_of(self.net(x.to(self.device))).to(x.device)


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
    return Workers(replicas(net, torch.get_num_threads() if plan.device == "cpu" else 1))


class DirectEvaluator(EnginePath):
    """Evaluates every window by itself; see `WindowEvaluator`.

    Parameters
    ----------
    model, plan, grid, fill, tick
        As for every path.
    by_image
        Whether a batch holds windows of one image only, so that its results do not depend on the other images.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        grid: ShiftGrid,
        fill: Fill,
        tick: Callable[[int], None] | None = None,
        *,
        by_image: bool = False,
    ) -> None:
        super().__init__(model, plan, grid, fill, tick)
        self._by_image = by_image
        self._workers = prepare_nets(model, plan)

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`; all is done when the results are asked for."""
        return partial(self._evaluated, chunk, wanted)

    def _evaluated(self, chunk: Chunk, wanted: Mask) -> Outcomes:
        found = chunk.room(self.grid.n_shifts)
        chunk = replace(chunk, state=each_of(chunk.state, lambda values: values.to(self.device)))
        c, h, w = chunk.images.shape[1:]
        # The canvases of a whole chunk of large images would not fit the memory bound: a few images at a time.
        reach_y, reach_x = self.reach(h, w)
        block = max(1, MAX_CANVAS // (c * (h + 2 * reach_y) * (w + 2 * reach_x)))
        n_done = 0
        for first in range(0, len(chunk), block):
            part = slice(first, first + block)
            for (image, shift), outcomes in self._block(first, chunk.part(part), wanted[part]):
                found.put((first + image, shift), outcomes)
                n_done += len(image)
                if self._tick is not None:
                    self._tick(n_done)
        return found

    def _block(self, first: int, chunk: Chunk, wanted: Mask) -> Iterator[tuple[Places, Outcomes]]:
        """The wanted windows of some images, batch by batch; the first of them is number `first` of the chunk."""
        gather = self._gather(chunk)

        def evaluate(net: Net, places: Places) -> tuple[Places, Outcomes]:
            scores = self.checked_scores(net, (gather(places),), first + places[0])
            return places, self.outcomes(chunk, scores, places)

        return self._workers.map(evaluate, self._batches(wanted))

    def _batches(self, wanted: Mask) -> Iterator[Places]:
        """Places (image, shift) of the windows of each batch."""
        image, shift = np.nonzero(wanted)
        ends = np.cumsum(wanted.sum(axis=1)) if self._by_image else [len(image)]
        start = 0
        for end in ends:
            for first in range(start, end, self.plan.batch_size):
                batch = slice(first, min(first + self.plan.batch_size, end))
                yield image[batch], shift[batch]
            start = end

    def one(self, chunk: Chunk, shift: int) -> Outcomes:
        """Outcome of the first image under one shift, by its place in the grid; its window is evaluated alone."""
        return self.outcome_of(chunk, shift, self.window(chunk, shift))

    def window(self, chunk: Chunk, shift: int) -> Tensor:
        """The window [1, c, h, w] of the first image under one shift."""
        return self._gather(chunk)((np.zeros(1, dtype=np.int64), np.array([shift])))

    def outcome_of(self, chunk: Chunk, shift: int, window: Tensor) -> Outcomes:
        """Outcome of a window in place of that of the first image under one shift."""
        return self.outcomes(chunk, self.alone(window), (np.zeros(1, dtype=np.int64), np.array([shift])))

    def alone(self, window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one normalised window [1, c, h, w] by itself."""
        (scores,) = self._workers.map(self.alone_by, [window])
        return scores

    def _gather(self, chunk: Chunk) -> Callable[[Places], Tensor]:
        """What cuts the windows at (image, shift) out of the images."""
        pictures = self.normalised(chunk.images, chunk.control).to(self.device)
        return self._occluded(pictures) if chunk.control == "occlusion" else self._shifted(pictures)

    def _shifted(self, pictures: Tensor) -> Callable[[Places], Tensor]:
        h, w = pictures.shape[-2:]
        wide = canvas(pictures, *self.reach(h, w), self.fill.rule, self.values).to(self.dtype)
        # [n, first row, first column, c, h, w] without a copy; channels stay next to each other in memory.
        windows = wide.contiguous(memory_format=torch.channels_last).unfold(2, h, 1).unfold(3, w, 1)
        windows = windows.permute(0, 2, 3, 4, 5, 1)
        rows, columns = (torch.from_numpy(start).to(self.device) for start in self.starts(h, w))

        def gather(places: Places) -> Tensor:
            image, iy, ix = self._indices(places)
            return self.as_input(windows[image, rows[iy], columns[ix]].permute(0, 3, 1, 2))

        return gather

    def _occluded(self, pictures: Tensor) -> Callable[[Places], Tensor]:
        """The pixels that the shift pushes out are blanked where they are; all others stay in place."""
        h, w = pictures.shape[-2:]
        stays_y, stays_x = (
            torch.from_numpy(in_view(shifts, n)).to(self.device)
            for shifts, n in ((self.grid.dys, h), (self.grid.dxs, w))
        )
        values = torch.tensor(self.values, dtype=pictures.dtype, device=self.device)[:, None, None]

        def gather(places: Places) -> Tensor:
            image, iy, ix = self._indices(places)
            seen = stays_y[iy][:, :, None] & stays_x[ix][:, None, :]
            return self.as_input(torch.where(seen[:, None], pictures[image], values))

        return gather

    def _indices(self, places: Places) -> tuple[Tensor, ...]:
        image, shift = places
        return tuple(torch.from_numpy(a).to(self.device) for a in (image, *np.divmod(shift, self.grid.shape[1])))
