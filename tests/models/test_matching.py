"""Labels that may not mean the same to a model and to images: refused, or said."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.models.matching import labelled_for
from shiftlens.models.wrapping import Model, wrap


def model(names: tuple[str, ...] | None, n_classes: int = 10) -> Model:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_classes))
    return wrap(net, mean=0.5, std=0.25, size=8, class_names=names, name="net")


def images(names: tuple[str, ...] | None) -> ImageSet:
    return ImageSet(np.zeros((2, 3, 8, 8), np.uint8), [0, 1], class_names=names, name="pictures")


def test_names_that_share_nothing_are_said() -> None:
    with pytest.warns(UserWarning, match="share no class name") as caught:
        labelled_for(model(("cat", "dog", "horse", "ship"), 4), images(("lynx", "wolf")))
    assert [str(w.message) for w in caught] == [
        "pictures (lynx, wolf) and net (cat, dog, horse, ...) share no class name: label k is taken as the model's "
        "class k; a label map says otherwise (--label-map)"
    ]


def test_classes_are_matched_by_name() -> None:
    with pytest.warns(UserWarning, match=r"Dog is class 1 \(dog\), sea_lion is class 3 \(sea lion, Z\)"):
        matched = labelled_for(model(("cat", "dog", "horse", "sea lion, Z"), 4), images(("Dog", "sea_lion")))
    assert matched.labels.tolist() == [1, 3]
    assert matched.class_names == ("cat", "dog", "horse", "sea lion, Z")
    assert matched.digest != images(("Dog", "sea_lion")).digest


def test_names_that_differ_in_case_only_mean_the_same() -> None:
    assert labelled_for(model(("cat", "dog", "ship"), 3), images(("Cat", "DOG"))).class_names == ("Cat", "DOG")


def test_folders_named_by_synsets_meet_imagenet_classes() -> None:
    pytest.importorskip("timm")
    names = tuple(f"class {k}" for k in range(1000))
    with pytest.warns(UserWarning, match="matched by name: n01443537 is class 1"):
        matched = labelled_for(model(names, 1000), images(("n01443537", "n02123045")))
    assert matched.labels.tolist() == [1, 281]


def test_few_classes_and_a_model_of_many_without_names_are_said() -> None:
    with pytest.warns(UserWarning, match="pictures has 2 classes and net 1000 without names"):
        labelled_for(model(None, 1000), images(("cat", "dog")))


def test_a_label_map_says_which_class_is_meant(tmp_path: Path) -> None:
    net, shown = model(("tabby", "lynx", "collie", "pug"), 4), images(("cat", "dog"))
    file = tmp_path / "map.json"
    file.write_text('{"cat": "lynx", "dog": 3}')
    for given in (file, str(file), {"cat": "lynx", "dog": 3}):
        matched = labelled_for(net, shown, given)
        assert matched.labels.tolist() == [1, 3]
        assert matched.class_names == net.class_names


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"cat": 0}, "class in the label map 'dog'"),
        ({"cat": 0, "dog": 4}, "4 .for 'dog'. is no class of net, of 4"),
        ({"cat": 0, "dog": -1}, "-1 .for 'dog'. is no class of net"),
        ({"cat": 0, "dog": True}, "True .for 'dog'. is no class of net"),
        ({"cat": 0, "dog": "wolf"}, "'wolf' .for 'dog'. is no class of net"),
        ({"cat": 0, "dog": "crane"}, "'crane' .for 'dog'. is several of its classes"),
    ],
)
def test_a_label_map_that_says_too_little_or_nonsense_is_refused(given: dict[str, str | int], why: str) -> None:
    with pytest.raises(InputError, match=why):
        labelled_for(model(("tabby", "crane", "crane", "pug"), 4), images(("cat", "dog")), given)


@pytest.mark.parametrize("content", ["[1]", "{", '{"cat": 1.5}', '{"cat": null}', "[" * 100_000])
def test_a_label_map_that_is_no_map_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"label map .*map\.json"):
        labelled_for(model(None, 4), images(("cat", "dog")), file)
    with pytest.raises(InputError, match=r"label map .*missing\.json cannot be read"):
        labelled_for(model(None, 4), images(("cat", "dog")), tmp_path / "missing.json")


def test_digits_and_a_model_of_animals_are_said() -> None:
    digits = load_images("digits", limit=20)
    assert digits.names_given
    with pytest.warns(UserWarning, match="label k is taken as the model's class k"):
        labelled_for(model(tuple(f"animal {k}" for k in range(10))), digits)


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
        labelled_for(model(known, 2), images(given))


def test_the_same_name_under_another_number_beside_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="class 'dog' has number 0 in pictures and number 1 in net"):
        labelled_for(model(("cat", "dog"), 2), images(("dog", "wolf")))


def test_a_name_that_the_model_has_twice_decides_nothing() -> None:
    labelled_for(model(("crane", "drake", "crane"), 3), images(("crane", "drake")))


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
