"""`inspect`, `features`, `foveation`, `kernels`, `neurons`: what a net does with its borders, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from shiftlens.models.loading import Model


def inspect(
    shell: Shell,
    model: o.ModelOptions,
    size: o.Size = None,
    uneven: Annotated[bool, typer.Option("--uneven", help="List only the layers that are uneven.")] = False,
) -> o.Answer:
    """Show where padding is used unevenly, which input sizes are even, how far borders reach; needs no weights.

    Columns: cells of padding used left, right, top, bottom (negative: rows or columns of the map are dropped); rows and
    columns left over at the end; how many cells from a border can depend on padding; pixels of the image that a cell
    sees.

    Example: shiftlens inspect --model torchvision:resnet18 --size 224
    """
    from shiftlens import arithmetic

    found = arithmetic.inspect(*_net_and_size(shell, model, size))
    return found.to_dict(), found.lines(only_uneven=uneven)


def _net_and_size(shell: Shell, model: o.ModelOptions, size: str | None) -> tuple[Model, tuple[int, int] | None]:
    """The model for what needs no weights: they are read only where the user names them."""
    from shiftlens.data.preprocessing import Preprocessing
    from shiftlens.devices import resolve_device
    from shiftlens.models.skeletons import load_skeleton

    Preprocessing().overridden(mean=model.mean, std=model.std)  # refuses what is no number
    resolve_device(model.device)
    known = o.size(size, "--size") or o.size(model.input_size, "--input-size")
    if model.weights is not None:
        return _loaded(shell, model), known
    return load_skeleton(model.model, model.code), known


def _loaded(shell: Shell, model: o.ModelOptions) -> Model:
    """Preprocessing plays no part here: nobody is told that the model declares none."""
    return replace(model, mean=model.mean or "0", std=model.std or "1").load(shell)


def features(
    shell: Shell,
    model: o.ModelOptions,
    out: Annotated[Path, typer.Option("--out", help="The result, a Zarr directory such as features.zarr.")],
    input: Annotated[  # noqa: A002
        str, typer.Option("--input", help="zeros, mean (both 0 after normalisation), black, noise, or an image file.")
    ] = "zeros",
    average: Annotated[str | None, typer.Option("--average", help=f"Also average over images: {o.DATA}.")] = None,
    no_controls: Annotated[
        bool, typer.Option("--no-controls", help="Omit the controls of the average (rolled, flipped).")
    ] = False,
    layers: o.Layers = None,
    before: Annotated[bool, typer.Option("--before", help="Take maps before each layer's activation, not after.")] = (
        False
    ),
    pictures: o.Pictures = None,
    format: o.Format = "png",  # noqa: A002
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    split: o.Split = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Show what every layer makes of a blank input, and of the average over many images: border artefacts.

    Example: shiftlens features --model runs/vgg --average cifar10 --out features.zarr --pictures pictures
    """
    from shiftlens.figures import check_format
    from shiftlens.lens import feature_maps as maps
    from shiftlens.lens.feature_store import check_target

    check_format(format)
    check_target(out)
    images = None if average is None else o.images_of(average, data_root, limit, split)
    loaded = model.load(shell, images)
    with shell.progress("looking", "images") as report:
        run = maps.features(
            loaded,
            input,
            average=images,
            layers=o.names(layers),
            after=not before,
            controls=() if no_controls else maps.CONTROLS,
            out=out,
            device=model.device,
            seed=seed,
            progress=report,
        )
    files: list[str] = []
    if pictures is not None:
        from shiftlens.figures.feature_figures import plot_features

        shell.say(f"drawing {count_of(len(run), 'layer')}")
        files = [str(path) for path in plot_features(run, pictures, format=format).files]
    drawn = files if len(files) < 4 else [f"wrote {count_of(len(files), 'figure')} in {Path(files[0]).parent}"]
    used = [] if images is None else [f"average over {o.used(run.n_images, images)}"]
    return run.to_dict() | {"out": str(out), "files": files}, [*run.lines(), *used, *o.wrote(out), *drawn]


