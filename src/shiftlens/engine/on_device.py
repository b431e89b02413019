"""The direct path on a GPU: what travels is a chunk of pictures there and their outcomes back, and nothing in between.

A batch is a running window number, counted on the device: which windows it holds, where they lie in the canvases and
where their outcomes go is index arithmetic there. All batches have one shape (the last is filled up), so that a batch
is recorded once as a CUDA graph and played again: the host only says "go". Outcomes stay on the device until all
windows of the chunk are done. `begin` does not wait for them, so a caller can begin the next chunk before it takes the
last one's results.

The same code runs on a CPU, without recording, which is how it is tested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import number_format, resolve_device
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.fusing import can_fuse, fuse_relu
from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import Model
from shiftlens.models.probing import scores_of
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid, canvas

logger = logging.getLogger(__name__)

MAX_NUMBERS = 2**28
"""Most numbers in the canvases that the device holds at once (1 GB in float32)."""
SETTLING_BATCH = 256
"""Windows in a float32 batch that settles near ties; a device that is given fewer at a time is mostly idle."""
WARMING = 2
"""Batches before one is recorded: libraries choose their ways and take their memory in the first."""

Net = Callable[[Tensor], Any]


def net_on_device(model: Model, plan: Plan, *, fuse: bool = True) -> Net:
    """The prepared net, compiled if the plan says so, else with each ReLU in its convolution; a callable as it is."""
    if not isinstance(model.module, nn.Module):
        return model.module
    net = prepare_module(model, replace(plan, dtype="float32") if plan.dtype == "tf32" else plan)
    if plan.compiled:
        return torch.compile(net, dynamic=False)
    dtype = torch.float32 if plan.dtype == "tf32" else getattr(torch, plan.dtype)
    if fuse and plan.channels_last and can_fuse(resolve_device(plan.device), dtype):
        net, _ = fuse_relu(net)
    return net


class DeviceEvaluator:
    """`plan.Evaluator` for one device; see there for arguments, results and errors.

    Parameters
    ----------
    model, plan, grid, fill, tick
        As for every path.
    record
        Whether a batch is recorded as a CUDA graph, where the device has them and the net allows it.
    """

    CONTROLS: tuple[str | None, ...] = (None, "occlusion", "flip")

    def __init__(
        self,
        model: Model,
        plan: Plan,
        grid: ShiftGrid,
        fill: Fill,
        tick: Callable[[int], None] | None = None,
        *,
        record: bool = True,
        net: Net | None = None,
    ) -> None:
        self._model, self._plan, self._grid, self._fill, self._tick = model, plan, grid, fill, tick
        self._device = resolve_device(plan.device)
        self._dtype: torch.dtype = torch.float32 if plan.dtype == "tf32" else getattr(torch, plan.dtype)
        self._n_classes = None if model.input_size is None else model.n_classes
        mean, std = model.preprocessing.mean, model.preprocessing.std
        self._values = fill.normalised(mean, std) if fill.is_constant else None
        self._size = plan.batch_size
        self._record = record and self._device.type == "cuda"
        with number_format(plan.dtype, self._device):
            self._net = net_on_device(model, plan) if net is None else net
        self._tracks: dict[tuple[tuple[int, ...], bool], _Track] = {}
        self._blank_scores: dict[tuple[int, int], Tensor] = {}

    def __call__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None = None) -> ChunkResult:
        """See `plan.Evaluator`."""
        return self.begin(images, labels, control)()

    def begin(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None = None
    ) -> Callable[[], ChunkResult]:
        """Start a chunk; what is returned waits for its results.

        The device works on one chunk after the other, in the order in which they were begun.
        """
        if control not in self.CONTROLS:
            raise InputError(f"unknown control {control!r}; expected {' or '.join(c for c in self.CONTROLS if c)}")
        pictures = self._model.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images)))
        if control == "flip":
            pictures = pictures.flip(-1)
        targets = torch.from_numpy(np.array(labels, dtype=np.int64))
        blank = self._blank(pictures)
        flights = self._launched(pictures, targets, ~blank, control)

        def finish() -> ChunkResult:
            found = Outcomes.room(len(images), self._grid.n_shifts)
            self._land(flights, found)
            if blank.any():
                for_all = self._of_nothing(pictures, targets)
                image, shift = np.nonzero(blank)
                found.put((image, shift), for_all.chosen(image))
            near = (found.margin < self._plan.settle) & ~blank
            if near.any():
                self._in_float32.settle(pictures, targets, near, control, found)
            if self._tick is not None:
                self._tick(found.prediction.size)
            shape = len(images), *self._grid.shape
            return ChunkResult(
                found.prediction.reshape(shape), found.loss.reshape(shape), found.confidence.reshape(shape)
            )

        return finish

    def settle(
        self, pictures: Tensor, targets: Tensor, near: NDArray[np.bool_], control: str | None, found: Outcomes
    ) -> None:
        """Evaluate some windows [image, shift] of normalised pictures and put them over what was found."""
        self._land(self._launched(pictures, targets, near, control), found)

    @cached_property
    def _in_float32(self) -> DeviceEvaluator:
        """What settles near ties."""
        exact = replace(self._plan.in_float32(), batch_size=min(SETTLING_BATCH, self._size))
        return DeviceEvaluator(self._model, exact, self._grid, self._fill, record=self._record)

    def _launched(
        self, pictures: Tensor, targets: Tensor, wanted: NDArray[np.bool_], control: str | None
    ) -> list[_Flight]:
        """All wanted windows on their way, a few pictures at a time where their canvases would not fit."""
        while True:
            try:
                with number_format(self._plan.dtype, self._device), torch.no_grad():
                    track = self._track(pictures, control)
                    return [
                        track.launch(first, pictures[first : first + track.block], targets, wanted)
                        for first in range(0, len(pictures), track.block)
                    ]
            except torch.OutOfMemoryError:
                if self._size == 1:
                    raise
                self._size //= 2
            # Outside the handler, whose traceback would hold what is to be freed.
            self._tracks.clear()
            torch.cuda.empty_cache()
            logger.warning("the device has too little memory for the batch: going on with %d windows", self._size)

    def _track(self, pictures: Tensor, control: str | None) -> _Track:
        occluded = control == "occlusion"
        key = (tuple(pictures.shape[1:]), occluded)
        if key not in self._tracks:
            self._tracks[key] = _Track(self, pictures, occluded)
        return self._tracks[key]

    def _land(self, flights: list[_Flight], found: Outcomes) -> None:
        for flight in flights:
            finite, outcomes = flight.landed()
            if not finite.all():
                places = tuple(sorted(set((flight.image[~finite]).tolist())))
                raise ModelOutputError("the model gave scores that are not finite (NaN or infinity)", places)
            found.put((flight.image, flight.shift), outcomes)

    def _blank(self, pictures: Tensor) -> NDArray[np.bool_]:
        """Which windows [image, shift] show nothing but fill: no row, or no column, that differs from it is in view."""
        n = len(pictures)
        if self._values is None:
            return np.zeros((n, self._grid.n_shifts), dtype=np.bool_)
        values = torch.tensor(self._values, dtype=pictures.dtype)[:, None, None]
        content = (pictures != values).any(dim=1)
        in_view = []
        for shifts, other_axis in ((self._grid.dys, 2), (self._grid.dxs, 1)):
            lines = content.any(dim=other_axis).numpy().astype(np.float32)
            in_view.append(lines @ in_view_of(shifts, lines.shape[1]).T.astype(np.float32) > 0)
        return np.asarray(~(in_view[0][:, :, None] & in_view[1][:, None, :]).reshape(n, -1), dtype=np.bool_)

    def _of_nothing(self, pictures: Tensor, targets: Tensor) -> Outcomes:
        """What the empty picture gives, for each true class: evaluated once, in float32 where near ties are settled."""
        if self._plan.settle:
            return self._in_float32._of_nothing(pictures, targets)
        c, h, w = pictures.shape[1:]
        if (h, w) not in self._blank_scores:
            values = torch.tensor(self._values, dtype=torch.float32)[:, None, None]
            empty = values.expand(self._size if self._plan.compiled else 1, c, h, w).contiguous()
            try:
                with number_format(self._plan.dtype, self._device), torch.no_grad():
                    scores = self.scores(self.as_input(empty.to(self._device)))[:1].cpu()
                if not torch.isfinite(scores).all():
                    raise ModelOutputError("the model gave scores that are not finite (NaN or infinity)")
            except ModelOutputError as error:
                # No image is at fault, so none is named.
                raise ModelOutputError(
                    f"{error}: on the empty picture (nothing but fill) that is left when a shift pushes all "
                    "content out; a smaller max-shift or an index rule as fill avoids it; met"
                ) from error
            self._blank_scores[h, w] = scores
        return Outcomes.of(self._blank_scores[h, w].expand(len(targets), -1), targets)

    def reach(self, h: int, w: int) -> tuple[int, int]:
        """Rows and columns of canvas on each side: with a constant fill never more than the picture's own size."""
        if self._values is None:
            return self._grid.max_y, self._grid.max_x
        return min(self._grid.max_y, h), min(self._grid.max_x, w)

    def as_input(self, batch: Tensor) -> Tensor:
        """The batch in the plan's number format and layout."""
        layout = torch.channels_last if self._plan.channels_last else torch.contiguous_format
        return batch.to(self._dtype).contiguous(memory_format=layout)

    def scores(self, batch: Tensor) -> Tensor:
        """Scores [n, classes] in float32 (float64 nets: float64); whether they are finite is looked at later."""
        try:
            out = self._net(batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelOutputError(
                f"the model raised {type(error).__name__} on a batch {tuple(batch.shape)}: {one_line(error)}"
            ) from error
        scores = scores_of(out)
        expected = len(batch), self._n_classes or scores.shape[1]
        if tuple(scores.shape) != expected:
            raise ModelOutputError(
                f"expected scores {expected} for a batch of {expected[0]}, the model gave {tuple(scores.shape)}"
            )
        return scores if scores.dtype == torch.float64 else scores.float()


@dataclass(frozen=True)
class _Flight:
    """Windows whose outcomes are on their way to the host; places in the chunk and in the grid."""

    image: NDArray[np.int64]
    shift: NDArray[np.int64]
    arrays: tuple[Tensor, ...]
    arrived: torch.cuda.Event | None

    def landed(self) -> tuple[NDArray[np.bool_], Outcomes]:
        """Wait for them: which of the windows had finite scores, and the outcomes."""
        if self.arrived is not None:
            self.arrived.synchronize()
        finite, prediction, loss, confidence, margin = (array.numpy() for array in self.arrays)
        return finite, Outcomes(prediction.astype(np.int64), loss, confidence, margin)


class _Track:
    """Buffers of fixed shape for pictures of one size, and the batch that runs over them again and again."""

    def __init__(self, owner: DeviceEvaluator, pictures: Tensor, occluded: bool) -> None:
        self._owner, self._occluded = owner, occluded
        grid, device, dtype = owner._grid, owner._device, owner._dtype
        self._values, self._rule = owner._values, owner._fill.rule
        n, c, self._h, self._w = pictures.shape
        self._reach = (0, 0) if occluded else owner.reach(self._h, self._w)
        high, wide = self._h + 2 * self._reach[0], self._w + 2 * self._reach[1]
        self.block = max(1, min(n, MAX_NUMBERS // (c * high * wide)))
        self._n_shifts, self._size = grid.n_shifts, owner._size
        room = -(-self.block * self._n_shifts // self._size) * self._size
        whole: dict[str, Any] = {"dtype": torch.int64, "device": device}
        self._canvas = torch.zeros(self.block, high, wide, c, dtype=dtype, device=device)
        self._targets = torch.zeros(self.block, **whole)
        self._windows = torch.zeros(room, **whole)
        self._at = torch.zeros(1, **whole)
        self._lane = torch.arange(self._size, **whole)
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        kinds = (torch.bool, torch.int32, exact, torch.float16, exact)
        self._found = tuple(torch.zeros(room, dtype=kind, device=device) for kind in kinds)
        nx = grid.shape[1]
        if occluded:
            self._stays = tuple(
                torch.from_numpy(in_view_of(shifts, size)).to(device)
                for shifts, size in ((grid.dys, self._h), (grid.dxs, self._w))
            )
            self._empty = torch.tensor(self._values, dtype=torch.float32, device=device).to(dtype)
        else:
            # Shifts beyond the reach are blank windows, which are never asked for: their starts only have to exist.
            starts = (reach - shifts for reach, shifts in zip(self._reach, (grid.dys, grid.dxs), strict=True))
            self._starts = tuple(torch.from_numpy(np.asarray(start)).to(device) for start in starts)
        self._nx = nx
        self._graph: torch.cuda.CUDAGraph | None = None
        self._fresh = True

    def launch(self, first: int, pictures: Tensor, targets: Tensor, wanted: NDArray[np.bool_]) -> _Flight:
        """Start on the wanted windows [image, shift] of pictures that are `first` and following of the chunk."""
        n = len(pictures)
        image, shift = np.nonzero(wanted[first : first + n])
        if not len(image):
            return _Flight(image, shift, tuple(torch.empty(0, dtype=f.dtype) for f in self._found), None)
        wide = pictures if self._occluded else canvas(pictures, *self._reach, self._rule, self._values)
        self._send(wide.to(self._canvas.dtype).permute(0, 2, 3, 1), self._canvas)
        self._send(targets[first : first + n], self._targets)
        n_batches = -(-len(image) // self._size)
        windows = np.zeros(n_batches * self._size, dtype=np.int64)
        windows[: len(image)] = image * self._n_shifts + shift
        windows[len(image) :] = windows[len(image) - 1]
        self._send(torch.from_numpy(windows), self._windows)
        self._at.zero_()
        try:
            self._run(n_batches)
        except ModelOutputError as error:
            places = error.positions or tuple(range(first, first + n))
            raise ModelOutputError(str(error), places) from error
        arrays, arrived = self._fetched(len(image))
        return _Flight(image + first, shift, arrays, arrived)

    def _run(self, n_batches: int) -> None:
        done = 0
        if self._owner._record and self._fresh:
            done = min(WARMING, n_batches)
            self._warm(done)
            if n_batches > WARMING:
                self._fresh = False
                self._recorded()
        for _ in range(done, n_batches):
            if self._graph is not None:
                self._graph.replay()
            else:
                self._batch()

    def _warm(self, n_batches: int) -> None:
        """On another stream, as recording asks for."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch says no types here
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(n_batches):
                self._batch()
        torch.cuda.current_stream().wait_stream(aside)

    def _recorded(self) -> None:
        """Record the batch, unless the net does what cannot be recorded (asks the device for a number, for one)."""
        graph = torch.cuda.CUDAGraph()
        at = self._at.clone()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._batch()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            logger.info("batches are not recorded: %s: %s", type(error).__name__, one_line(error))
            self._at.copy_(at)
            return
        self._graph = graph

    def _batch(self) -> None:
        """The next batch: which windows, what is in them, what the net says, and where that goes."""
        place = self._at + self._lane
        window = self._windows[place]
        image, shift = window // self._n_shifts, window % self._n_shifts
        scores = self._owner.scores(self._gathered(image, shift))
        for room, values in zip(self._found, outcomes_of(scores, self._targets[image]), strict=True):
            room.index_copy_(0, place, values.to(room.dtype))
        self._at += self._size

    def _gathered(self, image: Tensor, shift: Tensor) -> Tensor:
        iy, ix = shift // self._nx, shift % self._nx
        if self._occluded:
            seen = self._stays[0][iy][:, :, None] & self._stays[1][ix][:, None, :]
            batch = torch.where(seen[..., None], self._canvas[image], self._empty)
        else:
            # [image, first row, first column, h, w, c] without a copy.
            windows = self._canvas.unfold(1, self._h, 1).unfold(2, self._w, 1).permute(0, 1, 2, 4, 5, 3)
            batch = windows[image, self._starts[0][iy], self._starts[1][ix]]
        return self._owner.as_input(batch.permute(0, 3, 1, 2))

    def _send(self, what: Tensor, room: Tensor) -> None:
        """To the front of a buffer on the device, without waiting."""
        if room.device.type == "cuda":
            what = what.contiguous().pin_memory()
        room[: len(what)].copy_(what, non_blocking=True)

    def _fetched(self, n: int) -> tuple[tuple[Tensor, ...], torch.cuda.Event | None]:
        """The first `n` outcomes, copied to the host without waiting, and what says when they are there.

        On the stream that computes: half a megabyte a chunk takes it a thirtieth of a millisecond.
        """
        if self._at.device.type != "cuda":
            return tuple(room[:n].to("cpu", copy=True) for room in self._found), None
        arrays = tuple(torch.empty(n, dtype=room.dtype, pin_memory=True) for room in self._found)
        for array, room in zip(arrays, self._found, strict=True):
            array.copy_(room[:n], non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch says no types here
        arrived.record()
        return arrays, arrived


def outcomes_of(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Whether the scores [n, classes] are finite, then what `Outcomes` holds, each [n] on the scores' device."""
    total = torch.logsumexp(scores, dim=1)
    best, prediction = scores.max(dim=1)
    loss = total - scores.gather(1, targets[:, None])[:, 0]
    margin = best - scores.scatter(1, prediction[:, None], -torch.inf).max(dim=1).values
    return torch.isfinite(scores).all(dim=1), prediction, loss, torch.exp(best - total), margin


def in_view_of(shifts: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Which source positions [shift, position] are still inside after the shift."""
    moved = np.arange(n)[None, :] + shifts[:, None]
    return np.asarray((moved >= 0) & (moved < n), dtype=np.bool_)
