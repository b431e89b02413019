"""What a task other than classification adds to a sweep's part: objects, image strips, places and phases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shiftlens.analysis.arrays import Values
from shiftlens.analysis.object_curves import OBJECT_RADIUS, ObjectCurves, object_curves
from shiftlens.analysis.phases import phases
from shiftlens.analysis.places import places
from shiftlens.data.images import ImageSet
from shiftlens.figures.heatmaps import about
from shiftlens.figures.place_maps import place_map
from shiftlens.figures.strips import strips
from shiftlens.figures.task_figures import object_lines, phase_matrix
from shiftlens.narrative.words import capital, plain
from shiftlens.reporting.encoding import Data, figure_uri
from shiftlens.reporting.task_strips import worst_images, worst_objects
from shiftlens.reporting.thumbnails import Source, images_of
from shiftlens.stats import Skipped
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.classification import CLASSIFICATION


def task_part(sweep: Sweep, values: Values, source: Source) -> Data | None:
    """Return pictures with their descriptions, and why some are not there; None for classification."""
    if sweep.header.task.name == CLASSIFICATION.name:
        return None
    pictures: list[Data] = []
    missing: list[Skipped] = []
    images, where, within = _images(sweep, source), about(sweep), f"within {OBJECT_RADIUS:g} px"
    curves = object_curves(sweep)
    if isinstance(curves, ObjectCurves):
        what = curves.called
        alt = f"The {what} of each object, a line each, against dx and against dy"
        pictures.append({"uri": figure_uri(object_lines(curves, where)), "alt": alt})
    if isinstance(images, Skipped):
        missing.append(images)
    else:
        metric, end = values.metric, "lowest" if values.metric.sign > 0 else "highest"
        title = f"The images whose {metric.called} swings most {within}; red: the {end}"
        rows = [] if isinstance(curves, Skipped) else worst_objects(sweep, curves, images)
        if rows:
            title = f"The objects whose {what} swings most {within}, with their boxes; red: the lowest"
        rows = rows or worst_images(sweep, values, images)
        if rows:
            pictures.append({"uri": figure_uri(strips(rows, title)), "alt": title})
    by_place, by_phase = places(sweep), phases(values)
    if isinstance(by_place, Skipped):
        missing.append(by_place)
    else:
        frame = None if isinstance(images, Skipped) else _frame(images)
        alt = f"{capital(by_place.what.name)}: by the place in the frame, and by the distance to the nearest border"
        pictures.append({"uri": figure_uri(place_map(by_place, where, frame)), "alt": alt})
    if isinstance(by_phase, Skipped):
        missing.append(by_phase)
    else:
        alt = f"{capital(values.metric.called)} by the phase of the shift (dx mod s, dy mod s), s a stride of the net"
        pictures.append({"uri": figure_uri(phase_matrix(by_phase, where)), "alt": alt})
    return {"pictures": pictures, "missing": [f"Not shown: {each.site}, since {plain(each.why)}." for each in missing]}


def _images(sweep: Sweep, source: Source) -> ImageSet | Skipped:
    site = "images"
    if sweep.header.control is not None:
        return Skipped(site, "this is a control, whose images are changed")
    found = images_of(sweep, source)
    return Skipped(site, found) if isinstance(found, str) else found


def _frame(images: ImageSet) -> NDArray[np.uint8]:
    """The first image, [h, w, 3]."""
    pixels = images.batch([0])[0]
    return (np.repeat(pixels, 3, axis=0) if len(pixels) == 1 else pixels).transpose(1, 2, 0)
