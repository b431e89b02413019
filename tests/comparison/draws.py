"""Share of draws whose interval holds the truth, and of null comparisons that claim anything."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from unittest.mock import patch

import numpy as np

from analysis.planted import Field
from comparison.pairs import pair_of, sources
from shiftlens.analysis import arm_scores
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.paired import Difference
from shiftlens.narrative import comparing as gather
from shiftlens.narrative.comparison_result import Comparison
from shiftlens.stats import resample_weights


@lru_cache(maxsize=1)
def _weights(n: int, n_resamples: int, seed: int) -> np.ndarray:
    return resample_weights(np.arange(n), n_resamples, seed)


def _same_weights(index: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """The weights of images in ascending order: all arms draw the same."""
    assert (np.diff(index) > 0).all()
    return _weights(len(index), n_resamples, seed)


def quickly(*given, **how) -> Comparison:
    """A comparison without its winners, which are half of the time; the images are drawn once for all arms."""
    with (
        patch.object(gather, "winners", return_value=()),
        patch.object(arm_scores, "resample_weights", _same_weights),
    ):
        return gather.compared(*given, **how)


def drawn(made: SweepArrays, which: np.ndarray) -> SweepArrays:
    """The same sweep of other images."""
    return replace(
        made,
        variables={
            "prediction": np.asarray(made.prediction)[which],
            "loss": np.zeros((len(which), *made.shape), np.float32),
        },
        labels=made.labels[which],
        index=None,
    )


def intervals(found: Comparison) -> dict[str, tuple[Field, Field, Field]]:
    """Every interval of a comparison by name; "band" holds for all shifts of all arms."""
    out = {}
    for each in found.against:
        for quantity, made in each.differences.items():
            if isinstance(made, Difference):
                e = made.estimate
                out[f"{quantity} {each.name}"] = (np.float64(e.value), np.float64(e.lo), np.float64(e.hi))
        out[f"shift {each.name}"] = (each.map.value, each.map.lo, each.map.hi)
    cells = [[getattr(each.map, name) for each in found.against] for name in ("value", "band_lo", "band_hi")]
    out["band"] = tuple(np.stack(part) for part in cells)
    return out


def coverage(means: list[Field], n: int, n_draws: int, *, seed: int, size: int = 10_000) -> dict[str, float]:
    """Coverage over draws of `n` images from a population whose own differences are the truth."""
    everything = pair_of(np.random.default_rng(seed), size, means)
    truth = intervals(quickly(sources(everything), n_resamples=2))
    rng = np.random.default_rng(seed + 1)
    held = defaultdict(list)
    for draw in range(n_draws):
        which = rng.integers(0, size, n)
        made = quickly(sources([drawn(each, which) for each in everything]), n_resamples=300, seed=draw)
        for name, (_, lo, hi) in intervals(made).items():
            if name in truth:
                inside = (lo <= truth[name][0] + 1e-9) & (truth[name][0] <= hi + 1e-9)
                held[name].append(float(inside.all() if name == "band" else inside.mean()))
    return {name: float(np.mean(values)) for name, values in held.items()}


def claims(found: Comparison) -> list[str]:
    """Everything that a comparison says has changed."""
    said = [f"{q} {each.name}" for each in found.against for q in (*each.better, *each.worse)]
    return said + [f"map {each.name}" for each in found.against if each.map.holds]


def null_claims(mean: Field, n: int, n_draws: int, n_arms: int, *, seed: int) -> list[list[str]]:
    """What comparisons of equally good nets claim."""
    out = []
    for draw in range(n_draws):
        made = pair_of(np.random.default_rng([seed, draw]), n, [mean] * n_arms)
        out.append(claims(quickly(sources(made), n_resamples=300, seed=draw)))
    return out
