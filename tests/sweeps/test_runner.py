"""The runner: what it computes, what it never computes twice, and what it refuses before it starts."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_sweeps as small
import torch
import xarray as xr
from small_sweeps import Net
from torch import Tensor, nn

from shiftlens.data.imageset import ImageSet
from shiftlens.errors import DeviceError, InputError, ModelOutputError, StoreError
from shiftlens.models.wrapping import Model, wrap
from shiftlens.shifts import ShiftGrid, translate
from shiftlens.storage.locking import output_lock
from shiftlens.sweeping import run_sweep, sweep
from shiftlens.sweeps import header as attributes
from shiftlens.sweeps import progress, request, runner
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.progress import cost_text, duration
from shiftlens.sweeps.request import default_grid, images_of_a_sum, images_per_chunk
from shiftlens.sweeps.sweep_result import open_sweep

GRID = ShiftGrid((2, 3))
N = 7


def pictures(n: int = N, size: tuple[int, int] = (6, 8), n_classes: int = 3) -> ImageSet:
    random = np.random.default_rng(0)
    return ImageSet(random.integers(0, 256, (n, 1, *size), dtype=np.uint8), np.arange(n) % n_classes, name="noise")


@pytest.fixture
def model() -> Model:
    return wrap(Net(), mean=0.4, std=0.25, name="net")


@pytest.fixture(autouse=True)
def chunks_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven pictures are three chunks of 3, 3 and 1."""
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 3 * GRID.n_shifts)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    return small.evaluated(monkeypatch)


