"""The path for GPUs, run on the CPU: the same windows, outcomes and errors as the direct path and as slow loops."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_direct import FILLS, MEAN, STD, own_net, pictures_of, plan_of, random_statistics
from torch import nn

import reference
from shiftlens.devices import number_format
from shiftlens.engine import checking, cutting, device_plan, device_windows, recording, tuning
from shiftlens.engine.budget import Budget
from shiftlens.engine.checking import Check
from shiftlens.engine.direct import DirectEvaluator, prepare_module
from shiftlens.engine.evaluators import make_plan
from shiftlens.engine.fusing import ConvolutionRelu, fuse_relu
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.passes import with_passes
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.shared import convolving
from shiftlens.engine.shared.cells import taken
from shiftlens.engine.shared.program import Layout
from shiftlens.engine.shared.tracing import trace
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.errors import DeviceError, InputError, ModelOutputError, StoreError
from shiftlens.models.loading import Model, wrap
from shiftlens.nn.vgg import VGG
from shiftlens.shifts import Fill, ShiftGrid

GRID = ShiftGrid((7, 9))


def on_device_of(model: Model, plan: Plan, grid: ShiftGrid, fill: Fill, **options: object) -> WindowEvaluator:
    return with_passes(DeviceEvaluator(model, plan, grid, fill, **options), model)  # type: ignore[arg-type]


def direct_of(model: Model, plan: Plan, grid: ShiftGrid, fill: Fill) -> WindowEvaluator:
    return with_passes(DirectEvaluator(model, plan, grid, fill), model)


@pytest.fixture(scope="module")
def model() -> Model:
    return wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))


def both(
    model: Model, plan: Plan, fill: str, control: str | None = None, n: int = 3, grid: ShiftGrid = GRID, cut: int = 0
) -> tuple[ChunkResult, ChunkResult]:
    images, labels = pictures_of(n, 6, 8, 4)
    shared = replace(plan, engine="dedup", cut=cut) if cut else plan
    found = on_device_of(model, shared, grid, Fill.parse(fill))(images, labels, control)
    return found, direct_of(model, plan, grid, Fill.parse(fill))(images, labels, control)


def assert_close(a: ChunkResult, b: ChunkResult, atol: float = 1e-5) -> None:
    assert (a["prediction"].dtype, a["loss"].dtype, a["confidence"].dtype) == (np.int64, np.float32, np.float16)
    np.testing.assert_array_equal(a["prediction"], b["prediction"])
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=0, atol=atol)
    np.testing.assert_allclose(a["confidence"].astype(float), b["confidence"].astype(float), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("fill", "control"),
    [(f, c) for f in FILLS for c in (None, "occlusion", "flip") if c != "occlusion" or Fill.parse(f).is_constant],
)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_it_finds_what_the_direct_path_finds(model: Model, fill: str, control: str | None, cut: int) -> None:
    """Every window by itself, and with the first layers once for all shifts of an image."""
    assert_close(*both(model, plan_of(), fill, control, cut=cut))


@pytest.mark.parametrize("cut", [1, 2])
def test_on_a_gpu_a_product_takes_all_cells_that_lack_the_same_taps(
    model: Model, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = both(model, plan_of(), "black", cut=cut)[1]
    sizes: list[tuple[int, int]] = []
    product = F.linear

    def looked_at(x: torch.Tensor, *args: torch.Tensor | None) -> torch.Tensor:
        sizes.append((len(x), x.shape[1]))
        return product(x, *args)

    monkeypatch.setattr(convolving, "_cells_in_block", lambda bytes_each, device: 2**20)
    monkeypatch.setattr(convolving, "BLOCK_COLUMNS", 2**20)
    monkeypatch.setattr(F, "linear", looked_at)
    assert_close(both(model, plan_of(), "black", cut=cut)[0], expected)
    first = [n for n, n_taps in sizes if n_taps == 3 * 9]
    assert max(first) == 99, "the cells of the first convolution that lack no tap, at once"


def test_cells_that_do_not_fit_are_taken_a_few_images_at_a_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_windows, "MAX_NUMBERS", 12_000)
    run = DeviceEvaluator(model, replace(plan_of(), engine="dedup", cut=1), GRID, Fill.parse("black"))
    assert 1 <= run.windows_of((3, 6, 8), 5, occluded=False).most < 5
    assert_close(*both(model, plan_of(), "black", n=5, cut=1))


def test_a_stored_cut_that_the_net_has_no_more_is_refused(model: Model) -> None:
    with pytest.raises(StoreError, match="the stored plan runs 99 operations on cells, this version serves"):
        both(model, plan_of(), "black", cut=99)


@pytest.mark.parametrize("fill", FILLS)
def test_it_equals_a_naive_loop_to_the_last_digits_of_float64(fill: str) -> None:
    exact = wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))
    net = own_net().double()
    images, labels = pictures_of(2, 6, 8, 4)
    parsed = Fill.parse(fill)
    found = on_device_of(exact, plan_of("float64"), GRID, parsed)(images, labels)
    mean, std = np.float32(MEAN)[:, None, None], np.float32(STD)[:, None, None]
    normalised = ((images.astype(np.float32) / np.float32(255) - mean) / std).astype(np.float64)
    values = list(parsed.normalised(MEAN, STD)) if parsed.is_constant else None
    shifts = [(int(dx), int(dy)) for dy in GRID.dys for dx in GRID.dxs]
    rule = "constant" if parsed.is_constant else fill
    scores, losses = reference.naive_sweep(net, normalised, labels, shifts, rule, values)
    # Kept in float32: equal to half a unit of its last place.
    np.testing.assert_allclose(found["loss"].reshape(2, -1), losses, rtol=6e-8, atol=1e-7)
    np.testing.assert_array_equal(found["prediction"].reshape(2, -1), scores.argmax(-1))


@pytest.mark.parametrize("batch_size", [1, 5, 64, 10_000])
def test_the_last_batch_is_filled_up_and_says_nothing(model: Model, batch_size: int) -> None:
    shapes: list[tuple[int, ...]] = []

    def net(x: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return x.flatten(1)[:, 40:44]

    plain = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    plan = plan_of(batch_size=batch_size, channels_last=False, fold_batch_norm=False)
    shapes.clear()
    images, labels = pictures_of(2, 6, 8, 4)
    found = on_device_of(plain, plan, GRID, Fill.parse("edge"))(images, labels)
    assert set(shapes) == {(batch_size, 3, 6, 8)}
    assert_close(found, direct_of(plain, plan, GRID, Fill.parse("edge"))(images, labels), atol=0)


def test_windows_without_content_are_evaluated_once() -> None:
    n_seen = [0]

    def net(x: torch.Tensor) -> torch.Tensor:
        n_seen[0] += len(x)
        return x.flatten(1)[:, 40:44]

    plain = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    images, labels = pictures_of(3, 6, 8, 4)
    images[1] = 0  # nothing but fill under every shift
    images[2, :, :, :4] = 0
    plan = plan_of(batch_size=1, channels_last=False, fold_batch_norm=False)
    n_seen[0] = 0
    found = on_device_of(plain, plan, GRID, Fill.parse("black"))(images, labels)
    shown = n_seen[0]
    expected = direct_of(plain, plan, GRID, Fill.parse("black"))(images, labels)
    assert_close(found, expected, atol=0)
    assert shown == 1 + 11 * 15 + 11 * 11


def test_chunks_that_differ_in_length_and_are_begun_before_the_last_has_landed(model: Model) -> None:
    images, labels = pictures_of(7, 6, 8, 4)
    run, direct = (path(model, plan_of(), GRID, Fill.parse("black")) for path in (on_device_of, direct_of))
    parts = [slice(0, 3), slice(3, 4), slice(4, 7), slice(1, 6)]
    finish = [run.begin_chunk(Chunk(images[part], labels[part])) for part in parts]
    for part, done in zip(parts, finish, strict=True):
        assert_close(done(), direct(images[part], labels[part]))


def test_canvases_that_do_not_fit_are_taken_a_few_at_a_time(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_windows, "MAX_NUMBERS", 2 * 3 * (6 + 12) * (8 + 16))
    assert_close(*both(model, plan_of(), "black", n=5))


@pytest.fixture(scope="module")
def deep() -> Model:
    torch.manual_seed(0)
    net = random_statistics(VGG("vgg6", width=8, n_classes=4, size=16))
    return wrap(net, mean=MEAN, std=STD, size=(16, 16))


@pytest.mark.parametrize("control", [None, "occlusion", "flip"])
def test_near_ties_are_settled_in_float32(deep: Model, control: str | None) -> None:
    grid, black = ShiftGrid(16, 4), Fill.parse("black")
    images, labels = pictures_of(3, 16, 16, 4)
    plan = plan_of("bfloat16", batch_size=50)
    rounded, some, everything, exact = (
        on_device_of(deep, p, grid, black)(images, labels, control)
        for p in (plan, replace(plan, settle=0.02), replace(plan, settle=1e9), plan.in_float32())
    )
    np.testing.assert_array_equal(everything["prediction"], exact["prediction"])
    np.testing.assert_allclose(everything["loss"], exact["loss"], rtol=0, atol=1e-5)
    settled = some["loss"] != rounded["loss"]
    assert 0.01 < settled.mean() < 0.9
    np.testing.assert_allclose(some["loss"][settled], exact["loss"][settled], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(some["prediction"][settled], exact["prediction"][settled])


def test_scores_that_are_not_finite_name_the_image() -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4].log()  # of what is below 0: NaN

    bad = wrap(net, mean=(0.0,) * 3, std=(1.0,) * 3, size=(6, 8))
    images, labels = pictures_of(4, 6, 8, 4)
    images[:] = 255
    images[2, 0, 0, 1] = 0
    plan = plan_of(channels_last=False, fold_batch_norm=False)
    with pytest.raises(ModelOutputError, match="not finite") as caught:
        on_device_of(bad, plan, ShiftGrid(1), Fill.parse("edge"))(images, labels)
    assert caught.value.positions == (2,)


def test_a_model_that_raises_is_told_with_the_batch() -> None:
    calls = [0]

    def net(x: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if x.shape[0] == 7:
            raise ValueError("seven")
        return x.flatten(1)[:, :4]

    bad = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    plan = plan_of(channels_last=False, fold_batch_norm=False)
    with pytest.raises(ModelOutputError, match=r"ValueError.*seven"):
        on_device_of(bad, plan, GRID, Fill.parse("edge"))(*pictures_of(2, 6, 8, 4))


def test_too_little_memory_halves_the_batch_and_says_so(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    plan = plan_of(batch_size=64, channels_last=False, fold_batch_norm=False)
    inner = own_net()

    def net(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        with torch.no_grad():
            return inner(x)

    images, labels = pictures_of(2, 6, 8, 4)
    small = wrap(lambda x: inner(x), mean=MEAN, std=STD, size=(6, 8))
    run = on_device_of(small, plan, GRID, Fill.parse("edge"), net=net)
    with caplog.at_level(logging.WARNING):
        found = run(images, labels)
        again = run(images, labels)
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "going on with 32 windows",
        "going on with 16 windows",
    ]
    expected = direct_of(small, plan, GRID, Fill.parse("edge"))(images, labels)
    assert_close(found, expected)
    assert_close(again, expected)


def test_too_little_memory_for_the_cells_holds_fewer_images_before_the_batch_is_halved(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan, edge = replace(plan_of(batch_size=4), engine="dedup", cut=1), Fill.parse("edge")
    held: list[int] = []
    plain = device_windows.CellWindows.__init__

    def small(self: device_windows.CellWindows, *args: object, **options: object) -> None:
        plain(self, *args, **options)  # type: ignore[arg-type]
        held.append(self.most)
        if self.most > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(device_windows.CellWindows, "__init__", small)
    images, labels = pictures_of(5, 6, 8, 4)
    expected = direct_of(model, plan_of(), GRID, edge)(images, labels)
    most = 1
    run = on_device_of(model, plan, GRID, edge)
    with caplog.at_level(logging.WARNING):
        assert_close(run(images, labels), expected)
    assert held == [5, 2, 1]
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "going on with 2 images",
        "going on with 1 images",
    ]
    most = 0
    with pytest.raises(
        DeviceError, match=r"too little memory for a batch of one window \(CUDA out.*--engine direct at another path$"
    ):
        on_device_of(model, plan, GRID, edge)(images, labels)


@pytest.mark.parametrize("cut", [0, 1])
def test_buffers_that_are_let_go_of_are_gone_at_once(model: Model, cut: int) -> None:
    """Without waiting for Python to look for cycles: what there was too little of is wanted for the next try."""
    plan = replace(plan_of(), engine="dedup" if cut else "direct", cut=cut)
    path = DeviceEvaluator(model, plan, GRID, Fill.parse("edge"))
    path(*pictures_of(2, 6, 8, 4))
    (track,) = path._tracks.values()
    gone = weakref.ref(track), weakref.ref(track.source)
    del track
    gc.disable()
    try:
        path.release()
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


class Recorder:
    """Stands in for CUDA graphs: what is recorded is not done, and playing it does it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.n_aside, self.n_played, self.fails = 0, 0, fails
        monkeypatch.setattr(recording, "on_side_stream", self.aside)
        monkeypatch.setattr(recording, "captured", self.captured)

    def aside(self, work: Callable[[], None]) -> None:
        self.n_aside += 1
        work()

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")

        def play() -> None:
            self.n_played += 1
            work()

        return play


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_recorded_is_done_as_often_as_without(
    model: Model, cut: int, fails: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(monkeypatch, fails=fails)
    plan, black = replace(plan_of(batch_size=50), engine="dedup" if cut else "direct", cut=cut), Fill.parse("black")
    path = DeviceEvaluator(model, plan, GRID, black)
    path.record = True  # which it is on a GPU
    run, direct = with_passes(path, model), direct_of(model, plan_of(), GRID, black)
    images, labels = pictures_of(7, 6, 8, 4)
    with caplog.at_level(logging.INFO):
        for part in (slice(0, 2), slice(2, 3), slice(3, 7)):
            assert_close(run(images[part], labels[part]), direct(images[part], labels[part]))
    assert ("not recorded: RuntimeError" in caplog.text) == fails
    per_buffer = 2 if cut else 1  # the first layers are recorded by themselves
    assert recorder.n_aside >= 2 * per_buffer
    assert (recorder.n_played == 0) == fails


def test_an_unknown_control_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="unknown control 'sepia'"):
        on_device_of(model, plan_of(), GRID, Fill.parse("black"))(*pictures_of(1, 6, 8, 4), "sepia")


