"""What a batch shows: moved, mirrored and resized pictures against plain slicing."""

import numpy as np
import pytest
import torch

from shiftlens.data.images import ImageSet
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.training import Recipe
from shiftlens.training.data import Batches, EpochPlan, check_images, epoch_plan, pixels, preprocessing_of

PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, declared=True)


def pictures(n=6, size=(8, 10), channels=3, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, channels, *size), dtype=np.uint8))


def batches(shown, crop=2):
    return Batches(shown, torch.arange(len(shown)), PLAIN, Recipe(crop=crop), torch.device("cpu"))


def one(shown, mirrored, dy, dx):
    plan = EpochPlan(torch.tensor([0]), torch.tensor([mirrored]), torch.tensor([dy]), torch.tensor([dx]))
    x, _ = batches(shown).batch(plan, plan.order, tuple(shown.shape[2:]))
    return (x[0] * 255).round().to(torch.uint8)


def test_untouched_picture_comes_out_as_it_went_in():
    shown = pictures()
    torch.testing.assert_close(one(shown, False, 0, 0), shown[0])


@pytest.mark.parametrize("mirrored", [False, True])
def test_dx_moves_right_and_dy_moves_down_mirrored_or_not(mirrored):
    shown = pictures()
    found = one(shown, mirrored, 1, 2)
    source = shown[0].flip(2) if mirrored else shown[0]
    torch.testing.assert_close(found[:, 1:, 2:], source[:, :-1, :-2])
    # What enters on the left and at the top is reflected about the first column and row.
    torch.testing.assert_close(found[:, 1:, 0], source[:, :-1, 2])
    torch.testing.assert_close(found[:, 0, 2:], source[:, 1, :-2])


def test_negative_shifts_move_left_and_up():
    shown = pictures()
    torch.testing.assert_close(one(shown, False, -2, -1)[:, :-2, :-1], shown[0][:, 2:, 1:])


def test_labels_follow_their_pictures_and_every_batch_has_its_size():
    shown = pictures(n=7, size=(8, 8))
    plan = epoch_plan(7, 3, 0, Recipe(crop=0), "none")
    found = list(batches(shown, crop=0).epoch(plan, 3, [(4, 4), (8, 8)]))
    assert [x.shape for x, _ in found] == [(3, 3, 4, 4), (3, 3, 8, 8)]
    assert torch.cat([y for _, y in found]).tolist() == plan.order[:6].tolist()
    torch.testing.assert_close((found[1][0] * 255).round().to(torch.uint8), shown[found[1][1]])


def test_resized_pictures_keep_their_mean():
    shown = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    x, _ = next(batches(shown).epoch(epoch_plan(2, 0, 0, Recipe(), "random"), 2, [(6, 6)]))
    torch.testing.assert_close(x, torch.full((2, 3, 6, 6), 0.2))


