"""The band around a map of accuracies: its sums against a direct computation, its guards, and how often it holds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as sps

from shiftlens import sequential
from shiftlens.data.selection import stratified_order
from shiftlens.errors import InputError
from shiftlens.sequential import Look, RunningBand, look_schedule, random_signs

N_DRAWS = 2048


def population(n: int, n_cells: int, n_classes: int, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Outcomes with classes of different rates and cells that go together, in a proportional order."""
    random = np.random.default_rng(seed)
    labels = random.permuted(np.arange(n) % n_classes)
    order = stratified_order(labels, np.arange(n))
    labels = labels[order]
    rate = random.uniform(0.2, 0.9, (n_classes, n_cells))
    shared = random.random((n, 1))
    right = np.where(random.random((n, n_cells)) < 0.5, shared, random.random((n, n_cells))) < rate[labels]
    return right, labels


def measured(right: NDArray[np.bool_], labels: NDArray[np.int64], n: int, looks: tuple[int, ...], piece: int) -> Look:
    band = RunningBand(labels, np.arange(len(labels)) * 3, right.shape[1], looks)
    for start in range(0, n, piece):
        band.add(right[start : min(start + piece, n)])
    return band.look()


def directly(right: NDArray[np.bool_], labels: NDArray[np.int64], n: int, n_looks: int) -> float:
    """The half-width before its guards, image by image in float64."""
    signs = random_signs(np.arange(len(labels)) * 3, N_DRAWS).astype(np.float64)[:n]
    here, outcome = labels[:n], right[:n].astype(np.float64)
    counts = np.bincount(here, minlength=labels.max() + 1)
    stratified = counts.min() >= 10
    for k in range(len(counts)) if stratified else [slice(None)]:
        rows = here == k if stratified else slice(None)
        outcome[rows] -= outcome[rows].mean(axis=0)
    errors = np.zeros((N_DRAWS, right.shape[1]))
    for sign, row in zip(signs, outcome, strict=True):
        errors += np.outer(sign, row)
    largest = np.sort(np.abs(errors).max(axis=1)) / np.sqrt(n * (n - (len(counts) if stratified else 1)))
    rank = int(0.9 * 0.05 / n_looks * (N_DRAWS + 1))
    return float(largest[-rank] * np.sqrt(1 - n / len(labels)))


@pytest.mark.parametrize("n_classes", [1, 4, 40], ids=["one class", "by class", "too few of a class"])
def test_the_sums_are_those_of_a_direct_computation(n_classes: int) -> None:
    right, labels = population(900, 7, n_classes)
    looks = (200, 320, 900)
    got = measured(right, labels, 320, looks, piece=33)
    share = np.bincount(labels[:320], minlength=n_classes) / 320 - np.bincount(labels) / 900
    means = [right[:320][labels[:320] == k].mean(axis=0) for k in range(n_classes)]
    expected = directly(right, labels, 320, n_looks=2) + np.abs(share @ np.array(means)).max()
    assert 100 * expected <= got.half_width <= 100 * expected + 1.1e-6  # rounded up
    assert (got.n_images, got.n_population) == (320, 900)


def test_the_width_is_the_same_to_the_last_bit_however_images_arrive() -> None:
    right, labels = population(600, 11, 3)
    widths = {measured(right, labels, 400, (400, 600), piece).half_width for piece in (1, 7, 16, 399, 400)}
    assert len(widths) == 1


def test_one_cell_has_the_normal_interval_of_a_finite_population() -> None:
    right = np.random.default_rng(0).random((4000, 1)) < 0.5
    got = measured(right, np.zeros(4000, np.int64), 1000, (1000, 4000), 250).half_width
    p = right[:1000].mean()
    expected = 100 * sps.norm.isf(0.045 / 2) * np.sqrt(p * (1 - p) / 999 * (1 - 1000 / 4000))
    assert got == pytest.approx(expected, rel=0.05)  # the quantile of 2,048 draws
    assert got != pytest.approx(expected / np.sqrt(0.75), rel=0.05)


def test_cells_that_are_the_same_count_once_and_others_widen_the_band() -> None:
    random = np.random.default_rng(1)
    one = random.random((2000, 1)) < 0.5
    zeros = np.zeros(2000, np.int64)
    alone = measured(one, zeros, 500, (500, 2000), 500).half_width
    assert measured(np.repeat(one, 50, axis=1), zeros, 500, (500, 2000), 500).half_width == alone
    assert measured(random.random((2000, 50)) < 0.5, zeros, 500, (500, 2000), 500).half_width > 1.3 * alone


def test_no_width_is_left_when_all_images_are_measured() -> None:
    right, labels = population(300, 5, 2)
    assert measured(right, labels, 300, (240, 300), 50) == Look(300, 300, 0.0)