def switches() -> tuple[object, ...]:
    backends = torch.backends
    return (
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.rnn.fp32_precision,
    )


def test_a_number_format_holds_while_it_lasts() -> None:
    gpu, before = torch.device("cuda"), switches()
    with number_format("float32", gpu):
        assert switches() == (False, False, "ieee", "ieee", "ieee")
        with number_format("tf32", gpu):
            assert switches() == (True, True, "tf32", "tf32", "tf32")
        assert switches() == (False, False, "ieee", "ieee", "ieee")
    assert switches() == before
    with pytest.raises(KeyError), number_format("tf32", gpu):
        raise KeyError
    assert switches() == before
    with number_format("tf32", torch.device("cpu")):
        assert switches() == before


class Block(nn.Module):
    """A branch that is added, on either side, with ReLUs of every kind; one convolution whose map is seen twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen_twice = self.a(x)
        y = nn.functional.relu(seen_twice) + seen_twice
        z = self.relu(self.b(y) + y)
        return torch.relu(self.c(z)).mean((2, 3))


def test_a_relu_goes_into_the_convolution_before_it_and_changes_nothing() -> None:
    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        expected = net(x)
        fused, n = fuse_relu(torch.fx.symbolic_trace(copy.deepcopy(net)))
        torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-6)
    assert n == 2, "b with the branch, and c; what others see of a is no ReLU of it"
    assert fuse_relu(net) == (net, 0), "a net that is not traced stays as it is"


def test_a_layer_that_the_library_refuses_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = ConvolutionRelu(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 5, 6)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    with torch.no_grad():  # which torch's own function does on a CPU
        torch.testing.assert_close(layer(x), layer.convolution(x).clamp_min(0))
    assert layer.refused


def test_tf32_is_refused_off_a_gpu(model: Model) -> None:
    images, _ = pictures_of(1, 6, 8, 4)
    with pytest.raises(InputError, match="tf32 is a number format of NVIDIA's GPUs, the device is cpu"):
        make_plan(model, images, GRID, Fill.parse("black"), n_images=1, dtype="tf32", device="cpu")


@pytest.mark.parametrize(("dtype", "expected"), [("auto", "bfloat16"), ("float32", "float32")])
def test_the_plan_of_a_gpu(
    deep: Model, dtype: str, expected: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images, labels = pictures_of(2, 16, 16, 4)
    grid, black = ShiftGrid(16, 8), Fill.parse("black")
    monkeypatch.setattr(tuning, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(tuning, "LONG_MACS", 0)
    check = Check(deep, images, grid, black, dtype=dtype)
    with caplog.at_level(logging.INFO):
        _, plan = device_plan.choose(
            tuning.Search(deep, images, grid, black, 50, dtype, None, check, Budget()), "direct"
        )
    assert (plan.engine, plan.dtype, plan.batch_size, plan.fold_batch_norm) == ("direct", expected, 50, True)
    assert "evaluations/s" in caplog.text
    assert_close(
        on_device_of(deep, plan, grid, black)(images, labels),
        direct_of(deep, plan, grid, black)(images, labels),
        atol=5e-3 if plan.dtype == "bfloat16" else 1e-5,
    )


@pytest.fixture
def shared_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What shares computation is the path of a GPU, on this CPU."""
    for room in (cutting, checking):
        monkeypatch.setattr(room, "shared_path", DeviceEvaluator)