class Stop:
    """A progress callback that interrupts after so many calls, as Ctrl-C would."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left = after
        self.error = error

    def __call__(self, n_done: int, n_total: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error


# ---- what it computes


def test_numbers_equal_a_plain_loop(tmp_path: Path, model: Model) -> None:
    images = pictures()
    result = sweep(model, images, GRID, out=tmp_path / "s.zarr", fill="0.25", dtype="float32")
    assert isinstance(model.module, Net)
    assert result.complete
    data = result.dataset
    for iy, dy in enumerate(GRID.dys.tolist()):
        for ix, dx in enumerate(GRID.dxs.tolist()):
            x = (torch.from_numpy(images.batch(range(N))).float() / 255 - 0.4) / 0.25
            x = translate(x, dx, dy, (0.25 - 0.4) / 0.25)
            with torch.no_grad():
                scores = model.module(x)
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(images.labels.copy()), reduction="none")
            np.testing.assert_array_equal(data.prediction[:, iy, ix], scores.argmax(1))
            np.testing.assert_allclose(data.loss[:, iy, ix], loss, atol=1e-5)
            np.testing.assert_allclose(data.confidence[:, iy, ix], scores.softmax(1).max(1).values, atol=1e-3)
    np.testing.assert_array_equal(data.label, images.labels)
    np.testing.assert_array_equal(data["index"], np.arange(N))
    # The test can fail: the maps differ from shift to shift.
    assert len(np.unique(data.mean_loss)) > GRID.n_shifts // 2


def test_index_is_the_position_in_the_source(tmp_path: Path, model: Model) -> None:
    result = sweep(model, pictures().subset([5, 2, 0]), GRID, out=tmp_path / "s.zarr")
    assert result.dataset["index"].values.tolist() == [5, 2, 0]


def test_pictures_are_brought_to_the_models_size_and_channels(tmp_path: Path) -> None:
    model = wrap(Net(), mean=0.5, std=0.5, size=(6, 8))
    result = sweep(model, pictures(size=(12, 16)), GRID, out=tmp_path / "s.zarr")
    assert result.header.image_size == (6, 8)
    colour = ImageSet(np.arange(288, dtype=np.uint8).reshape(2, 3, 6, 8), [0, 1])
    with pytest.warns(UserWarning, match="are in colour, the model takes one channel: they are turned grey"):
        assert sweep(model, colour, GRID, out=tmp_path / "colour.zarr").complete


def test_one_set_of_pictures_has_one_digest_whether_or_not_the_model_names_their_size(tmp_path: Path) -> None:
    a = sweep(wrap(Net(), mean=0.5, std=0.5, size=(6, 8)), pictures(), GRID, out=tmp_path / "a.zarr")
    b = sweep(wrap(Net(), mean=0.5, std=0.5), pictures(), GRID, out=tmp_path / "b.zarr")
    assert a.header.data_digest == b.header.data_digest


def test_a_bare_callable_is_a_model(tmp_path: Path) -> None:
    def darkest_channel(x: Tensor) -> Tensor:
        return -x.mean(dim=(2, 3))

    result = sweep(wrap(darkest_channel, mean=0.5, std=0.5), pictures(), GRID, out=tmp_path / "s.zarr")
    assert result.header.n_macs is None
    assert "plain callable" in " ".join(result.header.model_notes)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    net = Net()
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sweep(wrap(net, mean=0.5, std=0.5), pictures(), GRID, out=tmp_path / "s.zarr")
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_stats_and_progress(tmp_path: Path, model: Model) -> None:
    calls: list[tuple[int, int]] = []
    result, stats = run_sweep(
        model,
        pictures(),
        GRID,
        out=tmp_path / "s.zarr",
        controls=("flip",),
        progress=lambda done, total: calls.append((done, total)),
    )
    total = 2 * N * GRID.n_shifts
    assert calls == [(k * GRID.n_shifts, total) for k in (0, 3, 6, 7, 10, 13, 14)]
    found = stats.to_dict()
    assert found["out"] == str(tmp_path / "s.zarr")
    assert (found["n_images"], found["n_shifts"], found["images_resumed"]) == (N, GRID.n_shifts, 0)
    assert found["shifts_per_second"] == pytest.approx(total / found["seconds"])
    assert (found["engine"], found["dtype"]) == (result.header.plan.engine, result.header.plan.dtype)
    assert found["peak_memory_bytes"] > 50_000_000
    assert json.loads(json.dumps(found)) == found
    _, again = run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", controls=("flip",))
    assert (again.images_resumed, again.shifts_per_second) == (N, 0.0)


def test_controls_are_subgroups(tmp_path: Path, model: Model) -> None:
    result = sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", controls=["flip", "occlusion", "flip"])
    assert result.controls == ("occlusion", "flip")
    iy, ix = GRID.origin
    at_rest = result.dataset.loss[:, iy, ix].values
    np.testing.assert_allclose(result.control("occlusion").dataset.loss[:, iy, ix], at_rest, atol=1e-5)
    assert not np.allclose(result.control("flip").dataset.loss[:, iy, ix], at_rest)


# ---- going on


@pytest.mark.parametrize("after", range(1, 7))
def test_an_interrupted_sweep_goes_on_to_the_same_bytes_and_computes_nothing_twice(
    tmp_path: Path, model: Model, evaluated: list[tuple[str, bytes]], after: int
) -> None:
    controls = ("occlusion",)
    fixed: dict[str, Any] = {"dtype": "float32", "controls": controls}
    sweep(model, pictures(), GRID, out=tmp_path / "clean.zarr", **fixed)
    once = sorted(evaluated)
    assert len(set(once)) == len(once) == 2 * N
    evaluated.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", progress=Stop(after), **fixed)
    there = [SweepGroup(tmp_path / "s.zarr" / name).finished().sum() for name in ("", "control_occlusion")]
    assert sum(there) == after
    result, stats = run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", **fixed)
    assert stats.images_resumed == min(N, 3 * after)
    assert sorted(evaluated) == once
    assert small.tree(tmp_path / "s.zarr") == small.tree(tmp_path / "clean.zarr")
    assert result.complete


def test_a_finished_sweep_computes_nothing(tmp_path: Path, model: Model, evaluated: list[tuple[str, bytes]]) -> None:
    sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    before = small.tree(tmp_path / "s.zarr")
    evaluated.clear()
    assert sweep(model, pictures(), GRID, out=tmp_path / "s.zarr").complete
    assert evaluated == []
    assert small.tree(tmp_path / "s.zarr") == before


def test_resuming_is_announced(tmp_path: Path, model: Model) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", progress=Stop(1))
    said: list[str] = []
    run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", announce=said.append)
    assert len(said) == 1
    assert "105 of 245 evaluations are there" in said[0]


def test_a_control_may_be_added_to_a_finished_sweep(tmp_path: Path, model: Model) -> None:
    sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", dtype="float32")
    main = small.tree(tmp_path / "s.zarr")
    result = sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", controls=("flip",))
    assert result.control("flip").complete
    assert small.tree(tmp_path / "s.zarr").items() >= main.items()


def test_a_control_that_is_half_there_leaves_the_sweep_itself_complete(tmp_path: Path, model: Model) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", controls=("flip",), progress=Stop(4))
    result = open_sweep(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=r"control flip .* 3 of 7"):
        result.control("flip")


def test_a_finished_sweep_that_lost_a_chunk_is_mended(tmp_path: Path, model: Model) -> None:
    sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    before = small.tree(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "loss" / "c" / "1" / "0" / "0").write_bytes(b"torn")
    _, stats = run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert stats.images_resumed == 4
    assert small.tree(tmp_path / "s.zarr") == before


def test_the_stored_plan_is_kept(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", dtype="float64", progress=Stop(1))

    def never(*args: object, **options: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(runner, "make_plan", never)
    result = sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert result.header.plan.dtype == "float64"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "float64"}, "another dtype: asked for float64, the stored sweep has float32"),
        ({"grid": ShiftGrid(2)}, "another max-shift"),
        ({"grid": ShiftGrid((2, 3), 2)}, "another step"),
        ({"fill": "mean"}, "another fill: black, this run has mean"),
        ({"images": pictures(8)}, r"s\.zarr holds 7 images, 8 were requested: use --reuse .*s\.zarr .*or --overwrite"),
        ({"images": pictures(4)}, r"s\.zarr holds 7 images, 4 were requested: choose another path or --overwrite"),
        ({"images": ImageSet(np.zeros((N, 1, 6, 8), np.uint8), np.arange(N) % 3, name="noise")}, "another data"),
        ({"model": wrap(Net(4), mean=0.4, std=0.25, name="net")}, "another model"),
        (
            {"model": wrap(Net(), mean=0.3, std=0.25, name="net")},
            r"another preprocessing: mean \[0.4\].*, this run has mean \[0.3\]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_sweep_of_another_question_is_refused_and_left_alone(
    tmp_path: Path, model: Model, options: dict[str, Any], says: str
) -> None:
    first: dict[str, Any] = {"model": model, "images": pictures(), "grid": GRID, "dtype": "float32"}
    sweep(**first, out=tmp_path / "s.zarr")
    before = small.tree(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match=says):
        sweep(**(first | options), out=tmp_path / "s.zarr")
    assert small.tree(tmp_path / "s.zarr") == before


def test_a_user_may_overwrite_a_sweep_and_nothing_else(tmp_path: Path, model: Model) -> None:
    out = tmp_path / "s.zarr"
    sweep(model, pictures(), GRID, out=out, dtype="float32", controls=("flip",))
    made = sweep(model, pictures(4), ShiftGrid(1), out=out, dtype="float32", overwrite=True)
    assert (made.n_images, made.grid, made.controls, made.complete) == (4, ShiftGrid((1, 1)), (), True)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".s.zarr.lock")] == ["s.zarr"]
    # The place of a request that is refused stays as it was.
    before = small.tree(out)
    with pytest.raises(InputError):
        sweep(model, pictures(4), GRID, out=out, engine="nonsense", overwrite=True)
    assert small.tree(out) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(StoreError):
        sweep(model, pictures(4), GRID, out=tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    sweep(model, pictures(), GRID, out=tmp_path / "c.zarr", dtype="float32", controls=("flip",))
    before = small.tree(tmp_path / "c.zarr")
    with pytest.raises(StoreError, match="holds a control of a sweep"):
        sweep(model, pictures(), GRID, out=tmp_path / "c.zarr" / "control_flip", overwrite=True)
    assert small.tree(tmp_path / "c.zarr") == before


def test_another_torch_may_read_but_not_go_on(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(attributes, "software_versions", lambda: {"torch": "1.0.0"})
        with pytest.raises(KeyboardInterrupt):
            sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", progress=Stop(1))
    with pytest.raises(StoreError, match=r"begun with torch 1\.0\.0"):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert open_sweep(tmp_path / "s.zarr", partial=True).n_written == 3


# ---- what it refuses


def test_a_foreign_output_is_not_touched_and_gets_no_lock_beside_it(tmp_path: Path, model: Model) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(StoreError, match=r"thesis must be a sweep or not exist.*chapter\.tex"):
        sweep(model, pictures(), GRID, out=tmp_path / "thesis")
    assert small.tree(tmp_path) == {"thesis/chapter.tex": b"x"}


def test_a_second_writer_is_refused(tmp_path: Path, model: Model) -> None:
    with output_lock(tmp_path / "s.zarr"), pytest.raises(StoreError, match="busy"):
        sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"images": pictures(n_classes=5)}, r"expected labels from 0 to 2 .*got 3 \(3\), 4 \(4\)"),
        ({"fill": "blak"}, "fill"),
        ({"fill": "0.1,0.2"}, "2 values"),
        ({"dtype": "float8"}, "dtype"),
        ({"engine": "magic"}, "engine"),
        ({"controls": ("blur",)}, "control"),
        ({"controls": ("occlusion",), "fill": "wrap"}, "occlusion"),
        ({"images": [1, 2]}, "expected an ImageSet"),
        ({"model": 3}, "expected a Model"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_writes_nothing(tmp_path: Path, model: Model, options: dict[str, Any], says: str) -> None:
    asked: dict[str, Any] = {"model": model, "images": pictures(), "grid": GRID}
    with pytest.raises(InputError, match=says) as caught:
        sweep(**(asked | options), out=tmp_path / "s.zarr")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.zarr").exists()


def test_shifts_far_beyond_the_images_are_blank_or_refused(tmp_path: Path, model: Model) -> None:
    images = pictures(2)
    far = sweep(model, images, ShiftGrid(16_384, step=8192), out=tmp_path / "far.zarr", engine="direct")
    assert far.accuracy.shape == (5, 5)
    blank = np.delete(far.dataset.loss.values.reshape(2, -1), 12, axis=1)
    assert (blank == blank[:, :1]).all()  # nothing but fill, whatever the distance
    for fill in ("edge", "reflect", "symmetric", "wrap"):
        with pytest.raises(InputError, match=f"fill {fill} needs .* a max-shift of the image's size, 6x8,"):
            sweep(model, images, ShiftGrid(16_384, step=8192), out=tmp_path / "s.zarr", fill=fill)
        assert not (tmp_path / "s.zarr").exists()
    sweep(model, images, ShiftGrid((60, 80), step=20), out=tmp_path / "ten.zarr", fill="wrap", engine="direct")


def test_class_names_in_another_order_are_matched(tmp_path: Path) -> None:
    images = ImageSet(np.zeros((2, 1, 6, 8), np.uint8), [0, 1], class_names=("cat", "dog"))
    model = wrap(Net(), mean=0.5, std=0.5, class_names=("ant", "dog", "cat"), name="zoo")
    with pytest.warns(UserWarning, match=r"matched by name: cat is class 2 \(cat\), dog is class 1 \(dog\)"):
        made = sweep(model, images, GRID, out=tmp_path / "s.zarr")
    assert made.dataset.label.values.tolist() == [2, 1]
    assert made.header.class_names == ("ant", "dog", "cat")


def test_images_without_labels_are_refused_for_classification(tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="images has no class labels: classification needs one for each image"):
        sweep(model, ImageSet(np.zeros((2, 1, 6, 8), np.uint8)), GRID, out=tmp_path / "s.zarr")
    masks = ImageSet(np.zeros((2, 1, 6, 8), np.uint8), np.zeros((2, 6, 8), np.uint8))
    with pytest.raises(InputError, match="images has no class labels but masks"):
        sweep(model, masks, GRID, out=tmp_path / "s.zarr")


def test_pictures_of_mixed_sizes_need_a_size(tmp_path: Path, model: Model) -> None:
    mixed = ImageSet([np.zeros((6, 8), np.uint8), np.zeros((8, 6), np.uint8)], [0, 1])
    with pytest.raises(InputError, match="mixed sizes"):
        sweep(model, mixed, GRID, out=tmp_path / "s.zarr")


def _poisoned(images: ImageSet, place: int) -> Callable[[Tensor], Tensor]:
    """A model that gives NaN whenever the brightest pixel of one picture is in view."""
    poison = float(images.batch([place]).max())

    def net(x: Tensor) -> Tensor:
        scores = torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)
        return torch.where(scores[:, 1:] * 255 > poison - 0.5, torch.nan, scores)

    return net


def test_nan_in_mid_sweep_names_the_image_and_keeps_what_is_finished(tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(0, 200, (N, 1, 6, 8), dtype=np.uint8)
    dark[4, 0, 3, 4] = 250
    images = ImageSet(np.concatenate([dark, dark[:1]]), [0] * (N + 1)).subset(range(1, N + 1))
    model = wrap(_poisoned(images, 3), mean=0.0, std=1.0, name="poisoned")
    with pytest.raises(ModelOutputError, match=r"not finite.* at image 4 of images; .* stay in .*s\.zarr") as caught:
        sweep(model, images, GRID, out=tmp_path / "s.zarr")
    assert caught.value.positions == (4,)
    assert open_sweep(tmp_path / "s.zarr", partial=True).n_written == 3


def test_a_gpu_that_disappears_in_mid_sweep_leaves_what_is_finished(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU whose plan says so: what the net raises then is the GPU's failure, not the images'."""
    clean = small.tree(sweep(model, pictures(), GRID, out=tmp_path / "clean.zarr").path)
    finish, n_finished = runner._Here._finished, [0]

    def gone(device: torch.device, then: str) -> None:
        raise DeviceError(f"the GPU {device} failed: CUDA error: unspecified launch failure; {then}")

    def finished(*args: Any) -> Any:
        n_finished[0] += 1
        if n_finished[0] == 2:
            monkeypatch.setattr(runner, "refuse_gone", gone)
            args = (*args[:2], fails)
        return finish(*args)

    def fails() -> Any:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    with monkeypatch.context() as patch:
        patch.setattr(runner._Here, "_finished", finished)
        with pytest.raises(
            DeviceError,
            match=r"^the GPU cpu failed: CUDA error.*before stay in .*, and the same command goes on;",
        ):
            sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert open_sweep(tmp_path / "s.zarr", partial=True).n_written == 3
    assert small.tree(sweep(model, pictures(), GRID, out=tmp_path / "s.zarr").path) == clean


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "no space left"), (errno.EIO, "cannot write")])
@pytest.mark.parametrize("at", ["loss", "accuracy"])
def test_a_full_disk_is_one_line_and_the_sweep_goes_on_later(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, code: int, says: str, at: str
) -> None:
    clean = sweep(model, pictures(), GRID, out=tmp_path / "clean.zarr", dtype="float32")
    from zarr.storage import _local

    put, n_written = _local._put, 0

    def full(path: Path, *args: Any, **options: Any) -> int:
        nonlocal n_written
        n_written += f"/s.zarr/{at}/c/" in path.as_posix()
        if n_written > (1 if at == "loss" else 0) and "/s.zarr/" in path.as_posix():
            raise OSError(code, "refused", str(path))
        return put(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_local, "_put", full)
        with pytest.raises(StoreError, match=f"{says}.*what is finished stays") as caught:
            sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", dtype="float32")
    assert "\n" not in str(caught.value)
    assert open_sweep(tmp_path / "s.zarr", partial=True).n_written == (3 if at == "loss" else N)
    sweep(model, pictures(), GRID, out=tmp_path / "s.zarr")
    assert small.tree(tmp_path / "s.zarr") == small.tree(clean.path)


