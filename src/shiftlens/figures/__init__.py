"""Pictures of a sweep, as matplotlib figures; `save` writes the same bytes every time."""

from shiftlens.figures.drawing import SUFFIXES, check_format, png_bytes, save
from shiftlens.figures.gallery import Pictures, draw, plot
from shiftlens.figures.heatmaps import accuracy_matrix, class_matrices, control_matrices, loss_matrix, side_matrices
from shiftlens.figures.profile import radial_profile

__all__ = [
    "SUFFIXES",
    "Pictures",
    "accuracy_matrix",
    "check_format",
    "class_matrices",
    "control_matrices",
    "draw",
    "loss_matrix",
    "plot",
    "png_bytes",
    "radial_profile",
    "save",
    "side_matrices",
]