def test_the_width_shrinks_from_look_to_look() -> None:
    right, labels = population(4000, 20, 4)
    looks = look_schedule(4000, 16)
    band, widths, start = RunningBand(labels, np.arange(4000), 20, looks), [], 0
    for stop in looks:
        band.add(right[start:stop])
        widths.append(band.look().half_width)
        start = stop
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0 < widths[-2]
    information = [1 / (1 / n - 1 / 4000) for n in looks[:-1]]
    assert widths[0] / widths[6] == pytest.approx(np.sqrt(information[6] / information[0]), rel=0.1)


def test_what_never_happened_may_still_happen() -> None:
    n, n_all, n_cells = 400, 5000, 30
    right = np.ones((n_all, n_cells), np.bool_)
    labels = np.arange(n_all) % 2
    got = measured(right, labels, n, (n, n_all), 100).half_width
    n_wrong = int(got / 100 * n_all) + 1
    missed = sps.hypergeom(n_all, n_wrong, n).pmf(0)
    assert missed * 2 * n_cells <= 0.1 * 0.05  # exact, and for all cells at once
    assert sps.hypergeom(n_all, n_wrong - 60, n).pmf(0) * 2 * n_cells > 0.1 * 0.05  # and not much too wide


def test_images_not_seen_cannot_move_a_mean_further_than_their_share() -> None:
    right = np.random.default_rng(0).random((40, 9)) < 0.5
    got = measured(right, np.zeros(40, np.int64), 38, (38, 40), 38).half_width
    assert got == pytest.approx(5.0)


def test_an_order_that_is_not_in_proportion_is_paid_for() -> None:
    labels = np.repeat([0, 1], [600, 1400])
    right = np.repeat(labels[:, None] == 0, 3, axis=1)  # all right in class 0, which comes first
    got = measured(right, labels, 600, (600, 2000), 100).half_width
    assert got >= 100 * abs(right[:600].mean() - right.mean())
    half = np.concatenate([np.tile([0, 1], 500), np.ones(1000, np.int64)])
    got = measured(half[:, None] == 0, half, 1000, (1000, 2000), 100).half_width
    assert got == pytest.approx(25 + 100 * np.log(2 / 0.005) / (2000 * np.log(2)), rel=1e-6)


