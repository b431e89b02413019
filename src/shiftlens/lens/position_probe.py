"""Position probe: how well a linear read-out of a layer's maps tells where in the image it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from shiftlens.arithmetic import graph_of, net_of
from shiftlens.data.images import ImageSet
from shiftlens.data.surveying import Progress
from shiftlens.devices import resolve_device
from shiftlens.errors import InputError
from shiftlens.graph import Graph, Site
from shiftlens.lens.capture import capture
from shiftlens.lens.inputs import batches, rolled
from shiftlens.models.loading import Model, model_and_images
from shiftlens.models.matching import on_input_grid
from shiftlens.models.probing import evaluating
from shiftlens.naming import Printed, aligned
from shiftlens.progress_bar import shows_progress
from shiftlens.stats import Estimate, mean_estimate

N_CELLS = 64
"""Cells that are taken from each map of each image."""

N_FOLDS = 5
RIDGE = 1.0
"""Penalty on standardised channels: against channels that are constant or copies of each other, no more."""

MAX_PIXELS = 2**17


@dataclass(frozen=True)
class LayerPosition:
    """How well one layer's channels tell the position of their cell.

    Attributes
    ----------
    layer
        Its name.
    shape
        (channels, height, width) of its maps.
    r2
        Share of the variance of (y, x) that the read-out explains on images it was not fitted on: 0 is nothing, 1 all,
        below 0 worse than the mean. 95 % interval over images, for this net.
    """

    layer: str
    shape: tuple[int, int, int]
    r2: Estimate


@dataclass(frozen=True, repr=False)
class PositionProbe(Printed):
    """What every layer of a net tells of position, in call order; `mean` is over layers."""

    model: str
    data: str
    n_images: int
    layers: tuple[LayerPosition, ...]

    @property
    def mean(self) -> float:
        """Mean R² over layers."""
        return float(np.mean([each.r2.value for each in self.layers]))

    def __getitem__(self, name: str) -> LayerPosition:
        found = next((each for each in self.layers if each.layer == name), None)
        if found is None:
            raise KeyError(f"no layer {name!r}; expected one of {', '.join(each.layer for each in self.layers)}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        rows = [
            {
                "layer": each.layer,
                "shape": list(each.shape),
                "r2": each.r2.value,
                "r2_interval": [each.r2.lo, each.r2.hi],
            }
            for each in self.layers
        ]
        return {"model": self.model, "data": self.data, "n_images": self.n_images, "layers": rows}

    def lines(self) -> list[str]:
        """The same for people."""
        rows = [
            (each.layer, " x ".join(map(str, each.shape)), f"{each.r2.value:.3f} [{each.r2.lo:.3f}, {each.r2.hi:.3f}]")
            for each in self.layers
        ]
        about = f"position probe of {self.model} on {self.n_images:,} rolled images of {self.data}"
        return [f"{about}: mean R2 {self.mean:.3f}", *aligned([("layer", "shape", "R2, 95 % over images"), *rows])]


@shows_progress("probing", "images")
def position_probe(
    model: Model | nn.Module | str | Path,
    images: ImageSet | str,
    *,
    layers: Sequence[str] | None = None,
    n_cells: int = N_CELLS,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> PositionProbe:
    """Measure how well each layer's channels tell, linearly, where in the image their cell lies.

    Every image is rolled by a random distance, so that content is everywhere alike: a net that commutes with rolls
    (circular padding, no uneven strides) has nothing to tell position by. Of each map some cells are drawn; ridge
    regression predicts a cell's (y, x) from its channels, fitted on four fifths of the images and judged on the rest,
    in turn. Compare with the same net before training, and with other padding.

    Parameters
    ----------
    model, images
        At least 10 images; a few hundred are enough.
    layers
        Names of layers; all convolutions whose maps are larger than one cell by default.
    n_cells
        Cells drawn from each map of each image, at most; at least 1.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Of rolls and cells.
    progress
        Called with (images done, images in all).

    Raises
    ------
    InputError
        Fewer than 10 images, no such layer, or a net without convolutions larger than one cell.

    Source
    ------
    The question is that of arXiv 2001.08248 and 2101.12322; rolls, ridge and cells are this project's own.

    Examples
    --------
    >>> from shiftlens.nn import VGG
    >>> import shiftlens as sl
    >>> net = sl.wrap(VGG("vgg6", width=2, size=16).eval(), mean=0.1, std=0.3, size=16)
    >>> probe = position_probe(net, sl.load_images("digits", limit=10))
    >>> len(probe.layers)
    6
    """
    model, images = model_and_images(model, images, device=device)
    if len(images) < 2 * N_FOLDS:
        raise InputError(f"a position probe needs at least {2 * N_FOLDS} images, got {len(images)}")
    if n_cells < 1:
        raise InputError(f"n_cells must be at least 1, got {n_cells}")
    images, size = on_input_grid(model, images)
    sites = _sites(graph_of(model, size), layers)
    module, target = net_of(model), resolve_device(device)
    module.to(target)
    rng, rolls = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    seen: dict[int, list[NDArray[np.float32]]] = {site.index: [] for site in sites}
    drawn: dict[int, list[NDArray[np.int64]]] = {site.index: [] for site in sites}

    def keep(site: Site, maps: Tensor) -> None:
        n, c, h, w = maps.shape
        k = min(n_cells, h * w)
        cells = rng.random((n, h * w)).argsort(1)[:, :k]
        at = torch.as_tensor(cells, device=maps.device)[:, None, :].expand(n, c, k)
        seen[site.index].append(maps.flatten(2).gather(2, at).transpose(1, 2).float().cpu().numpy())
        drawn[site.index].append(cells)

    done = 0
    with torch.no_grad(), evaluating(module):
        for some in batches(model, images, MAX_PIXELS, target):
            with capture(module, sites, keep):
                module(rolled(some, rolls))
            done += len(some)
            if progress is not None:
                progress(done, len(images))
    found = tuple(_layer(site, np.concatenate(seen[site.index]), np.concatenate(drawn[site.index])) for site in sites)
    return PositionProbe(model.name, images.name, len(images), found)


def _sites(graph: Graph, layers: Sequence[str] | None) -> tuple[Site, ...]:
    if layers is None:
        sites = tuple(site for site in graph.of_kind("conv") if max(site.out_size) > 1)
    else:
        wanted = {graph.find(name).index for name in layers}
        sites = tuple(site for site in graph if site.index in wanted and max(site.out_size) > 1)
    if not sites:
        raise InputError(f"{graph.name} has no such layer whose map is larger than one cell: no position to tell")
    return sites


def _layer(site: Site, maps: NDArray[np.float32], cells: NDArray[np.int64]) -> LayerPosition:
    """Maps are (image, cell, channel), cells (image, cell): places in the flattened map."""
    n, k, c = maps.shape
    height, width = site.out_size
    places = np.stack(np.divmod(cells, width), 2).astype(np.float64)
    # Centres of cells from -1 to 1, so that both axes weigh the same.
    places = (2 * places + 1) / (height, width) - 1
    image = np.repeat(np.arange(n), k)
    reader = make_pipeline(StandardScaler(), Ridge(alpha=RIDGE))
    told = cross_val_predict(reader, maps.reshape(-1, c), places.reshape(-1, 2), groups=image, cv=GroupKFold(N_FOLDS))
    wrong = ((told.reshape(places.shape) - places) ** 2).sum((1, 2))
    spread = ((places - places.mean((0, 1))) ** 2).sum((1, 2))
    # R² is a ratio of sums over images: each image's share of it, linearised, gives the interval.
    ratio = wrong.sum() / spread.sum()
    r2 = mean_estimate(1 - ratio - (wrong - ratio * spread) / spread.mean(), "share")
    return LayerPosition(site.name, (c, height, width), r2)
