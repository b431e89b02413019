"""No way of computing is taken that gives other numbers than the untouched module, one window at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, plan_of
from torch import Tensor, nn

import reference
from shiftlens.data.imageset import ImageSet
from shiftlens.engine import tuning
from shiftlens.engine.checking import Check
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.logit_distance import distance
from shiftlens.engine.outcomes import Chunk, Outcomes
from shiftlens.engine.passes import evaluator_for
from shiftlens.engine.plan import Plan
from shiftlens.engine.rechecking import Rechecked
from shiftlens.engine.shared.dedup import DedupEvaluator
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.engine.workers import Workers, replicas
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.evaluation import evaluate
from shiftlens.models.loading import Model, wrap
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.classification import CLASSIFICATION

GRID, FILL = ShiftGrid(4), Fill.parse("black")
BLACK = np.zeros((1, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation takes a minute on a busy machine, and is checked like any other candidate."""
    monkeypatch.setattr(tuning, "COMPILING", np.inf)


def images_of(n: int = 3, *, first: int | None = None) -> np.ndarray:
    images = np.random.default_rng(1).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)
    if first is not None:
        images[0] = first
    return images


class Net(nn.Module):
    """Two convolutions and a head; what is odd about it is done in `odd`, to the first map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def odd(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.second(self.odd(self.first(x)).relu()).mean((2, 3)))


class ReadsMemory(Net):
    """Takes the numbers in the order in which they lie."""

    def odd(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return torch.as_strided(x, (n, c * h * w), (c * h * w, 1)).reshape(n, c, h, w)


class Views(Net):
    """What many write, and what raises where channels come last."""

    def odd(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1).view(x.shape)


class BatchMaximum(Net):
    def odd(self, x: Tensor) -> Tensor:
        return x / x.abs().max()


class BatchNormOfTheBatch(Net):
    def odd(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, training=True)


class Random(Net):
    def odd(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Counts(Net):
    calls = 0

    def odd(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


class Drifts(Net):
    """Steady while it is looked at beforehand, and no longer afterwards."""

    calls = 0

    def odd(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return x * (1.0 if type(self).calls < 40 else 1 + 0.1 * type(self).calls)


class Complex(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.tensor([1 + 1j, 0.5 - 2j, 1j, 2 + 0j]))

    def odd(self, x: Tensor) -> Tensor:
        return (x * self.phase[:, None, None]).abs()  # type: ignore[index]


class DoubleInside(Net):
    def __init__(self) -> None:
        super().__init__()
        self.precise = nn.Conv2d(4, 4, 1).double()

    def odd(self, x: Tensor) -> Tensor:
        return self.precise(x.double()).float()


class Workspace(Net):
    """Writes its map into a buffer and reads it again."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("room", torch.zeros(64, 4, 8, 8))

    def odd(self, x: Tensor) -> Tensor:
        room: Any = self.room
        if room.dtype == x.dtype and len(x) <= 64:
            room[: len(x)] = x
            return room[: len(x)].clone()
        return x


def model_of(net: Any) -> Model:
    return wrap(net.eval() if isinstance(net, nn.Module) else net, mean=MEAN, std=STD, size=8)


def check_of(net: Any, images: np.ndarray | None = None, **options: Any) -> Check:
    return Check(model_of(net), images_of() if images is None else images, GRID, FILL, **options)


@pytest.mark.parametrize("first", [None, 0, 200])
def test_a_layout_that_changes_the_numbers_is_not_used(first: int | None) -> None:
    check = check_of(ReadsMemory(), images_of(first=first))
    assert check.why_not(check.plain) == ""
    assert "differ from those of the module" in check.why_not(replace(check.plain, channels_last=True))
    assert "differ from those of the module" in check.why_not(
        replace(check.plain, channels_last=True, dtype="bfloat16")
    ), "bfloat16 must not hide it"


