"""`ImageSet`: lazy reading, order, digests, limits, sizes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shiftlens.data.imageset import ImageSet
from shiftlens.data.selection import scrambled, stratified_order, stratified_split
from shiftlens.errors import InputError

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (12, 3, 6, 8), dtype=np.uint8)
LABELS = np.arange(12) % 4


@pytest.fixture
def images() -> ImageSet:
    return ImageSet(PIXELS, LABELS, class_names=["a", "b", "c", "d"], name="mine")


# ---- what goes in


def test_channels_first_and_last_are_told_apart() -> None:
    for given_form in (PIXELS, PIXELS.transpose(0, 2, 3, 1), torch.from_numpy(PIXELS)):
        np.testing.assert_array_equal(ImageSet(given_form, LABELS).batch(slice(None)), PIXELS)


def test_when_both_axes_could_be_channels_the_second_is() -> None:
    both = RNG.integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(ImageSet(both, [0, 1]).batch([0, 1]), both)


def test_three_axes_are_grey() -> None:
    grey = ImageSet(PIXELS[:, 0], LABELS)
    assert grey.n_channels == 1
    np.testing.assert_array_equal(grey.batch([5]), PIXELS[5:6, :1])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_levels_survive_a_trip_through_floating_point(dtype: type) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    as_float = (levels / 255).astype(dtype)
    np.testing.assert_array_equal(ImageSet(as_float, [0]).batch([0])[0], levels)


def test_floats_become_the_nearest_level_halves_upwards() -> None:
    values = np.array([[[0, 0.5 / 255, 0.49 / 255, 1.5 / 255, 1]]])
    assert ImageSet(values, [0]).batch([0]).ravel().tolist() == [0, 1, 0, 2, 255]


def test_bfloat16_and_gradients_are_taken() -> None:
    tensor = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    assert (ImageSet(tensor, torch.tensor([0])).batch([0]) == 255).all()


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((2, 4, 5, 5), np.uint8), [0, 1], r"1 or 3 channels, got shape \(2, 4, 5, 5\)"),
        (np.zeros((2, 5), np.uint8), [0, 1], "1 or 3 channels"),
        (np.zeros((2, 3, 5, 5), np.int64), [0, 1], "uint8 .* got int64"),
        ("zeros", [0, 1], "got str"),
        (np.full((2, 3, 5, 5), -2.0), [0, 1], "drop Normalize"),
        (np.full((2, 3, 5, 5), 200.0), [0, 1], "divide by 255"),
        (np.full((2, 3, 5, 5), np.nan), [0, 1], "not finite"),
        (np.zeros((0, 3, 5, 5), np.uint8), [], "holds no pictures"),
        (np.zeros((2, 3, 5, 5), np.uint8), [0], "expected 2, got 1"),
        (np.zeros((2, 3, 5, 5), np.uint8), [0.0, 1.0], "whole numbers.*float64"),
        (np.zeros((2, 3, 5, 5), np.uint8), [[1, 0], [0, 1]], r"got shape \(2, 2\)"),
        (np.zeros((2, 3, 5, 5), np.uint8), [0, -1], "got -1 for picture 1"),
        (np.zeros((2, 3, 5, 5), np.uint8), [0, 10**9], "would mean 1000000001 classes"),
    ],
)
def test_bad_input_is_one_line(pixels: object, labels: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ImageSet(pixels, labels)
    assert "\n" not in str(caught.value)


def test_label_beyond_the_class_names_is_named() -> None:
    with pytest.raises(InputError, match=r"label 3 of picture 3 is beyond the 3 classes of mine"):
        ImageSet(PIXELS, LABELS, class_names=["a", "b", "c"], name="mine")


def test_classes_without_pictures_are_fine() -> None:
    assert ImageSet(PIXELS[:2], [1, 4]).class_names == ("0", "1", "2", "3", "4")


def test_a_list_may_mix_kinds_and_sizes() -> None:
    mixed = ImageSet(
        [Image.new("RGB", (4, 6), (1, 2, 3)), torch.ones(3, 9, 9), np.zeros((5, 5, 3), np.uint8)], [0, 1, 0]
    )
    assert mixed.size is None
    assert mixed[0][0].shape == (3, 6, 4)
    assert mixed.fitted((5, 5)).batch([0, 1, 2])[:, :, 2, 2].tolist() == [[1, 2, 3], [255, 255, 255], [0, 0, 0]]


# ---- reading


@given(st.lists(st.integers(-12, 11), max_size=20))
def test_batch_is_indexing(positions: list[int]) -> None:
    images = ImageSet(PIXELS, LABELS)
    np.testing.assert_array_equal(images.batch(positions), PIXELS[np.array(positions, dtype=int)])


@given(st.lists(st.integers(0, 11), min_size=1, max_size=12), st.data())
def test_a_subset_of_a_subset_remembers_its_source(first: list[int], data: st.DataObject) -> None:
    images = ImageSet(PIXELS, LABELS)
    second = data.draw(st.lists(st.integers(0, len(first) - 1), min_size=1))
    chosen = images.subset(first).subset(second)
    expected = np.array(first)[second]
    np.testing.assert_array_equal(chosen.index, expected)
    np.testing.assert_array_equal(chosen.labels, LABELS[expected])
    np.testing.assert_array_equal(chosen.batch(slice(None)), PIXELS[expected])


def test_slices_items_and_iteration(images: ImageSet) -> None:
    np.testing.assert_array_equal(images.batch(slice(2, 9, 3)), PIXELS[2:9:3])
    pixels, label = images[-1]
    np.testing.assert_array_equal(pixels, PIXELS[-1])
    assert label == LABELS[-1]
    assert [label for _, label in images] == LABELS.tolist()
    assert len(list(images)) == len(images) == 12


def test_positions_that_are_not_there(images: ImageSet) -> None:
    with pytest.raises(IndexError, match="position 12 of a set of 12"):
        images.batch([12])
    with pytest.raises(IndexError):
        images[-13]
    with pytest.raises(InputError, match="list of whole numbers"):
        images.batch(np.array([0.5]))


def test_no_pictures_at_all_keep_their_shape(images: ImageSet) -> None:
    assert images.batch([]).shape == (0, 3, 6, 8)
    with pytest.raises(InputError, match="at least 1 picture"):
        images.subset([])


def test_labels_cannot_be_changed_by_accident(images: ImageSet) -> None:
    with pytest.raises(ValueError, match="read-only"):
        images.labels[0] = 3


def test_mixed_sizes_name_two_pictures() -> None:
    mixed = ImageSet([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)], [0, 1])
    with pytest.raises(InputError, match=r"4x4 \(picture 0 of the list\) and 4x5 \(picture 1 of the list\)"):
        mixed.batch([0, 1])


def test_a_set_survives_pickling(images: ImageSet) -> None:
    other = pickle.loads(pickle.dumps(images.subset([3, 1])))
    np.testing.assert_array_equal(other.batch([0, 1]), PIXELS[[3, 1]])
    assert other.digest == images.subset([3, 1]).digest


# ---- channels and sizes


def test_channels_are_repeated_and_mixed(images: ImageSet) -> None:
    grey = ImageSet(PIXELS[:, :1], LABELS)
    np.testing.assert_array_equal(grey.with_channels(3).batch([4])[0], np.repeat(PIXELS[4, :1], 3, axis=0))
    np.testing.assert_array_equal(grey.with_channels(3).with_channels(1).batch([4]), grey.batch([4]))
    luma = np.floor((PIXELS[7].astype(float) * np.array([0.299, 0.587, 0.114])[:, None, None]).sum(0) + 0.5)
    assert np.abs(images.with_channels(1).batch([7])[0, 0] - luma).max() <= 1
    with pytest.raises(InputError, match="1 or 3 channels, asked for 2"):
        images.with_channels(2)


@given(st.integers(0, 255))
def test_a_grey_colour_keeps_its_level(level: int) -> None:
    colour = ImageSet(np.full((1, 3, 1, 1), level, np.uint8), [0])
    assert colour.with_channels(1).batch([0]).item() == level


def test_fitted_sets_the_size_and_touches_only_others(images: ImageSet) -> None:
    assert images.size == (6, 8)
    np.testing.assert_array_equal(images.fitted((6, 8)).batch([0, 1]), PIXELS[:2])
    fitted = images.fitted((4, 4), 5, "bicubic")
    assert fitted.size == (4, 4)
    assert fitted.batch([0]).shape == (1, 3, 4, 4)
    assert images.size == (6, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 4), None, "bilinear"), "at least 1x1"),
        (((4, 4), 3, "bilinear"), "resize must be at least 4"),
        (((4, 4), None, "bilinaer"), "did you mean 'bilinear'"),
    ],
)
def test_fitted_refuses(images: ImageSet, arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        images.fitted(*arguments)


# ---- digest


def test_digest_covers_what_the_model_is_shown_and_nothing_else(images: ImageSet) -> None:
    def names(k: int) -> list[str]:
        return ["a", "b", "c", "d", "e"][:k]

    same = ImageSet(PIXELS.transpose(0, 2, 3, 1), LABELS, class_names=names(4), name="other")
    assert same.digest == images.digest
    assert images.digest.startswith("sha256:")
    assert len(images.digest) == 7 + 64
    other_pixel, other_label = PIXELS.copy(), LABELS.copy()
    other_pixel[11, 2, 5, 7] ^= 1
    other_label[3] = 0
    different = [
        ImageSet(other_pixel, LABELS, class_names=names(4)),
        ImageSet(PIXELS, other_label, class_names=names(4)),
        ImageSet(PIXELS, LABELS, class_names=names(5)),
        ImageSet(PIXELS.reshape(12, 3, 8, 6), LABELS, class_names=names(4)),
        images.subset(range(11)),
        images.subset([*range(10), 11, 10]),
        images.fitted((6, 8)),
        images.fitted((6, 8), 6),
        images.fitted((6, 8), 6, "bicubic"),
        images.with_channels(1),
    ]
    digests = [images.digest, *(other.digest for other in different)]
    assert len(set(digests)) == len(digests)


def test_digest_is_the_same_whichever_way_a_set_was_chosen(images: ImageSet) -> None:
    assert images.subset([5, 2, 7]).subset([2, 0]).digest == images.subset([7, 5]).digest
    assert (
        ImageSet(PIXELS[[7, 5]], LABELS[[7, 5]], class_names=images.class_names).digest == images.subset([7, 5]).digest
    )
    # Not to change without a new number in DECODE_RULE: sweeps are resumed by this text.
    small = ImageSet(np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3), [0, 1])
    assert small.digest == "sha256:b47327cd0e534f76ab018438529d469bab920ba0a4c37a2e876cf4521ad1fb46"


def test_a_subset_looks_at_its_own_pictures_again(images: ImageSet) -> None:
    whole = images.digest  # what was found for the whole set must not be handed on
    same_labels = images.subset([4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11])
    np.testing.assert_array_equal(same_labels.labels, images.labels)
    assert same_labels.digest != whole
    mixed = ImageSet([np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)], [0, 1])
    assert (mixed.size, mixed.subset([1]).size) == (None, (4, 5))


def test_survey_reports_progress(images: ImageSet) -> None:
    calls: list[tuple[int, int]] = []
    images.survey(lambda done, total: calls.append((done, total)))
    assert calls == [(12, 12)]


# ---- which images


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.integers(0, 3))
def test_every_beginning_of_the_order_is_stratified(labels: list[int], seed: int) -> None:
    classes = np.array(labels)
    order = stratified_order(classes, np.arange(len(classes)), seed)
    assert sorted(order.tolist()) == list(range(len(classes)))
    for n in range(1, len(classes) + 1):
        for c in np.unique(classes):
            share = n * (classes == c).mean()
            # Each class of its own is within half a picture of its share at its own steps; n is off by half a
            # picture for every class there is.
            assert abs((classes[order[:n]] == c).sum() - share) <= 1 + len(np.unique(classes)) / 2


def test_a_rare_class_is_spread_evenly() -> None:
    order = stratified_order(np.repeat([0, 1], [90, 10]), np.arange(100))
    places = np.flatnonzero(order >= 90)
    assert (np.abs(places - np.arange(5, 100, 10)) <= 1).all()


def test_limit_takes_the_beginning_of_one_order() -> None:
    images = ImageSet(np.zeros((100, 1, 2, 2), np.uint8), np.arange(100) // 10)
    for n in (1, 10, 37, 99):
        np.testing.assert_array_equal(images.limit(n).index, images.limit(99).index[:n])
    assert np.bincount(images.limit(30).labels).tolist() == [3] * 10
    assert images.limit(100) is images.limit(1000) is images.limit(None) is images
    assert images.limit(10).index.tolist() != list(range(10))


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_limit_refuses(images: ImageSet, n: object) -> None:
    with pytest.raises(InputError, match="at least 1, got"):
        images.limit(n)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=150).filter(lambda v: len(set(v)) < len(v)))
def test_the_split_is_one_fifth_of_every_class(labels: list[int]) -> None:
    classes = np.array(labels)
    train, test = (stratified_split(classes, split) for split in ("train", "test"))
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(classes)))
    for c in np.unique(classes):
        m = int((classes == c).sum())
        held_out = int((classes[test] == c).sum())
        assert held_out == (0 if m == 1 else max(1, int(m / 5 + 0.5)))
    assert (np.diff(test) > 0).all()


def test_split_of_single_pictures_is_refused() -> None:
    with pytest.raises(InputError, match="needs 2 images of a class"):
        stratified_split(np.arange(5), "test")


def test_the_shuffle_is_fixed_for_ever() -> None:
    keys = scrambled(np.arange(3), 0)
    assert keys.dtype == np.uint64
    assert keys.tolist() == _naive_keys(3, 0)
    assert scrambled(np.arange(3), 1).tolist() == _naive_keys(3, 1) != keys.tolist()


def _naive_keys(n: int, seed: int) -> list[int]:
    mask = 2**64 - 1
    keys = []
    for position in range(n):
        z = position + 1
        for salt in (seed, 0):
            z = (z + salt) * 0x9E3779B97F4A7C15 & mask
            z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
            z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
            z ^= z >> 31
        keys.append(z)
    return keys
