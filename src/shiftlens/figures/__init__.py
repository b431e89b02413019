"""Pictures of a sweep, as matplotlib figures; `save` writes the same bytes every time."""

from shiftlens.figures.drawing import check_format, png_bytes, save
from shiftlens.figures.gallery import Pictures, plot
from shiftlens.figures.heatmaps import class_matrices, control_matrices, metric_matrix, side_matrices
from shiftlens.figures.profile import radial_profile
from shiftlens.figures.tile_figures import plot_tiles

__all__ = [
    "Pictures",
    "check_format",
    "class_matrices",
    "control_matrices",
    "metric_matrix",
    "plot",
    "plot_tiles",
    "png_bytes",
    "radial_profile",
    "save",
    "side_matrices",
]
