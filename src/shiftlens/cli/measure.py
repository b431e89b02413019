"""`evaluate`, `consistency`, `sweep` and `verify`: numbers of a model on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.errors import InputError
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from shiftlens.sweeps.sweep_result import Sweep


def evaluate(
    shell: Shell,
    model: o.ModelOptions,
    images: o.ImageOptions,
    shift: Annotated[tuple[int, int], typer.Option("--shift", help="DX DY in pixels: right, down.")] = (0, 0),
    fill: o.Fill = "black",
    task: o.Task = "classification",
    label_map: o.LabelMap = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Measure accuracy and loss, or what another task measures, under one shift.

    Example: shiftlens evaluate --model net.py:make --weights net.pt --data folder:photos --shift 4 0

    A detector: shiftlens evaluate --model pretrained:detector-digits --data digits-scenes --task detection
    """
    import torch

    from shiftlens import evaluation
    from shiftlens.shifts import Shift
    from shiftlens.tasks.stored_form import known_task

    known_task(task)  # before the model is loaded
    torch.manual_seed(seed)  # for a model that draws random numbers
    shown = images.load(shell)
    loaded = model.load(shell, shown)
    with shell.progress("evaluating", "images") as report:
        result = evaluation.evaluate(
            loaded,
            shown,
            shift=Shift(*shift),
            fill=fill,
            device=model.device,
            batch_size=batch_size,
            label_map=label_map,
            task=task,
            progress=report,
        )
    return result.to_dict(), result.lines()


def consistency(
    shell: Shell,
    model: o.ModelOptions,
    images: o.ImageOptions,
    protocol: Annotated[str, typer.Option("--protocol", help="roll, zero-pad or crop.")] = "roll",
    fill: Annotated[
        str, typer.Option("--fill", help="What zero-pad pads with: black, mean or pixel values (0 to 1).")
    ] = "black",
    passes: Annotated[int, typer.Option("--passes", help="Pairs of views drawn for each image.")] = 5,
    seed: o.Seed = 0,
) -> o.Answer:
    """Measure how often two random views of an image get the same prediction, by a published protocol.

    Example: shiftlens consistency --model net.py:make --weights net.pt --data folder:photos --protocol roll
    """
    import torch

    from shiftlens import protocols

    torch.manual_seed(seed)
    protocols.check_request(protocol, fill, passes)
    shown = images.load(shell)
    loaded = model.load(shell, shown)
    with shell.progress("measuring", "images") as report:
        result = protocols.consistency(
            loaded, shown, protocol, fill=fill, n_passes=passes, seed=seed, device=model.device, progress=report
        )
    return result.to_dict(), result.lines()


def _moved(path: Path | None) -> None:
    if path is not None:
        raise InputError(f"sweep takes no --verify: verify is a command of its own (shiftlens verify {path})")


