"""All pictures of a sweep at once: to look at in a notebook, or to write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shiftlens.analysis.arrays import SweepArrays, from_sweep
from shiftlens.analysis.matched_images import matched_rows
from shiftlens.analysis.object_curves import object_curves
from shiftlens.analysis.phases import phases
from shiftlens.analysis.places import places
from shiftlens.figures.drawing import check_format, data_uri, png_bytes, save
from shiftlens.figures.heatmaps import about, class_matrices, control_matrices, has_sides, metric_matrix, side_matrices
from shiftlens.figures.place_maps import place_map
from shiftlens.figures.probe_figures import probe_map
from shiftlens.figures.profile import radial_profile
from shiftlens.figures.task_figures import object_lines, phase_matrix
from shiftlens.position_map import PositionMap
from shiftlens.stats import Skipped
from shiftlens.tasks.classification import CLASSIFICATION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from shiftlens.sweeps.sweep_result import Sweep

NOTEBOOK_DPI = 80


class Pictures(Mapping[str, "Figure"]):
    """Pictures by name; a notebook shows them, `files` says where they were written."""

    def __init__(self, figures: Mapping[str, Figure], files: tuple[Path, ...] = ()) -> None:
        self._figures = dict(figures)
        self.files = files

    def __getitem__(self, name: str) -> Figure:
        return self._figures[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def saved(self, out: str | Path | None, kind: str) -> Pictures:
        """The same pictures with one file each in a directory, made if it is not there; None writes nothing."""
        if out is None:
            return self
        return Pictures(self, tuple(save(figure, Path(out) / f"{name}.{kind}") for name, figure in self.items()))

    def __repr__(self) -> str:
        return f"<Pictures {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return "".join(f"<p>{image_html(figure, name)}</p>" for name, figure in self.items())


def image_html(figure: Figure, name: str, dpi: int = NOTEBOOK_DPI) -> str:
    """A figure as an HTML image that needs no file."""
    return f'<img alt="{escape(name)}" src="{data_uri(png_bytes(figure, dpi))}">'


def plot(
    sweep: Sweep | SweepArrays | PositionMap,
    out: str | Path | None = None,
    *,
    metric: str | None = None,
    format: str = "png",  # noqa: A002
) -> Pictures:
    """Draw every picture of a sweep, and write them when told where.

    Parameters
    ----------
    sweep
        From `shiftlens.sweep` or `open_sweep`; of an incomplete one, the images that are whole. Or what
        `shiftlens.probe` found: one figure, `probe`.
    out
        Directory, made if it is not there; None writes nothing.
    metric
        What `sides`, `classes` and the controls are of; the task's default by default.
    format
        "png" or "svg". The same sweep gives the same bytes.

    Returns
    -------
    Pictures
        Figures by name, `plot(sweep)["accuracy"]`: one for each metric; `profile` and `sides` where there are shifts;
        `classes` for two classes or more; `control-NAME` for each control; `by-place` where the task stores something
        by place; of other tasks than classification, `objects` where there are objects, and `phases` where the grid has
        three periods of a stride of the net. `.files` says what was written.

    Raises
    ------
    InputError
        A metric that the sweep does not have, another format, or a directory that cannot be written.

    Examples
    --------
    >>> [file.name for file in plot(sl.open_sweep("vgg.zarr"), out="pictures").files]
    ['accuracy.png', 'loss.png', 'profile.png', 'sides.png', 'classes.png']
    """
    kind = check_format(format)
    if isinstance(sweep, PositionMap):
        return Pictures({"probe": probe_map(sweep)}).saved(out, kind)
    arrays = sweep if isinstance(sweep, SweepArrays) else from_sweep(sweep)
    values = arrays.values(metric)
    metrics = [*dict.fromkeys((values.metric, *arrays.metrics))]
    made = {each.name: metric_matrix(arrays, each) for each in metrics}
    if arrays.shape != (1, 1):
        made["profile"] = radial_profile(arrays, metrics)
    if has_sides(arrays):
        made["sides"] = side_matrices(values)
    if len(np.unique(arrays.labels)) > 1:
        made["classes"] = class_matrices(values)
    for name, control in arrays.controls.items():
        if len(matched_rows(arrays, control)[0]):
            made[f"control-{name}"] = control_matrices(values, name)
    by_place = Skipped("by place", "arrays alone") if isinstance(sweep, SweepArrays) else places(sweep)
    if not isinstance(by_place, Skipped):
        made["by-place"] = place_map(by_place, about(arrays))
    if not isinstance(sweep, SweepArrays) and arrays.task.name != CLASSIFICATION.name:
        curves, by_phase = object_curves(sweep), phases(values)
        if not isinstance(curves, Skipped):
            made["objects"] = object_lines(curves, about(arrays))
        if not isinstance(by_phase, Skipped):
            made["phases"] = phase_matrix(by_phase, about(arrays))
    return Pictures(made).saved(out, kind)
