"""`features`, `foveation`, `kernels`, `neurons`: what a net sees in nothing, and which layer invents it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks
from shiftlens.cli.inspect_command import Size

if TYPE_CHECKING:
    from shiftlens.data.images import ImageSet
    from shiftlens.lens.feature_run import FeatureRun, LayerMaps
    from shiftlens.models.loading import Model

Pictures = Annotated[Path | None, typer.Option("--pictures", help="Directory for pictures; made if it is not there.")]
Format = Annotated[str, typer.Option("--format", help="Of the pictures: png or svg.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(features)
    app.command()(foveation)
    app.command()(kernels)
    app.command()(neurons)


def _model(
    shell: Shell,
    model: str,
    weights: str | None,
    mean: str | None,
    std: str | None,
    input_size: str | None,
    device: str,
    images: ImageSet | None = None,
) -> Model:
    from shiftlens.models.loading import load_model

    loaded = load_model(
        model,
        weights=weights,
        mean=o.numbers(mean, "--mean"),
        std=o.numbers(std, "--std"),
        input_size=o.size(input_size, "--input-size"),
        picture_size=None if images is None else images.size,
        picture_channels=None if images is None else images.n_channels,
        device=device,
    )
    for note in loaded.notes:
        shell.warn(note)
    return loaded


def features(
    model: o.ModelSpec,
    out: Annotated[Path, typer.Option("--out", help="The result, a Zarr directory such as features.zarr.")],
    input: Annotated[  # noqa: A002
        str, typer.Option("--input", help="zeros, mean (both 0 after normalisation), black, noise, or an image file.")
    ] = "zeros",
    average: Annotated[
        str | None, typer.Option("--average", help="Also average over images: as --data of other commands.")
    ] = None,
    no_controls: Annotated[
        bool, typer.Option("--no-controls", help="Leave out the average's controls (rolled, flipped).")
    ] = False,
    layers: Annotated[str | None, typer.Option("--layers", help="Only these layers, names with commas.")] = None,
    before: Annotated[bool, typer.Option("--before", help="Maps before each layer's activation, not after.")] = False,
    pictures: Pictures = None,
    format: Format = "png",  # noqa: A002
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """What every layer makes of an empty picture, and of the average over many: artefacts of its padding.

    Example: shiftlens features --model runs/vgg --average cifar10 --out features.zarr --pictures pictures
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens.data.images import load_images
        from shiftlens.figures import check_format
        from shiftlens.lens import feature_maps as maps
        from shiftlens.lens.feature_store import check_target

        check_format(format)
        check_target(out)
        images = None
        if average is not None:
            images = load_images(average, split="test", data_root=data_root, limit=o.positive(limit, "--limit"))
        loaded = _model(shell, model, weights, mean, std, input_size, device, images)
        with shell.progress("looking", "images") as report:
            run = maps.features(
                loaded,
                input,
                average=images,
                layers=None if layers is None else [name.strip() for name in layers.split(",")],
                after=not before,
                controls=() if no_controls else maps.CONTROLS,
                out=out,
                device=device,
                seed=seed,
                progress=report,
            )
        files: list[str] = []
        if pictures is not None:
            from shiftlens.figures.feature_figures import plot_features

            shell.say(f"drawing {len(run)} layers")
            files = [str(path) for path in plot_features(run, pictures, format=format).files]
    shell.result(run.to_dict() | {"out": str(out), "files": files}, [*_table(run), f"wrote {out}", *_wrote(files)])


def _wrote(files: list[str]) -> list[str]:
    return files if len(files) < 4 else [f"wrote {len(files)} pictures in {Path(files[0]).parent}"]


def _table(run: FeatureRun) -> list[str]:
    from shiftlens.stats import Skipped

    def text(value: float | Skipped, form: str) -> str:
        return "-" if isinstance(value, Skipped) else format_number(value, form)

    def format_number(value: float, form: str) -> str:
        return f"{value:{form}}"

    def row(layer: LayerMaps) -> tuple[str, ...]:
        one = layer.scores
        judged = one if layer.average is None else layer.average.scores
        c, h, w = layer.maps.shape
        return (
            layer.name,
            layer.kind,
            f"{c} x {h} x {w}",
            text(judged.artefact_energy, ".2e"),
            text(one.reach_cells, "d"),
            text(one.reach_pixels, ".0f"),
            text(judged.contrast_lr, ".2f"),
            text(judged.contrast_ud, ".2f"),
        )

    head = ("layer", "kind", "shape", "energy", "reach", "px", "odd l/r", "odd u/d")
    rows = [head, *(row(layer) for layer in run.layers)]
    widths = [max(len(each[k]) for each in rows) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)).rstrip() for each in rows]
    start = run.start
    if start is not None:
        lines += ["", f"borders leave their first marks at {start.name} ({start.kind})"]
    elif run.is_empty:
        lines += ["", f"no layer's map of the input {run.input} has marks of its borders"]
    return [*lines, *(f"note: {note}" for note in run.notes)]