def test_a_candidate_that_raises_is_dropped_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    check = check_of(Views())
    assert "the model raised RuntimeError" in check.why_not(replace(check.plain, channels_last=True))
    with caplog.at_level("INFO"):
        plan = make_plan(model_of(Views()), images_of(), GRID, FILL, n_images=20_000, dtype="float32", engine="direct")
    assert not plan.channels_last
    assert any("channels last" in line and "the model raised RuntimeError" in line for line in caplog.messages)


@pytest.mark.parametrize("net", [ReadsMemory, Views, Workspace, DoubleInside, Complex])
def test_a_long_sweep_of_an_odd_net_has_the_numbers_of_the_naive_loop(net: Callable[[], Net]) -> None:
    images, labels = images_of(first=0), np.array([0, 1, 2])
    plan = make_plan(model_of(net()), images, GRID, FILL, n_images=20_000)
    assert_naive(net(), plan, images, labels)


def assert_naive(net: Net, plan: Plan, images: np.ndarray, labels: np.ndarray) -> None:
    model = model_of(net)
    found = prepare(model, plan, GRID, FILL)(images, labels)
    shifts = [(int(dx), int(dy)) for dy in GRID.dys for dx in GRID.dxs]
    pictures = model.preprocessing.normalise(torch.from_numpy(images)).numpy()
    values = list(FILL.normalised(MEAN, STD))
    scores, losses = reference.naive_sweep(net.eval(), pictures, labels, shifts, "constant", values)
    tolerance = 0.05 if plan.dtype == "bfloat16" else 1e-4
    np.testing.assert_allclose(found["loss"].reshape(losses.shape), losses, atol=tolerance)
    ordered = np.sort(scores, axis=-1)
    clear = ordered[..., -1] - ordered[..., -2] > 2 * tolerance
    np.testing.assert_array_equal(found["prediction"].reshape(losses.shape)[clear], scores.argmax(-1)[clear])


