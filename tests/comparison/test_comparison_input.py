"""What may be compared with what: images in any order, other input sizes, and one clear line for all the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shiftlens as sl
from comparison.pairs import pair_of, plateau, sources, with_header
from shiftlens.analysis.arms import align
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, StoreError
from shiftlens.narrative.comparing import compared
from shiftlens.shifts import Fill, ShiftGrid
from sweeps import small_sweeps as small

N = 40


@pytest.fixture(scope="module")
def made() -> list[SweepArrays]:
    return pair_of(np.random.default_rng(1), N, [plateau(9, edge=5), plateau(9, edge=6)])


def write(path: Path, seed: int = 0, n: int = 24, finish: bool = True, **changes: object) -> Path:
    store = small.create(path, n=n, chunk_size=7, **changes)
    group = store.group(None)
    result = small.numbers(n, group.header.grid.shape, seed=seed)
    for chunk in range(group.n_chunks if finish else 2):
        group.write(chunk, small.cut(result, group.span(chunk)))
    if finish:
        group.finish()
    return path


def part(made: SweepArrays, rows: np.ndarray) -> SweepArrays:
    return replace(
        made,
        variables={name: np.asarray(cells)[rows] for name, cells in made.variables.items()},
        labels=made.labels[rows],
        index=made.positions[rows],
    )


def test_from_files_with_every_key_of_the_contract(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.zarr", seed=k) for k, name in enumerate(("zeros", "symmetric", "reflect"))]
    called = []
    found = sl.compare(paths, progress=lambda done, total: called.append((done, total)))
    assert isinstance(found, sl.Comparison)
    assert called == [(1, 3), (2, 3), (3, 3)]
    assert found.names == ("zeros", "symmetric", "reflect")
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["baseline"] == "zeros"
    assert [row["name"] for row in said["rows"]] == list(found.names)
    wanted = {
        *("name", "accuracy", "retained_area", "retained_radius", "worst_of_radius", "asymmetry_lr", "asymmetry_ud"),
        *("n_parameters", "n_macs", "difference", "interval"),
    }
    assert all(wanted <= set(row) for row in said["rows"])
    assert (said["rows"][0]["n_parameters"], said["rows"][0]["n_macs"]) == (10, None)
    # The grid of these reaches 2 px down only.
    assert said["rows"][1]["worst_of_radius"] is None
    assert said["rows"][1]["skipped"]["worst_of_radius"] == "the grid reaches 2 px only"
    # The same from open sweeps, with the baseline by name.
    again = sl.compare([sl.open_sweep(path) for path in paths], baseline="zeros", names=list(found.names))
    assert again.to_dict() == found.to_dict()
    other = sl.compare(paths, baseline=2)
    assert {each.name for each in other.against} == {"zeros", "symmetric"}
    for quantity, there in found["reflect"].differences.items():
        back = other["zeros"].differences[quantity]
        if quantity not in ("worst", "retained"):
            assert back.estimate.value == pytest.approx(-there.estimate.value)
            assert back.estimate.lo == pytest.approx(-there.estimate.hi)
    assert np.allclose(other["zeros"].map.value, -found["reflect"].map.value)


def test_the_same_sweep_twice_differs_nowhere(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    found = sl.compare([path, path])
    assert found.names == ("a", "a (2)")
    assert not found["a (2)"].better
    assert not found["a (2)"].worse
    assert not found["a (2)"].map.value.any()
    assert found["a (2)"].map.holm_p == 1
    # No image differs, which is no proof that none of any other images would.
    share = found["a (2)"].differences["at-rest"].estimate
    for quantity in ("near", "everywhere", "side-x", "side-y", "agreement"):
        same = found["a (2)"].differences[quantity].estimate
        assert (same.value, same.lo, same.hi) == (0, pytest.approx(share.lo), pytest.approx(share.hi))
        assert "do not differ on any image" in found.cannot_be_told.named(f"difference-{quantity}-1").statement
    assert share.lo < -1
    assert not found["a (2)"].as_good[1].holds
    assert found.findings.named("same-model") is not None
    assert found.rows[0] == replace(found.rows[1], name="a", difference=found.rows[0].difference)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_classes": 4}, "the same number of classes, 3, got 4"),
        ({"class_names": ("a", "x", "c")}, "the same classes, 'b' for class 1, got 'x'"),
        ({"fill": Fill.parse("mean")}, "the same fill, 0.123456789 [0.123456789], got mean"),
        ({"fill": Fill.parse("0.12345678")}, "the same fill, 0.123456789 [0.123456789], got 0.12345678 [0.12345678]"),
        ({"data": "cifar10"}, "the same images, digits, got cifar10"),
        ({"data_digest": "sha256:other"}, "the same images, digits (sha256:bbbb), got others (sha256:other)"),
        ({"grid": ShiftGrid((2, 2), 2)}, "grid of horizontal shifts, -4 to 4 px in steps of 2, got -2 to 2 px"),
        ({"grid": ShiftGrid((4, 4), 4)}, "grid of vertical shifts, -2 to 2 px in steps of 2, got -4 to 4 px in steps"),
        ({"n": 20}, "the same images, 24 of digits, got 20 (20 of them the same; --partial compares those)"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    paths = [write(tmp_path / "one.zarr"), write(tmp_path / "two.zarr", **changes)]
    with pytest.raises(InputError) as caught:
        sl.compare(paths)
    assert said in str(caught.value)
    assert str(caught.value).startswith("two cannot be compared with one: expected ")
    assert "\n" not in str(caught.value)


def test_incomplete_and_missing_ones_are_refused_and_partial_takes_what_all_hold(tmp_path: Path) -> None:
    whole, half = write(tmp_path / "whole.zarr"), write(tmp_path / "half.zarr", seed=1, finish=False)
    with pytest.raises(StoreError, match=r"half.zarr is not complete: 14 of 24 images are there; run the same"):
        sl.compare([whole, half])
    with pytest.raises(StoreError, match="nothing is there"):
        sl.compare([whole, tmp_path / "nowhere.zarr"])
    found = sl.compare([whole, half], partial=True)
    assert found.n_images == 14
    assert found.findings.named("images-left-out").statement.startswith("All findings are about the 14 images")
    first = sl.open_sweep(whole).dataset["prediction"].values[:14]
    right = (first == sl.open_sweep(whole).dataset["label"].values[:14, None, None]).mean(axis=0)
    assert np.allclose(found.means[0], right)
    assert sl.compare([whole, write(tmp_path / "short.zarr", n=20)], partial=True).n_images == 20


def test_a_sweep_without_any_image_is_refused(tmp_path: Path) -> None:
    store = small.create(tmp_path / "empty.zarr", n=24)
    whole = write(tmp_path / "whole.zarr")
    with pytest.raises(StoreError, match="0 of 24 images are there; run the same sweep again to go on"):
        sl.compare([whole, store.path], partial=True)


def test_a_control_is_not_compared_with_a_sweep(tmp_path: Path) -> None:
    store = small.create(tmp_path / "s.zarr", n=24, controls=("occlusion",))
    for control in (None, "occlusion"):
        small.fill(store, control)
    sweep = sl.open_sweep(store.path)
    with pytest.raises(InputError, match="the same kind of result, a sweep, got the control occlusion"):
        sl.compare([sweep, sweep.control("occlusion")])
    found = sl.compare([sweep.control("occlusion"), sweep.control("occlusion")], names=["a", "b"])
    assert found.findings.named("is-a-control").severity == "note"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"sweeps": []}, "expected at least 2 sweeps to compare, got 0"),
        ({"sweeps": "S"}, "expected at least 2 sweeps to compare, got 1"),
        ({"sweeps": "SS", "names": ["a"]}, "expected 2 names, one a sweep, got 1: a"),
        ({"sweeps": "SS", "names": ["a", " a"]}, "expected 2 distinct names that are not empty, got a, a"),
        ({"sweeps": "SS", "names": ["a", ""]}, "expected 2 distinct names that are not empty, got a, "),
        ({"sweeps": "SS", "baseline": 2}, "expected a baseline from 0 to 1 or a name, got 2"),
        ({"sweeps": "SS", "baseline": -1}, "expected a baseline from 0 to 1 or a name, got -1"),
        ({"sweeps": "SS", "names": ["old", "new"], "baseline": "odd"}, "unknown baseline 'odd'; did you mean 'old'?"),
        ({"sweeps": "SS", "margin": 0.0}, "expected a margin between 0 and 100 points, got 0.0"),
        ({"sweeps": "SS", "margin": float("nan")}, "expected a margin between 0 and 100 points, got nan"),
    ],
)
def test_bad_requests(tmp_path: Path, how: dict[str, object], said: str) -> None:
    path = write(tmp_path / "s.zarr")
    request = {**how, "sweeps": [path for _ in how["sweeps"]]}
    with pytest.raises(InputError) as caught:
        sl.compare(**request)
    assert said in str(caught.value)


def test_things_that_are_no_sweeps(tmp_path: Path) -> None:
    path = write(tmp_path / "s.zarr")
    with pytest.raises(InputError, match="expected a list of at least 2 sweeps"):
        sl.compare(path)
    with pytest.raises(InputError, match="expected sweeps or their paths to compare, got int"):
        sl.compare([path, 3])
    found = sl.compare([path, path], names=["old", "new"])
    with pytest.raises(InputError, match="old is the baseline"):
        _ = found["old"]
    with pytest.raises(InputError, match="unknown sweep 'now'; did you mean 'new'"):
        _ = found["now"]


def test_the_order_of_images_changes_nothing(made: list[SweepArrays]) -> None:
    mixed = np.random.default_rng(0).permutation(N)
    straight = compared(sources(made), n_resamples=100)
    turned = compared(sources([made[0], part(made[1], mixed)]), n_resamples=100)
    assert turned.to_dict() == straight.to_dict()
    both = compared(sources([part(made[0], mixed[::-1]), part(made[1], mixed)]), n_resamples=100)
    assert both.to_dict() == straight.to_dict()


def test_partial_takes_the_same_images_from_all(made: list[SweepArrays]) -> None:
    left, right = np.arange(3, 30), np.arange(10, N)[::-1]
    given = sources([part(made[0], left), part(made[1], right)])
    with pytest.raises(InputError, match=r"27 of DATA, got 30 \(20 of them the same"):
        align(given)
    aligned = align(given, partial=True)
    assert aligned.index.tolist() == list(range(10, 30))
    assert aligned.n_left_out == 10
    for k in (0, 1):
        assert np.array_equal(aligned.arms[k].of(), made[k].correct[10:30])
    alone = sources([part(made[0], np.arange(5)), part(made[1], np.arange(5, 9))])
    with pytest.raises(InputError, match="some of the 5 of DATA, got none of them"):
        align(alone, partial=True)


def test_other_labels_are_refused(made: list[SweepArrays]) -> None:
    other = replace(made[1], labels=np.where(np.arange(N) == 7, (made[1].labels + 1) % 5, made[1].labels))
    with pytest.raises(InputError, match=rf"the same labels, {made[0].labels[7]} for image 7, got .* \(1 of 40 differ"):
        align(sources([made[0], other]))


def test_numbers_as_class_names_say_nothing(made: list[SweepArrays]) -> None:
    assert align(sources([made[0], replace(made[1], class_names=("0", "1", "2", "3", "4"))])).n_images == N


# ---- nets of different input size


def sized(made: list[SweepArrays], *sizes: int, **facts: object) -> list:
    given = sources(made, **facts)
    return [
        replace(with_header(each, image_size=(s, s)), arrays=replace(each.arrays, picture_size=(s, s)))
        for each, s in zip(given, sizes, strict=True)
    ]


def test_other_input_sizes_are_compared_on_common_shifts_with_scaled_areas() -> None:
    small_grid, wide = (pair_of(np.random.default_rng(1), N, [plateau(r, edge=5)])[0] for r in (8, 9))
    given = sized([small_grid, wide], 32, 33, data="cifar10")
    found = compared(given, n_resamples=100)
    assert found.dys.tolist() == found.dxs.tolist() == list(range(-8, 9))
    assert found.unit == "source"
    inner = wide.correct[:, 1:-1, 1:-1]
    assert np.array_equal(found.aligned.arms[1].of(), inner)
    same = compared(sized([small_grid, replace_cells(wide, 1)], 32, 32, data="cifar10"), n_resamples=100)
    scale = 32 / 33
    assert found.rows[1].retained_area.value == pytest.approx(same.rows[1].retained_area.value * scale**2)
    assert found.rows[1].retained_radius.hi == pytest.approx(same.rows[1].retained_radius.hi * scale)
    assert found.rows[0].retained_area == same.rows[0].retained_area
    assert found.rows[1].unshifted == same.rows[1].unshifted
    assert found["b"].differences["near"].estimate == same["b"].differences["near"].estimate
    change = found["b"].differences["retained"].estimate.value
    assert change == pytest.approx(found.rows[1].retained_area.value - found.rows[0].retained_area.value)
    note = found.findings.named("input-sizes")
    assert "'a' 8.00 px, 'b' 7.76 px" in note.statement
    # With the larger net as the baseline, the source's pixels stay the unit where they are known ...
    assert compared(given, 1, n_resamples=100).rows[1].retained_area == found.rows[1].retained_area
    # ... and the baseline's are where they are not.
    unknown = compared(sized([small_grid, wide], 32, 33), 1, n_resamples=100)
    assert unknown.unit == "baseline"
    assert unknown.rows[0].retained_area.value == pytest.approx(found.rows[0].retained_area.value / scale**2)


def replace_cells(made: SweepArrays, rim: int) -> SweepArrays:
    inside = (slice(None), slice(rim, -rim), slice(rim, -rim))
    return replace(
        made,
        variables={name: np.asarray(cells)[inside] for name, cells in made.variables.items()},
        dys=made.dys[rim:-rim],
        dxs=made.dxs[rim:-rim],
    )


def test_a_resize_before_the_cut_sets_the_scale(made: list[SweepArrays]) -> None:
    one, two = sized(made, 32, 32)
    resized = Preprocessing(size=(32, 32), resize=40)
    two = with_header(two, preprocessing=resized, data_digest="sha256:x")
    found = compared([one, two], n_resamples=50)
    # The same images brought to 40 px and cut: a pixel of that net is 32 / 40 of one of the other.
    assert found.aligned.arms[1].scale == pytest.approx(0.8)
    assert "shorter side 40 px" in found.findings.named("other-view").statement


def test_a_shift_that_empties_the_smaller_picture_is_left_out(made: list[SweepArrays]) -> None:
    found = compared(sized(made, 9, 64), n_resamples=50)
    assert found.blank.sum() == 19**2 - 17**2
    assert found["b"].map.tested.sum() == 17**2
    wrapped = [replace(each, arrays=replace(each.arrays, fill_is_constant=False)) for each in sized(made, 9, 64)]
    assert not compared(wrapped, n_resamples=50).blank.any()


def test_grids_without_a_common_shift() -> None:
    fine = pair_of(np.random.default_rng(1), N, [plateau(9)])[0]
    steps = [replace(fine, dys=fine.dys * s, dxs=fine.dxs * s) for s in (2, 29)]
    with pytest.raises(InputError, match=r"none but \(0, 0\): a every 2 px, b every 29 px"):
        align(sized(steps, 32, 64))


# ---- small and empty


def test_one_image_has_no_interval_and_no_verdict(made: list[SweepArrays]) -> None:
    found = compared(sources([part(each, np.arange(1)) for each in made]))
    assert found["b"].undecided == ()
    assert found.to_dict()["rows"][1]["difference"] is None
    assert found.to_dict()["rows"][1]["skipped"]["difference"] == "one image has no interval"
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_a_grid_of_one_shift(made: list[SweepArrays]) -> None:
    single = [replace_cells(each, 9) for each in made]
    found = compared(sources(single))
    assert set(found["b"].undecided) == {"at-rest", "near", "everywhere"}
    assert found.findings.named("skipped-difference-side-x-1") is not None
    assert "profiles" not in found.plot()


def test_nobody_right_anywhere(made: list[SweepArrays]) -> None:
    wrong = [
        replace(
            each,
            variables={
                **each.variables,
                "prediction": np.broadcast_to((each.labels + 1)[:, None, None] % 5, (N, 19, 19)),
            },
        )
        for each in made
    ]
    found = compared(sources(wrong))
    assert not found["b"].better + found["b"].worse
    assert found.to_dict()["rows"][0]["skipped"]["retained_area"] == "no image is right at (0, 0)"
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert len(found.plot()) == 3
