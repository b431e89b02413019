"""Stores that somebody edited: each edit is told, or harmless, and the same command never gives other numbers.

Above all edits across groups: what is whole, and of another control, place or sweep.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import torch
import zarr
from numpy.typing import NDArray

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import machine_kind
from shiftlens.engine.plan import Plan
from shiftlens.errors import StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.storage.checksums import seal_of
from shiftlens.sweeping import run_sweep
from shiftlens.sweeps import request, runner
from shiftlens.sweeps.integrity import verify_sweep
from shiftlens.sweeps.looks import Schedule
from shiftlens.sweeps.sweep_result import Sweep, open_sweep
from shiftlens.sweeps.sweep_store import SweepStore

GRID = ShiftGrid((1, 2))
N = 7
CONTROLS = ("flip", "occlusion")
ARRAYS = ("prediction", "loss", "confidence", "checksum")
ALL = (*ARRAYS, "accuracy", "mean_loss", "label", "index", "dy", "dx")

TOLD = "told"
"""By `verify_sweep`, which may find the store whole in all but this; the same command mends it or refuses."""
REFUSED = "refused"
"""Already when it is opened."""
HARMLESS = "harmless"
"""Nothing is told, and all that is read is right."""


def scores(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:, 0, k : k + 3].mean(dim=(1, 2)) for k in range(3)], dim=1) * 3


def model(std: float = 0.25) -> Model:
    return wrap(scores, mean=0.4, std=std, name="net")


def pictures(seed: int = 0) -> ImageSet:
    random = np.random.default_rng(seed)
    return ImageSet(random.integers(0, 256, (N, 1, 6, 8), dtype=np.uint8), np.arange(N) % 3, name="noise")


def again(out: Path, **changes: Any) -> Sweep:
    options: dict[str, Any] = {"model": model(), "images": pictures(), "grid": GRID, "controls": CONTROLS}
    return run_sweep(**(options | changes), out=out, announce=lambda text: None)[0]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole sweeps that differ in one thing each, of three chunks: 3, 3 and 1 images."""
    place = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)
        for name, batch, changes in (
            ("s", 64, {}),
            ("other model", 64, {"model": model(std=0.26)}),
            ("other images", 64, {"images": pictures(seed=1)}),
            ("other fill", 64, {"fill": "mean"}),
            ("other grid", 64, {"grid": ShiftGrid((1, 3))}),
            ("other plan", 32, {}),
            ("more controls", 64, {"model": model(std=0.26), "controls": ("flip", "occlusion", "canvas")}),
        ):
            plan = Plan("direct", "float32", batch, False, False, False, "cpu", machine_kind(torch.device("cpu")))
            patch.setattr(runner, "make_plan", lambda *args, _plan=plan, **options: _plan)
            if name == "more controls":  # a callable has no canvas: the group is what counts
                shutil.copytree(place / "other model.zarr", place / f"{name}.zarr")
                store = SweepStore(place / f"{name}.zarr", writable=True)
                store.add_control("canvas")
                continue
            again(place / f"{name}.zarr", **changes)
    return place


@pytest.fixture
def s(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the first one to be edited."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)
    return Path(shutil.copytree(stores / "s.zarr", tmp_path / "s.zarr"))


def numbers(sweep: Sweep) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(sweep.dataset[name].values) for name in ALL if name in sweep.dataset} | {
        "map": np.asarray(sweep.accuracy.values)
    }


def read(path: Path) -> dict[str, Any]:
    """All that a reader gets of a sweep and its controls."""
    sweep = open_sweep(path)
    found: dict[str, Any] = {"": (sweep.header, numbers(sweep))}
    for name in sweep.controls:
        control = sweep.control(name)
        found[name] = control.header, numbers(control)
    return found


@pytest.fixture(scope="module")
def right(stores: Path) -> dict[str, Any]:
    """What a reader must get."""
    return read(stores / "s.zarr")


def assert_same(got: dict[str, Any], right: dict[str, Any]) -> None:
    assert got.keys() == right.keys()
    for name, (header, values) in right.items():
        assert got[name][0] == header
        for array in got[name][1]:
            np.testing.assert_array_equal(got[name][1][array], values[array])


