"""Labels that may not mean the same to a model and to images: refused, or said."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.models.matching import check_labels
from shiftlens.models.wrapping import Model, wrap


def model(names: tuple[str, ...] | None, n_classes: int = 10) -> Model:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_classes))
    return wrap(net, mean=0.5, std=0.25, size=8, class_names=names, name="net")


def images(names: tuple[str, ...] | None) -> ImageSet:
    return ImageSet(np.zeros((2, 3, 8, 8), np.uint8), [0, 1], class_names=names, name="pictures")


def test_names_that_share_nothing_are_said() -> None:
    with pytest.warns(UserWarning, match="share no class name") as caught:
        check_labels(model(("cat", "dog", "horse", "ship"), 4), images(("Cat", "Dog")))
    assert [str(w.message) for w in caught] == [
        "pictures (Cat, Dog) and net (cat, dog, horse, ...) share no class name (upper and lower case differ): "
        "label k is taken as the model's class k"
    ]


def test_digits_and_a_model_of_animals_are_said() -> None:
    digits = load_images("digits", limit=20)
    assert digits.names_given
    with pytest.warns(UserWarning, match="label k is taken as the model's class k"):
        check_labels(model(tuple(f"animal {k}" for k in range(10))), digits)


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (None, ("cat", "dog")),
        (("cat", "dog"), None),
        (("cat", "dog"), ("cat", "wolf")),
        (("0", "1"), ("cat", "dog")),  # a model trained on pictures whose classes had no names
        (None, None),
    ],
)
def test_names_that_say_nothing_are_passed_over(known: tuple[str, ...] | None, given: tuple[str, ...] | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_labels(model(known, 2), images(given))


def test_the_same_name_under_another_number_is_still_refused() -> None:
    with pytest.raises(InputError, match="class 'dog' has number 0 in pictures and number 1 in net"):
        check_labels(model(("cat", "dog"), 2), images(("dog", "cat")))


def test_a_name_that_the_model_has_twice_decides_nothing() -> None:
    check_labels(model(("crane", "drake", "crane"), 3), images(("crane", "drake")))


def test_whether_names_were_given_is_remembered() -> None:
    given, unnamed = images(("a", "b")), images(None)
    assert (given.names_given, unnamed.names_given) == (True, False)
    assert unnamed.class_names == ("0", "1")
    assert given.subset([1]).limit(1).fitted((4, 4)).names_given
    assert pickle.loads(pickle.dumps(given)).names_given
    with pytest.raises(AttributeError):
        given.names_given = False  # type: ignore[misc]


def test_names_that_repeat_are_refused() -> None:
    with pytest.raises(InputError, match="class names of pictures must differ, got 'a' for the classes 0, 2"):
        images(("a", "b", "a"))


def test_a_published_set_that_names_two_classes_alike_is_taken() -> None:
    class Cranes:
        classes = ("crane", "drake", "crane")
        targets = (0, 1, 2)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, k: int) -> tuple[np.ndarray, int]:
            return np.full((4, 4), k, np.uint8), k

    assert load_images(Cranes()).class_names == ("crane", "drake", "crane (2)")  # type: ignore[arg-type]
