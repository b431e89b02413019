"""A tile report's part of the page: findings, pictures, the table of causes and the recipe."""

from __future__ import annotations

from shiftlens.figures.tile_figures import plot_tiles
from shiftlens.narrative.tile_findings import tile_findings
from shiftlens.narrative.words import plain
from shiftlens.reporting.encoding import Data, figure_uri
from shiftlens.reporting.page_findings import sorted_out
from shiftlens.stats import per_cent
from shiftlens.tiles.tile_result import SAID, TileReport, per_cent_of

_ABOUT = {
    "seams": "The first image with the borders of its tiles, and where the tiled output differs",
    "by-distance": "Difference by distance to the nearest side at which a tile cuts the image",
    "causes": "Shares of the causes; the table has the same numbers",
}


def _recipe(report: TileReport) -> str:
    recipe = report.recipe
    return "\n".join(plain(line) for line in (recipe["monai"], recipe["sahi"], *str(recipe["loop"]).splitlines()))


def tile_view(report: TileReport, number: int) -> Data:
    """What the template shows of a tile report."""
    return {
        "id": f"tiles-{number}",
        "model": plain(report.model),
        "of_images": plain(report.of_images),
        "size": f"{report.size[0]}x{report.size[1]}",
        "tile": report.tile,
        "findings": sorted_out(tile_findings(report)),
        "figures": [{"uri": figure_uri(each), "about": _ABOUT[name]} for name, each in plot_tiles(report).items()],
        "rows": [
            [
                cause.cause,
                per_cent_of(cause.share),
                "" if cause.interval is None else " to ".join(map(per_cent_of, cause.interval)),
                SAID[cause.cause],
                plain(", ".join(f"{layer.path} ({per_cent_of(layer.share)})" for layer in cause.layers[:6])),
            ]
            for cause in report.causes
        ],
        "recipe": _recipe(report),
        "provenance": [
            ("file", plain(report.path.name) if report.path is not None else "in memory"),
            ("model", plain(report.model)),
            ("model digest", plain(report.model_digest)),
            ("images", plain(report.of_images)),
            ("data digest", plain(report.data_digest)),
            ("tolerance of the measured overlap", f"{per_cent(report.tolerance)} of the output's range"),
            ("versions", ", ".join(f"{name} {version}" for name, version in sorted(report.software.items()))),
        ],
    }
