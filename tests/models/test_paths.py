"""Paths that cannot be looked at are bad input, one line, wherever they are given; and words fit for one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shiftlens.data.images import load_images
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.models.checkpoints import read_weights
from shiftlens.models.loading import load_model
from shiftlens.models.runs import check_run_target, load_run, save_run
from shiftlens.models.runspec import read_spec
from shiftlens.naming import distinct, one_line, printable
from shiftlens.nn import VGG
from shiftlens.paths import entries_of, kind_of, with_home

LONG = "x" * 300


def save(path: str) -> None:
    net = VGG("vgg6", n_classes=2, width=2)
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config}
    save_run(path, net, build=build, preprocessing=Preprocessing())


USES: dict[str, Callable[[str], Any]] = {
    "folder": lambda path: load_images(f"folder:{path}"),
    "parquet": lambda path: load_images(f"parquet:{path}"),
    "data root": lambda path: load_images("cifar10", data_root=path),
    "torchvision data root": lambda path: load_images("torchvision:MNIST", data_root=path),
    "model": load_model,
    "model file": lambda path: load_model(f"{path}.py:make"),
    "weights": lambda path: load_model("torchvision:resnet18", weights=path),
    "read_weights": read_weights,
    "load_run": load_run,
    "read_spec": read_spec,
    "check_run_target": check_run_target,
    "save_run": save,
}


@pytest.mark.parametrize("use", USES)
def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, use: str) -> None:
    path = tmp_path / LONG
    with pytest.raises(InputError) as caught:
        USES[use](str(path))
    assert "cannot be read: File name too long" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", USES)
def test_a_closed_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    # Modes do not bind the superuser, as whom tests may run, so the system's refusal is played.
    closed = tmp_path / "closed"
    closed.mkdir()
    real = os.stat

    def stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if closed in Path(path).parents:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(InputError, match=r"closed/\S+ cannot be read: Permission denied$") as caught:
        USES[use](str(closed / "inside"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="modes do not bind the superuser")
def test_a_folder_that_may_not_be_listed_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o100)
    try:
        for kind in ("folder", "parquet"):
            with pytest.raises(InputError, match="cannot be listed: Permission denied"):
                load_images(f"{kind}:{tmp_path}")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_folder_that_the_system_does_not_list_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed: Permission denied$"):
        load_images(f"{kind}:{tmp_path}")


@pytest.mark.parametrize("spec", ["folder:{}", "parquet:{}", "{}"])
def test_a_null_character_and_a_home_of_nobody_are_one_line(spec: str) -> None:
    for path in ("a\0b", "~nobody-of-this-name/x"):
        with pytest.raises(InputError) as caught:
            load_images(spec.format(path))
        assert str(caught.value).count("\n") == 0


def test_a_name_that_is_no_path_is_still_an_unknown_name() -> None:
    with pytest.raises(InputError, match=r"^unknown images"):
        load_images(LONG)


def test_kinds(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    found = {entry.name: kind_of(entry) for entry in entries_of(tmp_path)}
    assert found == {"dangling": "nothing", "file": "file", "link": "file", "loop": "nothing", "pipe": "nothing"}
    assert kind_of(tmp_path) == "folder"
    assert kind_of(tmp_path / "file" / "below") == "nothing"
    assert kind_of("a\0b") == "nothing"
    assert with_home("a/~b") == Path("a/~b")


def test_links_in_a_circle_do_not_hide_the_other_classes(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(2):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name / f"{k}.png")
    assert load_images(f"folder:{tmp_path}").class_names == ("a", "b")


def test_words_are_fit_for_one_line() -> None:
    assert printable("a\x1b[31m\u202eé\n\ud800") == "a\\x1b[31m\\u202eé\\n\\ud800"
    assert one_line(ValueError(" \n a\t b\x07 \nc")) == "a b\\x07"
    assert one_line(ValueError("")) == "ValueError"
    assert len(one_line(ValueError("é" * 500))) == 200


def test_names_that_repeat_are_numbered() -> None:
    assert distinct(["a", "b", "a", "a (2)", "a"]) == ["a", "b", "a (3)", "a (2)", "a (4)"]
    assert distinct([]) == []
