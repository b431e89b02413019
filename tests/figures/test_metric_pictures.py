"""Pictures of a metric in millimetres, lower is better: its name, unit, range and which colour is better."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import shiftlens as sl
from narrative import millimetres as mm
from shiftlens.analysis.arrays import from_sweep
from shiftlens.errors import InputError
from shiftlens.figures.heatmaps import shown_mean
from shiftlens.figures.notebook import sweep_html
from shiftlens.figures.profile import profile
from shiftlens.sweeps.sweep_result import Sweep


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return mm.sweep(tmp_path_factory.mktemp("one") / "one.zarr", controls=("occlusion", "flip"))


def texts(figure: Figure) -> str:
    labels = [text for axes in figure.axes for text in (axes.get_title(), axes.get_xlabel(), axes.get_ylabel())]
    return " | ".join([figure.get_suptitle(), *labels])


def test_every_picture_is_of_the_metric(one: Sweep) -> None:
    made = sl.plot(one)
    controls = ["control-occlusion", "control-flip"]
    assert list(made) == ["mae", "signed_bias", "profile", "sides", "classes", *controls, "phases"]
    for name, figure in made.items():
        mm.says_nothing_of_shares(texts(figure).replace("band: 95 %", "").replace("95 % intervals", ""))
        assert ("MAE" in texts(figure)) == (name != "signed_bias")
        assert "mm" in texts(figure)
    values = 1000 * np.asarray(one.mean_of(mm.MAE))
    assert np.allclose(1000 * np.asarray(made["mae"].axes[0].images[0].get_array()), values)
    assert made["mae"].axes[0].images[0].get_clim() == pytest.approx((0, values.max() / 1000))
    assert re.search(r"MAE \(mm\), lower is better, range 0 to 0\.\d+$", made["mae"].axes[1].get_ylabel())
    assert "lower is better" not in texts(made["signed_bias"])


def test_red_is_better_whichever_way_that_is(one: Sweep) -> None:
    for name, sign in (("mae", -1), ("signed_bias", 1)):
        image = sl.plot(one, metric=name)["sides"].axes[0].images[0]
        # Planted: moves to the left are better of an error, and worse of a metric that grows with it.
        left = np.asarray(image.get_array())[:, 0].mean()
        red, _, blue, _ = image.cmap(image.norm(left))
        assert (red > blue) == (sign * left > 0)
        assert (red > blue) == (name == "mae")


def test_means_over_rings_leave_out_nothing(one: Sweep) -> None:
    arrays = from_sweep(one)
    made, mean = profile(arrays.values()), shown_mean(arrays.values())
    length = np.rint(np.hypot(mm.D[:, None], mm.D[None, :]))
    assert made.value == pytest.approx([mean[length == k].mean() for k in range(mm.REACH + 1)], rel=1e-5)
    assert (made.lo > 0).all()
    assert (made.lo < made.value).all()


def test_a_comparison_and_a_notebook_show_the_metric(one: Sweep, tmp_path: Path) -> None:
    other = mm.sweep(tmp_path / "two.zarr", scale=1.3)
    made = sl.compare([one, other]).plot()
    for figure in made.values():
        mm.says_nothing_of_shares(re.sub(r"\(95 %\)|Bands: 95 %", "", texts(figure)))
    image = made["differences"].axes[0].images[0]
    assert image.cmap.name == "RdBu"
    assert np.asarray(image.get_array()).min() > 0  # worse everywhere: blue
    assert 'alt="MAE"' in sweep_html(one)
    with pytest.raises(InputError, match="unknown metric 'loss'"):
        sl.plot(one, metric="loss")
