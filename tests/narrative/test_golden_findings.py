"""The numbers of all findings on fixed inputs, as they were when this was written: only sentences may change.

`python -m narrative.test_golden_findings` in `tests/` writes them anew; do that only where a number is meant to change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from analysis.planted import arrays, margins, predicting, sweep, trend
from comparison.pairs import pair_of, plateau, sources, with_header
from narrative.diagnosed import said_of
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.arithmetic import inspect
from shiftlens.data.images import load_images
from shiftlens.lens.feature_maps import features
from shiftlens.narrative.comparing import compared
from shiftlens.narrative.findings import findings
from shiftlens.nn import conv2d
from shiftlens.nn.vgg import VGG
from sweeps.small_sweeps import PLAN

GOLDEN = Path(__file__).with_name("golden_findings.json")
FEW = 50


def leaning() -> SweepArrays:
    def mean(dys: Any, dxs: Any) -> Any:
        tilt = 0.4 * np.tanh(dxs / 2)[None, :] - 0.2 * np.tanh(dys / 2)[:, None]
        return trend(dys, dxs, edge=5, soft=2.5, centre=(1, 0)) + tilt

    return sweep(11, 300, 7, mean=mean)


def ring() -> SweepArrays:
    def mean(dys: Any, dxs: Any) -> Any:
        r = np.hypot(dys[:, None], dxs[None, :])
        return trend(dys, dxs, edge=30) - 0.9 * np.exp(-(((r - 4) / 1.5) ** 2))

    made = sweep(2, 300, 8, mean=mean)
    return replace(made, controls={"occlusion": made})


def controlled(harm: bool) -> SweepArrays:
    rng = np.random.default_rng(3)
    d = np.arange(-6, 7.0)
    near, far = (arrays(margins(rng, 200, trend(d, d, edge=edge)), rng) for edge in (4, 6))
    far = predicting(far, np.where(far.correct, near.labels[:, None, None], 9), labels=near.labels)
    moved, kept = (near, far) if harm else (far, near)
    return replace(moved, controls={"occlusion": kept, "canvas": kept, "flip": moved})


def sweeps_said() -> dict[str, Callable[[], Any]]:
    training = {"augmentation": {"shift": 2, "shift_fill": "reflect", "mirror": "alternating"}, "asked": {}}
    notes = {"data_notes": ("images are JPEG-compressed", "another"), "model_notes": ("odd",)}
    small = {"max_shift": (7, 7), "n_images": 300}
    quiet = sweep(1008, 60, 6)
    coarse = replace(quiet, dys=quiet.dys * 4, dxs=quiet.dxs * 4, picture_size=(64, 64))
    tight = replace(sweep(0, 60, 9), picture_size=(9, 9), n_missing=5)
    return {
        "leaning": lambda: said_of(leaning(), n_resamples=FEW, **small),
        "ring": lambda: said_of(ring(), n_resamples=FEW),
        "harmful move": lambda: said_of(controlled(True), n_resamples=FEW, n_controlled={"flip": 200}),
        "helpful move": lambda: said_of(controlled(False), n_resamples=FEW),
        "quiet": lambda: said_of(quiet, n_resamples=FEW),
        "coarse": lambda: said_of(coarse, n_resamples=FEW, step=4),
        "tight": lambda: said_of(tight, n_resamples=FEW, training=training, **notes),
        "wrap": lambda: said_of(replace(quiet, fill="wrap", fill_is_constant=False), n_resamples=FEW, fill="wrap"),
        "wide": lambda: said_of(sweep(0, 60, 4, mean=lambda y, x: trend(y, x, edge=30)), n_resamples=FEW),
        "all wrong": lambda: said_of(predicting(quiet, np.full(quiet.loss.shape, 9)), n_resamples=FEW),
    }


def stack(mode: str) -> nn.Sequential:
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    for k in range(3):
        layers += [conv2d(3 if k == 0 else 6, 6, 3, padding=1, padding_mode=mode), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def others_said() -> dict[str, Callable[[], Any]]:
    means = [plateau(6, edge=4), plateau(6, edge=5), plateau(6, edge=4) - 0.15, plateau(6, edge=40)]

    def compare() -> Any:
        made = sources(pair_of(np.random.default_rng(4), 300, means))
        made[1] = with_header(made[1], plan=replace(PLAN, dtype="bfloat16"))
        return compared(made, n_resamples=FEW).findings

    images = load_images("digits", split="test", limit=30)
    net = VGG("vgg6", width=2, downsample="stride")
    return {
        "comparison": compare,
        "zeros": lambda: findings(features(stack("zeros"), size=(16, 16))),
        "symmetric": lambda: findings(features(stack("symmetric"), size=(16, 16))),
        "average": lambda: findings(features(stack("zeros"), average=images)),
        "no control": lambda: findings(features(stack("zeros"), average=images, controls=())),
        "uneven": lambda: findings(inspect(net, 32)),
        "even": lambda: findings(inspect(net, 33)),
    }


def numbers(found: Any) -> list[dict[str, Any]]:
    keys = ("id", "question", "severity", "value", "unit", "interval", "p_value")
    return [{key: row[key] for key in keys} for row in (each.to_dict() for each in found)]


CASES = sweeps_said() | others_said()
FLOAT32 = ("zeros", "symmetric", "average", "no control")


@pytest.mark.parametrize("case", CASES)
def test_no_number_has_changed(case: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    made = numbers(CASES[case]())
    assert [row["id"] for row in made] == [row["id"] for row in expected]
    for row, wanted in zip(made, expected, strict=True):
        for key in ("question", "severity", "unit"):
            assert row[key] == wanted[key], row
        # Maps of a float32 net differ in the last digits between processors.
        close = {"rel": 1e-4} if case in FLOAT32 else {"rel": 1e-9, "abs": 1e-12}
        for key in ("value", "p_value"):
            assert row[key] == (wanted[key] if wanted[key] is None else pytest.approx(wanted[key], **close)), row
        assert (row["interval"] is None) == (wanted["interval"] is None), row
        for end, bound in zip(row["interval"] or (), wanted["interval"] or (), strict=True):
            assert end == (bound if bound is None else pytest.approx(bound, **close)), row


if __name__ == "__main__":
    rows = {name: ",\n".join(json.dumps(row) for row in numbers(made())) for name, made in CASES.items()}
    cases = ",\n".join(f"{json.dumps(name)}: [\n{text}\n]" for name, text in rows.items())
    GOLDEN.write_text(f"{{\n{cases}\n}}\n", encoding="utf-8")
