"""All findings of a sweep, in the order in which a reader needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shiftlens.analysis.arrays import from_sweep
from shiftlens.analysis.places import places
from shiftlens.analysis.summary import Metrics, all_metrics
from shiftlens.arithmetic import Inspection
from shiftlens.errors import InputError
from shiftlens.lens.feature_run import FeatureRun
from shiftlens.narrative.artefacts import artefacts
from shiftlens.narrative.cause import cause
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.patterns import controlled, irregularities, overview, ripples, sides
from shiftlens.narrative.performance import consistency, performance, region
from shiftlens.narrative.pitfalls import pitfalls
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.task_findings import border_test, task_findings
from shiftlens.narrative.thresholds import THRESHOLDS, checked_thresholds, weighed
from shiftlens.narrative.tile_findings import tile_findings
from shiftlens.narrative.words import plain
from shiftlens.stats import Skipped
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tiles.tile_result import TileReport


def findings(
    sweep: Sweep | FeatureRun | Inspection | TileReport,
    *,
    metric: str | None = None,
    thresholds: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Findings:
    """Return what a sweep, a feature run, layer arithmetic or a tile report shows, and what can mislead in it.

    Parameters
    ----------
    sweep
        From `shiftlens.sweep` or `open_sweep` (of an incomplete one, opened with `partial=True`, the images that are
        whole), `shiftlens.features`, `shiftlens.inspect` or `shiftlens.tile_report`.
    metric
        Of a sweep, what areas, sides, ripples and controls are about; by default its task's, such as "accuracy".
    thresholds
        By unit, how large a significant difference must be for a warning; by default 1 point, 0.1 nats and 0.5 px.
    seed
        Of the bootstrap behind some intervals.

    Returns
    -------
    Findings
        Statements with number, unit, interval and evidence. Severity "warn" is only for what is significant after
        correction for all tests of the sweep, and no smaller than the threshold; what could not be measured is there
        with its reason.

    Raises
    ------
    InputError
        A metric that the sweep does not have, or a threshold below 0.
    StoreError
        No image is whole, or the file is damaged.

    Examples
    --------
    >>> found = findings(sl.open_sweep("vgg.zarr"))
    >>> [each.kind for each in found.with_severity("info")][:2]
    ['accuracy-at-rest', 'loss-at-rest']
    >>> print(found.named("accuracy-at-rest"))  # doctest: +ELLIPSIS
    info: Unshifted, accuracy is ... %...
    """
    sizes = checked_thresholds(thresholds)
    if isinstance(sweep, FeatureRun | Inspection | TileReport):
        if metric is not None:
            raise InputError(f"a metric is of a sweep: expected none, got {metric!r}")
        return tile_findings(sweep) if isinstance(sweep, TileReport) else artefacts(sweep)
    return measured(sweep, metric, seed, sizes)[1]


def measured(
    sweep: Sweep, metric: str | None, seed: int, thresholds: Mapping[str, float] = THRESHOLDS
) -> tuple[Metrics, Findings]:
    """Every metric of a sweep, and what is found in them; see `findings`."""
    by_place = places(sweep)
    metrics = all_metrics(from_sweep(sweep), metric=metric, seed=seed, beside=border_test(by_place))
    return metrics, diagnose(
        metrics, Setting.of(sweep, metric), thresholds, beside=task_findings(sweep, by_place, metrics)
    )


def diagnose(
    metrics: Metrics,
    setting: Setting,
    thresholds: Mapping[str, float] = THRESHOLDS,
    *,
    beside: Sequence[Finding] = (),
) -> Findings:
    """Return the findings of metrics that are there already, and last those that were made `beside` them."""
    return weighed(
        [
            *performance(metrics, setting),
            *region(metrics, setting),
            *sides(metrics, setting),
            *irregularities(metrics, setting),
            *ripples(metrics, setting),
            *controlled(metrics, setting),
            *cause(metrics, setting),
            *consistency(metrics),
            overview(metrics),
            *pitfalls(metrics, setting),
            *(_skipped(each, metrics) for each in metrics.skipped),
            *beside,
        ],
        thresholds,
    )


def _skipped(each: Skipped, metrics: Metrics) -> Finding:
    site = each.site
    for metric in metrics.sweep.metrics:  # ids have the keys of metrics, and stay what they are when words change
        site = site.replace(metric.called, metric.name)
    which = "-".join("".join(c if c.isalnum() else " " for c in site.lower()).split())
    return Finding("skipped", f"Not measured: {each.site}, since {plain(each.why)}.", which=which)