# ---- sizes


@pytest.mark.parametrize(
    ("size", "shape", "announced"), [((32, 32), (65, 65), 0), ((64, 20), (129, 41), 0), ((65, 224), (33, 33), 1)]
)
def test_default_grid(size: tuple[int, int], shape: tuple[int, int], announced: int) -> None:
    said: list[str] = []
    assert default_grid(size, said.append).shape == shape
    assert len(said) == announced


def test_the_default_grid_is_the_pictures_size(tmp_path: Path) -> None:
    result = sweep(wrap(lambda x: x.mean(dim=(2, 3)), mean=0.5, std=0.5), pictures(2), out=tmp_path / "s.zarr")
    assert result.grid.shape == (13, 17)
    assert xr.open_zarr(tmp_path / "s.zarr", consolidated=False).dy.values[0] == -6


def test_the_cost_is_said_before_the_work() -> None:
    assert cost_text(99_999, None, 1) is None
    assert cost_text(1000, 1000.0, 1) is None
    long = cost_text(1_690_000, 2350.0, 2)
    assert long is not None
    assert long.startswith("1,690,000 evaluations, about 12 min at 2,350/s (estimated from a few batches: it may take ")
    assert "; cheaper: a step of 4 px" in long
    assert cost_text(42_000_000, None, 1).startswith("42,000,000 evaluations; cheaper: a step of 2 px")
    assert "about 6 min at 2,350/s without the canvas control" in cost_text(1_690_000, 2350.0, 1, n_canvas=845_000)
    assert cost_text(10**6, 1.0, 1, adaptive=True).startswith("at most 1,000,000 evaluations, about 277.8 h")
    assert "half-width" not in cost_text(10**6, 1.0, 1, adaptive=True)
    assert [duration(each) for each in (9.6, 99, 150, 5999, 36_000)] == ["10 s", "99 s", "2 min", "100 min", "10.0 h"]


