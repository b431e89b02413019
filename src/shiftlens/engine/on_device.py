"""Both paths on a GPU: what travels is a chunk of pictures there and their outcomes back, and nothing in between.

A batch is a running window number, counted on the device: which windows it holds, where they come from
(`device_windows`) and where their outcomes go is index arithmetic there. All batches have one shape (the last is filled
up), so that a batch is recorded once as a CUDA graph and played again: the host only says "go". Outcomes stay on the
device until all windows of the chunk are done. `begin` does not wait for them, so a caller can begin the next chunk
before it takes the last one's results.

The same code runs on a CPU, without recording, which is how it is tested.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import number_format, resolve_device
from shiftlens.engine.device_windows import CellWindows, DeviceWindows, OccludedWindows, ShiftedWindows, send
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.fusing import can_fuse, fuse_relu
from shiftlens.engine.outcomes import Chunk, Outcomes, Places, each_of, rows_of, tensors_of
from shiftlens.engine.plan import Plan
from shiftlens.engine.recording import Replayed
from shiftlens.engine.shared.by_plan import by_plan
from shiftlens.engine.shared.program import Program, rest_of
from shiftlens.engine.window_evaluator import EnginePath, Mask, finite, refuse_not_finite
from shiftlens.errors import DeviceError, ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.tasks.task import row_types

logger = logging.getLogger(__name__)

FINITE = "finite"
"""The row that says which windows had finite scores."""

Net = Callable[..., Any]


def net_on_device(model: Model, plan: Plan, *, fuse: bool = True) -> Net:
    """The prepared net, compiled if the plan says so, else with each ReLU in its convolution; a callable as it is."""
    if not isinstance(model.module, nn.Module):
        return model.module
    net = prepare_module(model, plan.by_tensors())
    if plan.compiled:
        return torch.compile(net, dynamic=False)
    return _fused(net, plan) if fuse else net


def _fused(net: nn.Module, plan: Plan) -> nn.Module:
    """With each ReLU in its convolution, where the device can."""
    dtype = getattr(torch, plan.by_tensors().dtype)
    able = plan.channels_last and can_fuse(resolve_device(plan.device), dtype)
    return fuse_relu(net)[0] if able else net


class DeviceEvaluator(EnginePath):
    """Evaluates windows on one device, each by itself or, if the plan says so, by cells; see `WindowEvaluator`.

    The device works on one chunk after the other, in the order in which they were begun.

    Parameters
    ----------
    model, plan, grid, fill, tick
        As for every path.
    record
        Whether a batch is recorded as a CUDA graph, where the device has them and the net allows it.
    net
        What computes a window by itself, if it is prepared already.
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
        self.most_images: int | None = None  # held at once, once there was too little memory for all
        self._model = model
        self.record = record and self.device.type == "cuda"
        with number_format(plan.dtype, self.device):
            self._net = net_on_device(model, plan) if net is None else net
        self._tracks: dict[Hashable, _Track] = {}
        self._halves: dict[Hashable, tuple[Program, Net]] = {}

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
                return self._by_track(key, chunk, wanted)
            except torch.OutOfMemoryError as error:
                self._take_less(len(chunk), one_line(error))
            # Outside the handler, whose traceback would hold what is to be freed.
            self.release()
            torch.cuda.empty_cache()

    def _by_track(self, key: Hashable, chunk: Chunk, wanted: Mask) -> list[tuple[Places, Callable[[], Outcomes]]]:
        with number_format(self.plan.dtype, self.device), torch.no_grad():
            if key not in self._tracks:
                self._tracks[key] = _Track(self, chunk)
            track = self._tracks[key]
            return [
                track.launch(first, chunk.part(part), wanted[part])
                for first in range(0, len(chunk), track.source.most)
                for part in (slice(first, first + track.source.most),)
            ]

    def _take_less(self, n_images: int, why: str) -> None:
        """There was too little memory: fewer images at once where each has its cells there, else a smaller batch."""
        held = min(n_images, self.most_images or n_images)
        if self.plan.cut and held > 1:
            self.most_images = held // 2
            logger.warning("the device has too little memory for the cells: going on with %d images", held // 2)
        elif self.size > 1:
            self.size //= 2
            logger.warning("the device has too little memory for the batch: going on with %d windows", self.size)
        else:
            less = ", or --engine direct at another path" if self.plan.cut else ""
            raise DeviceError(
                f"{self.device} has too little memory for a batch of one window ({why}): take --device cpu{less}"
            )

    def release(self) -> None:
        """Let go of the buffers, which a next chunk makes anew."""
        self._tracks.clear()

    def alone(self, window: Tensor) -> Float[Tensor, "1 k"]:
        """Scores of one normalised window [1, c, h, w] by itself."""
        with number_format(self.plan.dtype, self.device):
            return self.alone_by(self._net, window)

    def scores(self, batch: Tensor) -> Float[Tensor, "n k"]:
        """Scores of a batch that is on the device; whether they are finite is looked at later."""
        return self.expected_scores(self._net, self.as_input(batch))

    def scores_under(self, picture: Tensor, shift: NDArray[np.int64], image: int = 0) -> Float[Tensor, "n k"]:
        """Scores of one normalised image [c, h, w] under some shifts that leave some of it in view.

        `image` is what an error calls it.
        """
        c, h, w = (int(n) for n in picture.shape)
        with number_format(self.plan.dtype, self.device), torch.no_grad():
            source = self.windows_of((c, h, w), 1, occluded=False)
            source.hold(picture[None])
            found = []
            for first in range(0, len(shift), self.size):
                part = shift[first : first + self.size]
                iy, ix = (torch.from_numpy(places).to(self.device) for places in np.divmod(part, self.grid.shape[1]))
                inputs = source(torch.zeros_like(iy), iy, ix)
                found.append(self.checked_scores(source.net, inputs, np.full(len(part), image)))
        return torch.cat(found)

    def windows_of(self, shape: tuple[int, int, int], n_images: int, *, occluded: bool) -> DeviceWindows:
        """Where the windows of up to `n_images` images [c, h, w] come from."""
        n_images = min(n_images, self.most_images or n_images)
        if not self.plan.cut:
            return (OccludedWindows if occluded else ShiftedWindows)(self, self._net, shape, n_images)
        key = (*shape, occluded)
        if key not in self._halves:
            module = prepare_module(self._model, self.plan.by_tensors())
            found, program = by_plan(self, module, shape, occluded=occluded)
            self._halves[key] = program, _fused(rest_of(found, program.n_early), self.plan)
        return CellWindows(self, *self._halves[key], shape, n_images, record=self.record)


class _Track:
    """Buffers of fixed shape for images of one size, and the batch that runs over them again and again."""

    def __init__(self, owner: DeviceEvaluator, chunk: Chunk) -> None:
        self._owner, self._task, self._control = owner, chunk.task, chunk.control
        grid, device, dtype = owner.grid, owner.device, owner.dtype
        n, c, h, w = chunk.images.shape
        self.source = owner.windows_of((c, h, w), n, occluded=chunk.control == "occlusion")
        self._n_shifts, self._size = grid.n_shifts, owner.size
        room = -(-self.source.most * self._n_shifts // self._size) * self._size
        whole: dict[str, Any] = {"dtype": torch.int64, "device": device}
        self._state = each_of(
            chunk.state, lambda v: torch.zeros(self.source.most, *v.shape[1:], dtype=v.dtype, device=device)
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
        self._moved = torch.from_numpy(owner.shifts()).to(device) if self._task.needs_shifts else None
        self._nx = grid.shape[1]
        self.next = Replayed(self._batch, "batches", record=owner.record)

    def launch(self, first: int, chunk: Chunk, wanted: Mask) -> tuple[Places, Callable[[], Outcomes]]:
        """Start on the wanted windows [image, shift] of images that are `first` and following of the whole chunk.

        Returns their places in that, and what waits for their rows.
        """
        image, shift = np.nonzero(wanted)
        for name in self._sums:
            self._found[name].zero_()
        if len(image):
            for values, room in zip(tensors_of(chunk.state), tensors_of(self._state), strict=True):
                send(values, room)
            windows = np.full(-(-len(image) // self._size) * self._size, image[-1] * self._n_shifts + shift[-1])
            windows[: len(image)] = image * self._n_shifts + shift
            send(torch.from_numpy(windows), self._windows)
            self._at.zero_()
            try:
                self.source.hold(self._owner.normalised(chunk.images, chunk.control))
                self._run(len(image))
            except ModelOutputError as error:
                places = error.positions or tuple(range(first, first + len(chunk)))
                raise ModelOutputError(str(error), places) from error
        return (image + first, shift), self._fetched(len(image))

    def _run(self, n_windows: int) -> None:
        n_batches, n_last = divmod(n_windows, self._size)
        if n_last and not self._sums:
            n_batches, n_last = n_batches + 1, 0  # filled up with a window that is there already
        for _ in range(n_batches):
            self.next()
        if n_last:
            self._batch(n_last)

    def _batch(self, n: int | None = None) -> None:
        """The next batch: which windows, what is in them, what the net says, and where that goes."""
        place = self._at + self._lane[:n]
        window = self._windows[place]
        image, shift = window // self._n_shifts, window % self._n_shifts
        inputs = self.source(image, shift // self._nx, shift % self._nx)
        scores = self._owner.expected_scores(self.source.net, *inputs)
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
