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
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.devices import number_format, resolve_device
from shiftlens.engine.direct import prepare_module
from shiftlens.engine.fusing import can_fuse, fuse_relu
from shiftlens.engine.outcomes import Outcomes
from shiftlens.engine.plan import Plan
from shiftlens.engine.window_evaluator import EnginePath, Mask, finite, in_view, refuse_not_finite
from shiftlens.errors import ModelOutputError
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid, canvas
from shiftlens.tasks.classification import CLASSIFICATION

logger = logging.getLogger(__name__)

MAX_NUMBERS = 2**28
"""Most numbers in the canvases that the device holds at once (1 GB in float32)."""
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
        self._tracks: dict[tuple[tuple[int, ...], bool], _Track] = {}

    def begin(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], control: str | None, wanted: Mask
    ) -> Callable[[], Outcomes]:
        """See `WindowEvaluator`."""
        targets = torch.from_numpy(np.array(labels, dtype=np.int64))
        flights = self._launched(self.normalised(images, control), targets, wanted, control == "occlusion")

        def finish() -> Outcomes:
            found = Outcomes.room(len(images), self.grid.n_shifts)
            for flight in flights:
                good, outcomes = flight.landed()
                refuse_not_finite(good, flight.image)
                found.put((flight.image, flight.shift), outcomes)
            if self._tick is not None:
                self._tick(wanted.size)
            return found

        return finish

    def _launched(self, pictures: Tensor, targets: Tensor, wanted: Mask, occluded: bool) -> list[_Flight]:
        """All wanted windows on their way, a few images at a time where their canvases would not fit."""
        while True:
            try:
                with number_format(self.plan.dtype, self.device), torch.no_grad():
                    key = (tuple(pictures.shape[1:]), occluded)
                    if key not in self._tracks:
                        self._tracks[key] = _Track(self, pictures, occluded)
                    track = self._tracks[key]
                    return [
                        track.launch(first, pictures[first : first + track.block], targets, wanted)
                        for first in range(0, len(pictures), track.block)
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
        return finite, Outcomes(prediction=prediction.astype(np.int64), loss=loss, confidence=confidence, margin=margin)


class _Track:
    """Buffers of fixed shape for pictures of one size, and the batch that runs over them again and again."""

    def __init__(self, owner: DeviceEvaluator, pictures: Tensor, occluded: bool) -> None:
        self._owner, self._occluded = owner, occluded
        grid, device, dtype = owner.grid, owner.device, owner.dtype
        n, c, self._h, self._w = pictures.shape
        self._reach = (0, 0) if occluded else owner.reach(self._h, self._w)
        high, wide = self._h + 2 * self._reach[0], self._w + 2 * self._reach[1]
        self.block = max(1, min(n, MAX_NUMBERS // (c * high * wide)))
        self._n_shifts, self._size = grid.n_shifts, owner.size
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
        if occluded:
            self._stays = tuple(
                torch.from_numpy(in_view(shifts, size)).to(device)
                for shifts, size in ((grid.dys, self._h), (grid.dxs, self._w))
            )
            self._empty = torch.tensor(owner.values, dtype=torch.float32, device=device).to(dtype)
        else:
            self._starts = tuple(torch.from_numpy(start).to(device) for start in owner.starts(self._h, self._w))
        self._nx = grid.shape[1]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._fresh = True

    def launch(self, first: int, pictures: Tensor, targets: Tensor, wanted: NDArray[np.bool_]) -> _Flight:
        """Start on the wanted windows [image, shift] of pictures that are `first` and following of the chunk."""
        n = len(pictures)
        image, shift = np.nonzero(wanted[first : first + n])
        if not len(image):
            return _Flight(image, shift, tuple(torch.empty(0, dtype=f.dtype) for f in self._found), None)
        wide = pictures if self._occluded else canvas(pictures, *self._reach, self._owner.fill.rule, self._owner.values)
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
        found = (finite(scores), *CLASSIFICATION.outcome(scores, None, self._targets[image]).values())
        for room, values in zip(self._found, found, strict=True):
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
