"""What a tile report says about one number: how far tiles are from the whole image's output, with bounds."""

from __future__ import annotations

import numpy as np

from shiftlens.gate.evidence import Evidence, means_of
from shiftlens.stats import Skipped
from shiftlens.tiles.tile_result import TileReport


def tile_mismatch(report: TileReport, *, with_overlap: bool = False) -> Evidence | Skipped:
    """Evidence for a limit on the tile mismatch, a mean over images.

    For the task "segmentation" it is the share of pixels whose class changes, otherwise the mean |difference| as a
    share of the range of the whole image's output.

    Parameters
    ----------
    report
        From `tile_report` or `open_tiles`.
    with_overlap
        Of tiles with the report's `overlap`; by default of plain tiles without overlap.

    Returns
    -------
    Evidence or Skipped
        A share; `Skipped` for a report on a single image.

    Examples
    --------
    >>> evidence = tile_mismatch(open_tiles("tiles.zarr"))  # doctest: +SKIP
    >>> evidence.bounds(0.05)  # lower and upper bound of the mean, each at 5 %  # doctest: +SKIP
    (0.011, 0.019)
    """
    off = report.with_overlap if with_overlap else report.off[:, 0]
    numbers = report.numbers_with_overlap if with_overlap else report.numbers[:, 0]
    if report.task == "segmentation":
        return means_of(numbers, (0.0, 1.0), "share", what="tile mismatch")
    # A tile's output may leave the whole image's range, so that the share has no upper end.
    shares = np.divide(off, report.span, out=np.zeros_like(off), where=report.span > 0)
    return means_of(shares, (0.0, np.inf), "share", what="tile mismatch")