def numbers(name: str, n: int, n_cells: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """A population of numbers and what a band is told of it."""
    random = np.random.default_rng(0)
    shared, own = random.standard_normal((n, 1)), random.standard_normal((n, n_cells))
    if name == "recall":  # of up to 3 objects; the fewer, the further the shift
        values = np.round(3 * sps.norm.cdf(np.where(own < 0.3, shared, own))) / 3
        values[random.random((n, n_cells)) < np.linspace(0, 0.7, n_cells)] = np.nan
        return values, {"bounds": (0, 1), "optional": True}
    if name == "cosine":  # of which all but a few are 1
        return 1 - sps.norm.cdf(own + shared) ** 20, {"bounds": (-1, 1), "factor": 1.0}
    values = np.exp(1.4 * (own + shared))  # an error with a long tail
    values[random.random((n, n_cells)) < 0.2] = np.nan
    return values, {"bounds": (0, np.inf), "factor": 1.0, "optional": True}


@pytest.mark.parametrize("name", ["recall", "cosine", "error"])
def test_a_band_of_numbers_holds_at_all_looks_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n_all, n_draws, looks = 500, 120, (100, 160, 300, 500)
    values, told = numbers(name, n_all, 6)
    truth, n_missed, widths = np.nanmean(values, axis=0), 0, []
    table = random_signs(np.arange(n_all), 1024)  # once for all draws
    for draw in range(n_draws):
        monkeypatch.setattr(sequential, "random_signs", lambda p, *_, by=draw: table[(p + by) % n_all])
        order = np.random.default_rng(draw).permutation(n_all)
        band = RunningBand(np.zeros(n_all, np.int64), np.arange(n_all), 6, looks, n_draws=1024, **told)
        missed = False
        for start, stop in itertools.pairwise((0, *looks[:-1])):
            band.add(values[order[start:stop]])
            seen = values[order[:stop]]
            counted = (~np.isnan(seen)).mean(axis=0) >= 0.5
            widths.append(band.look().half_width)
            off = np.abs(np.nanmean(seen, axis=0) - truth)[counted].max()
            missed |= bool(told.get("factor", 100) * off > widths[-1])
        n_missed += missed
    assert n_missed <= sps.binom.isf(0.001, n_draws, 0.05)
    if name == "recall":  # and it is no wider than it must be: a guard would hide a wrong bootstrap
        assert n_missed > 0
        assert np.mean(widths[:: len(looks) - 1]) < 1.5 * 100 * 3 * np.nanstd(values) / np.sqrt(0.5 * 100)


def test_missing_numbers_and_unbounded_ones_have_their_own_limits() -> None:
    zeros, places = np.zeros(40, np.int64), np.arange(40)
    values = np.random.default_rng(0).random((40, 3))
    values[:, 1] = np.nan
    values[::2, 2] = np.nan  # half of the images
    band = RunningBand(zeros, places, 3, (38, 40), bounds=(0, 1), optional=True)
    band.add(values[:38])
    assert band.look().half_width == pytest.approx(100 * 2 / (2 + 19))
    band = RunningBand(zeros, places, 1, (38, 40), bounds=(0, 1), optional=True)
    band.add(values[:38, 1:2])
    assert band.look().half_width == np.inf
    band.add(values[38:, 1:2])
    assert band.look().half_width == 0
    # Nothing but 2 was seen until the last image: without bounds, the guard is as wide as what was seen.
    same = np.full((400, 1), 2.0)
    same[199] = 5.0
    band = RunningBand(np.zeros(400, np.int64), np.arange(400), 1, (200, 400), bounds=(0, np.inf), factor=1.0)
    band.add(same[:200])
    assert band.look().half_width == pytest.approx(3 * np.log(2 / 0.005) / (400 * np.log(2)), rel=1e-4)


def test_signs_belong_to_an_image_and_a_seed() -> None:
    positions = np.array([0, 5, 9_999, 3, 2**40])
    signs = random_signs(positions, 512)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.array_equal(random_signs(positions[::-1], 512)[::-1], signs)
    assert not np.array_equal(random_signs(positions, 512, seed=1), signs)
    many = random_signs(np.arange(4000), 512)
    assert np.array_equal(many[[0, 5, 3]], signs[[0, 1, 3]])
    assert np.abs(many.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert np.abs(np.corrcoef(many[:300]) - np.eye(300)).max() < 6 / np.sqrt(512)


@pytest.mark.parametrize(
    ("n", "chunk"), [(1, 1), (150, 16), (203, 1), (2000, 16), (10_000, 15), (50_000, 3), (10**6, 7)]
)
def test_looks_are_few_at_whole_chunks_and_end_with_all_images(n: int, chunk: int) -> None:
    looks = look_schedule(n, chunk)
    assert looks[-1] == n
    assert all(k % chunk == 0 for k in looks[:-1])
    assert list(looks) == sorted(set(looks))
    assert len(looks) <= 19
    assert all(max(200, n // 40) <= k <= 0.95 * n for k in looks[:-1])
    assert n < 250 or len(looks) > 1


def test_a_guess_of_the_images_needed() -> None:
    looks = look_schedule(10_000, 16)
    look = Look(1008, 10_000, 6.0)
    assert look.images_for(6.5, looks) == 1008
    assert look.images_for(0.0, looks) == 10_000
    assert look.images_for(3.0, looks) == 3104  # four times the information: 1 / n - 1 / N
    assert Look(10_000, 10_000, 0.0).images_for(1.0, looks) == 10_000


def test_only_declared_looks_and_whole_populations_are_taken() -> None:
    labels = np.zeros(10, np.int64)
    with pytest.raises(InputError, match=r"looks that ascend to 10 images, got \(5, 9\)"):
        RunningBand(labels, labels, 2, (5, 9))
    with pytest.raises(InputError, match="ascend"):
        RunningBand(labels, labels, 2, (5, 5, 10))
    with pytest.raises(InputError, match="10 positions and at least 1 cell, got 9 and 2"):
        RunningBand(labels, labels[:9], 2, (10,))
    with pytest.raises(InputError, match="multiples of 256"):
        RunningBand(labels, labels, 2, (10,), n_draws=100)
    with pytest.raises(InputError, match="enough for an error of 1e-05"):
        RunningBand(labels, labels, 2, (10,), level=0.99999)
    with pytest.raises(InputError, match="at least 1 image"):
        look_schedule(0)
    band = RunningBand(labels, np.arange(10), 2, (5, 10))
    band.add(np.ones((4, 2), np.bool_))
    with pytest.raises(InputError, match=r"a look after one of \(5, 10\) images, got one after 4"):
        band.look()
    with pytest.raises(InputError, match=r"up to 6 more images of 2 cells, got \(7, 2\)"):
        band.add(np.ones((7, 2), np.bool_))
    with pytest.raises(InputError, match=r"got \(1, 3\)"):
        band.add(np.ones((1, 3), np.bool_))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixed", "rare", "independent"])
def test_the_band_holds_under_the_stopping(kind: str) -> None:
    """Over 300 orders of one population, at the look where the width asked for is reached."""
    random = np.random.default_rng(2)
    right, labels = population(1200, 40, 5, seed=3)
    if kind == "rare":
        right = random.random((1200, 40)) < 0.985
    elif kind == "independent":
        right = random.random((1200, 40)) < 0.5
    looks, truth, held, used = look_schedule(1200, 8), right.mean(axis=0), 0, []
    for draw in range(300):
        order = stratified_order(labels, np.arange(1200), draw + 1)
        band = RunningBand(labels[order], order, 40, looks, seed=draw)
        for start, stop in zip((0, *looks), looks, strict=False):
            band.add(right[order[start:stop]])
            look = band.look()
            if look.half_width <= (3 if kind == "rare" else 7):
                break
        error = 100 * np.abs(right[order[: look.n_images]].mean(axis=0) - truth).max()
        held += error <= look.half_width
        used.append(look.n_images)
    assert held >= 0.94 * 300
    assert max(used) < 1200
    assert min(used) >= sequential.FIRST_LOOK
