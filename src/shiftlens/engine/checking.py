"""Is a way of computing right for this model? Every candidate is compared with the untouched module.

The reference is a copy of the module as it is, in evaluation mode, that evaluates one window at a time. A candidate
(number format, memory layout, folding, compilation, batch size, computation shared across shifts) is taken only if it
gives the same logits for the same windows. The windows come from several images, from noise and from a gradient, so
that a black or constant image hides nothing, and their shifts meet different phases of the net's strides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from shiftlens.devices import machine_kind, number_format, tensors_of
from shiftlens.engine.direct import prepare_module, prepare_nets
from shiftlens.engine.logit_distance import TOLERANCE, TOLERANCES, disagreement, distance, kept
from shiftlens.engine.passes import SharedPath, shared_path
from shiftlens.engine.plan import Plan
from shiftlens.engine.trial_windows import ROUNDING, most_windows, nudged, nudges, spread_shifts, varied_images
from shiftlens.engine.window_evaluator import raw_scores
from shiftlens.engine.workers import Net
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.adapting import TaskModel
from shiftlens.models.wrapping import Model
from shiftlens.naming import one_line
from shiftlens.shifts import Fill, ShiftGrid, translate

MOST_ROUNDING = 1e-3
"""A net that such a change moves by more is not called a victim of rounding."""
WINDOWS = 24
"""Windows that a candidate is checked on, where the reference computes them in time."""
FEWEST = 6
"""That it is checked on in any case."""
SECONDS = 0.4
"""For the reference, and for computation that is shared; a slow net is checked on fewer windows."""
SECONDS_FULL = 2.0
"""For a candidate on full batches; a net that takes longer is checked on smaller ones."""


class Check:
    """The reference logits of a model on some windows, and what is compared with them.

    Parameters
    ----------
    model, grid, fill
        What is swept.
    images
        Some of the images, uint8 [n, c, h, w] on the model's input grid; n >= 1.
    dtype
        Of the reference: `float64` where that was asked for, else `float32`.
    device, batch_size
        Where to compute; windows in a forward pass that the user asked for, None for any.
    clock
        Seconds from any moment on.

    Raises
    ------
    InputError
        The module's answer for an image depends on the other images of its batch, changes from call to call, or is
        another on an Apple GPU than on the CPU.
    ModelOutputError
        The module raised on a window.
    """

    def __init__(
        self,
        model: Model,
        images: NDArray[np.uint8],
        grid: ShiftGrid,
        fill: Fill,
        *,
        dtype: str = "float32",
        device: torch.device | None = None,
        batch_size: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._grid, self._fill, self._clock = model, grid, fill, clock
        device = device or torch.device("cpu")
        self._device = tensors_of(device)
        self._twins: dict[Plan, str] = {}
        h, w = images.shape[2:]
        self.plain = Plan(
            engine="direct",
            dtype="float64" if dtype == "float64" else "float32",
            batch_size=batch_size or min(64, most_windows(model, h, w)),
            channels_last=False,
            fold_batch_norm=False,
            compiled=False,
            device=str(device),
            machine=machine_kind(device),
        )
        """The untouched module on batches, every window by itself."""
        # An odd multiple of the step, so that the shifts meet every phase of strides that are powers of two.
        self._coarse = ShiftGrid(
            (grid.max_y, grid.max_x), grid.step * (max(grid.max_y, grid.max_x) // (8 * grid.step) | 1)
        )
        self._pictures = model.preprocessing.normalise(torch.from_numpy(varied_images(images))).to(self._device)
        self._values = fill.normalised(model.preprocessing.mean, model.preprocessing.std) if fill.is_constant else fill
        self._places = self._spread()
        self._copies = 1
        self._compared = model.compared if isinstance(model, TaskModel) else None
        self._exact = self._reference()
        self._tolerance = TOLERANCE
        if len(self._exact):
            self._refuse_unsteady()
            self._refuse_other_device()

    def why_not(self, plan: Plan) -> str:
        """Why a candidate may not be used, in one line; "" where it gives the reference's logits."""
        if not len(self._exact):
            return "" if plan == self.plain else "the module alone gives no finite logits to compare with"
        twin = replace(plan, dtype="float32") if plan.dtype in TOLERANCES else plan
        if twin not in self._twins:
            self._twins[twin] = self._difference(twin, self._tolerance)
        why = self._twins[twin]
        if why or twin == plan:
            return why
        return self._difference(plan, TOLERANCES[plan.dtype])

    def why_not_on_grid(self, evaluator: SharedPath, plan: Plan) -> str:
        """The same for computation shared across the shifts of the very grid that is swept, on noise alone."""
        shift = spread_shifts(self._grid, self._size, len(self._places))
        net = self._net()
        exact = torch.cat([self._alone(net, self._window(0, *self._at(self._grid, place))) for place in shift])
        try:
            found = kept(evaluator.scores_under(self._pictures[0], shift))
        except Exception as error:  # what this path meets in a net of a kind never seen must not end the sweep
            return f"it raises {type(error).__name__}: {one_line(error)}"
        return disagreement(plan.dtype, exact, found, TOLERANCES.get(plan.dtype, self._tolerance))

    @property
    def _size(self) -> tuple[int, int]:
        return int(self._pictures.shape[-2]), int(self._pictures.shape[-1])

    def _spread(self) -> list[tuple[int, int]]:
        """(picture, place in the coarse grid) of every window: all rows and columns in turn, in no order."""
        n = len(self._pictures)
        inside = [
            np.flatnonzero(np.abs(s) < size)
            for s, size in zip((self._coarse.dys, self._coarse.dxs), self._size, strict=True)
        ]
        draw = np.random.default_rng(0)
        rows, columns = (draw.permutation(places) for places in inside)
        middle = int(self._coarse.n_shifts // 2)
        shifted = [
            int(rows[k % len(rows)]) * self._coarse.shape[1] + int(columns[k % len(columns)]) for k in range(WINDOWS)
        ]
        return [(k % n, middle if k == 1 else place) for k, place in enumerate(shifted)]

    @staticmethod
    def _at(grid: ShiftGrid, place: int) -> tuple[int, int]:
        iy, ix = divmod(int(place), grid.shape[1])
        return int(grid.dys[iy]), int(grid.dxs[ix])

    def _window(self, picture: int, dy: int, dx: int) -> Tensor:
        """One window [1, c, h, w], by the plain definition of a shift."""
        window = translate(self._pictures[picture], dx, dy, self._values)
        return window[None].to(getattr(torch, self.plain.dtype)).contiguous()

    def _net(self) -> Net:
        """A fresh copy of the untouched module; a bare callable as it is."""
        return (
            prepare_module(self._model, self.plain.as_reference())
            if isinstance(self._model.module, nn.Module)
            else self._model.module
        )

    def _windows(self) -> Tensor:
        return torch.cat([self._window_at(place) for place in self._places])

    def _reference(self) -> Float[Tensor, "n k"]:
        """Logits of each window by itself, as many as there is time for; `_places` are then those that have any.

        A window on which the module raises, or gives numbers that are not finite, is left out: the images at hand may
        have none like it. Where it raises on all, that is an error. Of outputs that come in an order, windows in which
        rounding decides it are left out too.
        """
        begin = self._clock()
        net = self._net()
        found: list[Tensor] = []
        places: list[tuple[int, int]] = []
        failure: ModelOutputError | None = None
        for n_tried, place in enumerate(self._places):
            if n_tried >= FEWEST and self._clock() - begin > SECONDS:
                break
            try:
                scores = self._alone(net, self._window_at(place))
            except ModelOutputError as error:
                failure = failure or error
                continue
            fits = torch.isfinite(scores).all() and (not found or scores.shape == found[0].shape)
            if fits and self._holds_still(net, place, scores):
                found.append(scores)
                places.append(place)
        if failure is not None and not found:
            raise failure
        self._places = places
        self._seconds_each = (self._clock() - begin) / max(1, len(found))
        return torch.cat(found) if found else torch.empty(0, 2)

    def _window_at(self, place: tuple[int, int]) -> Tensor:
        """The window [1, c, h, w] of a picture at a place in the coarse grid."""
        return self._window(place[0], *self._at(self._coarse, place[1]))

    def _alone(self, net: Net, window: Tensor) -> Float[Tensor, "1 k"]:
        """Logits of one window by itself; beside its own copy for a net that takes no batch of one."""
        with number_format("float32", self._device):
            try:
                return self._forward(net, window.expand(self._copies, -1, -1, -1).contiguous())[:1]
            except ModelOutputError:
                if self._copies > 1:
                    raise
                scores = self._forward(net, torch.cat([window, window]))[:1]
                self._copies = 2
                return scores

    def _forward(self, net: Net, batch: Tensor) -> Tensor:
        scores = raw_scores(net, batch)
        if len(scores) != len(batch):
            raise ModelOutputError(f"the model gave {len(scores)} rows of logits for a batch of {len(batch)}")
        return kept(scores if self._compared is None else self._compared(scores))

    def _refuse_unsteady(self) -> None:
        """Alone against in a batch, in another order and with other neighbours, by another copy of the module."""
        plain = self.plain.as_reference()
        why = self._difference(plain, TOLERANCE)
        if not why:
            return
        # Only now: a copy that starts afresh and meets the windows from the last to the first.
        net = self._net()
        again = torch.cat([self._alone(net, self._window_at(place)) for place in reversed(self._places)]).flip(0)
        # And the first window once more by the same copy: a result that was remembered, or every other call.
        once_more = [self._alone(net, self._window_at(self._places[0])) for _ in range(2)]
        unsteady = max(distance(self._exact, again), *(distance(self._exact[:1], found) for found in once_more))
        if not unsteady <= TOLERANCE:
            raise InputError(
                f"{self._model.name} gives other logits for the same image when it is asked again (they differ by "
                f"{unsteady:.2g} of the largest): it is random or changes while it is used, so a sweep would not be "
                "reproducible; make forward a function of its input alone"
            )
        rounding = self._moved_by_rounding()
        if rounding <= MOST_ROUNDING:
            self._tolerance = max(TOLERANCE, 10 * rounding)
            why = self._difference(plain, self._tolerance)
            if not why:
                return
        raise InputError(
            f"the answer of {self._model.name} for an image depends on the other images of its batch ({why}): batch "
            "norm in training mode or without running statistics, normalisation over the batch and dynamic "
            "quantisation do this; make it independent of the batch, or evaluate every window by itself "
            "(--batch-size 1, batch_size=1)"
        )

    def _refuse_other_device(self) -> None:
        """Apple's GPU against the CPU."""
        if self.plain == self.plain.as_reference():
            return
        if why := self._difference(self.plain, self._tolerance):
            raise InputError(
                f"{self._model.name} gives other logits on {self.plain.device} than on the CPU ({why}): "
                "take --device cpu"
            )

    def _moved_by_rounding(self) -> float:
        """How far a change of the input as small as rounding moves the logits."""
        net = self._net()
        noise = torch.Generator().manual_seed(0)
        found = [self._nudged(net, place, noise) for place in self._places[:FEWEST]]
        return distance(self._exact[: len(found)], torch.cat(found))

    def _holds_still(self, net: Net, place: tuple[int, int], scores: Tensor) -> bool:
        """Whether the order of a window's outputs is not decided by rounding; True where they have none."""
        if self._compared is None:
            return True
        window = self._window_at(place)
        return all(distance(scores, self._alone(net, each)) <= TOLERANCE for each in nudges(window))

    def _nudged(self, net: Net, place: tuple[int, int], noise: torch.Generator) -> Tensor:
        """Logits of a window whose pixels are changed as little as rounding does."""
        window = self._window_at(place)
        return self._alone(net, nudged(window, noise, ROUNDING))

    def _difference(self, plan: Plan, tolerance: float) -> str:
        try:
            found, which = self.logits(plan)
            return disagreement(plan.dtype, self._exact[which], found, tolerance)
        except ModelOutputError as error:
            return str(error)
        except TraceError:
            return "torch cannot trace a net whose forward branches or loops on its input"
        except Exception as error:  # a candidate may fail in any way: another one is taken then
            return f"it raises {type(error).__name__}: {one_line(error)}"

    def why_not_by(self, evaluate: Callable[[Tensor], Tensor], plan: Plan) -> str:
        """The same for what evaluates a batch of windows in a way of its own, on one batch of the plan's size."""
        which = torch.arange(plan.batch_size) % max(1, len(self._exact))
        if not len(self._exact):
            return "the module alone gives no finite logits to compare with"
        try:
            found = kept(evaluate(self._windows()[which]))
        except Exception as error:  # see `_difference`
            return f"it raises {type(error).__name__}: {one_line(error)}"
        return disagreement(plan.dtype, self._exact[which], found, TOLERANCES.get(plan.dtype, self._tolerance))

    def logits(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """What a candidate gives [n, k], and for which of the windows [n]; raises what the candidate raises."""
        return self._shared(plan) if plan.engine == "dedup" else self._batched(plan)

    def _batched(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """Logits in batches of the plan's size, one for each worker at least, in another order; and of which windows.

        Where full batches would take too long, the windows that there are, divided among the workers.
        """
        workers = prepare_nets(self._model, plan)
        windows = self._windows()
        size = plan.batch_size
        if not plan.compiled and size * workers.n * self._seconds_each > SECONDS_FULL:
            size = min(size, max(2, -(-len(windows) // workers.n)))
        n = size * max(workers.n, -(-len(windows) // size))
        orders = [np.random.default_rng(k).permutation(len(windows)) for k in range(-(-n // len(windows)))]
        which = torch.from_numpy(np.concatenate(orders)[:n])
        layout = torch.channels_last if plan.channels_last else torch.contiguous_format
        batches = [
            windows[part].to(getattr(torch, plan.dtype)).contiguous(memory_format=layout)
            for part in torch.split(which, size)
        ]
        return torch.cat(list(workers.map(self._forward, batches))), which

    def _shared(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """Logits with the computation shared across shifts, of as many pictures as there is time for; and of which."""
        begin = self._clock()
        evaluator = shared_path(self._model, plan, self._coarse, self._fill)
        pictures = np.array([picture for picture, _ in self._places])
        found: list[Tensor] = []
        which: list[NDArray[np.int64]] = []
        for picture in np.unique(pictures):
            if found and self._clock() - begin > SECONDS:
                break
            which.append(np.flatnonzero(pictures == picture))
            shift = np.array([self._places[k][1] for k in which[-1]])
            found.append(kept(evaluator.scores_under(self._pictures[picture], shift)))
        return torch.cat(found), torch.from_numpy(np.concatenate(which))
