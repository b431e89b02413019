"""What is torn, flipped, gone or misplaced in a sweep is told by name, and computed again to the same bytes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import torch
import zarr

from shiftlens.data.imageset import ImageSet
from shiftlens.errors import StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.storage.checksums import checksums
from shiftlens.storage.locking import Unsynced
from shiftlens.sweeping import run_sweep, sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.integrity import Verification, restore_known, verify_sweep
from shiftlens.sweeps.sweep_result import open_sweep

GRID = ShiftGrid((1, 2))
N = 7


def pictures() -> ImageSet:
    random = np.random.default_rng(0)
    return ImageSet(random.integers(0, 256, (N, 1, 6, 8), dtype=np.uint8), np.arange(N) % 3, name="noise")


def scores(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:, 0, k : k + 3].mean(dim=(1, 2)) for k in range(3)], dim=1) * 3


@pytest.fixture
def model() -> Model:
    return wrap(scores, mean=0.4, std=0.25, name="net")


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pictures are three chunks of 3, 3 and 1."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "s.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)
        sweep(wrap(scores, mean=0.4, std=0.25, name="net"), pictures(), GRID, out=out, controls=("flip",))
    return out


@pytest.fixture
def done(tmp_path: Path, finished: Path) -> Path:
    """A finished sweep with a control."""
    return Path(shutil.copytree(finished, tmp_path / "s.zarr"))


def chunk_file(group: Path, array: str, chunk: int) -> Path:
    inner = () if array == "checksum" else ("0", "0")
    return group.joinpath(array, "c", str(chunk), *inner)


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(content)


def found(verification: Verification) -> list[tuple[str | None, str, str, int | None]]:
    return [(f.control, f.what, f.where, f.chunk) for f in verification.faults]


HARMS: dict[str, Callable[[Path], None]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-3]) and None,
    "flipped": lambda file: flip(file, 8 * (len(file.read_bytes()) - 6) + 2),
    "deleted": Path.unlink,
    "empty": lambda file: file.write_bytes(b"") and None,
}


# ---- telling


def test_a_whole_sweep_has_no_faults(done: Path) -> None:
    verification = verify_sweep(done)
    assert (verification.ok, verification.n_chunks, verification.n_whole, verification.n_images) == (True, 6, 6, N)
    assert (verification.faults, verification.notes, verification.controls) == ((), (), ("flip",))
    assert verification.complete
    assert verification.lines() == [f"{done}: 6 of 6 chunks are there and right"]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("array", ["prediction", "loss", "confidence", "checksum"])
def test_a_harmed_chunk_is_named_and_the_same_command_mends_it_to_the_same_bytes(
    done: Path, model: Model, array: str, harm: str
) -> None:
    before = small.tree(done)
    HARMS[harm](chunk_file(done / "control_flip", array, 1))
    assert small.tree(done) != before
    verification = verify_sweep(done)
    assert found(verification) == [("flip", "torn", "chunk", 1)]
    assert verification.faults[0].images == (3, 5)
    assert "torn: chunk 1 of control flip" in verification.lines()
    _, stats = run_sweep(model, pictures(), GRID, out=done, controls=("flip",))
    assert stats.shifts_per_second * stats.seconds == pytest.approx(3 * GRID.n_shifts)
    assert small.tree(done) == before


def test_every_bit_of_a_chunk_is_watched(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr", grid=ShiftGrid((1, 1))).main
    group.write(1, small.numbers(3, (3, 3)))
    file = chunk_file(tmp_path / "s.zarr", "prediction", 1)
    content, right = file.read_bytes(), group.array("prediction")[3:6]
    unseen = []
    for bit in range(8 * len(content)):
        flip(file, bit)
        if group.state(1) == "whole":
            # Bits that the format says nobody reads: nothing is lost with them.
            np.testing.assert_array_equal(group.array("prediction")[3:6], right)
            unseen.append(bit)
        file.write_bytes(content)
    assert group.state(1) == "whole"
    assert len(unseen) <= 4


def test_whole_chunks_in_the_wrong_place_are_told(done: Path, tmp_path: Path, model: Model) -> None:
    before = small.tree(done)
    shutil.copy(chunk_file(done, "loss", 0), chunk_file(done, "loss", 1))
    for array in ("prediction", "loss", "confidence", "checksum"):
        # All four of them, so that they agree among themselves.
        shutil.copy(chunk_file(done, array, 2), chunk_file(done / "control_flip", array, 2))
    assert found(verify_sweep(done)) == [(None, "wrong", "chunk", 1), ("flip", "wrong", "chunk", 2)]
    sweep(model, pictures(), GRID, out=done, controls=("flip",))
    assert small.tree(done) == before


def test_a_chunk_of_another_sweep_is_told(done: Path, tmp_path: Path, model: Model) -> None:
    other = wrap(scores, mean=0.4, std=0.26, name="net")
    sweep(other, pictures(), GRID, out=tmp_path / "other.zarr")
    for array in ("prediction", "loss", "confidence", "checksum"):
        shutil.copy(chunk_file(tmp_path / "other.zarr", array, 0), chunk_file(done, array, 0))
    assert found(verify_sweep(done)) == [(None, "wrong", "chunk", 0)]


@pytest.mark.parametrize("array", ["accuracy", "mean_loss"])
@pytest.mark.parametrize("harm", ["another number", "torn", "gone"])
def test_means_are_held_against_the_chunks(done: Path, model: Model, array: str, harm: str) -> None:
    before = small.tree(done)
    file = done / array / "c" / "0" / "0"
    if harm == "another number":
        stored = zarr.open_array(str(done), path=array, mode="r+")
        stored[1, 1] = np.nextafter(stored[1, 1], 2.0)
    elif harm == "torn":
        file.write_bytes(b"torn")
    else:
        file.unlink()
    verification = verify_sweep(done)
    assert found(verification) == [(None, "wrong", array, None)]
    assert f"{done}: {array} is unreadable or not that of the chunks" in verification.lines()
    assert sweep(model, pictures(), GRID, out=done).complete
    assert small.tree(done) == before


@pytest.mark.parametrize("array", ["label", "index", "dy", "dx"])
@pytest.mark.parametrize("harm", ["torn", "other numbers", "gone"])
def test_labels_and_shifts_are_restored_from_what_the_sweep_is_of(
    done: Path, model: Model, array: str, harm: str
) -> None:
    before = small.tree(done)
    file = done / "control_flip" / array / "c" / "0"
    if harm == "torn":
        file.write_bytes(b"torn")
    elif harm == "gone":
        file.unlink()
    else:
        stored = zarr.open_array(str(done / "control_flip"), path=array, mode="r+")
        stored[:] = stored[:][::-1] + 1
    verification = verify_sweep(done)
    assert found(verification) == [("flip", "damaged", "group", None)]
    assert not verification.complete
    with pytest.raises(StoreError, match="damaged"):
        open_sweep(done).control("flip")
    said: list[str] = []
    run_sweep(model, pictures(), GRID, out=done, controls=("flip",), announce=said.append)
    assert said == [f"control_flip/{array} was torn: it is written again"]
    assert small.tree(done) == before


def test_nothing_is_restored_where_nothing_is_torn(done: Path) -> None:
    assert restore_known(done, pictures().labels, pictures().index, GRID) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(plan=a["plan"].replace('"batch_size": 64', '"batch_size": 65')),
        lambda a: a.update(model="another"),
        lambda a: a.update(software="{}"),
        lambda a: a.pop("seal"),
        lambda a: a.update(seal=3),
        lambda a: a.update(state_seal=a["seal"]),
    ],
)
def test_attributes_that_were_altered_are_refused(
    done: Path, model: Model, change: Callable[[dict[str, Any]], None]
) -> None:
    before = (done / "zarr.json").read_bytes()
    small.edit(done, change)
    assert (done / "zarr.json").read_bytes() != before
    with pytest.raises(StoreError, match=r"s\.zarr is damaged: "):
        open_sweep(done)
    with pytest.raises(StoreError, match="is damaged"):
        sweep(model, pictures(), GRID, out=done)
    verification = verify_sweep(done)
    assert found(verification) == [(None, "damaged", "group", None)]
    assert not any("run the same sweep again" in line for line in verification.lines())


def test_attributes_that_somebody_added_are_no_damage(done: Path) -> None:
    small.edit(done, lambda attributes: attributes.update(comment="of my thesis"))
    assert open_sweep(done).attrs["comment"] == "of my thesis"
    assert verify_sweep(done).ok


def test_verifying_changes_nothing(done: Path) -> None:
    chunk_file(done, "loss", 1).write_bytes(b"torn")
    before = small.tree(done.parent)
    verify_sweep(done)
    assert small.tree(done.parent) == before


def test_an_interrupted_sweep_lacks_chunks_and_says_which(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr", n=30).main
    result = small.numbers(30)
    for chunk in (0, 3, 4, 5, 9):
        group.write(chunk, small.cut(result, group.span(chunk)))
    chunk_file(tmp_path / "s.zarr", "prediction", 9).unlink()
    verification = verify_sweep(tmp_path / "s.zarr")
    assert not verification.complete
    assert verification.lines() == [
        f"{tmp_path / 's.zarr'}: 4 of 10 chunks are there and right",
        "torn: chunk 9",
        "absent: chunks 1 to 2, 6 to 8",
        "run the same sweep again: it computes exactly these, to the same bytes",
    ]
    assert json.loads(json.dumps(verification.to_dict()))["faults"][0] == {
        "control": None,
        "what": "absent",
        "where": "chunk",
        "chunk": 1,
        "images": [3, 5],
        "detail": f"{tmp_path / 's.zarr'}: chunk 1 (images 3 to 5) is absent",
    }


def test_nothing_there_is_no_sweep_to_verify(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no sweep at"):
        verify_sweep(tmp_path / "s.zarr")


# ---- the checksum itself


def test_a_checksum_belongs_to_place_seal_and_every_array() -> None:
    result = small.numbers(3)
    prediction = result["prediction"].astype(np.uint8)
    seal = "sha256:" + "ab" * 32
    base = checksums(seal, slice(3, 6), prediction, result["loss"], result["confidence"])
    assert base.dtype == np.uint64
    assert len(set(base.tolist())) == 3
    assert (base != 0).all()
    others = [
        checksums("sha256:" + "ac" * 32, slice(3, 6), prediction, result["loss"], result["confidence"]),
        checksums(seal, slice(0, 3), prediction, result["loss"], result["confidence"]),
        checksums(seal, slice(3, 6), 2 - prediction, result["loss"], result["confidence"]),
        checksums(seal, slice(3, 6), prediction, result["loss"] + 1, result["confidence"]),
        checksums(seal, slice(3, 6), prediction, result["loss"], result["confidence"] / 2),
    ]
    assert all((other != base).all() for other in others)
    one = checksums(seal, slice(4, 5), prediction[1:2], result["loss"][1:2], result["confidence"][1:2])
    assert one == base[1], "an image's checksum depends on how the images are cut into chunks"
    big_endian = checksums(seal, slice(3, 6), prediction, result["loss"].astype(">f4"), result["confidence"])
    np.testing.assert_array_equal(big_endian, base)


# ---- using


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("array", ["prediction", "loss", "confidence"])
def test_reading_a_harmed_chunk_names_it(done: Path, array: str, harm: str) -> None:
    HARMS[harm](chunk_file(done, array, 1))
    data = open_sweep(done).dataset
    np.testing.assert_array_equal(data[array][:3], zarr.open_array(str(done), path=array, mode="r")[:3])
    with pytest.raises(StoreError, match=rf"damaged: chunk 1 \(images 3 to 5\) of {array} is torn; run .* again"):
        data[array].values  # noqa: B018
    with pytest.raises(StoreError, match="chunk 1"):
        data[array].isel(image=[0, 4], dx=2).load()


def test_a_harmed_mean_is_named_when_it_is_read(done: Path) -> None:
    (done / "accuracy" / "c" / "0" / "0").unlink()
    (done / "mean_loss" / "c" / "0" / "0").write_bytes(b"torn")
    for name in ("accuracy", "mean_loss"):
        with pytest.raises(StoreError, match=f"{name} cannot be read"):
            getattr(open_sweep(done), name)


def test_an_incomplete_sweep_reads_what_is_not_written_as_missing(tmp_path: Path) -> None:
    group = small.create(tmp_path / "s.zarr").main
    group.write(1, small.cut(small.numbers(7), group.span(1)))
    data = open_sweep(tmp_path / "s.zarr", partial=True).dataset
    assert np.isnan(data.loss.values).all(axis=(1, 2)).tolist() == [True] * 3 + [False] * 3 + [True]
    assert (data.prediction[0].values == 255).all()
    chunk_file(tmp_path / "s.zarr", "loss", 1).write_bytes(b"torn")
    with pytest.raises(StoreError, match="chunk 1"):
        data.loss.values  # noqa: B018


def test_lazy_variables_index_like_any_other(done: Path) -> None:
    data = open_sweep(done).dataset
    whole = zarr.open_array(str(done), path="loss", mode="r")[:]
    np.testing.assert_array_equal(data.loss.values, whole)
    np.testing.assert_array_equal(data.loss[::-2, 1, 2:0:-1], whole[::-2, 1, 2:0:-1])
    np.testing.assert_array_equal(data.loss.isel(image=[5, 0, 5], dy=[1, 0]), whole[[5, 0, 5]][:, [1, 0]])
    np.testing.assert_array_equal(data.loss.sel(dy=1, dx=-2), whole[:, 2, 0])
    assert data.loss.attrs["units"] == "nat"


# ---- older sweeps


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_sweep_is_refused_in_one_line_and_left_as_it_is(done: Path, model: Model, version: int) -> None:
    small.edit(done, lambda attributes: attributes.update(schema_version=version))
    before = small.tree(done)
    for use in (
        open_sweep,
        verify_sweep,
        lambda path: sweep(model, pictures(), GRID, out=path),
        lambda path: sweep(model, pictures(), GRID, out=path.with_name("new.zarr"), reuse=path),
    ):
        with pytest.raises(StoreError) as caught:
            use(done)
        says = f"{done} is a sweep of schema version {version}, which this version no longer reads; sweep it again"
        assert str(caught.value) == says
    assert small.tree(done) == before


def test_an_older_control_is_refused_and_the_sweep_is_read(done: Path) -> None:
    small.edit(done / "control_flip", lambda attributes: attributes.update(schema_version=2))
    assert open_sweep(done).complete
    with pytest.raises(StoreError, match=r"control_flip is a sweep of schema version 2, which .* no longer reads"):
        open_sweep(done).control("flip")
    assert found(verify_sweep(done)) == [("flip", "damaged", "group", None)]


def test_a_control_in_an_older_sweep_is_refused(done: Path) -> None:
    small.edit(done, lambda attributes: attributes.update(schema_version=2))
    with pytest.raises(StoreError, match="version 2, which this version no longer reads"):
        open_sweep(done / "control_flip")


@pytest.mark.parametrize("version", [4, 0, -1, None, True, "3", 3.0])
def test_a_version_that_is_none_or_newer_is_told_apart_from_an_older_one(done: Path, version: object) -> None:
    small.edit(done, lambda attributes: attributes.update(schema_version=version))
    with pytest.raises(StoreError, match="this shiftlens reads 3: a newer shiftlens wrote it, or it is damaged"):
        open_sweep(done)


# ---- time


def test_a_clock_that_is_set_back_changes_nothing(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    clean = sweep(model, pictures(), GRID, out=tmp_path / "clean.zarr")
    now = time.time()

    def stop(n_done: int, n_total: int) -> None:
        if n_done == 3 * GRID.n_shifts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", progress=stop)
    # What is there, and the lock, are of next year; the clock shows 1970 and runs backwards.
    for place in tmp_path.rglob("*"):
        os.utime(place, (now + 3e7, now + 3e7))
    ticks = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    _, stats = run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert stats.images_resumed == 3
    assert stats.seconds >= 0
    assert small.tree(tmp_path / "s.zarr") == small.tree(clean.path)


# ---- power loss


def test_all_that_was_written_is_on_the_disk_before_the_sweep_is_complete(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shiftlens.storage import locking

    synced: list[Path] = []
    real = locking._sync

    def spy(place: Path) -> None:
        synced.append(place)
        real(place)

    monkeypatch.setattr(locking, "_sync", spy)
    out = tmp_path / "s.zarr"
    store = small.create(out)
    result = small.numbers(7)
    for chunk in range(3):
        store.main.write(chunk, small.cut(result, store.main.span(chunk)))
    assert out.parent in synced
    assert not any("c" in place.parts for place in synced if place.is_relative_to(out))
    synced.clear()
    # A new process takes it up: it does not know what the old one has written.
    SweepGroup(out, writable=True).finish()
    data = {p for p in out.rglob("*") if p.is_file() and "c" in p.relative_to(out).parts}
    known = {p for p in data if p.relative_to(out).parts[0] in ("label", "index", "dy", "dx")}
    assert set(synced) == data - known | {out / "zarr.json"}
    assert synced.index(out / "zarr.json") == len(synced) - 1


def test_files_are_forced_to_the_disk_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    unsynced = Unsynced()
    unsynced.add(tmp_path / "a")
    unsynced.sync_now_and_then()
    assert unsynced._files
    clock[0] += Unsynced.SECONDS
    unsynced.sync_now_and_then()
    assert not unsynced._files
