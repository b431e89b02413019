"""`tiles`: why tiled inference differs from the whole image's output, and the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.errors import InputError


def tiles(
    shell: Shell,
    model: o.ModelOptions,
    out: Annotated[Path, typer.Option("--out", help="The result, a Zarr directory such as tiles.zarr.")],
    images: o.ImageOptions,
    tile: Annotated[
        int | None,
        typer.Option("--tile", min=1, help="Side of a tile in pixels (default: 256, or half of a smaller image)."),
    ] = None,
    overlap: Annotated[
        str, typer.Option("--overlap", help="Real context on each side of a tile's core: auto, or pixels.")
    ] = "auto",
    stride: Annotated[
        int | None, typer.Option("--stride", min=1, help="Pixels from tile to tile (default: the tile's side).")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="dense (PSNR) or segmentation (pixels that change).")] = "dense",
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Largest difference of the measured overlap, share of the range.")
    ] = 1e-3,
    pictures: o.Pictures = None,
    format: o.Format = "png",  # noqa: A002
    seed: o.Seed = 0,
) -> o.Answer:
    """Find why tiled inference shows seams: causes with their shares, the layers to blame, and tiles without any.

    Example: shiftlens tiles --model pretrained:unet-digits --data digits-scenes --tile 48 --limit 8 --out tiles.zarr
    """
    from shiftlens.figures import check_format
    from shiftlens.tiles.doctor import tile_report
    from shiftlens.tiles.tile_store import check_tiles_target

    check_format(format)
    check_tiles_target(out)
    if overlap != "auto" and not overlap.isdecimal():
        raise InputError(f"--overlap must be auto or whole pixels, got {overlap!r}")
    around: int | str = overlap if overlap == "auto" else int(overlap)
    shown = images.load(shell)
    loaded = model.load(shell, shown)
    size = loaded.input_size or shown.size
    if tile is None:
        # Half an image, on a grid that suits most nets.
        tile = 256 if size is None or min(size) > 256 else max(1, min(size) // 2 // 16 * 16)
        shell.say(f"tiles of {tile} px")
    with shell.progress("tiling", "images") as report:
        found = tile_report(
            loaded,
            shown,
            tile,
            around,
            task,
            stride=stride,
            tolerance=tolerance,
            out=out,
            device=model.device,
            seed=seed,
            progress=report,
        )
    files: list[str] = []
    if pictures is not None:
        from shiftlens.figures.tile_figures import plot_tiles

        files = [str(path) for path in plot_tiles(found, pictures, format=format).files]
    return found.to_dict() | {"out": str(out), "files": files}, [*found.lines(), *o.wrote(out, *files)]