def test_preprocessing_is_mean_and_deviation_of_each_channel():
    shown = pictures(n=50)
    found = preprocessing_of(shown, (8, 10))
    as_numbers = shown.double().numpy() / 255
    np.testing.assert_allclose(found.mean, as_numbers.mean((0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(found.std, as_numbers.std((0, 2, 3)), atol=1e-6)


def test_constant_channel_does_not_divide_by_zero():
    assert preprocessing_of(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), (4, 4)).std == (
        pytest.approx(1 / 255, abs=1e-6),
    )


def test_alternating_mirror_shows_each_image_both_ways_in_two_epochs():
    first, second, third = (epoch_plan(1000, 5, epoch, Recipe(), "alternating").mirrored for epoch in range(3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert 400 < int(first.sum()) < 600


def test_epochs_and_seeds_differ_and_repeat():
    draw = [epoch_plan(100, seed, epoch, Recipe(crop=2), "random") for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert torch.equal(draw[0].order, draw[1].order)
    assert torch.equal(draw[0].dx, draw[1].dx)
    for other in draw[2:]:
        assert not torch.equal(draw[0].order, other.order)
        assert not torch.equal(draw[0].dx, other.dx)
    assert draw[0].order.sort().values.tolist() == list(range(100))
    assert sorted(set(draw[0].dy.tolist())) == [-2, -1, 0, 1, 2]


def test_no_mirror_when_told_so():
    assert not epoch_plan(100, 0, 0, Recipe(), "none").mirrored.any()


def test_pixels_are_all_pictures_in_order():
    shown = pictures(n=5)
    assert torch.equal(pixels(ImageSet(shown.numpy(), [0, 1, 0, 1, 0])), shown)


def images(labels, **more):
    return ImageSet(np.zeros((len(labels), 8, 8), np.uint8), labels, **more)


def test_good_images_pass():
    check_images(images([0, 1, 2, 0]))


def test_one_class_only_is_refused():
    with pytest.raises(InputError, match="at least 2 classes, all 3 images of images are 'cat'"):
        check_images(images([0, 0, 0], class_names=["cat"]))


def test_gaps_in_the_labels_are_named():
    with pytest.raises(InputError, match=r"have gaps: no image of class 1 \(dog\)"):
        check_images(images([0, 2, 2], class_names=["cat", "dog", "owl"]))


def test_mixed_sizes_are_refused():
    mixed = ImageSet([np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)], [0, 1])
    with pytest.raises(InputError, match="different sizes"):
        check_images(mixed)


def shown_with(shown, recipe, seed=0):
    made = Batches(shown, torch.arange(len(shown)), PLAIN, recipe, torch.device("cpu"))
    plan = epoch_plan(len(shown), seed, 0, recipe, "none")
    return plan, next(made.epoch(plan, len(shown), [tuple(shown.shape[2:])]))


def test_cutout_takes_one_square_of_each_picture():
    shown = torch.full((40, 3, 16, 16), 255, dtype=torch.uint8)
    plan, (x, y) = shown_with(shown, Recipe(crop=0, cutout=6))
    gone = x[:, 0] == 0
    assert torch.equal(x == 0, gone[:, None].expand_as(x))
    assert gone.sum((1, 2)).max() == 36
    assert gone.sum((1, 2)).min() >= 9  # its centre is in the picture
    for mask, centre in zip(gone, plan.holes[plan.order] * 16, strict=True):
        rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        for found, at in ((rows, centre[0]), (columns, centre[1])):
            assert max(0, at - 3.5) <= found[0] <= found[-1] <= min(15, at + 3)
    assert torch.equal(y, plan.order)


def test_cutmix_shares_picture_and_target_by_area():
    shown = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 16, 16).contiguous()
    plan, (x, y) = shown_with(shown, Recipe(crop=0, cutmix=0.5))
    values = (x[:, 0] * 255).round().long()
    assert y.shape == (40, 40)
    torch.testing.assert_close(y.sum(1), torch.ones(40))
    for k in range(40):
        own, other = int(plan.order[k]), int(plan.order[(k + 1) % 40])
        assert set(values[k].flatten().tolist()) <= {own, other}
        assert float(y[k, own]) == pytest.approx(float((values[k] == own).float().mean()))
        assert float(y[k, other]) == pytest.approx(float((values[k] == other).float().mean()))
    mixed = (y > 0).sum(1) == 2
    assert 10 <= int(mixed.sum()) <= 25
    assert not plan.patches[plan.order][~mixed, 0].ge(0.05).any()


def test_cutout_and_cutmix_change_nothing_else_that_is_drawn():
    plain = epoch_plan(50, 1, 2, Recipe(), "random")
    more = epoch_plan(50, 1, 2, Recipe(cutout=4, cutmix=1.0), "random")
    for name in ("order", "mirrored", "dy", "dx"):
        assert torch.equal(getattr(plain, name), getattr(more, name))
    again = epoch_plan(50, 1, 2, Recipe(cutout=4, cutmix=1.0), "random")
    assert torch.equal(more.holes, again.holes)
    assert torch.equal(more.patches, again.patches)
    assert not torch.equal(more.holes, epoch_plan(50, 1, 3, Recipe(cutout=4), "random").holes)
