"""How many images a strict gate against a baseline needs: its chance to pass a model that has not changed.

    python benchmarks/gate_power.py BASE.zarr NEW.zarr --out gate.json --picture gate-power.png

The two sweeps say how much the values of single images differ between two models that are like each other, such as two
trainings of one net. For each number of images, so many are drawn from them with replacement, and the power is the
number that `shiftlens check` prints, at the level that each of the three default conditions has at least (a third of
5 %).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import shiftlens as sl
from header import header
from shiftlens.analysis.arrays import from_sweep
from shiftlens.gate import against
from shiftlens.gate.deciding import ALPHA
from shiftlens.gate.evidence import Means
from shiftlens.gate.quantities import Reading

CONDITIONS = {
    "unshifted": against.unshifted_loss,
    "near (mean within 8 px)": against.near_loss,
    "side_difference": against.side_loss,
}
ALLOWED = (0.5, 1.0, 2.0)
N_IMAGES = (100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600)
N_DRAWS = 20


def power(evidence: Means, allowed: float, n: int) -> float:
    """The mean power over draws of n images."""
    rng = np.random.default_rng(n)
    drawn = (evidence.columns[rng.integers(0, len(evidence.columns), n)] for _ in range(N_DRAWS))
    level = ALPHA / len(CONDITIONS)
    return float(np.mean([replace(evidence, columns=each).passing_at_no_change(allowed, level)[0] for each in drawn]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    given = parser.parse_args()
    sweeps = [sl.open_sweep(path) for path in (given.base, given.new)]
    readings = [Reading(each.path.stem, each, from_sweep(each)) for each in sweeps]
    pair = against.Pair.of(*readings, None, partial=False)
    found = {}
    for name, loss in CONDITIONS.items():
        evidence = loss(pair)
        assert isinstance(evidence, Means)
        for allowed in ALLOWED:
            found[f"{name}, {allowed:g}"] = [power(evidence, allowed, n) for n in N_IMAGES]
            print(
                f"{name}, {allowed:g} points:", " ".join(f"{100 * each:.0f}" for each in found[f"{name}, {allowed:g}"])
            )
    said = header(n_images_of_the_sweeps=pair.aligned.n_images, n_images=N_IMAGES, power=found)
    given.out.write_text(json.dumps(said, indent=1) + "\n")
    figure, panels = plt.subplots(1, len(CONDITIONS), figsize=(10, 3.2), sharey=True, layout="constrained")
    for panel, name in zip(panels, CONDITIONS, strict=True):
        for allowed, style in zip(ALLOWED, ("o:", "o--", "o-"), strict=True):
            share = [100 * each for each in found[f"{name}, {allowed:g}"]]
            panel.plot(N_IMAGES, share, style, color="#21918c", markersize=3, label=f"{allowed:g} points allowed")
        panel.axhline(80, color="#9aa5b1", linewidth=0.8)
        panel.set(title=name, xscale="log", xlabel="images", ylim=(0, 101))
    panels[0].set_ylabel("passes if nothing has changed, %")
    panels[-1].legend(fontsize=8, loc="upper left")
    figure.savefig(given.picture, dpi=120)


if __name__ == "__main__":
    main()
