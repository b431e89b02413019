"""Counterfactuals: tiled outputs in which one cause after another is taken away, image by image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph.sites import GlobalLayer, OpKey
from shiftlens.naming import one_line
from shiftlens.tiles.placing import WholeSizes
from shiftlens.tiles.replaying import GLOBAL, Call, Recording, Replay
from shiftlens.tiles.tile_layout import tile_spans
from shiftlens.tiles.tile_passes import FloatArray, Profile, Whole, tiled
from shiftlens.tiles.tile_windows import Span, Window, aligned, grown, plain_spans, windows_of

MOST_LAYERS = 24
"""Global layers that are frozen one by one; more of them are frozen some at a time."""

ROUNDING = 1e-5
"""Share of the output's range below which a difference is rounding in float32."""


@dataclass(frozen=True)
class Tiling:
    """How images of one size are tiled, and what the net's geometry asks for.

    Attributes
    ----------
    size
        (h, w) of the image.
    tile, stride
        Pixels along each side of a plain tile, and from tile to tile.
    grid
        Total stride along y and x, in pixels.
    reach
        Real context in pixels that makes a core exact as far as local layers go, a multiple of the grid.
    circular
        Along y and x, whether the net pads circularly.
    """

    size: tuple[int, int]
    tile: int
    stride: int
    grid: tuple[int, int]
    reach: tuple[int, int]
    circular: tuple[bool, bool] = (False, False)

    def _spans(self, *, on_grid: bool, overlap: tuple[int, int]) -> list[list[Span]]:
        made = []
        for axis, n in enumerate(self.size):
            spans = plain_spans(n, self.tile, self.stride)
            spans = aligned(spans, n, self.grid[axis]) if on_grid else spans
            made.append(grown(spans, n, overlap[axis], circular=self.circular[axis]))
        return made

    def windows(self, *, on_grid: bool = False, overlap: tuple[int, int] = (0, 0)) -> list[Window]:
        """The plain tiles, or those of them that are aligned to the grid, with some context."""
        return windows_of(*self._spans(on_grid=on_grid, overlap=overlap))

    def within(self, overlap: int) -> list[Window]:
        """Tiles that hold their overlap: windows of at most `tile` pixels."""
        made = []
        for n, grid, circular in zip(self.size, self.grid, self.circular, strict=True):
            spans = tile_spans(n, self.tile // grid * grid, overlap, grid, circular=circular)
            made.append(spans)
        return windows_of(*made)


@dataclass(frozen=True)
class Step:
    """One counterfactual: what it takes away, from which layers, and which windows and frozen calls it has."""

    cause: str
    layers: tuple[str, ...]
    on_grid: bool
    has_context: bool
    frozen: frozenset[OpKey] = frozenset()
    mirrored: bool = False


def plan_steps(tiling: Tiling, calls: Sequence[Call]) -> tuple[list[Step], list[Step]]:
    """The steps in their fixed order, each keeping the earlier ones; and those that are made alone."""
    plain, on_grid = tiling.windows(), tiling.windows(on_grid=True)
    reaching = tiling.windows(on_grid=True, overlap=tiling.reach)
    cut = len(plain) > 1
    steps, alone = [Step("", (), on_grid=False, has_context=False)], []
    if not cut:
        return steps, []
    if plain != on_grid:
        steps.append(Step("grid", (), on_grid=True, has_context=False))
        alone.append(steps[-1])
    if reaching != on_grid:
        steps.append(Step("context", (), on_grid=True, has_context=True))
        alone.append(Step("context", (), on_grid=False, has_context=True))
    frozen: frozenset[OpKey] = frozenset()
    for cause, some in _in_order(calls):
        keys = frozenset(call.key for call in some)
        frozen |= keys
        # Of a pool and the resize of its cells, the pool is to blame.
        named = [call for call in some if cause == "resize" or not isinstance(call.kept, WholeSizes)]
        paths = tuple(dict.fromkeys(call.path for call in named or some))
        steps.append(Step(cause, paths, on_grid=True, has_context=True, frozen=frozen))
    for cause in ("resize", *GLOBAL):
        keys = frozenset(call.key for call in calls if call.cause == cause)
        if keys:
            alone.append(Step(cause, (), on_grid=False, has_context=False, frozen=keys))
    alone.append(Step("mirrored edge", (), on_grid=False, has_context=False, mirrored=True))
    return steps, alone


def _in_order(calls: Sequence[Call]) -> list[tuple[str, list[Call]]]:
    """All resizing at once, then the global layers in depth order, few enough at a time, each of one cause."""
    resizes = [call for call in calls if call.cause == "resize"]
    made: list[tuple[str, list[Call]]] = [("resize", resizes)] if resizes else []
    rest = [call for call in calls if call.cause in GLOBAL]
    most = -(-len(rest) // MOST_LAYERS)
    for call in rest:
        last = made[-1] if made else None
        # The products of one attention, and a pool and the resize of its cells, only fit each other when they are
        # frozen together.
        one_attention = last is not None and call.cause == "attention" and last[1][-1].key.path == call.key.path
        joined = one_attention or isinstance(call.kept, WholeSizes)
        if last is not None and last[0] == call.cause and (joined or len(last[1]) < most):
            last[1].append(call)
        else:
            made.append((call.cause, [call]))
    return made


class Runner:
    """Runs a net on whole images and on their tiles.

    Parameters
    ----------
    module
        The net, in evaluation mode.
    net
        From a normalised image to its map; uses the module.
    tiling
        How images are tiled.
    layers
        The net's global layers, by function call.
    pooled
        As `Recording` takes it.
    """

    def __init__(
        self,
        module: nn.Module,
        net: Callable[[Tensor], Tensor],
        tiling: Tiling,
        layers: Mapping[OpKey, GlobalLayer],
        pooled: Collection[OpKey] = (),
    ) -> None:
        self.module, self.net, self.tiling, self._layers, self._pooled = module, net, tiling, layers, pooled

    def whole(self, image: Tensor) -> tuple[Whole, dict[OpKey, Call]]:
        """The truth, and what global layers computed for it."""
        with Recording(self.module, self._layers, self._pooled) as seen:
            output = self.net(image)
        return Whole(image, output), seen.calls

    def stitched(
        self,
        whole: Whole,
        calls: dict[OpKey, Call],
        windows: Sequence[Window],
        frozen: Collection[OpKey] = (),
        profile: Profile | None = None,
        mirrored: int = 0,
    ) -> Tensor:
        """The tiled output, some calls frozen to what they computed on the whole image."""
        if not frozen:
            return tiled(lambda part, _: self._called(part), whole, windows, profile, mirrored)
        with Replay(self.module, calls, whole.size, frozen) as replay:

            def run(part: Tensor, window: Window) -> Tensor:
                replay.window = window
                return self._called(part)

            return tiled(run, whole, windows, profile, mirrored)

    def _called(self, part: Tensor) -> Tensor:
        try:
            return self.net(part)
        except (InputError, ModelOutputError, RuntimeError, ValueError) as error:
            h, w = part.shape[2:]
            y, x = self.tiling.grid
            raise InputError(
                f"the net does not take a tile of {h}x{w} px ({one_line(error)}): give sides that are multiples of "
                f"{y if y == x else f'{y} and {x}'} px"
            ) from error

    def of_step(self, whole: Whole, calls: dict[OpKey, Call], step: Step, profile: Profile | None = None) -> Tensor:
        """The tiled output of a step."""
        reach, grid = self.tiling.reach, max(self.tiling.grid)
        windows = self.tiling.windows(on_grid=step.on_grid, overlap=reach if step.has_context else (0, 0))
        mirrored = min(max(reach), (self.tiling.tile - 1) // grid * grid) if step.mirrored else 0
        return self.stitched(whole, calls, windows, step.frozen, profile, mirrored)


def difference(made: Tensor, whole: Whole) -> tuple[float, FloatArray]:
    """Mean |difference|, 0 where none is beyond rounding; and its mean over channels [h', w']."""
    off = (made - whole.output).abs()
    map_ = off.mean(1)[0].double().cpu().numpy()
    if float(off.max()) <= ROUNDING * max(whole.span, 1e-30):
        return 0.0, np.zeros_like(map_)
    return float(map_.mean()), map_


def off_at_phase(runner: Runner, whole: Whole, phase: int) -> float:
    """Mean |difference| over tiles whose origins are at `phase` modulo the grid, in both axes; NaN where none fits."""
    tiling, (h, w), (h_out, w_out) = runner.tiling, whole.size, whole.output.shape[2:]
    spans = []
    for grid, n in zip(tiling.grid, tiling.size, strict=True):
        first = tiling.tile // grid * grid - (-phase) % grid
        origins = range(first, n - tiling.tile + 1, tiling.tile)
        spans.append([Span(o, o + tiling.tile, o, o + tiling.tile) for o in origins if o > 0])
    values = []
    for window in windows_of(*spans):
        made = runner.stitched(whole, {}, [window])
        rows = slice(round(window.y.core_lo * h_out / h), round(window.y.core_hi * h_out / h))
        columns = slice(round(window.x.core_lo * w_out / w), round(window.x.core_hi * w_out / w))
        values.append(float((made - whole.output)[:, :, rows, columns].abs().mean()))
    return float(np.mean(values)) if values else float("nan")