def foveation(
    shell: Shell,
    model: o.ModelOptions,
    out: Annotated[Path, typer.Option("--out", help="The counts, float64 [h, w] as a NumPy file.")],
    size: o.Size = None,
    padding: Annotated[
        str | None,
        typer.Option(
            "--padding",
            help="Replace the net's own: zeros, replicate, reflect, symmetric, circular, partial, full or none.",
        ),
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="A:B, the first and the last layer by name.")] = None,
    keep_pools: Annotated[bool, typer.Option("--keep-pools", help="Keep the padding of pools.")] = False,
    picture: o.Picture = None,
) -> o.Answer:
    """Count in how many ways each pixel contributes to the last layer; needs no weights and no images.

    Example: shiftlens foveation --model torchvision:vgg19 --size 512 --padding symmetric --out paths.npy
    """
    import numpy as np

    from shiftlens.errors import InputError
    from shiftlens.figures.drawing import save
    from shiftlens.lens.foveation import foveation as count

    counts = count(*_net_and_size(shell, model, size), padding, layers=layers, pools=not keep_pools)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("wb") as file:
            np.save(file, counts)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    files = [str(out)]
    name = "its own padding" if padding is None else f"{padding} padding"
    if picture is not None:
        from shiftlens.figures.path_figures import foveation_map

        files.append(str(save(foveation_map(counts, f"{model.model} with {name}"), picture)))
    h, w = counts.shape
    middle = float(counts[h // 2, w // 2])
    columns, rows = (float(s[0] / s[-1]) if s[-1] else None for s in (counts.sum(0), counts.sum(1)))
    texts = ["not defined" if ratio is None else f"{ratio:.3f}" for ratio in (columns, rows)]
    values = {
        "model": model.model,
        "size": [h, w],
        "padding": padding,
        "layers": layers,
        "middle": middle,
        "lowest": float(counts.min()),
        "highest": float(counts.max()),
        "first_to_last_column": columns,
        "first_to_last_row": rows,
        "files": files,
    }
    return values, [
        f"{model.model} at {h}x{w}, {name}: {middle:.5g} paths from the middle pixel, {counts.min():.5g} to "
        f"{counts.max():.5g} over the image",
        f"first column / last column {texts[0]}, first row / last row {texts[1]} (1: no side preferred)",
        *o.wrote(*files),
    ]


def kernels(
    shell: Shell,
    model: o.ModelOptions,
    picture: o.Picture = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Measure the mean kernel of each convolution: whether its weights lean to one side, beyond chance.

    Example: shiftlens kernels --model runs/vgg --picture kernels.png
    """
    from shiftlens.figures.drawing import save
    from shiftlens.lens.kernels import kernels as measure

    run = measure(_loaded(shell, model), seed=seed)
    files: list[str] = []
    if picture is not None:
        from shiftlens.figures.path_figures import kernel_tiles

        files.append(str(save(kernel_tiles(run), picture)))
    return run.to_dict() | {"files": files}, [*run.lines(), *o.wrote(*files)]


def neurons(
    shell: Shell,
    model: o.ModelOptions,
    data: Annotated[str, typer.Option("--data", help=f"{o.DATA}.")] = "digits",
    layers: o.Layers = None,
    no_impact: Annotated[
        bool, typer.Option("--no-impact", help="Do not measure what another padding for them alone changes.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of images; a few hundred are enough.")] = 256,
    data_root: o.DataRoot = None,
    split: o.Split = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Find the channels that respond at a border as they never do inside, and what they do to the predictions.

    Example: shiftlens neurons --model runs/vgg --data cifar10
    """
    from shiftlens.lens.neurons import neurons as measure

    images = o.images_of(data, data_root, limit, split)
    loaded = model.load(shell, images)
    with shell.progress("looking", "images") as report:
        run = measure(loaded, images, layers=o.names(layers), impact=not no_impact, seed=seed, progress=report)
    return run.to_dict(), [f"{run.model} on {o.used(run.n_images, images)}", *run.lines()]