def sweep(
    shell: Shell,
    model: o.ModelOptions,
    images: o.ImageOptions,
    out: Annotated[Path, typer.Option("--out", help="The result, a Zarr directory such as sweep.zarr.")],
    max_shift: Annotated[
        str | None,
        typer.Option("--max-shift", help="Largest shift, N or YxX pixels (default: the image size up to 64, else 16)."),
    ] = None,
    step: Annotated[int, typer.Option("--step", help="Distance between neighbouring shifts in pixels.")] = 1,
    task: o.Task = "classification",
    fill: o.Fill = "black",
    label_map: o.LabelMap = None,
    half_width: Annotated[
        float | None,
        typer.Option(
            "--half-width",
            help="Stop at ± this many points (or units) of the metric, a simultaneous 95 % confidence band.",
        ),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option("--reuse", help="Copy what this sweep of fewer of the same images holds; it is only read."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the sweep at --out instead of resuming it.")
    ] = False,
    keep_outputs: Annotated[
        int,
        typer.Option(
            "--keep-outputs", help="Keep the masks or boxes of the first N images at every shift, for the page."
        ),
    ] = 0,
    control: Annotated[
        str | None, typer.Option("--control", help="Controls, separated by commas: occlusion,flip,canvas.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine", help="auto, direct (every window by itself) or dedup (shares computation across shifts)."
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", help="float32, bfloat16 or auto; with bfloat16, near ties are evaluated again in float32."
        ),
    ] = "auto",
    batch_size: o.BatchSize = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Compute on Ray: local, local:N workers, auto, or HOST:PORT of the head."),
    ] = None,
    verify: Annotated[Path | None, typer.Option("--verify", hidden=True, is_eager=True, callback=_moved)] = None,
) -> o.Answer:
    """Evaluate every image under every shift; an interrupted sweep is resumed by the same command.

    Example: shiftlens sweep --model net.py:make --weights net.pt --data folder:photos --out net.zarr

    A trained VGG: shiftlens sweep --model runs/vgg --data cifar10 --limit 1000 --out vgg.zarr

    A segmenter: shiftlens sweep --model net.py:make --data digits-scenes --task segmentation --out unet.zarr

    On many machines: shiftlens sweep --model runs/vgg --data cifar10 --out vgg.zarr --cluster 192.0.2.10:6379

    As many images as needed: shiftlens sweep --model runs/vgg --data cifar10 --half-width 5 --out vgg.zarr

    More images than last time: shiftlens sweep --model runs/vgg --data cifar10 --reuse vgg.zarr --out vgg-all.zarr
    """
    from shiftlens.cluster.ray_session import device_on_cluster, parse_cluster
    from shiftlens.engine.evaluators import check_request
    from shiftlens.shifts import MAX_SHIFT, Fill, ShiftGrid
    from shiftlens.sweeping import run_sweep
    from shiftlens.sweeps.looks import checked_half_width
    from shiftlens.tasks.stored_form import known_task

    # What can be refused without model and images is refused before they are loaded: that may take a minute.
    bounds = o.size(max_shift, "--max-shift", least=0, most=MAX_SHIFT)
    grid = None if bounds is None else ShiftGrid(bounds, step)
    controls = tuple(o.names(control or None) or ())
    measured = known_task(task)
    check_request(grid or ShiftGrid(step, step), Fill.parse(fill), engine, dtype, controls, batch_size)
    if half_width is not None:
        checked_half_width(half_width, measured.metrics(labelled=True)[0])
    if cluster is not None:
        parse_cluster(cluster)
        device_on_cluster(model.device, cluster, gpus=True)
    shown = images.load(shell)
    loaded = model.load(shell, shown, device=None if cluster is None else "cpu")
    with shell.progress("sweeping", "evaluations") as report:
        result, stats = run_sweep(
            loaded,
            shown,
            grid,
            step=step,
            out=out,
            fill=fill,
            engine=engine,
            dtype=dtype,
            controls=controls,
            device=model.device,
            batch_size=batch_size,
            cluster=cluster,
            half_width=half_width,
            reuse=reuse,
            overwrite=overwrite,
            label_map=label_map,
            task=task,
            keep_outputs=keep_outputs,
            progress=report,
            announce=shell.say,
        )
    return stats.to_dict() | {"n_source": shown.n_source}, [
        *stats.known_lines(),
        f"{result.header.model} on {result.header.data}: {stats.images_text(shown.n_source)} x {stats.n_shifts:,} "
        f"shifts in {stats.out}",
        _range_line(result),
        *_without_objects(result),
        f"{stats.seconds:.1f} s, "
        + (
            f"{stats.shifts_per_second:,.0f} evaluations/s"
            if stats.shifts_per_second
            else "nothing was left to compute"
        )
        + f" ({stats.engine}, {stats.dtype}), "
        f"peak memory {stats.peak_memory_bytes / 1e9:.2f} GB"
        + (f", {count_of(stats.images_resumed, 'image')} already there" if stats.images_resumed else ""),
    ]


def _without_objects(result: Sweep) -> list[str]:
    """How many images have no object, where the task follows objects: they have none of its shares."""
    n = int((result.dataset["n_objects"] == 0).sum()) if "n_objects" in result.dataset else 0
    which = "image has" if n == 1 else "images have"
    return (
        [f"{n:,} {which} no objects: left out of {result.metrics[0].called}, which is not defined there"] if n else []
    )


def _range_line(result: Sweep) -> str:
    """The first metric that the images have (without masks there is no IoU): unshifted, on average, at its worst."""
    from shiftlens.narrative.words import number_text

    means = ((metric, result.mean_of(metric)) for metric in result.metrics)
    metric, mean = next((each for each in means if each[1].notnull().any()), (result.metrics[0], None))
    if mean is None:
        return f"{metric.called}: not defined for any of these images"
    worst = mean[(-metric.sign * mean).argmax(...)]
    unit = "" if metric.unit == metric.called else metric.unit
    unshifted, average, extreme = (
        number_text(float(value), unit, 2 if unit == "share" else None)
        for value in (mean.sel(dy=0, dx=0), mean.mean(), worst)
    )
    return (
        f"{metric.called} {unshifted} at (0, 0), {average} on average, {'lowest' if metric.sign > 0 else 'highest'} "
        f"{extreme} at (dx, dy) = ({int(worst.dx)}, {int(worst.dy)})"
    )


def verify(
    shell: Shell,
    path: Annotated[Path, typer.Argument(metavar="S.zarr", help="A result; it is only read.")],
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Check and list attributes, arrays and seal only; also of features."),
    ] = False,
) -> None:
    """Verify every chunk of a sweep against its checksum; exit code 2 if one is torn (the same sweep mends it).

    Example: shiftlens verify vgg.zarr
    """
    if schema:
        from shiftlens.result_schema import schema_lines, schema_of

        listed = schema_of(path)
        shell.result({"ok": True, "out": str(path), **listed}, schema_lines(path, listed))
        return
    from shiftlens.sweeps.integrity import verify_sweep
    from shiftlens.tiles.tile_store import holds_tiles, open_tiles

    if holds_tiles(path):
        open_tiles(path)  # reads all of it, and refuses what its seal does not know
        shell.result({"ok": True, "damaged": []}, [f"{path}: every number is as it was written"])
        return
    found = verify_sweep(path)
    shell.result(found.to_dict(), found.lines())
    if not found.ok:
        raise typer.Exit(2)
