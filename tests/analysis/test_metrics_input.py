"""What cannot be measured says why; what is no sweep is refused in one line; a sweep on disk is read in pieces."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from planted import N_CLASSES, sweep

from shiftlens.analysis.arrays import SweepArrays, from_sweep
from shiftlens.analysis.summary import all_metrics
from shiftlens.errors import InputError, StoreError
from shiftlens.shifts import Fill
from shiftlens.stats import Skipped
from sweeps.small_sweeps import header


def tiny(prediction, labels=None, **more):
    prediction = np.asarray(prediction, np.uint8)
    n, ny, nx = prediction.shape
    settings = {
        "dys": np.arange(ny) - ny // 2,
        "dxs": np.arange(nx) - nx // 2,
        "class_names": ("a", "b"),
        "picture_size": (32, 32),
        "strides": (2,),
    } | more
    loss = np.ones(prediction.shape, np.float32) * np.arange(1, n + 1, dtype=np.float32)[:, None, None]
    stored = {"prediction": prediction, "loss": loss}
    return SweepArrays(stored, np.zeros(n, np.int64) if labels is None else np.asarray(labels), **settings)


def why(metrics):
    return {s.site: s.why for s in metrics.skipped}


def test_one_image():
    m = all_metrics(tiny(np.zeros((1, 5, 5))), n_resamples=10)
    assert m.profile("accuracy").map.value.min() == 1
    assert 0 < m.profile("accuracy").map.lo.max() < 0.3
    assert m.tests == ()
    measured = (
        m.profile("loss").map,
        m.asymmetry_x,
        m.centre,
        *(each.irregular for each in m.profiles),
        m.consistency,
        m.mean,
    )
    assert len(measured) == 7
    for value in measured:
        assert isinstance(value, Skipped)
        assert "one image" in value.why or "no loss" in value.why


@pytest.mark.parametrize("predicted", [0, 1])
def test_all_right_and_all_wrong(predicted):
    m = all_metrics(tiny(np.full((6, 13, 13), predicted)), n_resamples=10)
    assert m.profile("accuracy").at_origin.value == 1 - predicted
    assert m.consistency.pairwise.value == 1
    for value in (m.asymmetry_x, m.asymmetry_y, m.profile("accuracy").irregular):
        assert "no image changes" in value.why
    assert all(isinstance(a, Skipped) for a in m.aliasing)
    if predicted:
        assert all(r.why == "no image is right at (0, 0)" for r in m.retained)
        assert isinstance(m.consistency.flip_rate, Skipped)
    else:
        assert all(r.at_least and r.area.at_least and r.area.value == 169 for r in m.retained)
    assert not any(t.holds for t in m.tests)


def test_one_class():
    m = all_metrics(tiny(np.zeros((4, 5, 5)), class_names=("only",)), n_resamples=10)
    assert "one class" in m.per_class.why
    assert "one class" in m.consistency.why


def test_one_shift():
    m = all_metrics(tiny(np.zeros((4, 1, 1))), n_resamples=10)
    assert m.profile("accuracy").at_origin.value == 1
    assert isinstance(m.retained[0], Skipped)
    assert "fewer than two shifts" in m.profile("accuracy").irregular.why
    assert "reaches 0 px" in m.worst_of_radius.why


def test_a_one_sided_grid():
    made = sweep(0, 40, 6)
    half = replace(made, variables={k: v[:, :, 6:] for k, v in made.variables.items()}, dxs=made.dxs[6:])
    m = all_metrics(half, n_resamples=20)
    assert m.asymmetry_x.why == "the grid has no pair of opposite shifts along x"
    assert not isinstance(m.asymmetry_y, Skipped)
    assert "reaches 0 px" in m.worst_of_radius.why
    assert m.retained[0].at_least


def test_a_coarse_grid():
    made = sweep(0, 40, 8)
    coarse = replace(made, dys=made.dys * 6, dxs=made.dxs * 6, picture_size=(200, 200), strides=(2, 3, 4, 5))
    m = all_metrics(coarse, n_resamples=20)
    assert "step of 6 px leaves no shift within 4 px" in m.worst_of_radius.why
    sites = why(m)
    for stride in (2, 3, 4):
        assert "shares a factor" in sites[f"aliasing at stride {stride} along x"]
    assert "fewer than 5 periods" in sites["aliasing at stride 5 along x"]
    three = replace(made, variables={k: v[:, 7:10, 7:10] for k, v in made.variables.items()},
                    dys=made.dys[7:10], dxs=made.dxs[7:10])  # fmt: skip
    assert "fewer than two shifts outward" in all_metrics(three, n_resamples=20).profile("accuracy").irregular.why


def test_without_controls_and_without_size():
    m = all_metrics(replace(sweep(0, 40, 5), picture_size=None, strides=()), n_resamples=20)
    sites = why(m)
    assert sites["occlusion effect"] == sites["placement effect"] == "there is no occlusion control"
    assert sites["asymmetry left/right without the data's own"] == "there is no flip control"
    assert sites["padding effect"] == "there is no canvas control"
    assert "how large the pictures are" in sites["blank limit"]
    assert "no stride" in sites["aliasing"]
    assert m.test("placement overall") == Skipped("placement overall", "it was not made on this sweep")
    wrap = all_metrics(replace(sweep(0, 40, 5), fill="wrap", fill_is_constant=False), n_resamples=20)
    assert "always leaves some of the picture" in wrap.blank.why


def test_a_loss_that_is_not_finite_is_not_averaged():
    made = sweep(0, 40, 5)
    loss = made.loss.copy()
    loss[3, 2, 2] = np.inf
    with np.errstate(invalid="ignore"):
        m = all_metrics(replace(made, variables={**made.variables, "loss": loss}), n_resamples=20)
    assert "not finite" in m.profile("loss").map.why
    assert isinstance(m.profile("loss").irregular, Skipped)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"dxs": np.array([-1, 0, 2])}, "expected dxs ascending, evenly spaced"),
        ({"dys": np.array([1, 2, 3])}, "expected dys ascending, evenly spaced and with 0"),
        ({"dys": np.array([-1, 0])}, "expected prediction of shape"),
        ({"index": np.array([1, 1])}, "distinct positions"),
    ],
)
def test_what_is_no_sweep_is_refused(change, line):
    with pytest.raises(InputError, match=line):
        tiny(np.zeros((2, 3, 3)), **change)
    with pytest.raises(InputError, match="at least 1 image"):
        tiny(np.zeros((0, 3, 3)))


def test_the_mean_within_a_radius():
    made = sweep(0, 40, 6)
    inside = np.hypot(made.dys[:, None], made.dxs[None, :]) <= 3
    assert made.values("accuracy").per_image(inside).mean() == pytest.approx(made.correct[:, inside].mean())
    assert made.values("loss").per_image(inside).mean() == pytest.approx(made.loss[:, inside].mean(), rel=1e-5)


class OnDisk:
    """Stands for a Sweep: the attributes that `from_sweep` uses, on a real Zarr group."""

    def __init__(self, path, made, missing=(), controls=()):
        prediction, loss = np.array(made.prediction), np.array(made.loss)
        prediction[list(missing)], loss[list(missing)] = 255, np.nan
        n = made.n_images
        dataset = xr.Dataset(
            {
                "prediction": (("image", "dy", "dx"), prediction),
                "loss": (("image", "dy", "dx"), loss),
                "label": ("image", made.labels),
                "index": ("image", np.arange(n)[::-1].copy()),
            },
            coords={"dy": made.dys, "dx": made.dxs},
        )
        dataset.to_zarr(path, consolidated=False, zarr_format=3, encoding={"prediction": {"chunks": (8, *made.shape)}})
        self.dataset = xr.open_zarr(path, consolidated=False, chunks=None)
        names = tuple(f"class {k}" for k in range(N_CLASSES))
        self.header = header(image_size=(9, 9), strides=(2, 4), class_names=names, fill=Fill("black"))
        self.complete = not missing
        self._controls = dict(controls)
        self.controls = tuple(self._controls)

    def control(self, name, *, partial=False):
        found = self._controls[name]
        assert partial or found.complete
        return found


@pytest.fixture(scope="module")
def made():
    return sweep(1, 40, 6)


def test_a_sweep_on_disk_gives_the_same_as_its_arrays(tmp_path, made):
    control = OnDisk(tmp_path / "c", made)
    read = from_sweep(OnDisk(tmp_path / "s", made, controls={"occlusion": control}))
    assert (read.picture_size, read.strides, read.fill, read.n_missing) == ((9, 9), (2, 4), "black", 0)
    assert read.class_names == made.class_names
    assert read.positions.tolist() == list(range(40))[::-1]
    here = replace(made, picture_size=(9, 9), index=np.arange(40)[::-1].copy())
    one, other = all_metrics(read, n_resamples=30), all_metrics(here, n_resamples=30)
    assert one.retained[0].area == other.retained[0].area
    assert one.asymmetry_x.overall == other.asymmetry_x.overall
    assert one.profile("loss").map.value == pytest.approx(other.profile("loss").map.value)
    assert one.placement.effect.any() == np.False_


def test_an_incomplete_sweep_is_measured_on_what_is_whole(tmp_path, made):
    missing = [*range(8, 16), 39]
    control = OnDisk(tmp_path / "c", made, missing=range(20))
    empty = OnDisk(tmp_path / "e", made, missing=range(40))
    read = from_sweep(OnDisk(tmp_path / "s", made, missing=missing, controls={"occlusion": control, "flip": empty}))
    keep = [i for i in range(40) if i not in missing]
    assert (read.n_images, read.n_missing, tuple(read.controls)) == (31, 9, ("occlusion",))
    assert np.array_equal(read.correct, made.correct[keep])
    m = all_metrics(read, n_resamples=20)
    assert m.profile("accuracy").map.value == pytest.approx(made.correct[keep].mean(axis=0))
    assert m.placement.n == 19
    assert not m.placement.effect.any()
    with pytest.raises(StoreError, match="at least 1 image"):
        from_sweep(empty)


def test_a_foreign_group_is_refused():
    data = xr.Dataset({"temperature": ("t", [1.0])})
    foreign = SimpleNamespace(dataset=data, complete=True, header=header())
    with pytest.raises(
        StoreError, match="expected a sweep with prediction, loss, label, dy, dx, got one with temperature"
    ):
        from_sweep(foreign)


def test_memory_grows_with_one_byte_a_cell(made):
    class Big:
        """Losses and predictions that exist only while they are read."""

        def __init__(self, kind):
            self.kind, self.shape = kind, (3000, 41, 41)

        def __getitem__(self, images):
            n = len(range(*images.indices(self.shape[0])))
            rng = np.random.default_rng(images.start)
            return rng.integers(0, 2, (n, 41, 41)).astype(self.kind)

    d = np.arange(-20, 21)
    big = SweepArrays(
        {"prediction": Big(np.uint8), "loss": Big(np.float32)}, np.zeros(3000, np.int64), d, d, ("a", "b"), strides=(2,)
    )
    tracemalloc.start()
    all_metrics(big, n_resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    cells = 3000 * 41 * 41
    # Never a copy of the losses (4 bytes a cell): right and wrong, and a few chunks.
    assert peak < cells + 16 * 2_200_000 + 20e6, peak / cells
