"""`load_images` with a spec: digits, folders, parquet files, unknown names."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from shiftlens.data import digits, parquet
from shiftlens.data.digits import enlarge
from shiftlens.data.images import DATA_KINDS, load_images
from shiftlens.errors import InputError


def png(value: int, size: tuple[int, int] = (4, 4), kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size[::-1], (value, value, value)).save(out, kind)
    return out.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ---- specs


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("cifar-10", "did you mean 'cifar10'"),
        ("fodler:x", "did you mean 'folder:PATH'"),
        ("Parquet:x", "did you mean 'parquet:PATH'"),
        ("MNIST", "did you mean 'torchvision:MNIST'"),
        ("zzz", "expected one of digits, cifar10, folder:PATH"),
        ("", "expected one of digits"),
        ("folder:", "expected folder:PATH, got 'folder:'"),
        ("folder", "expected folder:PATH"),
        ("digits:all", "expected digits and nothing behind it"),
        ("torchvision:MINST", "did you mean 'MNIST'"),
        ("x.parquet", "did you mean 'parquet:x.parquet'"),
    ],
)
def test_unknown_specs_suggest_the_nearest(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_images(spec)
    assert "\n" not in str(caught.value)


def test_a_bare_folder_is_recognised(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"did you mean 'folder:{tmp_path}'"):
        load_images(str(tmp_path))
    write(tmp_path / "a.png", png(1))
    with pytest.raises(InputError, match=f"did you mean 'images:{tmp_path}'"):
        load_images(str(tmp_path))
    with pytest.raises(InputError, match="bare path"):
        load_images(tmp_path)


def test_unknown_split() -> None:
    with pytest.raises(InputError, match="did you mean 'test'"):
        load_images("digits", split="tset")


def test_registry_lists_every_kind_once() -> None:
    assert [kind.usage.partition(":")[0] for kind in DATA_KINDS.values()] == list(DATA_KINDS)


# ---- digits


def test_digits_are_centred_on_black_and_split_once() -> None:
    test, train = load_images("digits", split="test"), load_images("digits", split="train")
    assert len(test) + len(train) == 1797
    assert not set(test.index) & set(train.index)
    assert test.size == (32, 32)
    assert test.n_channels == 3
    assert not test.natural_flip
    assert test.notes == ()
    pixels = test.batch(slice(None))
    assert pixels.shape == (len(test), 3, 32, 32)
    border = pixels.copy()
    border[:, :, 6:26, 6:26] = 0
    assert not border.any()
    assert pixels[:, :, 6].any()
    assert pixels[:, :, 25].any()
    assert pixels.max() == 255
    assert (pixels == pixels[:, :1]).all()
    np.testing.assert_array_equal(test.labels, load_digits().target[test.index])
    shares = np.bincount(test.labels) / np.bincount(load_digits().target)
    assert np.abs(shares - 0.2).max() < 0.01


def test_digits_are_enlarged_as_scipy_would() -> None:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    levels = load_digits().images[:50]
    exact = interpolate(from_numpy(levels)[:, None], size=20, mode="bilinear", align_corners=False)[:, 0].numpy()
    ours = enlarge(levels.astype(np.int64))
    assert np.abs(ours - exact * 255 / 16).max() <= 0.5 + 1e-9


def test_digits_are_scikit_learn_s_own_however_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = load_digits()
    for _ in range(2):
        levels, labels = digits.stored_digits()
        np.testing.assert_array_equal(levels, wanted.images)
        np.testing.assert_array_equal(labels, wanted.target)
        monkeypatch.setattr(digits, "find_spec", lambda _: None)  # the file is not where it is expected


def test_digits_digest_is_the_same_everywhere() -> None:
    assert (
        load_images("digits", split="test").digest
        == "sha256:cf880dc6af339664ddb01961d5631a142f9e6c4e67ddb67fbdb03ae933e90bcb"
    )


# ---- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for c, name in enumerate(["zebra", "ant", "bee"]):
        for k in range(5):
            write(tmp_path / "set" / name / f"{k}.png", png(10 * c + k))
    return tmp_path / "set"


def test_folder_classes_are_sorted_and_split(folder: Path) -> None:
    test, train = (load_images(f"folder:{folder}", split=split) for split in ("test", "train"))
    assert test.class_names == ("ant", "bee", "zebra")
    assert (len(test), len(train)) == (3, 12)
    assert sorted([*test.index, *train.index]) == list(range(15))
    source_order = [10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 0, 1, 2, 3, 4]
    for images in (test, train):
        assert images.batch(slice(None))[:, 0, 0, 0].tolist() == [source_order[k] for k in images.index]
    assert test.labels.tolist() == [0, 1, 2]
    assert test.name == f"folder:{folder}"


def test_folder_with_splits_numbers_classes_through_all_of_them(tmp_path: Path) -> None:
    for k in range(2):
        write(tmp_path / "train" / "cat" / f"{k}.png", png(k))
        write(tmp_path / "train" / "ant" / f"{k}.png", png(10 + k))
        write(tmp_path / "val" / "cat" / f"{k}.png", png(20 + k))
    test, train = load_images(f"folder:{tmp_path}"), load_images(f"folder:{tmp_path}", split="train")
    assert test.class_names == train.class_names == ("ant", "cat")
    assert test.batch(slice(None))[:, 0, 0, 0].tolist() == [20, 21]
    assert test.labels.tolist() == [1, 1]
    assert train.batch(slice(None))[:, 0, 0, 0].tolist() == [10, 11, 0, 1]


def test_folder_with_only_test_cannot_train(tmp_path: Path) -> None:
    write(tmp_path / "test" / "cat" / "0.png", png(1))
    assert len(load_images(f"folder:{tmp_path}")) == 1
    with pytest.raises(InputError, match="has no split 'train', only test"):
        load_images(f"folder:{tmp_path}", split="train")


def test_folder_details_nested_hidden_links_and_strangers(folder: Path, tmp_path: Path) -> None:
    write(folder / "ant" / "deep" / "x.PNG", png(77))
    write(folder / "ant" / ".hidden.png", b"")
    write(folder / ".git" / "y.png", b"")
    write(folder / "bee" / "readme.txt", b"hello")
    write(tmp_path / "elsewhere" / "z.png", png(88))
    (folder / "bee" / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "bee" / "loop").symlink_to(folder / "bee")
    images, test = (load_images(f"folder:{folder}", split=split) for split in ("train", "test"))
    assert images.class_names == ("ant", "bee", "zebra")
    both = [*images.batch(slice(None))[:, 0, 0, 0], *test.batch(slice(None))[:, 0, 0, 0]]
    assert sorted(both) == sorted([*range(5), *range(10, 15), *range(20, 25), 77, 88])
    assert images.notes == ("skipped files that are no pictures by name: 1 (first: bee/readme.txt)",)


def test_folder_errors_are_one_line(tmp_path: Path) -> None:
    write(tmp_path / "file.png", png(1))
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    (tmp_path / "flat").mkdir()
    cases = {
        "missing": "does not exist",
        "file.png": "is a file",
        "empty": "holds 1 class folders and no pictures",
        "flat": "holds no folders",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            load_images(f"folder:{tmp_path / name}")
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_source_without_splits_is_used_whole_unless_a_part_is_asked_for(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        for k in range(30):
            write(tmp_path / "set" / ("cat", "dog", "emu")[k % 3] / f"{k:02}.png", png(k))
    else:
        write_parquet(tmp_path / "set" / "all.parquet", [png(k) for k in range(30)], [k % 3 for k in range(30)])
    spec = f"{kind}:{tmp_path / 'set'}"
    whole, test, train = (load_images(spec, split=split) for split in (None, "test", "train"))
    assert (len(whole), len(test), len(train)) == (30, 6, 24)
    assert (whole.n_source, test.n_source, train.n_source) == (30, 30, 30)
    assert load_images(spec, split="all").digest == whole.digest
    # What training leaves out is known of the whole, and a limit holds for it; a chosen part has no parts.
    assert whole.part("test").digest == test.digest
    assert whole.limit(3).part("test").digest == test.limit(3).digest
    assert load_images(spec, limit=3).part("test").digest == test.limit(3).digest
    assert test.part("test") is load_images(spec, split="all").part("test") is whole.subset([0]).part("test") is None
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'"):
        load_images(spec, split="tset")


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_all_splits_of_a_source_are_one_set(tmp_path: Path, kind: str) -> None:
    for split, value in (("train", 1), ("test", 2), ("val", 3)):
        if kind == "folder":
            write(tmp_path / split / "cat" / "a.png", png(value))
        else:
            write_parquet(tmp_path / f"{split}-0.parquet", [png(value)], [0])
    images = load_images(f"{kind}:{tmp_path}", split="all")
    assert sorted(images.batch(slice(None))[:, 0, 0, 0].tolist()) == [1, 2, 3]
    assert (len(load_images(f"{kind}:{tmp_path}")), images.n_source) == (1, 3)
    assert load_images(f"{kind}:{tmp_path}").part("test") is None


def test_a_folder_of_pictures_without_class_folders_says_what_works(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "notes.txt"):
        write(tmp_path / "flat" / name, png(1))
    write(tmp_path / "split" / "train" / "a.png", png(1))
    write(tmp_path / "split" / "test" / "b.png", png(1))
    told = r"; expected one folder a class: put them into one folder a class, or load them as \(images, labels\) in "
    told += (
        r"Python; without labels, inspect, foveation, kernels, features --input IMAGE, tiles and the tasks "
        r"segmentation, detection, dense and embedding work, with images:DIR; all else needs a class$"
    )
    with pytest.raises(InputError, match=r"flat holds no folders, only pictures \(a\.jpg, b\.png\)" + told):
        load_images(f"folder:{tmp_path / 'flat'}")
    with pytest.raises(InputError, match=r"test holds no folders, only pictures \(b\.png\)" + told):
        load_images(f"folder:{tmp_path / 'split'}")
    # What the message advises.
    both = [np.asarray(Image.open(io.BytesIO((tmp_path / "flat" / name).read_bytes()))) for name in ("a.jpg", "b.png")]
    assert len(load_images((both, [0, 1]))) == 2
    for name in ("cat/a.png", "cat/b.png", "dog/a.png", "dog/b.png"):
        write(tmp_path / "flat" / name, png(1))
    assert load_images(f"folder:{tmp_path / 'flat'}").class_names == ("cat", "dog")


def test_unreadable_folder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(InputError, match=r"set cannot be listed: .*Permission denied"):
        load_images(f"folder:{folder}")


def test_a_broken_picture_is_found_when_read_and_named(folder: Path) -> None:
    (folder / "ant" / "3.png").write_bytes(png(1)[:45])
    (folder / "bee" / "2.png").write_bytes(b"no picture")
    (folder / "zebra" / "1.png").unlink()
    (folder / "zebra" / "1.png").symlink_to(folder / "gone.png")
    parts = [load_images(f"folder:{folder}", split=split) for split in ("train", "test")]
    for position, path, reason in (
        (3, "ant/3.png", "decoded"),
        (7, "bee/2.png", "no picture"),
        (11, "zebra/1.png", "read"),
    ):
        images = next(part for part in parts if position in part.index)
        with pytest.raises(InputError, match=rf"picture {position} \(.*{path}\) .*{reason}"):
            images.batch(np.flatnonzero(images.index == position))
        fine = np.flatnonzero(~np.isin(images.index, [3, 7, 11]))
        assert len(images.batch(fine)) == len(fine)


def test_jpeg_is_noted_and_sizes_are_found(folder: Path) -> None:
    images = load_images(f"folder:{folder}", split="train")
    assert images.size == (4, 4)
    assert images.notes == ()
    for k in range(5):
        write(folder / "ant" / f"{k}.png", png(100, (4, 5), "JPEG"))  # by its bytes, not by its name
    images = load_images(f"folder:{folder}", split="train")
    assert images.notes == ("images are JPEG-compressed (4 of 12)",)
    assert images.size is None
    with pytest.raises(InputError, match=r"4x5 \(picture \d+ .*ant.*4x4 \(picture \d+ .*bee.*input size"):
        images.batch(slice(None))
    assert images.fitted((4, 4)).batch(slice(None)).shape == (12, 3, 4, 4)
    assert images.subset(images.labels == 0).notes == ("images are JPEG-compressed",)


def test_a_changed_file_changes_the_digest(folder: Path) -> None:
    before = load_images(f"folder:{folder}", split="train")
    assert load_images(f"folder:{folder}", split="train").digest == before.digest
    for k in range(5):
        write(folder / "ant" / f"{k}.png", png(200))
    assert load_images(f"folder:{folder}", split="train").digest != before.digest


# ---- parquet


def write_parquet(
    path: Path,
    pictures: Sequence[bytes | None],
    labels: Sequence[int | None] | Sequence[str],
    *,
    names: Sequence[str] | None = None,
    column: str = "img",
    group: int = 3,
) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": data, "path": f"{k}.png"} for k, data in enumerate(pictures)], type=kind)
    table = pa.table({column: images, "label": pa.array(labels)})
    if names is not None:
        features = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def parquet_folder(tmp_path: Path) -> Path:
    root = tmp_path / "hf"
    for part in range(2):
        pictures = [png(10 * part + k) for k in range(7)]
        write_parquet(
            root / "plain_text" / f"train-0000{part}-of-00002.parquet", pictures, [0, 1] * 3 + [0], names=["cat", "dog"]
        )
    write_parquet(
        root / "plain_text" / "test-00000-of-00001.parquet",
        [png(200 + k) for k in range(4)],
        [1, 0, 1, 0],
        names=["cat", "dog"],
    )
    return root


def test_parquet_splits_names_and_order(parquet_folder: Path) -> None:
    test = load_images(f"parquet:{parquet_folder}")
    train = load_images(f"parquet:{parquet_folder}", split="train")
    assert test.class_names == train.class_names == ("cat", "dog")
    assert test.batch(slice(None))[:, 1, 2, 3].tolist() == [200, 201, 202, 203]
    assert test.labels.tolist() == [1, 0, 1, 0]
    assert train.batch([13, 0, 7, 6])[:, 0, 0, 0].tolist() == [16, 0, 10, 6]
    assert train.index.tolist() == list(range(14))


def test_named_cifar10_is_found_in_a_data_folder(parquet_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet_folder.rename(parquet_folder.parent / "cifar10")
    images = load_images("cifar10", data_root=parquet_folder.parent)
    assert (len(images), images.name) == (4, "cifar10")
    monkeypatch.setenv("SHIFTLENS_DATA", str(parquet_folder.parent))
    assert load_images("cifar10").digest == images.digest
    assert load_images("cifar10", data_root=parquet_folder / "nothing", limit=2).labels.tolist() in ([0, 1], [1, 0])


def test_parquet_without_splits_is_split(tmp_path: Path) -> None:
    write_parquet(tmp_path / "all.parquet", [png(k) for k in range(10)], [0] * 5 + [1] * 5, column="image")
    test = load_images(f"parquet:{tmp_path / 'all.parquet'}", split="test")
    train = load_images(f"parquet:{tmp_path}", split="train")
    assert (len(test), len(train)) == (2, 8)
    assert test.class_names == ("0", "1")
    assert test.batch(slice(None))[:, 0, 0, 0].tolist() == test.index.tolist()


def test_parquet_with_folders_for_splits_and_with_validation(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("validation", 2)):
        write_parquet(tmp_path / "default" / split / "0000.parquet", [png(value)] * 2, [0, 1])
    assert load_images(f"parquet:{tmp_path}").batch([0])[0, 0, 0, 0] == 2
    assert len(load_images(f"parquet:{tmp_path}", split="train")) == 2
    validation = tmp_path / "default" / "validation" / "0000.parquet"
    assert len(load_images(f"parquet:{validation}")) == 2
    with pytest.raises(InputError, match="no split 'train', only validation"):
        load_images(f"parquet:{validation}", split="train")


def test_parquet_of_train_alone_holds_some_back(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", [png(k) for k in range(10)], [0] * 10)
    parts = [load_images(f"parquet:{tmp_path}", split=split).index.tolist() for split in ("train", "test")]
    assert sorted([*parts[0], *parts[1]]) == list(range(10))
    assert len(parts[1]) == 2


def test_parquet_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "text.parquet", b"no parquet")
    pq.write_table(pa.table({"x": [1], "label": [0]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": [0]}), tmp_path / "plain.parquet")
    write_parquet(tmp_path / "words.parquet", [png(1)], ["cat"])
    write_parquet(tmp_path / "gap.parquet", [png(1), png(2)], [0, None])
    write_parquet(tmp_path / "hidden-0.parquet", [png(1)] * 2, [-1, -1])
    write_parquet(tmp_path / "beyond.parquet", [png(1)] * 2, [0, 2], names=["cat", "dog"])
    write_parquet(tmp_path / "norows.parquet", [], pa.array([], pa.int64()))
    write_parquet(tmp_path / "test-only.parquet", [png(1)], [0])
    kind = pa.struct([("bytes", pa.binary())])
    pq.write_table(pa.table({"img": pa.array([{"bytes": b""}], type=kind)}), tmp_path / "nolabel.parquet")
    write_parquet(tmp_path / "two" / "a" / "test-0.parquet", [png(1)], [0])
    write_parquet(tmp_path / "two" / "b" / "test-0.parquet", [png(1)], [0])
    write_parquet(tmp_path / "differ" / "test-0.parquet", [png(1)], [0], names=["cat"])
    write_parquet(tmp_path / "differ" / "test-1.parquet", [png(1)], [0], names=["dog"])
    cases = {
        "missing": "does not exist",
        "empty": "holds no parquet files",
        "text.parquet": "cannot be read as parquet",
        "columns.parquet": "no column img or image, only x, label",
        "plain.parquet": "must be a struct with bytes .* got binary",
        "nolabel.parquet": "no column label, only img; without labels, inspect",
        "words.parquet": "must hold whole numbers, got string",
        "gap.parquet": "row 1 of .* has no label",
        "hidden-0.parquet": r"is this set unlabelled\? without labels, inspect",
        "beyond.parquet": r"label 2 of picture 1 \(row 1 of .*beyond the 2 classes",
        "norows.parquet": "holds no pictures",
        "two": "holds several data sets",
        "differ": "differ in picture column or classes",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            load_images(f"parquet:{tmp_path / name}")
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="has no split 'train', only test"):
        load_images(f"parquet:{tmp_path / 'test-only.parquet'}", split="train")


def test_parquet_names_the_row_that_cannot_be_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "test-0.parquet", [png(k) for k in range(4)], [0] * 4)
    write_parquet(tmp_path / "test-1.parquet", [png(4), b"torn", None, png(7)], [0] * 4)
    images = load_images(f"parquet:{tmp_path}")
    assert images.batch([7, 4])[:, 0, 0, 0].tolist() == [7, 4]
    with pytest.raises(InputError, match=r"picture 5 \(row 1 of .*test-1\.parquet\) is no picture"):
        images.batch([4, 5])
    with pytest.raises(InputError, match=r"picture 6 \(row 2 of .*test-1\.parquet\) has no bytes"):
        images.batch([6])


@pytest.mark.parametrize(("group_bytes", "cache_bytes"), [(2**28, 2**28), (2**28, 300), (1, 0)])
def test_parquet_reads_the_same_with_any_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_bytes: int, cache_bytes: int
) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", group_bytes)  # 1: every row group goes through a temporary file
    monkeypatch.setattr(parquet, "_CACHE_BYTES", cache_bytes)
    monkeypatch.setattr(parquet, "_MOST_SPOOLS", 2)
    monkeypatch.setattr(parquet, "_MOST_READERS", 1)
    for part in range(3):
        write_parquet(tmp_path / f"test-{part}.parquet", [png(20 * part + k) for k in range(20)], [0] * 20, group=6)
    images = load_images(f"parquet:{tmp_path}")
    wanted = np.random.default_rng(1).permutation(60)
    assert images.batch(wanted)[:, 0, 0, 0].tolist() == wanted.tolist()
    assert [int(pixels[0, 0, 0]) for pixels, _ in images] == list(range(60))
    held = images._pictures._held
    assert len(held) <= (12 if cache_bytes == 2**28 else 3)


def test_parquet_of_more_rows_than_pictures_could_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_ROWS_ANYWAY", 1000)
    kind = pa.struct([("bytes", pa.binary())])
    rows = pa.table({"img": pa.nulls(600, kind), "label": pa.array([0] * 600)})
    for name in ("test-0.parquet", "test-1.parquet"):
        pq.write_table(rows, tmp_path / name)
        assert (tmp_path / name).stat().st_size < 8 * 600
    assert len(load_images(f"parquet:{tmp_path / 'test-0.parquet'}")) == 600
    with pytest.raises(InputError, match=r"test-1\.parquet says that 1,200 rows are in [\d,]+ bytes: .* no pictures"):
        load_images(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "real" / "test-0.parquet", [png(k % 256) for k in range(2000)], [0] * 2000)
    assert len(load_images(f"parquet:{tmp_path / 'real'}")) == 2000


def test_parquet_in_which_one_picture_is_many_is_read_to_a_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    write_parquet(tmp_path / "test-0.parquet", [out.getvalue()] * 90, [0] * 90, group=90)
    assert (tmp_path / "test-0.parquet").stat().st_size < 2 * len(out.getvalue())
    monkeypatch.setattr(parquet, "_COPIES_ANYWAY", 0)
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 40 * len(out.getvalue()))  # goes on in a temporary file half-way
    images = load_images(f"parquet:{tmp_path}")
    assert np.array_equal(images.batch([0, 41, 89])[2], noise.transpose(2, 0, 1))
    monkeypatch.setattr(parquet, "_MOST_COPIES", 80)
    with pytest.raises(InputError, match=r"row group 0 of .*test-0\.parquet .* repeated very often"):
        load_images(f"parquet:{tmp_path}").batch([0])


def test_parquet_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    import tracemalloc

    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "BMP")
    path = tmp_path / "test-0.parquet"
    write_parquet(path, [out.getvalue()] * 400, [0] * 400, group=10)
    images = load_images(f"parquet:{path}")
    before = parquet._CACHE_BYTES
    parquet._CACHE_BYTES = 2**20
    try:
        tracemalloc.start()
        images.survey()
        for start in range(0, 400, 20):
            images.batch(slice(start, start + 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        parquet._CACHE_BYTES = before
    assert peak < 4 * 2**20 < 400 * len(out.getvalue())


def test_parquet_set_survives_pickling(parquet_folder: Path) -> None:
    images = load_images(f"parquet:{parquet_folder}")
    images.batch([0])
    other = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(other.batch([2, 1]), images.batch([2, 1]))


def test_missing_pyarrow_is_named(parquet_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install pyarrow"):
        load_images(f"parquet:{parquet_folder}")


def test_a_named_set_may_be_limited_and_is_lazy(parquet_folder: Path) -> None:
    for file in parquet_folder.rglob("test-*"):
        write_parquet(file, [b"torn", png(1), png(2), png(3)], [0, 0, 1, 1], names=["cat", "dog"])
    images = load_images(f"parquet:{parquet_folder}", limit=2)
    assert sorted(images.labels.tolist()) == [0, 1]
    assert len(load_images(f"parquet:{parquet_folder}", limit=50)) == 4
