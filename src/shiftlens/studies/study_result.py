"""What a study found: values by arm, seed and measure; contrasts with their verdicts; as text, table and Zarr group."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from shiftlens.naming import Printed, aligned
from shiftlens.stats import FloatArray, Skipped
from shiftlens.storage.existing import Kind
from shiftlens.studies.study_file import Contrast, Study
from shiftlens.studies.study_runs import RunResult
from shiftlens.studies.study_statistics import (
    ContrastResult,
    OverRuns,
    Verdict,
    claim_verdict,
    contrast_results,
    over_runs,
)

KIND = "study"
SCHEMA_VERSION = 1
STORED = Kind(KIND, "a study's results", SCHEMA_VERSION, "make it again")
HEADS = ("contrast", "estimate", "95 % over runs", "seeds", "Holm p", "verdict", "detectable")
LEGEND = (
    "95 % t intervals over seeds, not corrected; verdicts at 5 % after Holm over all contrasts; "
    "detectable: distance from the bound found with 80 % chance"
)
_STATES = ("missing", "done", "failed")


@dataclass(frozen=True, repr=False)
class StudyResult(Printed):
    """A study, finished or not.

    Attributes
    ----------
    study
        What was asked.
    path
        The study's directory.
    runs
        Those that are finished, by (arm, seed).
    seconds_left
        How long the missing runs take, about; None where that was not asked.
    n_test
        Images that sweeps are measured on, at most; None while nothing was opened.
    files
        What was written.

    Examples
    --------
    >>> planned = sl.study("study.toml", out="studies/padding", plan=True)
    >>> planned.n_runs, planned.n_missing, planned.dataset["arm"].values.tolist()
    (4, 4, ['zeros', 'circular'])
    """

    study: Study
    path: Path
    runs: Mapping[tuple[str, int], RunResult]
    seconds_left: float | None = None
    n_test: int | None = None
    files: tuple[Path, ...] = field(default=(), compare=False)

    @property
    def n_runs(self) -> int:
        """Runs in all."""
        return len(self.study.variants) * len(self.study.seeds)

    @property
    def failed(self) -> list[RunResult]:
        """Runs that diverged, or whose net gave scores that are not finite."""
        return [run for run in self.runs.values() if run.failed is not None]

    @property
    def n_missing(self) -> int:
        """Runs that are still to be made."""
        return self.n_runs - len(self.runs)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """`value` (arm, seed, measure), NaN where a run failed or is missing; `state` (arm, seed): 0 missing, 1 done,
        2 failed; `layer_value` (arm, seed, layer_measure, layer); of every contrast `estimate`, `lo`, `hi`, `n`,
        `p_value`, `holm_p`, `detectable`, `verdict` (contrast).
        """  # noqa: D205 - one sentence with all variables
        arms, seeds, measures = list(self.study.variants), self.study.seeds, list(self.study.measures)
        measured = sorted({name for run in self.runs.values() for name in run.layers})
        layers = list(
            dict.fromkeys(layer for run in self.runs.values() for row in run.layers.values() for layer in row)
        )
        value = np.full((len(arms), len(seeds), len(measures)), np.nan)
        state = np.zeros((len(arms), len(seeds)), np.int8)
        by_layer = np.full((len(arms), len(seeds), len(measured), len(layers)), np.nan)
        for (arm, seed), run in self.runs.items():
            at = arms.index(arm), seeds.index(seed)
            state[at] = _STATES.index("done" if run.failed is None else "failed")
            value[at] = [run.values.get(name, np.nan) for name in measures]
            for k, name in enumerate(measured):
                by_layer[at][k] = [run.layers.get(name, {}).get(layer, np.nan) for layer in layers]
        data = xr.Dataset(
            {
                "value": (("arm", "seed", "measure"), value),
                "state": (("arm", "seed"), state),
                "layer_value": (("arm", "seed", "layer_measure", "layer"), by_layer),
            },
            {"arm": arms, "seed": seeds, "measure": measures, "layer_measure": measured, "layer": layers},
        )
        names = ("estimate", "lo", "hi", "n", "p_value", "holm_p", "detectable")
        found = {name: [np.nan if isinstance(c, Skipped) else float(getattr(c, name)) for c in self.contrasts]
                 for name in names}  # fmt: skip
        words = ["undecided" if isinstance(c, Skipped) else c.verdict for c in self.contrasts]
        data = data.assign_coords(contrast=[each.name for each in self.study.contrasts])
        return data.assign({name: ("contrast", np.array(row, np.float64)) for name, row in found.items()}).assign(
            verdict=("contrast", np.array(words, "U9"))
        )

    def values(self, arm: str, measure: str) -> FloatArray:
        """One value a seed, NaN where the run failed or is missing; `NAME@LAYER` is one layer's."""
        name, _, layer = measure.partition("@")

        def of(run: RunResult | None) -> float:
            if run is None or run.failed is not None:
                return np.nan
            return run.layers.get(name, {}).get(layer, np.nan) if layer else run.values.get(name, np.nan)

        return np.array([of(self.runs.get((arm, seed))) for seed in self.study.seeds], np.float64)

    def mean(self, arm: str, measure: str) -> OverRuns:
        """Mean over seeds with its t interval, which is NaN with fewer than 2 runs."""
        return over_runs(self.values(arm, measure))

    @cached_property
    def contrasts(self) -> list[ContrastResult | Skipped]:
        """Every contrast, in the order of the file."""
        pairs: dict[tuple[str, str], FloatArray] = {}
        for each in self.study.contrasts:
            other = (each.against or each.arm, each.against_measure or each.measure)
            pairs |= {pair: self.values(*pair) for pair in ((each.arm, each.measure), other)}
        return contrast_results(
            self.study.contrasts, pairs, {each.name: self._unit(each) for each in self.study.contrasts}
        )

    def _unit(self, contrast: Contrast) -> str:
        measure = self.study.measures[contrast.measure.partition("@")[0]]
        return measure.difference_unit if contrast.is_paired else measure.unit

    def of_claim(self, claim: str) -> tuple[Verdict, list[ContrastResult | Skipped]]:
        """A claim's verdict, and the contrasts behind it."""
        found = [made for each, made in zip(self.study.contrasts, self.contrasts, strict=True) if each.claim == claim]
        return claim_verdict(found, self.study.claims[claim].needs), found

    @property
    def notes(self) -> list[str]:
        """What a reader must know besides the numbers."""
        notes = []
        if self.n_missing:
            notes.append(f"{self.n_missing} of {self.n_runs} runs are missing: the same command goes on with them")
        notes += [f"{e.arm}, seed {e.seed} failed and is left out of all means: {e.failed}" for e in self.failed]
        if len(self.study.seeds) == 1:
            notes.append("one seed: no interval over training runs can be given; add seeds")
        skipped = [each for each in self.contrasts if isinstance(each, Skipped)]
        if len(self.runs) > len(self.failed) and len(self.study.seeds) > 1:
            notes += [f"{each.site}: {each.why}" for each in skipped]
        return notes

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens study --json`."""
        arms = []
        for arm in self.study.variants:
            runs = [self.runs[arm, seed] for seed in self.study.seeds if (arm, seed) in self.runs]
            measures = {}
            for name in self.study.measures:
                found = self.mean(arm, name)
                if found.n:
                    measures[name] = {"mean": float(found.mean), "interval": _ends(float(found.lo), float(found.hi))}
            n_failed = sum(run.failed is not None for run in runs)
            arms.append({"name": arm, "n_done": len(runs) - n_failed, "n_failed": n_failed, "measures": measures})
        return {
            "study": self.study.name,
            "out": str(self.path),
            "n_runs": self.n_runs,
            "n_missing": self.n_missing,
            "n_failed": len(self.failed),
            "seconds_left": self.seconds_left,
            "arms": arms,
            "contrasts": [
                _contrast_dict(each, made) for each, made in zip(self.study.contrasts, self.contrasts, strict=True)
            ],
            "claims": {name: self.of_claim(name)[0] for name in self.study.claims},
            "notes": self.notes,
            "files": [str(file) for file in self.files],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        done = len(self.runs) - len(self.failed)
        head = (
            f"{self.study.name}: {self.n_runs} runs, {done} done, {len(self.failed)} failed, {self.n_missing} missing"
        )
        if self.n_missing and self.seconds_left is not None:
            # Below that, what the estimate leaves out (loading, writing) takes as long as the runs.
            short = self.seconds_left < 30
            head += f", {'less than a minute' if short else f'about {duration(self.seconds_left)}'} left"
        lines = [head]
        if done and self.study.contrasts:
            rows: list[tuple[str, ...]] = [HEADS]
            rows += [contrast_row(each) for each in self.contrasts if isinstance(each, ContrastResult)]
            lines += ["", *aligned(rows), LEGEND] if len(rows) > 1 else []
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def save(self) -> Path:
        """Write `study.zarr`."""
        target = self.path / "study.zarr"
        about = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "study": json.dumps(self.study.model_dump(mode="json")),
            "units": json.dumps({name: each.unit for name, each in self.study.measures.items()}),
            "failed": json.dumps({f"{run.arm} {run.seed}": run.failed for run in self.failed}),
            "complete": self.n_missing == 0,
        }
        stored = self.dataset.assign_attrs(about)
        # Texts of any length: those of a fixed length have no place in Zarr's specification.
        texts = {name: each.astype(object) for name, each in stored.variables.items() if each.dtype.kind == "U"}
        stored = stored.assign(texts)
        STORED.replace(target, lambda place: stored.to_zarr(place, zarr_format=3, consolidated=False))
        return target


def _ends(lo: float, hi: float) -> list[float] | None:
    return None if np.isnan(lo) else [lo, hi]


def _contrast_dict(contrast: Contrast, made: ContrastResult | Skipped) -> dict[str, Any]:
    about = contrast.model_dump(exclude={"claim"}) | {"bound": contrast.bound}
    if isinstance(made, Skipped):
        return about | {"estimate": None, "estimate_interval": None, "verdict": "undecided", "reason": made.why}
    return about | {
        "estimate": made.estimate,
        "estimate_interval": [made.lo, made.hi],
        "unit": made.unit,
        "n": made.n,
        "p_value": made.p_value,
        "holm_p": made.holm_p,
        "verdict": made.verdict,
        "detectable": None if np.isnan(made.detectable) else made.detectable,
    }


def contrast_row(made: ContrastResult) -> tuple[str, ...]:
    """Name, estimate, interval, seeds, corrected p, verdict, detectable size where nothing was found."""
    n, sign = digits_for((made.hi - made.lo) / 2), "+" if made.contrast.is_paired else ""
    return (
        made.contrast.name,
        f"{made.estimate:{sign}.{n}f} {made.unit}".strip(),
        f"[{made.lo:{sign}.{n}f}, {made.hi:{sign}.{n}f}]",
        str(made.n),
        f"{made.holm_p:.2g}",
        made.verdict,
        f"{made.detectable:.{n}f}" if made.verdict == "undecided" and not np.isnan(made.detectable) else "",
    )


def digits_for(half_width: float) -> int:
    """Decimals that show two digits of an interval's half-width."""
    if not np.isfinite(half_width) or half_width <= 0:
        return 2
    return int(np.clip(1 - np.floor(np.log10(half_width)), 0, 6))


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
