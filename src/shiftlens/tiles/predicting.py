"""`predict_tiled`: an image's output computed tile by tile, equal to the whole image's to rounding."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.arithmetic import net_of
from shiftlens.data.surveying import Progress
from shiftlens.devices import input_dtype
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph.sites import GlobalLayer, OpKey, Pair
from shiftlens.models.loading import as_model
from shiftlens.models.probing import evaluating
from shiftlens.models.wrapping import Model
from shiftlens.progress_bar import shows_progress
from shiftlens.tasks.outputs import form_of, numbers_of
from shiftlens.tiles.freezing import Freezing, MapStatistics, Place
from shiftlens.tiles.tile_fitting import Fitting, fit_tiles
from shiftlens.tiles.tile_windows import Window
from shiftlens.tiles.windowed_images import Source, Target, WindowedImage, open_output

SAME = 1e-5
"""Two calls with one input may differ by this share of the output's range: sums in another order."""


@shows_progress("predicting", "tiles")
def predict_tiled(
    model: Model | nn.Module | str | Path,
    image: Source,
    *,
    tile: int | Pair = 512,
    out: Target | None = None,
    exact: bool = True,
    quiet: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Compute a net's output for an image that need not fit into memory, equal to that for the whole image at once.

    The net is given windows on its grid with as much real context as its layers read (see `TileGeometry`), and of
    its output the cores are kept. Layers that read the whole map (instance, group and layer norm over space, batch
    norm without running statistics, global and adaptive pooling, squeeze-and-excitation) get the whole image's
    statistics: one pass over the image for each level of such layers, since those of a later level depend on the
    earlier ones, and one for the output. Linear resizes with `align_corners=True`, and resizes of what was pooled
    to a few cells, give the cells at a tile's place; the image's sides must then be multiples of the grid. Passes,
    pixels and cost are said on standard error before anything is computed.

    Parameters
    ----------
    model
        A `Model`, a net, or a spec; it returns a map [n, k, h, w].
    image
        A uint8 image [c, h, w] (tensor, array, memory map, Zarr array, or the path of a Zarr array, a TIFF or another
        image file), of any size that the net takes. It is normalised as the model declares, and not resized.
    tile
        Longest side of a window, pixels, context included; or (h, w). Memory is bounded by it.
    out
        Where the output is written: an array, memory map or Zarr array [k, h, w], or the path of a new one (`.npy` a
        memory map, else Zarr). None: a tensor in memory.
    exact
        Refuse where the tiles would not give the whole image's output. False: predict all the same, as well as
        the overlap and the statistics make it.
    quiet
        Do not say what it will cost.
    progress
        Called with the tiles that are done and how many there are, over all passes.

    Returns
    -------
    Tensor
        [k, h, w] in the net's own resolution and number format (float32 for bfloat16); or what `out` stands for.

    Raises
    ------
    InputError
        A net that is no net of layers, returns no map (a classifier), or gives two outputs for one input; one whose
        tiles cannot be exact (the layer is named); a tile that is too small (the smallest is named) or a size that the
        net does not take.

    Source
    ------
    arXiv 2101.05846: tiles on the grid of all strides.

    Examples
    --------
    >>> import shiftlens as sl
    >>> net = sl.wrap(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)), mean=0, std=1)
    >>> image = torch.randint(0, 256, (1, 100, 70), dtype=torch.uint8)
    >>> whole = net(net.preprocessing.normalise(image[None]))[0]
    >>> bool(torch.allclose(sl.predict_tiled(net, image, tile=32, quiet=True), whole, atol=1e-6))
    True
    """
    model = as_model(model)
    net_of(model)
    source = WindowedImage(image, model.n_channels)
    try:
        return _Prediction(model, source, tile, exact=exact).run(out, quiet=quiet, progress=progress)
    finally:
        source.close()


class _Prediction:
    """One image, its tiles, and the net that is given them."""

    def __init__(self, model: Model, source: WindowedImage, tile: int | Pair, *, exact: bool) -> None:
        self._model, self._source = model, source
        self._module = net_of(model)
        self._dtype = input_dtype(self._module)
        self._fitting: Fitting = fit_tiles(model, source.size, tile)
        geometry = self._fitting.geometry
        self._strides = dict(zip(geometry.global_layers, geometry.layer_strides, strict=True))
        obstacles = self._fitting.obstacles
        if exact and obstacles:
            more = f" (and {len(obstacles) - 1} more)" if len(obstacles) > 1 else ""
            raise InputError(
                f"{model.name}: no tiles give the whole image's output: {obstacles[0]}{more}; exact=False predicts all "
                "the same"
            )

    def run(self, out: Target | None, *, quiet: bool, progress: Progress | None) -> Any:
        """All passes; the output."""
        layout = self._fitting.layout
        layers = self._fitting.global_layers
        resizes, size = self._fitting.resizes, self._source.size
        levels = sorted({layer.level for layer in layers})
        if not quiet:
            print(f"{self._model.name}: {layout}", file=sys.stderr)
        done, total = 0, (len(levels) + 1) * len(layout)
        with torch.no_grad(), evaluating(self._module):
            self._refuse_noise()
            known: dict[OpKey, MapStatistics] = {}
            for level in levels:
                here = [layer for layer in layers if layer.level == level]
                with Freezing(self._module, known, here, self._core, resizes, size) as watched:
                    for window in layout:
                        watched.window = window
                        watched.look(self._pixels(window))
                        done += 1
                        if progress is not None:
                            progress(done, total)
                known |= watched.found
            return self._output(known, out, done, total, progress)

    def _output(
        self, known: dict[OpKey, MapStatistics], out: Target | None, done: int, total: int, progress: Progress | None
    ) -> Any:
        layout, (vertical, horizontal) = self._fitting.layout, self._fitting.geometry.stride
        shape, made = self._fitting.output, None
        frozen = Freezing(self._module, known, resizes=self._fitting.resizes, image=self._source.size)
        with frozen if known or self._fitting.resizes else nullcontext():
            for window in layout:
                frozen.window, row, column = window, window.y, window.x
                y, x = int(row.core_lo / vertical), int(column.core_lo / horizontal)
                if y < shape[1] and x < shape[2]:  # a net that does not pad has no cells for the last pixels
                    part = self._map(self._pixels(window))[0, :, row.cells(vertical), column.cells(horizontal)]
                    if made is None:
                        made = open_output(out, shape, part.dtype, (int(part.shape[1]), int(part.shape[2])))
                    made[:, y : y + part.shape[1], x : x + part.shape[2]] = part.cpu().numpy()
                done += 1
                if progress is not None:
                    progress(done, total)
        return torch.from_numpy(made) if out is None else made

    def _core(self, layer: GlobalLayer, x: Tensor, window: Window) -> tuple[Tensor, Place]:
        """The core of a window in the map that a global layer reads, and its place in the whole map."""
        vertical, horizontal = self._strides[layer]
        start = int(window.y.core_lo / vertical), int(window.x.core_lo / horizontal)
        whole = int(self._source.size[0] / vertical), int(self._source.size[1] / horizontal)
        return x[:, :, window.y.cells(vertical), window.x.cells(horizontal)], (start, whole)

    def _pixels(self, window: Window) -> Tensor:
        return self._normalised(self._source.read((window.y.lo, window.y.hi), (window.x.lo, window.x.hi)))

    def _normalised(self, pixels: Tensor) -> Tensor:
        return self._model.preprocessing.normalise(pixels[None].to(self._model.device)).to(self._dtype)

    def _map(self, x: Tensor) -> Tensor:
        """The net's map [1, k, h, w] of one window."""
        raw = self._module(x)
        try:
            made = numbers_of(raw, form_of(raw, 1))
            return made.float() if made.dtype == torch.bfloat16 else made  # arrays have no such numbers
        except ModelOutputError as error:
            raise InputError(f"{self._model.name}: {error}") from error

    def _refuse_noise(self) -> None:
        """Call the net twice with one small window."""
        layout, generator = self._fitting.layout, torch.Generator().manual_seed(0)
        most = (layout.rows[0].hi - layout.rows[0].lo, layout.columns[0].hi - layout.columns[0].lo)
        sides = layout.grid
        while True:
            sides = min(2 * sides[0], most[0]), min(2 * sides[1], most[1])
            pixels = torch.randint(0, 256, (self._model.n_channels, *sides), generator=generator, dtype=torch.uint8)
            try:
                first, second = (self._map(self._normalised(pixels)) for _ in range(2))
                break
            except Exception:  # too small for a stranger's forward, which may raise anything
                if sides == most:
                    raise
        off, span = (first - second).abs().nan_to_num(0.0).max(), (first.amax() - first.amin()).abs()
        if off > SAME * span:
            raise InputError(
                f"{self._model.name} gives two outputs for one input (they differ by {off:.2g}): tiles of it cannot be "
                "those of one output; is something random at inference, such as dropout?"
            )
