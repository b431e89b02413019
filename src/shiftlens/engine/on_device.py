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
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from shiftlens.devices import number_format, resolve_device
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.fusing import can_fuse, fuse_relu
from shiftlens.engine.outcomes import Chunk, Outcomes, Places, each_of, rows_of, tensors_of
from shiftlens.engine.plan import Plan
from shiftlens.engine.window_evaluator import EnginePath, Mask, finite, in_view, refuse_not_finite
from shiftlens.errors import ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid, canvas
from shiftlens.tasks.task import row_types

logger = logging.getLogger(__name__)

MAX_NUMBERS = 2**28
"""Most numbers in the canvases that the device holds at once (1 GB in float32)."""
WARMING = 2
"""Batches before one is recorded: libraries choose their ways and take their memory in the first."""

FINITE = "finite"
"""The row that says which windows had finite scores."""

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


class DeviceEvaluator(EnginePath):
    """Evaluates every window by itself on one device; see `WindowEvaluator`.

    The device works on one chunk after the other, in the order in which they were begun.

    Parameters
    ----------
    model, plan, grid, fill, tick
        As for every path.
    record
        Whether a batch is recorded as a CUDA graph, where the device has them and the net allows it.
    net
        What computes, if it is prepared already.
    """

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
        super().__init__(model, plan, grid, fill, tick)
        self.size = plan.batch_size
        self.record = record and self.device.type == "cuda"
        with number_format(plan.dtype, self.device):
            self._net = net_on_device(model, plan) if net is None else net
        self._tracks: dict[Hashable, _Track] = {}

    def begin(self, chunk: Chunk, wanted: Mask) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        launched = self._launched(chunk, wanted)

        def finish() -> Outcomes:
            found = chunk.room(self.grid.n_shifts)
            for (image, shift), fetched in launched:
                rows = fetched()
                refuse_not_finite(rows.pop(FINITE), image)
                found.put((image, shift), rows)
            if self._tick is not None:
                self._tick(wanted.size)
            return found

        return finish

    def _launched(self, chunk: Chunk, wanted: Mask) -> list[tuple[Places, Callable[[], Outcomes]]]:
        """All wanted windows on their way, a few images at a time where their canvases would not fit."""
        shapes = [tuple(values.shape[1:]) for values in tensors_of(chunk.state)]
        key = (chunk.images.shape[1:], chunk.control == "occlusion", id(chunk.task), *shapes)
        while True:
            try:
                with number_format(self.plan.dtype, self.device), torch.no_grad():
                    if key not in self._tracks:
                        self._tracks[key] = _Track(self, chunk)
                    track = self._tracks[key]
                    return [
                        track.launch(first, chunk.part(part), wanted[part])
                        for first in range(0, len(chunk), track.block)
                        for part in (slice(first, first + track.block),)
                    ]
            except torch.OutOfMemoryError:
                if self.size == 1:
                    raise
                self.size //= 2
            # Outside the handler, whose traceback would hold what is to be freed.
            self._tracks.clear()
            torch.cuda.empty_cache()
            logger.warning("the device has too little memory for the batch: going on with %d windows", self.size)

    def alone(self, window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one normalised window [1, c, h, w] by itself."""
        with number_format(self.plan.dtype, self.device):
            return self.alone_by(self._net, window)

    def scores(self, batch: Tensor) -> Float[Tensor, "n k"]:
        """Scores of a batch that is on the device; whether they are finite is looked at later."""
        return self.expected_scores(self._net, self.as_input(batch))


class _Track:
    """Buffers of fixed shape for images of one size, and the batch that runs over them again and again."""

    def __init__(self, owner: DeviceEvaluator, chunk: Chunk) -> None:
        self._owner, self._task, self._control = owner, chunk.task, chunk.control
        self._occluded = chunk.control == "occlusion"
        grid, device, dtype = owner.grid, owner.device, owner.dtype
        n, c, self._h, self._w = chunk.images.shape
        self._reach = (0, 0) if self._occluded else owner.reach(self._h, self._w)
        high, wide = self._h + 2 * self._reach[0], self._w + 2 * self._reach[1]
        self.block = max(1, min(n, MAX_NUMBERS // (c * high * wide)))
        self._n_shifts, self._size = grid.n_shifts, owner.size
        room = -(-self.block * self._n_shifts // self._size) * self._size
        whole: dict[str, Any] = {"dtype": torch.int64, "device": device}
        self._canvas = torch.zeros(self.block, high, wide, c, dtype=dtype, device=device)
        self._state = each_of(
            chunk.state, lambda v: torch.zeros(self.block, *v.shape[1:], dtype=v.dtype, device=device)
        )
        self._windows = torch.zeros(room, **whole)
        self._at = torch.zeros(1, **whole)
        self._lane = torch.arange(self._size, **whole)
        self._found = {FINITE: torch.zeros(room, dtype=torch.bool, device=device)}
        self._shapes, self._sums = chunk.row_shapes(), chunk.room(0).sums
        for name, kind in row_types(self._task).items():
            # Numbers of a float64 net are rounded on the host.
            kept = dtype if dtype == torch.float64 and kind == np.float32 else getattr(torch, kind.name)
            shape = self._shapes[name] if name in self._sums else (room, *self._shapes[name])
            self._found[name] = torch.zeros(shape, dtype=kept, device=device)
        if self._occluded:
            self._stays = tuple(
                torch.from_numpy(in_view(shifts, size)).to(device)
                for shifts, size in ((grid.dys, self._h), (grid.dxs, self._w))
            )
            self._empty = torch.tensor(owner.values, dtype=torch.float32, device=device).to(dtype)
        else:
            self._starts = tuple(torch.from_numpy(start).to(device) for start in owner.starts(self._h, self._w))
        self._moved = torch.from_numpy(owner.shifts()).to(device) if self._task.needs_shifts else None
        self._nx = grid.shape[1]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._fresh = True

    def launch(self, first: int, chunk: Chunk, wanted: Mask) -> tuple[Places, Callable[[], Outcomes]]:
        """Start on the wanted windows [image, shift] of images that are `first` and following of the whole chunk.

        Returns their places in that, and what waits for their rows.
        """
        image, shift = np.nonzero(wanted)
        for name in self._sums:
            self._found[name].zero_()
        if len(image):
            wide = self._owner.normalised(chunk.images, chunk.control)
            if not self._occluded:
                wide = canvas(wide, *self._reach, self._owner.fill.rule, self._owner.values)
            self._send(wide.to(self._canvas.dtype).permute(0, 2, 3, 1), self._canvas)
            for values, room in zip(tensors_of(chunk.state), tensors_of(self._state), strict=True):
                self._send(values, room)
            windows = np.full(-(-len(image) // self._size) * self._size, image[-1] * self._n_shifts + shift[-1])
            windows[: len(image)] = image * self._n_shifts + shift
            self._send(torch.from_numpy(windows), self._windows)
            self._at.zero_()
            try:
                self._run(len(image))
            except ModelOutputError as error:
                places = error.positions or tuple(range(first, first + len(chunk)))
                raise ModelOutputError(str(error), places) from error
        return (image + first, shift), self._fetched(len(image))

    def _run(self, n_windows: int) -> None:
        n_batches, n_last = divmod(n_windows, self._size)
        if n_last and not self._sums:
            n_batches, n_last = n_batches + 1, 0  # filled up with a window that is there already
        done = 0
        if self._owner.record and self._fresh:
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
        if n_last:
            self._batch(n_last)

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

    def _batch(self, n: int | None = None) -> None:
        """The next batch: which windows, what is in them, what the net says, and where that goes."""
        place = self._at + self._lane[:n]
        window = self._windows[place]
        image, shift = window // self._n_shifts, window % self._n_shifts
        scores = self._owner.scores(self._gathered(image, shift))
        moved = None if self._moved is None else self._moved[shift]
        state = each_of(self._state, lambda values: values[image])
        rows = rows_of(self._task, self._control, self._shapes, scores, state, moved)
        for name, values in (FINITE, finite(scores)), *rows.items():
            room = self._found[name]
            if name in self._sums:
                room += values.to(room.dtype)
            else:
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
        return batch.permute(0, 3, 1, 2)

    def _send(self, what: Tensor, room: Tensor) -> None:
        """To the front of a buffer on the device, without waiting."""
        if room.is_cuda and not what.is_cuda:
            what = what.contiguous().pin_memory()
        room[: len(what)].copy_(what, non_blocking=True)

    def _fetched(self, n: int) -> Callable[[], Outcomes]:
        """Copy the first `n` rows and the sums to the host without waiting; the returned function waits for them.

        On the stream that computes: half a megabyte a chunk takes it a thirtieth of a millisecond.
        """
        on_gpu = self._at.is_cuda
        host = {}
        for name, values in self._found.items():
            rows = values if name in self._sums else values[:n]
            host[name] = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=on_gpu).copy_(rows, non_blocking=True)
        arrived = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]  # torch says no types here
        if arrived is not None:
            arrived.record()

        def wait() -> Outcomes:
            if arrived is not None:
                arrived.synchronize()
            return Outcomes(self._task, {name: values.numpy() for name, values in host.items()})

        return wait