def test_a_long_sweep_says_its_cost_before_its_first_chunk(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LONG_SECONDS", 0.0)
    said: list[str] = []
    seen: list[int] = []
    announce = lambda text: said.append(f"{text} ({len(seen)} reports)")  # noqa: E731
    report = lambda done, total: seen.append(done)  # noqa: E731
    run_sweep(model, pictures(), GRID, out=tmp_path / "s.zarr", announce=announce, progress=report)
    (cost,) = [text for text in said if "evaluations, about" in text]
    n = 7 * GRID.n_shifts
    assert cost.startswith(f"{n:,} evaluations, about ")
    assert cost.endswith("(0 reports)")


def test_a_small_sweep_has_chunks_enough_for_an_interval_of_sums() -> None:
    assert [images_of_a_sum(n) for n in (1, 6, 49, 50, 99, 100, 10_000)] == [1, 1, 1, 5, 5, 10, 10]


def test_images_per_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    vgg8 = 209_000_000
    assert images_per_chunk(10_000, 4225, vgg8, 3072) == 16
    assert images_per_chunk(10, 4225, vgg8, 3072) == 10
    assert images_per_chunk(10_000, 100_000, vgg8, 3072) == 1
    assert images_per_chunk(10_000, 4225, None, 3072) == 16
    assert images_per_chunk(10_000, 1089, 1_800_000_000, 150_528) == 7
    assert images_per_chunk(10_000, 4225, 10**15, 150_528) == 1
    assert images_per_chunk(10_000, 9, None, 150_528) == 64