def searched(model: Model, fill: Fill, grid: ShiftGrid, dtype: str = "float32", **changes: object) -> tuning.Search:
    images, _ = pictures_of(2, 16, 16, 4)
    check = Check(model, images, grid, fill, dtype=dtype)
    return replace(
        tuning.Search(model, images, grid, fill, 10**9, dtype, None, check, Budget(clock=lambda: 0.0)), **changes
    )


@pytest.mark.usefixtures("shared_there")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_plan_of_a_gpu_shares_computation_where_that_is_faster(
    deep: Model, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, black = ShiftGrid(16, 2), Fill.parse("black")
    timed: list[Plan] = []

    def rate(search: tuning.Search, plan: Plan) -> float:
        timed.append(plan)
        return 1000.0 + 100 * (plan.cut == 10) + 10 * (plan.batch_size == 4096) + 50 * (plan.cut > 0)

    monkeypatch.setattr(device_plan, "rate", rate)
    monkeypatch.setattr(device_plan, "MAX_PIXELS", 2**30)
    reached, plan = device_plan.choose(searched(deep, black, grid, dtype))
    assert (reached, plan.engine, plan.dtype, plan.batch_size) == (1160.0, "dedup", dtype, 4096)
    assert (plan.cut, plan.fewer > 1) == (10, True)
    cuts = [each.cut for each in timed]
    assert cuts[:3] == [0, 0, 0], "every window by itself first, by three batch sizes"
    assert cuts.count(10) == 3, "the fastest cut by the other two as well"
    images, labels = pictures_of(2, 16, 16, 4)
    found = on_device_of(deep, replace(plan, batch_size=50), grid, black)(images, labels)
    direct = direct_of(deep, plan_of(), grid, black)(images, labels)
    np.testing.assert_allclose(found["loss"], direct["loss"], rtol=0, atol=1e-5 if dtype == "float32" else 0.05)


@pytest.mark.usefixtures("shared_there")
def test_a_cut_that_fails_leaves_the_others(deep: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(search: tuning.Search, plan: Plan) -> float:
        if plan.cut in fail:
            raise ModelOutputError("the model raised ValueError")
        return 1000.0 + 100 * plan.cut

    grid, black, fail = ShiftGrid(16, 4), Fill.parse("black"), {16}
    monkeypatch.setattr(device_plan, "rate", rate)
    assert device_plan.choose(searched(deep, black, grid))[1].cut == 15
    fail = set(range(1, 20))
    assert device_plan.choose(searched(deep, black, grid))[1].engine == "direct"
    with pytest.raises(InputError, match="on cells it raises RuntimeError: the model raised ValueError"):
        device_plan.choose(searched(deep, black, grid), "dedup")


@pytest.mark.usefixtures("shared_there")
def test_a_recorded_path_that_finds_other_losses_is_not_used(deep: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose second chunk still reads the cells of the first."""
    grid, black = ShiftGrid(16, 4), Fill.parse("black")
    hold = device_windows.CellWindows.hold

    def once(self: device_windows.CellWindows, pictures: torch.Tensor) -> None:
        if not self._at.item():
            hold(self, pictures)

    monkeypatch.setattr(device_plan, "rate", lambda search, plan: 1000.0 + 100 * plan.cut)
    assert device_plan.choose(searched(deep, black, grid))[1].engine == "dedup"
    monkeypatch.setattr(device_windows.CellWindows, "hold", once)
    assert device_plan.choose(searched(deep, black, grid))[1].engine == "direct"
    with pytest.raises(InputError, match=r"cannot serve .* of its windows have another loss"):
        device_plan.choose(searched(deep, black, grid), "dedup")


def test_a_reference_on_a_gpu_is_ieee_float32(deep: Model) -> None:
    """With torch's own TF32 for convolutions it would differ from the very paths that it is held against."""
    check = Check(deep, pictures_of(2, 16, 16, 4)[0], ShiftGrid(16, 4), Fill.parse("black"))
    check._device = torch.device("cuda")
    seen: list[tuple[object, ...]] = []

    def net(x: torch.Tensor) -> torch.Tensor:
        seen.append(switches())
        return x.flatten(1)[:, :4]

    check._alone(net, torch.zeros(1, 3, 16, 16))
    assert seen == [(False, False, "ieee", "ieee", "ieee")]


@pytest.mark.parametrize("channels", [8, 3])
def test_a_gpu_copies_eight_bytes_at_a_time(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 7, channels).bfloat16()
    x[0, 0, 0] = torch.nan
    places = torch.tensor([0, 34, 7, 0])
    expected = x.view(-1, channels)[places].view(torch.int16)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    assert torch.equal(taken(x, places).view(torch.int16), expected)


@pytest.mark.usefixtures("shared_there")
@pytest.mark.parametrize(
    ("asked", "changes", "expected"),
    [
        ("direct", {}, "direct"),
        ("auto", {"batch_size": 1}, "direct"),
        ("auto", {}, "direct"),  # no faster
        ("auto", {"n_evaluations": 10_000}, "direct"),  # done in ten seconds: not looked at
        ("dedup", {}, "dedup"),
    ],
)
def test_a_gpu_computes_as_it_was_asked(
    deep: Model, asked: str, changes: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, black = ShiftGrid(16, 4), Fill.parse("black")
    monkeypatch.setattr(device_plan, "rate", lambda search, plan: 1000.0)
    assert device_plan.choose(searched(deep, black, grid, **changes), asked)[1].engine == expected


@pytest.mark.usefixtures("shared_there")
def test_a_gpu_does_not_share_what_disagrees_with_the_module(deep: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_plan, "rate", lambda search, plan: 1000.0 + 100 * plan.cut)
    right = DeviceEvaluator.scores_under
    monkeypatch.setattr(DeviceEvaluator, "scores_under", lambda self, *args: right(self, *args) * 1.01)
    search = searched(deep, Fill.parse("black"), ShiftGrid(16, 4))
    assert device_plan.choose(search)[1].engine == "direct"
    with pytest.raises(InputError, match="disagrees with the module"):
        device_plan.choose(search, "dedup")


@pytest.mark.parametrize(("device", "best"), [("cpu", "_3_6"), ("cuda", "_1_6")])
def test_where_taps_go_through_the_memory_later_levels_are_not_worth_sharing(device: str, best: str) -> None:
    """The reference case: to gather the taps of its third level a GPU takes longer than to compute its windows."""
    model = wrap(VGG("vgg8", width=64), mean=MEAN, std=STD, size=(32, 32))
    found = trace(prepare_module(model, plan_of()), (3, 32, 32))
    layout = Layout.of(ShiftGrid(32), (32, 32), None, (0.0, 0.0, 0.0))
    _, cuts = cutting._promising(found, layout, plan_of("bfloat16", device=device), model.n_macs or 0, 65 * 65)
    assert found.steps[cuts[0].n_early - 1].name == best


def test_a_plain_callable_shares_nothing_on_a_gpu() -> None:
    plain = wrap(lambda x: x.flatten(1)[:, :4], mean=MEAN, std=STD, size=(16, 16))
    search = searched(plain, Fill.parse("black"), ShiftGrid(16, 4))
    assert device_plan.choose(search)[1].engine == "direct"
    with pytest.raises(InputError, match="plain callable"):
        device_plan.choose(search, "dedup")