@pytest.mark.parametrize("net", [BatchMaximum, BatchNormOfTheBatch])
@pytest.mark.parametrize("images", [images_of(), images_of(first=0), BLACK])
def test_an_answer_that_depends_on_the_batch_is_refused_unless_windows_come_alone(
    net: Callable[[], Net], images: np.ndarray, tmp_path: Path
) -> None:
    labels = np.arange(len(images)) % 4
    with pytest.raises(InputError, match=r"depends on the other images of its batch.*batch-size 1"):
        sweep(model_of(net()), ImageSet(images, labels), GRID, out=tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    found = sweep(model_of(net()), ImageSet(images, labels), GRID, out=tmp_path / "a.zarr", batch_size=1)
    assert found.header.plan.batch_size == 1
    assert_naive(net(), found.header.plan, images, labels)


def test_one_image_at_a_time_is_asked_for_by_evaluate_too() -> None:
    images = ImageSet(images_of(5), np.arange(5) % 4)
    with pytest.raises(InputError, match="depends on the other images of its batch"):
        evaluate(model_of(BatchMaximum()), images)
    alone = evaluate(model_of(BatchMaximum()), images, batch_size=1)
    x = model_of(Net()).preprocessing.normalise(torch.from_numpy(images.batch(slice(0, 5))))
    with torch.no_grad():
        scores = torch.cat([BatchMaximum()(one[None]) for one in x])
    assert alone.loss == pytest.approx(float(nn.functional.cross_entropy(scores, torch.arange(5) % 4)), rel=1e-5)
    with pytest.raises(InputError, match="at least one image"):
        evaluate(model_of(Net()), images, batch_size=0)


def test_what_a_batch_size_rules_out() -> None:
    with pytest.raises(InputError, match="at least one window"):
        make_plan(model_of(Net()), images_of(), GRID, FILL, n_images=3, batch_size=0)
    with pytest.raises(InputError, match="engine dedup does not"):
        make_plan(model_of(Net()), images_of(), GRID, FILL, n_images=3, batch_size=1, engine="dedup")
    plan = make_plan(model_of(Net()), images_of(), GRID, FILL, n_images=20_000, batch_size=7, engine="direct")
    assert plan.batch_size == 7


def test_a_resume_with_another_batch_size_is_refused(tmp_path: Path) -> None:
    pictures = ImageSet(images_of(), np.arange(3))
    sweep(model_of(Net()), pictures, GRID, out=tmp_path / "a.zarr", batch_size=5)
    assert isinstance(sweep(model_of(Net()), pictures, GRID, out=tmp_path / "a.zarr"), Sweep)
    with pytest.raises(Exception, match="another batch-size: asked for 6, the stored sweep has 5"):
        sweep(model_of(Net()), pictures, GRID, out=tmp_path / "a.zarr", batch_size=6)


@pytest.mark.parametrize("net", [Random, Counts])
def test_an_answer_that_changes_from_call_to_call_is_refused(net: Callable[[], Net]) -> None:
    with pytest.raises(InputError, match="when it is asked again"):
        check_of(net(), BLACK)


def test_one_window_of_every_chunk_is_looked_at_again(tmp_path: Path) -> None:
    Drifts.calls = 0
    with pytest.raises(ModelOutputError, match=r"the module alone class \d and .* met at image \d"):
        sweep(model_of(Drifts()), ImageSet(images_of(8), np.arange(8) % 4), ShiftGrid(7), out=tmp_path / "a.zarr")


@pytest.mark.parametrize("control", [None, "flip", "occlusion"])
def test_the_second_look_is_at_the_same_window(control: str | None) -> None:
    """Wrong in one window only, it is found where that window is drawn, and nowhere else."""
    images, labels = images_of(2), np.array([0, 1])
    model = model_of(Net())
    evaluator = evaluator_for(model, plan_of(), GRID, FILL)
    chunk = evaluator.prepared(Chunk(images, labels, control))
    right = evaluator.begin(chunk, np.ones((2, GRID.n_shifts), dtype=np.bool_))()

    class Wrong(WindowEvaluator):
        grid, place = GRID, (0, 0)

        def prepared(self, chunk: Chunk) -> Chunk:
            return evaluator.prepared(chunk)

        def begin(self, *_: Any) -> Callable[[], Outcomes]:
            loss = right["loss"].copy()
            loss[self.place] += 0.5
            return lambda: Outcomes(CLASSIFICATION, right | {"loss": loss})

    wrong = Wrong()
    rechecked = Rechecked(wrong, model, plan_of(), FILL)
    found = []
    for image, shift in np.ndindex(right["loss"].shape):
        wrong.place = image, shift
        try:
            rechecked(images, labels, control)
        except ModelOutputError as error:
            found.append(error.positions == (image,))
    assert found == [True]


def test_complex_weights_keep_their_imaginary_part() -> None:
    check = check_of(Complex())
    assert check.why_not(replace(check.plain, channels_last=True)) == ""
    assert "complex weights" in check.why_not(replace(check.plain, dtype="bfloat16"))
    with pytest.raises(InputError, match="complex weights, which have no bfloat16"):
        make_plan(model_of(Complex()), images_of(), GRID, FILL, n_images=3, dtype="bfloat16")


def test_a_net_that_takes_no_batch_of_one_is_still_swept() -> None:
    class Squeezes(Net):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).squeeze()

    assert check_of(Squeezes()).why_not(plan_of()) == ""


def test_a_net_that_raises_on_noise_is_checked_on_the_rest() -> None:
    class Picky(Net):
        def forward(self, x: Tensor) -> Any:
            if float(x.abs().max()) > 2.0:
                raise ValueError("too bright")
            return super().forward(x)

    dark = images_of() // 4 + 60
    check = check_of(Picky(), dark)
    assert 0 < len(check._exact) < 24
    assert "differ" in Check(model_of(type("Odd", (ReadsMemory, Picky), {})()), dark, GRID, FILL).why_not(
        replace(check.plain, channels_last=True)
    )

    class Refuses(Net):
        def forward(self, x: Tensor) -> Any:
            if len(x) == 1 or float(x[0, 0].std()) > 0:
                raise ValueError("no images")
            return super().forward(x)

    with pytest.raises(ModelOutputError, match="no images"):
        check_of(Refuses(), dark)


