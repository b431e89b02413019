"""`features`: every spatial site's map of an empty picture, and its average over many, with what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.arithmetic import Unseen, graph_of, net_of, plan
from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.data.surveying import Progress
from shiftlens.devices import input_dtype, resolve_device, roomy_heap
from shiftlens.errors import InputError
from shiftlens.graph import Graph, Site
from shiftlens.lens.capture import capture, maps_of
from shiftlens.lens.feature_run import Average, FeatureRun, LayerMaps
from shiftlens.lens.feature_store import check_target, save_features
from shiftlens.lens.inputs import EMPTY, batches, rolled, shown
from shiftlens.lens.map_scores import LEAVES, scores_of_average, scores_of_picture
from shiftlens.lens.moments import Moments
from shiftlens.lens.repadding import Repadded
from shiftlens.models.loading import Model, as_model
from shiftlens.models.matching import held_out, on_input_grid
from shiftlens.models.probing import evaluating
from shiftlens.models.zoo import declared_size
from shiftlens.progress_bar import shows_progress
from shiftlens.sweeps.header import software_versions

MAX_PIXELS = 2**17
"""Most pixels in one batch (128 pictures of 32 x 32): larger ones are slower on a CPU, and take more memory."""

_MAPS = ("conv", "transposed conv", "max pool", "average pool", "lp pool", "adaptive pool", "sum", "resize", "unknown")

Control = Literal["rolled", "flipped"]
CONTROLS: tuple[Control, ...] = ("rolled", "flipped")


@shows_progress("looking", "images")
def features(
    model: Model | nn.Module | str | Path,
    picture: str | Path = "zeros",
    *,
    average: ImageSet | str | None = None,
    layers: Sequence[str] | None = None,
    after: bool = True,
    controls: Iterable[str] = CONTROLS,
    size: tuple[int, int] | None = None,
    out: str | Path | None = None,
    batch: int | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> FeatureRun:
    """Look at what every layer of a net makes of a picture without content, and of the average picture.

    An empty picture is the same everywhere, so whatever varies over its maps is the net's own: the marks of its
    padding. The same net with circular padding, which gives the borders nothing to hold on to, is the reference. An
    average over many pictures shows what is there for every picture; two controls take out what is in the pictures:
    `rolled` (each picture moved round by a random distance, so that content is everywhere alike; its seam appears) and
    `flipped` (each picture and its mirror image, so that what is asymmetric left/right is the net's).

    Parameters
    ----------
    model
        A `Model` or a spec; or a net (with `size`, unless it declares one as timm's do; taken to want normalised
        images).
    picture
        `zeros` (0 after normalisation, what the fill `mean` gives), `black`, `noise`, or an image file.
    average
        Images to average over as well: an `ImageSet` or a spec.
    layers
        Names of the sites to keep; all by default.
    after
        Whether maps are taken after each layer's activation.
    controls
        Of the average: `rolled`, `flipped`; each costs one more pass over the images.
    size
        (h, w) in pixels; default what the model declares.
    out
        A Zarr group to write, in place of an older feature run; None writes nothing.
    batch
        Images in one forward pass.
    device
        `auto`, `cpu` or `cuda`.
    seed
        Of noise and rolls.
    progress
        Called with (images done, images in all), every pass counted.

    Returns
    -------
    FeatureRun
        `run["layer1.0.conv1"].maps` is [c, h, w]; `.scores` says how much of it the picture cannot explain.

    Raises
    ------
    InputError
        A net without spatial layers, an unknown layer (suggests), a picture that is none, no images, or a layer that
        does not take the size (named).
    StoreError
        Something else lies at `out`, or the disk refuses.

    Source
    ------
    The maps: arXiv 2010.02178, figures 1 and 2. Reference, controls and scores are this project's own.

    Examples
    --------
    >>> from shiftlens.nn import VGG
    >>> run = features(VGG("vgg6", width=2).eval(), size=(16, 16))
    >>> run.layers[0].name, run.layers[0].maps.shape
    ('0.0', (2, 16, 16))
    """
    if out is not None:
        check_target(out)  # before any work is done
    if isinstance(picture, ImageSet):
        raise InputError(f"picture must be a name or an image file, got {len(picture):,} images; pass them as average=")
    average = None if average is None else as_images(average)
    if isinstance(model, nn.Module):  # any net: it need not be a classifier, as `wrap` asks
        wanted = Model(model, Preprocessing(size=size or declared_size(model)), type(model).__name__)
    else:
        wanted = as_model(model, average, device=device)
    module, asked, target = net_of(wanted), _controls(controls), resolve_device(device)
    if average is not None:
        average = held_out(wanted, average)
        average, size = on_input_grid(_sized(wanted, size), average)
    x, is_empty = shown(_sized(wanted, size), str(picture), seed), str(picture) in EMPTY
    with Unseen(module) as unseen:
        graph = graph_of(wanted, (int(x.shape[2]), int(x.shape[3])))
    sites = _chosen(graph, layers)
    module.to(target)
    x = x.to(target, input_dtype(module))
    maps = _maps_of_one(module, sites, x, after)
    sites = tuple(site for site in sites if site.name in maps)
    with Repadded(module, "circular"):
        references = _maps_of_one(module, sites, x, after)
    tolerance = max(LEAVES, 16 * torch.finfo(input_dtype(module)).eps)
    found, jumps = [], _pixels_a_cell(graph)
    for site in sites:
        values, jump = maps[site.name], jumps[site.index]
        scores = scores_of_picture(values, references[site.name], jump, is_empty=is_empty, tolerance=tolerance)
        layer = LayerMaps(site.path, site.call, site.kind, site.index, site.activation, values, scores)
        found.append(replace(layer, in_channels=site.in_channels))
    if average is not None:
        runs = _averages(wanted, sites, average, asked, after, batch, target, seed, progress)
        found = [replace(layer, average=runs[layer.index]) for layer in found]
    notes = (*graph.notes, *unseen.sentences())
    if tolerance > LEAVES:
        notes += (f"weights are {input_dtype(module)}: borders are seen from {100 * tolerance:.1f} % on",)
    run = FeatureRun(
        model=wanted.name,
        model_digest=wanted.digest,
        input=str(picture),
        is_empty=is_empty,
        size=graph.size,
        after=after,
        layers=tuple(found),
        data=None if average is None else average.name,
        data_digest=None if average is None else average.digest,
        n_images=0 if average is None else len(average),
        seed=seed,
        notes=notes,
        software=software_versions(),
        model_options=dict(wanted.options),
        data_options={} if average is None else dict(average.options),
    )
    return run if out is None else save_features(run, out)


def _sized(model: Model, size: tuple[int, int] | None) -> Model:
    return model if size is None else replace(model, preprocessing=model.preprocessing.overridden(size=size))


def _controls(names: Iterable[str]) -> tuple[Control, ...]:
    asked = tuple(names)
    unknown = [name for name in asked if name not in CONTROLS]
    if unknown:
        raise InputError(f"unknown control {unknown[0]!r}; expected {' or '.join(CONTROLS)}")
    return tuple(name for name in CONTROLS if name in asked)


def _chosen(graph: Graph, layers: Sequence[str] | None) -> tuple[Site, ...]:
    sites = tuple(site for site in graph.of_kind(*_MAPS) if max(site.out_size) > 1)
    if not sites:
        raise InputError(f"{graph.name} has no spatial layers (convolutions or pools) that can be seen")
    if layers is None:
        return sites
    wanted = {graph.find(name).index for name in layers}
    picked = tuple(site for site in graph if site.index in wanted)
    flat = next((site for site in picked if max(site.out_size) == 1), None)
    if flat is not None:
        raise InputError(f"the map of {flat.name} is one cell at {graph.size[0]}x{graph.size[1]}: nothing to look at")
    return picked


def _pixels_a_cell(graph: Graph) -> list[float]:
    """For each site, pixels of the picture from cell to cell."""
    try:
        plans = [plan(graph, axis, graph.size[axis]) for axis in (0, 1)]
    except ValueError:
        plans = []
    jumps = []
    for site in graph:
        steps = [step for step in (steps[site.index] for steps in plans) if step is not None and step.followed]
        ratios = (n / out for n, out in zip(graph.size, site.out_size, strict=True))
        jumps.append(max((float(step.jump) for step in steps), default=max(ratios)))
    return jumps


def _maps_of_one(
    module: nn.Module, sites: tuple[Site, ...], x: Tensor, after: bool
) -> dict[str, NDArray[np.floating[Any]]]:
    """Maps [c, h, w] of one picture by the site's name; without what a net does with each image by itself."""
    made = {name: m for name, m in maps_of(module, sites, x, after=after).items() if m.ndim == 4}
    return {name: (m if m.dtype == torch.float64 else m.float())[0].cpu().numpy() for name, m in made.items()}


def _averages(
    model: Model,
    sites: tuple[Site, ...],
    images: ImageSet,
    controls: tuple[Control, ...],
    after: bool,
    batch: int | None,
    device: torch.device,
    seed: int,
    progress: Progress | None,
) -> dict[int, Average]:
    module, passes = net_of(model), (None, *controls)
    moments = {(which, site.index): Moments() for which in passes for site in sites}
    total, done = len(passes) * len(images), 0
    rolls = torch.Generator().manual_seed(seed)
    # Every map of every batch is a large block, asked for and freed again.
    with torch.no_grad(), evaluating(module), roomy_heap(device):
        for some in batches(model, images, MAX_PIXELS, device, batch):
            # Convolutions on a CPU are faster on this layout; the numbers are the same.
            x = some.contiguous(memory_format=torch.channels_last)
            for which in passes:

                def add(site: Site, values: Tensor, which: Control | None = which) -> None:
                    moments[which, site.index].update(values)

                with capture(module, sites, add, after=after):
                    module(_changed(x, which, rolls))
                done += len(x)
                if progress is not None:
                    progress(done, total)
    return {site.index: _average({which: moments[which, site.index] for which in passes}) for site in sites}


def _average(of: dict[Control | None, Moments]) -> Average:
    plain, rolled, mirrored = of[None], of.get("rolled"), of.get("flipped")
    mean, rolled_mean = plain.mean, None if rolled is None else rolled.mean
    # Each picture and its mirror image: half of either.
    flipped = None if mirrored is None else (mean + mirrored.mean) / 2
    scores = scores_of_average(mean, (rolled or plain).variance, plain.n, rolled_mean, flipped)
    return Average(plain.n, mean, plain.variance, rolled_mean, flipped, scores)


def _changed(x: Tensor, control: Control | None, rolls: torch.Generator) -> Tensor:
    if control is None:
        return x
    if control == "flipped":
        return x.flip(3)
    return rolled(x, rolls)
