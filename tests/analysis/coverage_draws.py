"""Share of draws whose interval holds the truth: images drawn from a large population whose own value is the truth."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
from planted import Field, arrays, margins

from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.summary import Metrics, all_metrics
from shiftlens.stats import Estimate, Skipped

Interval = tuple[Field, Field, Field]


def rows(sweep: SweepArrays, which: np.ndarray) -> SweepArrays:
    """The same sweep of other images; its controls too."""
    return replace(
        sweep,
        variables={name: np.asarray(cells)[which] for name, cells in sweep.variables.items()},
        labels=sweep.labels[which],
        index=None,
        controls={name: rows(control, which) for name, control in sweep.controls.items()},
    )


def population(seed: int, n: int, mean: Field) -> SweepArrays:
    """A sweep with both controls; the control loses half of what the shift loses, the mirrored pictures tilt over."""
    rng = np.random.default_rng(seed)
    luck = margins(rng, n, np.zeros_like(mean))
    out = arrays(mean + luck, rng)
    occluded = arrays(0.5 * (mean + mean.max()) + luck, rng)
    other = 0.8 * luck[:, :, ::-1] + 0.6 * margins(rng, n, np.zeros_like(mean))
    flipped = arrays(mean[:, ::-1] + other, rng)
    controls = {
        "occlusion": replace(occluded, labels=out.labels, variables=_predict(out, occluded)),
        "flip": replace(flipped, labels=out.labels, variables=_predict(out, flipped)),
    }
    return replace(out, controls=controls)


def _predict(sweep: SweepArrays, other: SweepArrays) -> dict[str, np.ndarray]:
    """The other sweep's right and wrong in terms of this sweep's labels."""
    wrong = (sweep.labels + 1) % len(sweep.class_names)
    prediction = np.where(other.correct, sweep.labels[:, None, None], wrong[:, None, None]).astype(np.uint8)
    return {**other.variables, "prediction": prediction}


def intervals(m: Metrics) -> dict[str, Interval]:
    """Every interval of a result by name: value, lo, hi; "band " marks those that hold for all cells."""
    same = m.consistency
    found: dict[str, object] = {
        "accuracy at origin": m.profile("accuracy").at_origin,
        "loss at origin": m.profile("loss").at_origin,
        "mean accuracy": m.mean,
        "worst of radius": m.worst_of_radius,
        "asymmetry x": m.asymmetry_x.overall,
        "asymmetry y": m.asymmetry_y.overall,
        "asymmetry model": m.asymmetry_x_model.overall,
        "mean agreement": same.mean_agreement,
        "pairwise": same.pairwise,
        "right pairwise": same.right_pairwise,
        "flip rate": same.flip_rate,
        "occlusion": m.occlusion.overall,
        "placement": m.placement.overall,
    }
    for r in m.retained:
        if not isinstance(r, Skipped):
            found[f"area {r.level:.0%}"], found[f"radius {r.level:.0%}"] = r.area, r.radius
    if not isinstance(m.centre, Skipped):
        found[f"centre x {m.centre.level:.0%}"] = m.centre.x
        found[f"centre y {m.centre.level:.0%}"] = m.centre.y
    for a in m.aliasing:
        if not isinstance(a, Skipped):
            found[f"ripple {a.stride} {a.axis}"] = a.ripple
            found[f"quadrature {a.stride} {a.axis}"] = a.quadrature
    out = {name: _of(e) for name, e in found.items() if isinstance(e, Estimate)}
    for name, cells in (
        ("accuracy", m.profile("accuracy").map),
        ("loss", m.profile("loss").map),
        ("agreement", m.consistency.agreement),
    ):
        out[name] = (cells.value, cells.lo, cells.hi)
        out["band " + name] = (cells.value, cells.band_lo, cells.band_hi)
    for name, pairs in (("x", m.asymmetry_x), ("y", m.asymmetry_y), ("model", m.asymmetry_x_model)):
        out[f"band pairs {name}"] = (pairs.effect, pairs.lo, pairs.hi)
    for name, effect in (("occlusion", m.occlusion), ("placement", m.placement)):
        out[f"band {name}"] = (effect.effect, effect.lo, effect.hi)
    for k, name in enumerate(m.per_class.names):
        out[f"class {name}"] = (m.per_class.accuracy(k), *m.per_class.interval(k))
    return out


def _of(e: Estimate) -> Interval:
    return np.float64(e.value), np.float64(e.lo), np.float64(np.inf if e.at_least else e.hi)


def coverage(
    mean: Field, n: int, n_draws: int, n_resamples: int, *, seed: int = 0, size: int = 20_000
) -> dict[str, float]:
    """Coverage of every interval: of single cells averaged over cells, of bands as all cells at once."""
    everything = population(seed, size, mean)
    truth = intervals(all_metrics(everything, n_resamples=2, seed=seed))
    rng = np.random.default_rng(seed + 1)
    held: dict[str, list[float]] = defaultdict(list)
    for draw in range(n_draws):
        m = all_metrics(rows(everything, rng.integers(0, size, n)), n_resamples=n_resamples, seed=draw)
        for name, (_, lo, hi) in intervals(m).items():
            if name not in truth:
                continue
            inside = (lo <= truth[name][0] + 1e-12) & (truth[name][0] <= hi + 1e-12)
            held[name].append(float(inside.all() if name.startswith("band ") else inside.mean()))
    return {name: float(np.mean(values)) for name, values in held.items()}