def traced_wrongly() -> dict[str, Callable[[], nn.Module]]:
    def forward_of_an_instance() -> nn.Module:
        net, scale = Net(), 3.0
        plain = net.first.forward
        net.first.forward = lambda x: plain(x) * scale  # type: ignore[method-assign]
        return net

    def convolution_of_an_instance() -> nn.Module:
        net = Net()
        plain = net.first._conv_forward
        net.first._conv_forward = lambda x, w, b: plain(x, w * 2, b)  # type: ignore[method-assign]
        return net

    def root_hook() -> nn.Module:
        net = Net()
        net.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2 + 0.3,))
        return net

    def root_forward() -> nn.Module:
        net = Net()
        plain = net.forward
        net.forward = lambda x: plain(x * 0.5 - 0.2)  # type: ignore[method-assign]
        return net

    class Aliased(Net):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.relu = nn.Dropout(0.5), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x)
            y = self.relu(self.drop(x))
            return self.head(self.second(y).mean((2, 3))) + x.mean((2, 3))

    return {
        f.__name__: f for f in (forward_of_an_instance, convolution_of_an_instance, root_hook, root_forward, Aliased)
    }


@pytest.mark.parametrize("name", list(traced_wrongly()))
@pytest.mark.parametrize("first", [0, None])
def test_what_is_not_the_classes_own_forward_is_not_traced(name: str, first: int | None) -> None:
    model, images = model_of(traced_wrongly()[name]()), images_of(first=first)
    with pytest.raises(InputError, match=r"cannot be traced: .*(replaced|hooks|in place)"):
        make_plan(model, images, GRID, FILL, n_images=3, engine="dedup")
    plan = make_plan(model, images, GRID, FILL, n_images=20_000, dtype="float32")
    assert plan.engine == "direct"
    assert_naive(traced_wrongly()[name](), plan, images, np.array([0, 1, 2]))  # type: ignore[arg-type]


@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_blank_image_has_the_same_bits_with_any_number_of_threads(n_threads: int) -> None:
    """Group norm and GELU on all cores sum in another order."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    model, images, grid = wrap(net, mean=MEAN, std=STD, size=64), np.zeros((1, 3, 64, 64), dtype=np.uint8), ShiftGrid(8)
    images[0, :, 30, 30] = 255
    plan = replace(plan_of(), engine="dedup", cut=1)
    before = torch.get_num_threads()
    results = []
    try:
        for n in (n_threads, 2):
            torch.set_num_threads(n)
            evaluator = DedupEvaluator(model, plan, grid, FILL)
            results.append(evaluator.alone(torch.zeros(1, 3, 64, 64)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_replicas_that_write_into_a_buffer_do_not_meet() -> None:
    net = Workspace().eval()
    x = torch.randn(64, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = [net(batch) for batch in x]
        side_by_side = list(Workers(replicas(net, 4)).map(_with_no_grad, x))
    for a, b in zip(alone, side_by_side, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _with_no_grad(net: Callable[..., Tensor], batch: Tensor) -> Tensor:
    with torch.no_grad():
        return net(batch)


def test_the_distance_is_that_of_the_worst_window_in_its_own_units() -> None:
    exact = torch.tensor([[100.0, -100.0], [1.0, -1.0], [0.0, 0.0]])
    assert distance(exact, exact + 7) == pytest.approx(0)
    assert distance(exact, exact + torch.tensor([[0, 0], [0.01, -0.01], [0, 0]])) == pytest.approx(0.01)
    assert distance(exact, exact + torch.tensor([[0, 0], [0, 0], [0.01, -0.01]])) == pytest.approx(0.1)
    assert np.isnan(distance(exact, exact * torch.nan))
