"""`evaluate` and `sweep`: numbers of a model on images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks
from shiftlens.errors import InputError

if TYPE_CHECKING:
    from shiftlens.data.images import ImageSet
    from shiftlens.models.loading import Model


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command()(evaluate)
    app.command()(sweep)


def load(
    shell: Shell,
    model: str,
    data: str,
    *,
    data_root: Path | None,
    limit: int | None,
    weights: str | None,
    mean: str | None,
    std: str | None,
    input_size: str | None,
    device: str,
) -> tuple[Model, ImageSet]:
    """Model and images as the options name them; shows what the model notes (such as guessed preprocessing)."""
    from shiftlens.data.images import load_images
    from shiftlens.models.loading import load_model

    images = load_images(data, split="test", data_root=data_root, limit=o.positive(limit, "--limit"))
    loaded = load_model(
        model,
        weights=weights,
        mean=o.numbers(mean, "--mean"),
        std=o.numbers(std, "--std"),
        input_size=o.size(input_size, "--input-size"),
        picture_size=images.size,
        picture_channels=images.n_channels,
        device=device,
    )
    for note in loaded.notes:
        shell.warn(note)
    return loaded, images


def evaluate(
    model: o.ModelSpec,
    data: o.DataSpec = "digits",
    shift: Annotated[tuple[int, int], typer.Option("--shift", help="DX DY in pixels: right, down.")] = (0, 0),
    fill: o.Fill = "black",
    limit: o.Limit = None,
    batch_size: o.BatchSize = None,
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
    """Accuracy and loss under one shift.

    Example: shiftlens evaluate --model runs/vgg --data cifar10 --shift 4 0
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        import torch

        from shiftlens import evaluation
        from shiftlens.shifts import Shift

        torch.manual_seed(seed)
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
        with shell.progress("evaluating", "images") as report:
            result = evaluation.evaluate(
                loaded,
                images,
                shift=Shift(*shift),
                fill=fill,
                device=device,
                batch_size=batch_size,
                progress=report,
            )
    for note in images.notes:
        shell.say(f"note: {note}")
    shell.result(result.to_dict(), result.lines())


def sweep(
    model: o.SweptModel = None,
    out: Annotated[Path | None, typer.Option("--out", help="The result, a Zarr directory such as sweep.zarr.")] = None,
    data: o.DataSpec = "digits",
    max_shift: Annotated[
        str | None,
        typer.Option("--max-shift", help="Largest shift, N or YxX pixels (picture's size up to 64, else 16)."),
    ] = None,
    step: Annotated[int, typer.Option("--step", help="Distance between neighbouring shifts in pixels.")] = 1,
    fill: o.Fill = "black",
    limit: o.Limit = None,
    half_width: Annotated[
        float | None,
        typer.Option("--half-width", help="Stop when every accuracy is known to ± so many points, all shifts at once."),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option("--reuse", help="Take over what this sweep of fewer of the same images holds; it is only read."),
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="Controls with commas: occlusion,flip,canvas.")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="auto, direct (every window on its own) or dedup (nothing twice).")
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            help="float32, bfloat16, or auto: the faster one; where that is bfloat16, near ties are evaluated again in "
            "float32.",
        ),
    ] = "auto",
    batch_size: o.BatchSize = None,
    data_root: o.DataRoot = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Compute on Ray: local, local:N workers, auto, or HOST:PORT of the head."),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", help="Compute nothing: hold every chunk of this sweep against its checksum."),
    ] = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Evaluate every image under every shift; stops and resumes anywhere.

    Example: shiftlens sweep --model runs/vgg --data cifar10 --limit 1000 --out vgg.zarr

    On many machines: shiftlens sweep --model runs/vgg --data cifar10 --out vgg.zarr --cluster 192.0.2.10:6379

    As many images as it takes: shiftlens sweep --model runs/vgg --data cifar10 --half-width 5 --out vgg.zarr

    More images than last time: shiftlens sweep --model runs/vgg --data cifar10 --reuse vgg.zarr --out vgg-all.zarr

    What is torn is told by: shiftlens sweep --verify vgg.zarr (exit code 2), and computed again by the same sweep.
    """
    shell = Shell(quiet, json)
    if verify is not None:
        _verify(shell, verify, other=model is not None or out is not None)
        return
    if model is None or out is None:
        raise InputError(f"missing option '--{'model' if model is None else 'out'}': a sweep needs --model and --out")
    with remarks(shell):
        import torch

        from shiftlens.cluster.ray_session import device_on_cluster, parse_cluster
        from shiftlens.engine.evaluators import check_request
        from shiftlens.models.matching import on_input_grid
        from shiftlens.shifts import MAX_SHIFT, Fill, ShiftGrid
        from shiftlens.sweeping import run_sweep
        from shiftlens.sweeps.looks import checked_half_width
        from shiftlens.sweeps.request import default_grid

        torch.manual_seed(seed)
        bounds = o.size(max_shift, "--max-shift", least=0, most=MAX_SHIFT)
        # The grid is checked before anything is loaded: a typing error should not cost a minute.
        grid = None if bounds is None else ShiftGrid(bounds, step)
        controls = tuple(name.strip() for name in control.split(",")) if control else ()
        check_request(grid or ShiftGrid(step, step), Fill.parse(fill), engine, dtype, controls, batch_size)
        if half_width is not None:
            checked_half_width(half_width)
        if cluster is not None:
            parse_cluster(cluster)
            device_on_cluster(device)
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
        if grid is None:
            _, size = on_input_grid(loaded, images)
            grid = default_grid(size, shell.say, step=step)
        with shell.progress("sweeping", "evaluations") as report:
            result, stats = run_sweep(
                loaded,
                images,
                grid,
                out=out,
                fill=fill,
                engine=engine,
                dtype=dtype,
                controls=controls,
                device=device,
                batch_size=batch_size,
                cluster=cluster,
                half_width=half_width,
                reuse=reuse,
                progress=report,
                announce=shell.say,
            )
    for note in images.notes:
        shell.say(f"note: {note}")
    accuracy = result.accuracy
    at_rest = float(accuracy.sel(dy=0, dx=0))
    worst = accuracy.argmin(...)
    worst_dy, worst_dx = (int(accuracy[axis][worst[axis]]) for axis in ("dy", "dx"))
    shell.result(
        stats.to_dict(),
        [
            f"{stats.images_text()} x {stats.n_shifts:,} shifts in {stats.out}",
            f"accuracy {100 * at_rest:.2f} % at (0, 0), {100 * float(accuracy.mean()):.2f} % on average, "
            f"lowest {100 * float(accuracy.min()):.2f} % at (dx, dy) = ({worst_dx}, {worst_dy})",
            f"{stats.seconds:.1f} s, {stats.shifts_per_second:,.0f} evaluations/s ({stats.engine}, {stats.dtype}), "
            f"peak memory {stats.peak_memory_bytes / 1e9:.2f} GB"
            + (f", {stats.images_resumed:,} images were there already" if stats.images_resumed else ""),
        ],
    )


def _verify(shell: Shell, path: Path, *, other: bool) -> None:
    from shiftlens.sweeps.integrity import verify_sweep

    if other:
        raise InputError("--verify takes no --model and no --out: it only reads what is there")
    with remarks(shell):
        found = verify_sweep(path)
    shell.result(found.to_dict(), found.lines())
    if not found.ok:
        raise typer.Exit(2)