# ---- the edits: of `s`, with the other stores at hand

Edit = Callable[[Path, Path], object]


def replaced(old: Path, new: Path) -> None:
    if old.is_dir():
        shutil.rmtree(old)
    if new.is_dir():
        shutil.copytree(new, old)
    else:
        shutil.copy(new, old)


def swapped(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def chunk(group: Path, array: str, k: int) -> Path:
    return group.joinpath(array, "c", str(k), *(() if array == "checksum" else ("0", "0")))


def chunks_copied(to: Path, k: int, source: Path, j: int, arrays: tuple[str, ...] = ARRAYS) -> None:
    for array in arrays:
        shutil.copy(chunk(source, array, j), chunk(to, array, k))


def chunks_swapped(a: Path, b: Path, k: int, j: int, arrays: tuple[str, ...] = ARRAYS) -> None:
    for array in arrays:
        swapped(chunk(a, array, k), chunk(b, array, j))


def set_attributes(group: Path, **values: Any) -> None:
    small.edit(group, lambda attributes: attributes.update(values))


def changed_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def written(group: Path, array: str, change: Callable[[NDArray[Any]], Any]) -> None:
    stored = zarr.open_array(group, path=array, mode="r+")
    values = stored[:]
    result = change(values)
    stored[:] = values if result is None else result


def renamed(s: Path, others: Path) -> None:
    shutil.rmtree(s / "control_occlusion")
    (s / "control_flip").rename(s / "control_occlusion")


def control_as_the_sweep(s: Path, others: Path) -> None:
    (s / "control_flip").rename(s.with_name("flip"))
    shutil.rmtree(s)
    s.with_name("flip").rename(s)


def relabelled(group: Path, label: int) -> None:
    """One label edited, and the seal made anew by who knows how it is made, as far as the group itself goes."""

    def change(labels: NDArray[Any]) -> None:
        labels[0] = label

    written(group, "label", change)
    attributes = json.loads((group / "zarr.json").read_text())["attributes"]
    later = ("complete", "seal", "state_seal")
    known = {key: value for key, value in attributes.items() if key not in later}
    arrays = [zarr.open_array(group, path=name, mode="r")[:] for name in ("label", "index", "dy", "dx")]
    assert seal_of(known, *arrays) != attributes["seal"]
    set_attributes(group, seal=seal_of(known, *arrays))


def metadata_swapped(a: Path, b: Path) -> None:
    swapped(a / "zarr.json", b / "zarr.json")


def older(group: Path, *, schema: int, without: tuple[str, ...] = ()) -> None:
    set_attributes(group, schema_version=schema)
    small.edit(group, lambda attributes: [attributes.pop(name) for name in without])


def mean_edited(group: Path) -> None:
    def change(values: NDArray[Any]) -> None:
        values[1, 1] = np.nextafter(values[1, 1], 2.0)

    written(group, "accuracy", change)


def bit_flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def fill_value_edited(group: Path, array: str) -> None:
    changed_json(group / array / "zarr.json", lambda d: d.update(fill_value=0 if array == "prediction" else 0.5))
    chunk(group, array, 1).unlink()


def big_endian(group: Path) -> None:
    changed_json(group / "loss" / "zarr.json", lambda d: d["codecs"][0]["configuration"].update(endian="big"))


EDITS: dict[str, tuple[str, Edit]] = {
    # whole groups
    "a control of another model": (
        REFUSED,
        lambda s, o: replaced(s / "control_flip", o / "other model.zarr/control_flip"),
    ),
    "a control of other images": (
        REFUSED,
        lambda s, o: replaced(s / "control_flip", o / "other images.zarr/control_flip"),
    ),
    "a control of another fill": (
        REFUSED,
        lambda s, o: replaced(s / "control_flip", o / "other fill.zarr/control_flip"),
    ),
    "a control of another grid": (
        REFUSED,
        lambda s, o: replaced(s / "control_flip", o / "other grid.zarr/control_flip"),
    ),
    "a control of another plan": (
        REFUSED,
        lambda s, o: replaced(s / "control_flip", o / "other plan.zarr/control_flip"),
    ),
    "a control renamed": (REFUSED, renamed),
    "two controls swapped": (REFUSED, lambda s, o: swapped(s / "control_flip", s / "control_occlusion")),
    "the sweep itself as a control": (REFUSED, lambda s, o: replaced(s / "control_flip", o / "s.zarr")),
    "a control as the sweep": (REFUSED, control_as_the_sweep),
    "a control it never had": (
        REFUSED,
        lambda s, o: shutil.copytree(o / "more controls.zarr/control_canvas", s / "control_canvas"),
    ),
    "a control without its metadata": (REFUSED, lambda s, o: (s / "control_flip/zarr.json").unlink()),
    "controls of another model under this sweep's metadata": (
        TOLD,
        lambda s, o: [
            replaced(s / "control_flip" / array, o / "other model.zarr/control_flip" / array) for array in ARRAYS
        ],
    ),
    # metadata of groups
    "metadata of another model": (REFUSED, lambda s, o: shutil.copy(o / "other model.zarr/zarr.json", s / "zarr.json")),
    "metadata of another plan": (REFUSED, lambda s, o: shutil.copy(o / "other plan.zarr/zarr.json", s / "zarr.json")),
    "metadata of sweep and control swapped": (REFUSED, lambda s, o: metadata_swapped(s, s / "control_flip")),
    "metadata of two controls swapped": (
        REFUSED,
        lambda s, o: metadata_swapped(s / "control_flip", s / "control_occlusion"),
    ),
    "another control's name": (REFUSED, lambda s, o: set_attributes(s / "control_flip", control="occlusion")),
    "no control's name": (REFUSED, lambda s, o: small.edit(s / "control_flip", lambda a: a.pop("control"))),
    "another model's name": (REFUSED, lambda s, o: set_attributes(s, model="better net")),
    "another model's digest": (REFUSED, lambda s, o: set_attributes(s, model_digest="sha256:00")),
    "other images' digest": (REFUSED, lambda s, o: set_attributes(s, data_digest="sha256:00")),
    "another size": (REFUSED, lambda s, o: set_attributes(s, image_size=[8, 6])),
    "other strides": (REFUSED, lambda s, o: set_attributes(s, strides="[2]")),
    "other class names": (REFUSED, lambda s, o: set_attributes(s, class_names='["x", "y", "z"]')),
    "another fill's name": (REFUSED, lambda s, o: set_attributes(s, fill="edge")),
    "another training": (REFUSED, lambda s, o: set_attributes(s, training='{"shift": 8}')),
    "another preprocessing": (
        REFUSED,
        lambda s, o: small.edit(s, lambda a: a.update(preprocessing=a["preprocessing"].replace("0.25", "0.26"))),
    ),
    "another engine": (REFUSED, lambda s, o: set_attributes(s, engine="dedup")),
    "another plan": (
        REFUSED,
        lambda s, o: small.edit(s, lambda a: a.update(plan=a["plan"].replace('"batch_size": 64', '"batch_size": 65'))),
    ),
    "other software": (REFUSED, lambda s, o: set_attributes(s, software='{"torch": "1.0"}')),
    "an adaptive sweep's schedule": (REFUSED, lambda s, o: set_attributes(s, adaptive=Schedule((N,)).to_json())),
    "no seal": (REFUSED, lambda s, o: small.edit(s, lambda a: a.pop("seal"))),
    "another sweep's seal": (
        REFUSED,
        lambda s, o: set_attributes(
            s, seal=json.loads((o / "other model.zarr/zarr.json").read_text())["attributes"]["seal"]
        ),
    ),
    "schema 2": (REFUSED, lambda s, o: older(s, schema=2)),
    "schema 2 without the later seal": (REFUSED, lambda s, o: older(s, schema=2, without=("state_seal",))),
    "schema 1": (REFUSED, lambda s, o: older(s, schema=1)),
    "schema 1 without seals": (REFUSED, lambda s, o: older(s, schema=1, without=("seal", "state_seal"))),
    "schema 1 for one control": (
        REFUSED,
        lambda s, o: [
            older(s / "control_flip", schema=1, without=("seal", "state_seal")),
            shutil.rmtree(s / "control_flip/checksum"),
        ],
    ),
    "a later schema": (REFUSED, lambda s, o: set_attributes(s, schema_version=99)),
    "not complete": (REFUSED, lambda s, o: set_attributes(s, complete=False)),
    "complete, in words": (REFUSED, lambda s, o: set_attributes(s, complete="true")),
    "a control not complete": (REFUSED, lambda s, o: set_attributes(s / "control_flip", complete=False)),
    "no seal over what changes": (REFUSED, lambda s, o: small.edit(s, lambda a: a.pop("state_seal"))),
    "a half-width where there is none": (REFUSED, lambda s, o: set_attributes(s, half_width_reached=0.1)),
    # chunks in other places
    "chunks from the control": (TOLD, lambda s, o: chunks_copied(s, 0, s / "control_flip", 0)),
    "chunks of sweep and control swapped": (TOLD, lambda s, o: chunks_swapped(s, s / "control_flip", 1, 1)),
    "chunks of another model": (TOLD, lambda s, o: chunks_copied(s, 2, o / "other model.zarr", 2)),
    "chunks of other images": (TOLD, lambda s, o: chunks_copied(s, 1, o / "other images.zarr", 1)),
    "chunks of another plan": (TOLD, lambda s, o: chunks_copied(s, 1, o / "other plan.zarr", 1)),
    "two chunks swapped": (TOLD, lambda s, o: chunks_swapped(s, s, 0, 1)),
    "a loss in another place": (TOLD, lambda s, o: chunks_copied(s, 1, s, 0, ("loss",))),
    "a prediction of the control": (TOLD, lambda s, o: chunks_copied(s, 1, s / "control_flip", 1, ("prediction",))),
    "a loss of another model with its checksum": (
        TOLD,
        lambda s, o: chunks_copied(s, 1, o / "other model.zarr", 1, ("loss", "checksum")),
    ),
    "a checksum copied": (TOLD, lambda s, o: chunks_copied(s, 1, s, 0, ("checksum",))),
    "all checksums of another model": (TOLD, lambda s, o: replaced(s / "checksum", o / "other model.zarr/checksum")),
    "a chunk gone": (TOLD, lambda s, o: [chunk(s, array, 1).unlink() for array in ARRAYS]),
    "all chunks of a control gone": (
        TOLD,
        lambda s, o: [shutil.rmtree(s / "control_flip" / array / "c") for array in ARRAYS],
    ),
    "a bit flipped": (TOLD, lambda s, o: bit_flipped(chunk(s, "loss", 0))),
    # arrays
    "means swapped": (TOLD, lambda s, o: swapped(s / "accuracy/c", s / "mean_loss/c")),
    "means of the control": (TOLD, lambda s, o: replaced(s / "accuracy", s / "control_flip/accuracy")),
    "means of another model": (TOLD, lambda s, o: replaced(s / "mean_loss", o / "other model.zarr/mean_loss")),
    "a mean edited": (TOLD, lambda s, o: mean_edited(s)),
    "a mean of a control edited": (TOLD, lambda s, o: mean_edited(s / "control_flip")),
    "loss and confidence swapped": (REFUSED, lambda s, o: swapped(s / "loss", s / "confidence")),
    "dy and dx swapped": (REFUSED, lambda s, o: swapped(s / "dy", s / "dx")),
    "dy turned": (REFUSED, lambda s, o: written(s, "dy", lambda values: values[::-1].copy())),
    "a label edited": (REFUSED, lambda s, o: written(s, "label", lambda values: np.roll(values, 1))),
    "labels, positions turned together": (
        REFUSED,
        lambda s, o: [written(s, name, lambda values: values[::-1].copy()) for name in ("label", "index")],
    ),
    "a label edited and sealed": (REFUSED, lambda s, o: relabelled(s, 2)),
    "a control's label edited and sealed": (REFUSED, lambda s, o: relabelled(s / "control_flip", 2)),
    "positions edited": (REFUSED, lambda s, o: written(s, "index", lambda values: values + 1)),
    "a lost loss that reads as 0.5": (REFUSED, lambda s, o: fill_value_edited(s, "loss")),
    "a lost prediction that reads as 0": (REFUSED, lambda s, o: fill_value_edited(s, "prediction")),
    "another byte order": (TOLD, lambda s, o: big_endian(s)),
    "other chunks": (
        REFUSED,
        lambda s, o: changed_json(
            s / "loss/zarr.json", lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[7, 3, 5])
        ),
    ),
    "a chunk that is a link": (
        REFUSED,
        lambda s, o: [chunk(s, "loss", 0).unlink(), chunk(s, "loss", 0).symlink_to(chunk(s, "loss", 1))],
    ),
    # what nobody reads
    "an attribute added": (HARMLESS, lambda s, o: set_attributes(s, comment="of my thesis")),
    "attributes in another order": (
        HARMLESS,
        lambda s, o: changed_json(
            s / "zarr.json", lambda d: d.update(attributes=dict(reversed(list(d["attributes"].items()))))
        ),
    ),
    "scale and offset for the loss": (
        HARMLESS,
        lambda s, o: changed_json(
            s / "loss/zarr.json", lambda d: d["attributes"].update(scale_factor=2.0, add_offset=1.0)
        ),
    ),
    "consolidated metadata": (
        HARMLESS,
        lambda s, o: changed_json(
            s / "zarr.json",
            lambda d: d.update(consolidated_metadata={"kind": "inline", "must_understand": False, "metadata": {}}),
        ),
    ),
    "metadata of Zarr 2": (
        HARMLESS,
        lambda s, o: [
            (s / "loss/.zarray").write_text('{"zarr_format": 2, "fill_value": 0}'),
            (s / "loss/.zattrs").write_text('{"scale_factor": 2.0}'),
        ],
    ),
    "a chunk beyond the images": (
        HARMLESS,
        lambda s, o: [
            (s / "loss/c/99/0").mkdir(parents=True),
            shutil.copy(chunk(o / "other model.zarr", "loss", 0), s / "loss/c/99/0/0"),
        ],
    ),
    "another sweep inside": (HARMLESS, lambda s, o: shutil.copytree(o / "other model.zarr", s / "backup.zarr")),
    "a control inside a control": (
        HARMLESS,
        lambda s, o: shutil.copytree(o / "other model.zarr/control_occlusion", s / "control_flip/control_occlusion"),
    ),
    "an array inside an array": (HARMLESS, lambda s, o: shutil.copytree(o / "other model.zarr/loss", s / "loss/loss")),
    "what a killed process left": (
        HARMLESS,
        lambda s, o: (s / "loss/c/0/0" / f"0.{'ab' * 16}.partial").write_bytes(b"half"),
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_told_or_harmless(name: str, s: Path, stores: Path, right: dict[str, Any]) -> None:
    expected, edit = EDITS[name]
    edit(s, stores)

    try:
        verification = verify_sweep(s)
    except StoreError:
        told = True
    else:
        told = not verification.ok
        assert told or not verification.notes
    assert told == (expected != HARMLESS)
    if expected == REFUSED:
        with pytest.raises(StoreError) as caught:
            read(s)
        assert str(caught.value).isprintable()
    if expected == HARMLESS:
        assert_same(read(s), right)

    # The same command mends it, or refuses in one line; it never gives another number.
    refusal = ""
    try:
        again(s)
    except StoreError as error:
        refusal = str(error)
    if refusal:
        assert expected != HARMLESS
        assert refusal.isprintable()
        return
    with suppress(StoreError) if expected == REFUSED else nullcontext():
        assert_same(read(s), right)


def test_there_are_enough_edits() -> None:
    told = [name for name, (expected, _) in EDITS.items() if expected != HARMLESS]
    assert len(told) >= 40


def test_a_foreign_control_is_named_and_left_as_it_is(s: Path, stores: Path) -> None:
    replaced(s / "control_flip", stores / "other model.zarr/control_flip")
    before = small.tree(s)
    with pytest.raises(
        StoreError,
        match=r"control_flip is not the control flip of the sweep in .*s\.zarr: its .*model_digest.* are of another; "
        "remove it, and ask for the control again",
    ):
        open_sweep(s).control("flip")
    with pytest.raises(StoreError, match="is not the control flip"):
        again(s)
    assert small.tree(s) == before
    # The sweep itself is whole, and does as it says.
    shutil.rmtree(s / "control_flip")
    assert_same(read(again(s).path), read(stores / "s.zarr"))


def test_a_control_may_be_opened_in_its_place_and_in_no_other(s: Path, stores: Path) -> None:
    assert open_sweep(s / "control_flip").header.control == "flip"
    assert verify_sweep(s / "control_flip").ok
    (s / "control_flip").rename(s.with_name("control_flip"))
    assert open_sweep(s.with_name("control_flip")).header.control == "flip"
    with pytest.raises(StoreError, match="holds the control flip of a sweep: expected the sweep itself"):
        again(s.with_name("control_flip"))
    replaced(s / "control_flip", stores / "other model.zarr/control_flip")
    with pytest.raises(StoreError, match="is not the control flip"):
        open_sweep(s / "control_flip")
    s.with_name("control_flip").rename(s.with_name("flip.zarr"))
    with pytest.raises(StoreError, match=r"expected it in a folder control_flip of that sweep, got flip\.zarr"):
        open_sweep(s.with_name("flip.zarr"))


def test_an_unfinished_sweep_that_calls_itself_complete_is_refused(s: Path) -> None:
    def stop(n_done: int, n_total: int) -> None:
        if n_done >= 4 * GRID.n_shifts:
            raise KeyboardInterrupt

    out = s.with_name("half.zarr")
    with pytest.raises(KeyboardInterrupt):
        run_sweep(model(), pictures(), GRID, out=out, progress=stop, announce=lambda text: None)
    assert open_sweep(out, partial=True).n_written in (4, 6)
    set_attributes(out, complete=True)
    with pytest.raises(StoreError, match=r"complete, half_width, .* are not all as they were written"):
        open_sweep(out)
    assert not verify_sweep(out).ok


# ---- adaptive sweeps: where it stopped, and with what width


def adaptive(path: Path) -> Path:
    store = small.create(path, schedule=Schedule((3, 6, 7)))
    store.main.ask(5.0)
    store.main.stop_at(6)
    result = small.numbers(6)
    for k in range(2):
        store.main.write(k, small.cut(result, store.main.span(k)))
    store.main.finish(4.0)
    return path


ADAPTIVE_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "stopped earlier": lambda a: a.update(n_images_used=3),
    "stopped later": lambda a: a.update(n_images_used=7),
    "stopped nowhere": lambda a: a.update(n_images_used=None),
    "a narrower width": lambda a: a.update(half_width_reached=0.5),
    "no width": lambda a: a.pop("half_width_reached"),
    "another width asked for": lambda a: a.update(half_width=1.0),
    "not complete": lambda a: a.update(complete=False),
    "other looks": lambda a: a.update(adaptive=a["adaptive"].replace("[3, 6, 7]", "[6, 7]")),
    "another level": lambda a: a.update(adaptive=a["adaptive"].replace("0.95", "0.99")),
    "no schedule": lambda a: a.pop("adaptive"),
}


@pytest.mark.parametrize("name", ADAPTIVE_EDITS)
def test_where_an_adaptive_sweep_stopped_cannot_be_edited(name: str, tmp_path: Path) -> None:
    path = adaptive(tmp_path / "a.zarr")
    sweep = open_sweep(path)
    assert (sweep.n_images, sweep.half_width, sweep.half_width_asked) == (6, 4.0, 5.0)
    assert verify_sweep(path).ok
    small.edit(path, ADAPTIVE_EDITS[name])
    with pytest.raises(StoreError, match="damaged"):
        open_sweep(path)
    assert not verify_sweep(path).ok