def foveation(
    model: o.ModelSpec,
    out: Annotated[Path, typer.Option("--out", help="The counts, float64 [h, w] as a NumPy file.")],
    size: Size = None,
    padding: Annotated[
        str | None,
        typer.Option(
            "--padding",
            help="Instead of the net's own: zeros, replicate, reflect, symmetric, circular, partial, full or none.",
        ),
    ] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="A:B, the first and the last layer by name.")] = None,
    keep_pools: Annotated[bool, typer.Option("--keep-pools", help="Pools keep their own padding.")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw it: a .png or .svg file.")] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """In how many ways each pixel contributes to the last layer; needs no weights and no images.

    Example: shiftlens foveation --model torchvision:vgg19 --size 512 --padding symmetric --out paths.npy
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        import numpy as np

        from shiftlens.devices import resolve_device
        from shiftlens.errors import InputError
        from shiftlens.figures.drawing import save
        from shiftlens.lens.foveation import foveation as count
        from shiftlens.models.skeletons import load_skeleton

        resolve_device(device)
        pixels = o.size(size, "--size")
        skeleton = load_skeleton(model)
        pixels = pixels or skeleton.input_size
        if pixels is None:
            raise InputError(f"{model} declares no input size: give one (--size)")
        counts = count(skeleton, pixels, padding, layers=layers, pools=not keep_pools)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with out.open("wb") as file:
                np.save(file, counts)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror or error}") from None
        files = [str(out)]
        if picture is not None:
            from shiftlens.figures.path_figures import foveation_map

            under = "its own padding" if padding is None else f"{padding} padding"
            files.append(str(save(foveation_map(counts, f"{model} with {under}"), picture)))
    h, w = counts.shape
    middle = float(counts[h // 2, w // 2])
    columns, rows = counts.sum(0), counts.sum(1)
    values = {
        "model": model,
        "size": [h, w],
        "padding": padding,
        "layers": layers,
        "middle": middle,
        "lowest": float(counts.min()),
        "highest": float(counts.max()),
        "first_to_last_column": float(columns[0] / columns[-1]) if columns[-1] else None,
        "first_to_last_row": float(rows[0] / rows[-1]) if rows[-1] else None,
        "files": files,
    }
    shell.result(
        values,
        [
            f"{model} at {h}x{w}, {'its own' if padding is None else padding} padding: {middle:.5g} paths from the "
            f"middle pixel, {counts.min():.5g} to {counts.max():.5g} over the picture",
            f"first column / last column {_ratio(columns)}, first row / last row {_ratio(rows)} (1: no side preferred)",
            *(f"wrote {path}" for path in files),
        ],
    )


def _ratio(lines: object) -> str:
    import numpy as np

    values = np.asarray(lines)
    return f"{values[0] / values[-1]:.3f}" if values[-1] else "not defined"


def kernels(
    model: o.ModelSpec,
    picture: Annotated[Path | None, typer.Option("--picture", help="Also draw them: a .png or .svg file.")] = None,
    weights: o.Weights = None,
    input_size: o.InputSize = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Mean kernel of each convolution: whether its weights lean to one side, beyond chance.

    Example: shiftlens kernels --model runs/vgg --picture kernels.png
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens.figures.drawing import save
        from shiftlens.lens.kernels import kernels as measure

        loaded = _model(shell, model, weights, "0", "1", input_size, device)
        run = measure(loaded, seed=seed)
        files: list[str] = []
        if picture is not None:
            from shiftlens.figures.path_figures import kernel_tiles

            files.append(str(save(kernel_tiles(run), picture)))
    shell.result(run.to_dict() | {"files": files}, [*run.lines(), *(f"wrote {path}" for path in files)])


def neurons(
    model: o.ModelSpec,
    data: o.DataSpec = "digits",
    layers: Annotated[str | None, typer.Option("--layers", help="Only these convolutions, names with commas.")] = None,
    no_impact: Annotated[
        bool, typer.Option("--no-impact", help="Do not measure what another padding for them alone changes.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images; a few hundred are enough.")] = 256,
    data_root: o.DataRoot = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Which channels respond at a border as they never do inside, and what they do to the predictions.

    Example: shiftlens neurons --model runs/vgg --data cifar10
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        from shiftlens.cli.measure import load
        from shiftlens.lens.neurons import neurons as measure

        loaded, images = load(
            shell,
            model,
            data,
            data_root=data_root,
            limit=limit,
            weights=weights,
            mean=mean,
            std=std,
            input_size=input_size,
            device=device,
        )
        names = None if layers is None else [name.strip() for name in layers.split(",")]
        with shell.progress("looking", "images") as report:
            run = measure(loaded, images, layers=names, impact=not no_impact, seed=seed, progress=report)
    shell.result(run.to_dict(), run.lines())
