"""What a tile report says about one number: how far tiles are from the whole image's output, with bounds."""

from __future__ import annotations

import numpy as np

from shiftlens.analysis.arrays import FloatArray
from shiftlens.errors import InputError
from shiftlens.gate.conditions import Condition
from shiftlens.gate.evidence import Evidence, means_of
from shiftlens.gate.limits import Gate
from shiftlens.naming import printable
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
    >>> evidence = tile_mismatch(sl.open_tiles("tiles.zarr"))
    >>> low, high = evidence.bounds(0.05)  # of the mean, each at 5 %
    >>> 0 < low < high < 0.1
    True
    """
    return means_of(*_shares(report, with_overlap), "share", what="tile mismatch")


def tile_conditions(name: str, report: TileReport, gate: Gate, baseline: TileReport | None) -> list[Condition]:
    """Every condition of a gate on one tile report.

    Raises
    ------
    InputError
        A limit that cannot be met or broken, or a baseline of other images.
    """
    found: list[Condition] = []
    metric = report.number_name if report.task == "segmentation" else "output"
    for key, limit in (
        ("tile_mismatch", gate.max_tile_mismatch),
        ("tile_mismatch_with_overlap", gate.max_tile_mismatch_with_overlap),
    ):
        if limit is not None:
            if not 0 <= limit <= 1:
                raise InputError(f"max_{key}: expected a limit from 0 to 1 (share), got {limit:g}")
            evidence = tile_mismatch(report, with_overlap=key.endswith("overlap"))
            found.append(Condition(name, key, metric, "at most", limit, "share", None, evidence))
    allowed = gate.allowed.tile_mismatch if gate.allowed else None
    if allowed is not None and baseline is not None:
        if not 0 < allowed <= 100:
            raise InputError(f"allowed.tile_mismatch: expected above 0 and up to 100 points, got {allowed:g}")
        worse = _worse(report, baseline)
        called = printable(baseline.path.stem) if baseline.path else "baseline"
        found.append(Condition(name, "tile_mismatch", metric, "at most", allowed, "points", called, worse))
    return found


def _worse(new: TileReport, base: TileReport) -> Evidence | Skipped:
    """By how many points the mismatch of plain tiles is larger, paired by images."""
    if base.data_digest != new.data_digest or not np.array_equal(base.index, new.index) or base.task != new.task:
        raise InputError(f"expected a baseline of the same images and task as {new.data}, got one of {base.data}")
    (after, (_, most)), (before, _) = (_shares(each, with_overlap=False) for each in (new, base))
    return means_of(after - before, (-most, most), "points", 100.0, "tile mismatch")


def _shares(report: TileReport, with_overlap: bool) -> tuple[FloatArray, tuple[float, float]]:
    """The mismatch of each image, (image,), and what it can be."""
    if report.task == "segmentation":
        return (report.numbers_with_overlap if with_overlap else report.numbers[:, 0]), (0.0, 1.0)
    # A tile's output may leave the whole image's range, so that the share has no upper end.
    off = report.with_overlap if with_overlap else report.off[:, 0]
    return np.divide(off, report.span, out=np.zeros_like(off), where=report.span > 0), (0.0, np.inf)
