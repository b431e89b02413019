"""The path by cells against every window on its own: random nets, all fills, every cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from random_nets import N_CLASSES, nets
from torch import Tensor, nn

import shiftlens as sl
from shiftlens.devices import machine_kind
from shiftlens.engine import cutting
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.folding import fold_batch_norm
from shiftlens.engine.on_device import DeviceEvaluator
from shiftlens.engine.plan import Plan
from shiftlens.engine.shared import convolving, dedup
from shiftlens.engine.shared.convolving import DenseConvolution
from shiftlens.engine.shared.dedup import DedupEvaluator
from shiftlens.engine.shared.program import Layout, Program
from shiftlens.engine.shared.tracing import trace
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.loading import wrap
from shiftlens.shifts import Fill, ShiftGrid, translate

FILLS = ["black", "mean", "0.25", "edge", "reflect", "symmetric", "wrap"]


def plan_of(cut: int, dtype: str = "float64", **changes: object) -> Plan:
    plan = Plan(
        engine="dedup",
        dtype=dtype,
        batch_size=50,
        channels_last=True,
        fold_batch_norm=True,
        compiled=False,
        device="cpu",
        machine=machine_kind(torch.device("cpu")),
        cut=cut,
    )
    return replace(plan, **changes)


def served(net: nn.Module, shape: tuple[int, int, int]) -> tuple[int, str]:
    """How many operations can run on cells, and what stops there."""
    folded, _ = fold_batch_norm(in_double(net))
    found = trace(folded, shape)
    return len(found.steps), found.refused


def in_double(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).double().eval()


def every_window(picture: Tensor, grid: ShiftGrid, fill: Fill, values: tuple[float, ...] | None) -> Tensor:
    what = fill if values is None else values
    return torch.stack([translate(picture, shift.dx, shift.dy, what) for shift in grid])


def check_random_net(
    drawn: tuple[nn.Sequential, tuple[int, int, int]],
    fill: str,
    reach: tuple[int, int],
    step: int,
    seed: int,
    data: st.DataObject,
) -> None:
    """Scores of every shift in double precision, with everything that is served on cells, or only the first of it."""
    net, shape = drawn
    c, h, w = shape
    grid = ShiftGrid(reach, min(step, max(reach)))
    n_served, refused = served(net, shape)
    assert n_served > 0, refused
    cut = data.draw(st.sampled_from([1, n_served, n_served]))
    cut = min(cut, n_served)
    event(f"cut {'all' if cut == n_served else 'part'}")
    model = wrap(net, mean=(0.4,) * c, std=(0.3,) * c, size=(h, w))
    parsed = Fill.parse(fill)
    # Pictures and fill are float32 everywhere, whatever the net computes in.
    values = tuple(np.float32(parsed.normalised((0.4,) * c, (0.3,) * c)).tolist()) if parsed.is_constant else None
    picture = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    path = data.draw(st.sampled_from([DedupEvaluator, DeviceEvaluator]))
    in_view = np.flatnonzero([abs(shift.dx) < w and abs(shift.dy) < h for shift in grid])
    with torch.no_grad():
        wanted = in_double(net)(every_window(picture.double(), grid, parsed, values)[in_view])
    if not wanted.isfinite().all():  # a max-pool drawn with windows that hold nothing but its own padding, -inf
        event("refused: scores that are not finite")
        with pytest.raises(ModelOutputError, match="not finite"):
            path(model, plan_of(cut), grid, parsed).scores_under(picture, in_view)
        return
    with pytest.MonkeyPatch.context() as patched:
        if data.draw(st.booleans()):  # products as large as a GPU takes them
            patched.setattr(convolving, "_cells_in_block", lambda bytes_each, device: 2**20)
            patched.setattr(convolving, "BLOCK_COLUMNS", 2**20)
        found = path(model, plan_of(cut), grid, parsed).scores_under(picture, in_view)
    assert found.shape == (len(in_view), N_CLASSES)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


DRAWN = {
    "drawn": nets(),
    "fill": st.sampled_from(FILLS),
    "reach": st.tuples(st.integers(0, 9), st.integers(1, 9)),
    "step": st.integers(1, 3),
    "seed": st.integers(0, 1000),
    "data": st.data(),
}
# A failing net is small enough as it is drawn: making it smaller would take minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
HASTE = list(HealthCheck)


class Branching(nn.Module):
    """Decides its way by its numbers, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3)) * (1 if x.square().sum() >= 0 else 2)


@settings(max_examples=50, deadline=None, suppress_health_check=HASTE, phases=PHASES)
@given(**DRAWN)
def test_random_nets_equal_every_window_on_its_own(**drawn: Any) -> None:
    check_random_net(**drawn)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=False, database=None, suppress_health_check=HASTE, phases=PHASES)
@given(**DRAWN)
def test_many_random_nets_equal_every_window_on_its_own(**drawn: Any) -> None:
    check_random_net(**drawn)


MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def small_vgg(seed: int = 0, **options: Any) -> sl.nn.VGG:
    torch.manual_seed(seed)
    net = sl.nn.VGG("vgg6", width=8, **options)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net.eval()


def pictures_of(n: int, seed: int = 0, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8), rng.integers(0, 10, n)


def check_against_direct(net: nn.Module, grid: ShiftGrid, fill: str, control: str | None = None) -> None:
    """float32: predictions equal except ties under 1e-4 in the scores, losses within 1e-4."""
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(2)
    n_served, _ = served(net, (3, 32, 32))
    plan = plan_of(n_served, "float32")
    found = prepare(model, plan, grid, Fill.parse(fill))(images, labels, control)
    wanted = DirectEvaluator(model, replace(plan, engine="direct"), grid, Fill.parse(fill))(images, labels, control)
    np.testing.assert_allclose(found["loss"], wanted["loss"], atol=1e-4)
    np.testing.assert_allclose(found["confidence"], wanted["confidence"], atol=2e-3)
    # Where they disagree the two classes must be as likely as each other: then so are their losses under either label.
    assert (found["prediction"] != wanted["prediction"]).mean() < 1e-3


@pytest.mark.parametrize("fill", FILLS)
def test_a_vgg_equals_the_direct_path(fill: str) -> None:
    check_against_direct(small_vgg(), ShiftGrid((9, 12), 3), fill)


@pytest.mark.parametrize("padding", ["reflect", "replicate", "circular", "symmetric", "partial"])
def test_every_padding_equals_the_direct_path(padding: str) -> None:
    check_against_direct(small_vgg(padding=padding), ShiftGrid(32, 8), "black")


@pytest.mark.parametrize(
    "options",
    [
        {"downsample": "stride"},
        {"downsample": "avg"},
        {"downsample": "blur"},
        {"downsample": "polyphase"},
        {"head": "max"},
        {"head": "flatten"},
    ],
)
def test_every_kind_of_vgg_equals_the_direct_path(options: dict[str, str]) -> None:
    check_against_direct(small_vgg(**options), ShiftGrid(32, 8), "black")


@pytest.mark.parametrize("control", ["occlusion", "flip"])
def test_controls_equal_the_direct_path(control: str) -> None:
    check_against_direct(small_vgg(), ShiftGrid((16, 32), 8), "black", control)


def test_torchvision_resnet_equals_the_direct_path() -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=10).eval()
    n_served, refused = served(net, (3, 32, 32))
    assert not refused
    assert n_served > 40
    check_against_direct(net, ShiftGrid(16, 8), "black")


def test_circular_padding_and_wrapped_shifts_have_as_many_states_as_positions() -> None:
    net = small_vgg(padding="circular")
    found = trace(fold_batch_norm(in_double(net))[0], (3, 32, 32))
    layout = Layout.of(ShiftGrid(32), (32, 32), "circular", None)
    program = Program(found, len(found.steps), layout)
    sizes = [cells.rows.n for cells in program.cells.values()]
    # A pool makes a second set of states, shifted by one: 16 positions under two phases, 8 under four.
    assert set(sizes[:-1]) == {32}


def test_what_is_not_served_is_named_and_left_to_the_rest() -> None:
    class Gate(nn.Module):
        """Squeeze and excitation: every cell depends on all of them."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.gate = nn.Linear(4, 4)
            self.last = nn.Conv2d(4, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            x = x * self.gate(x.mean((2, 3)))[:, :, None, None].sigmoid()
            return self.last(x).mean((2, 3))

    torch.manual_seed(0)
    net = Gate().eval()
    n_served, refused = served(net, (3, 32, 32))
    assert n_served == 3  # convolution, relu, mean
    assert refused.startswith("mul: it also reads sigmoid")
    check_against_direct(net, ShiftGrid(32, 8), "black")


def test_a_map_changed_in_place_is_not_read_as_it_was() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, padding=1)
            self.b = nn.Conv2d(4, 4, 3, padding=1)
            self.last = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            torch.relu_(x)
            y = self.b(x)
            return self.last((x + y).mean((2, 3)))

    torch.manual_seed(0)
    check_against_direct(InPlace().eval(), ShiftGrid(16, 8), "black")


def test_the_plan_finds_a_cut_that_agrees_and_says_what_it_saves() -> None:
    net = small_vgg()
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(3)
    plan = make_plan(model, images, ShiftGrid(32, 2), Fill.parse("black"), n_images=3, engine="dedup", dtype="float32")
    assert plan.engine == "dedup"
    assert plan.cut > 0
    assert 0 < plan.shared <= 1
    assert plan.fewer > 1.2
    assert Plan.from_json(plan.to_json()) == plan
    found = prepare(model, plan, ShiftGrid(32, 2), Fill.parse("black"))(images, labels)
    direct = replace(plan, engine="direct", cut=0)
    wanted = prepare(model, direct, ShiftGrid(32, 2), Fill.parse("black"))(images, labels)
    np.testing.assert_allclose(found["loss"], wanted["loss"], atol=1e-4)


def test_asked_for_by_name_it_says_what_it_cannot_serve() -> None:
    images, _ = pictures_of(2)

    def refuses(model: Any) -> str:
        with pytest.raises(InputError) as caught:
            make_plan(model, images, ShiftGrid(8), Fill.parse("black"), n_images=2, engine="dedup")
        return str(caught.value)

    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()
    assert "no convolution" in refuses(wrap(flat, mean=MEAN, std=STD, size=32))

    def bare(x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ torch.ones(3, 10)

    assert "plain callable" in refuses(wrap(bare, mean=MEAN, std=STD, size=32))

    assert "cannot be traced (TraceError)" in refuses(wrap(Branching().eval(), mean=MEAN, std=STD, size=32))


def test_a_net_that_its_trace_does_not_describe_takes_the_direct_path() -> None:
    class Shifty(nn.Module):
        """Gives other scores to what stands in for a tensor than to a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) * (1.0 if type(x) is Tensor else 1.01)

    images, _ = pictures_of(2)
    torch.manual_seed(0)
    model = wrap(Shifty().eval(), mean=MEAN, std=STD, size=32)
    with pytest.raises(InputError, match="disagrees"):
        make_plan(model, images, ShiftGrid(8), Fill.parse("black"), n_images=2, engine="dedup")


class Aliased(nn.Module):
    """Changes a map in place through another name, which a trace cannot know; it moves the scores by a hundredth."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.head, self.beside = nn.Linear(8, 10), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = x.contiguous()
        y.relu_()
        return self.head(self.second(y).mean((2, 3))) + 0.03 * self.beside(x.mean((2, 3)))


class Traced(Aliased):
    """The same size of change where the net is traced, which no look at its graph can find."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.head(self.second(y).mean((2, 3))) + (0.03 if type(x) is Tensor else 0.0) * self.beside(
            y.mean((2, 3))
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("net", "why"), [(Traced, "disagrees"), (Aliased, "changes in place what other parts read")])
def test_rounding_does_not_hide_a_trace_that_disagrees(dtype: str, net: type[Aliased], why: str) -> None:
    images, _ = pictures_of(2, size=12)
    torch.manual_seed(0)
    model = wrap(net().eval(), mean=MEAN, std=STD, size=12)
    with pytest.raises(InputError, match=why):
        make_plan(model, images, ShiftGrid(6, 3), Fill.parse("edge"), n_images=2, engine="dedup", dtype=dtype)


def test_bfloat16_is_not_taken_for_a_disagreement() -> None:
    images, _ = pictures_of(2)
    model = wrap(small_vgg(), mean=MEAN, std=STD, size=32)
    grid, fill = ShiftGrid((20, 31), 3), Fill.parse("black")
    plan = make_plan(model, images, grid, fill, n_images=2, engine="dedup", dtype="bfloat16")
    assert (plan.engine, plan.dtype) == ("dedup", "bfloat16")


def test_whatever_cells_raise_leaves_the_direct_path(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: DenseConvolution, *_: Any) -> Tensor:
        raise IndexError("index out of range\nin self")

    monkeypatch.setattr(DenseConvolution, "__call__", fails)
    monkeypatch.setattr(cutting, "WORTH_CUTTING", 0.0)
    images, _ = pictures_of(2)
    model = wrap(small_vgg(), mean=MEAN, std=STD, size=32)
    arguments = model, images, ShiftGrid(8, 4), Fill.parse("black")
    with pytest.raises(InputError, match=r"on cells it raises IndexError: index out of range; use engine"):
        make_plan(*arguments, n_images=2, engine="dedup", dtype="float32")
    with caplog.at_level("INFO"):
        plan = make_plan(*arguments, n_images=40, dtype="float32")
    assert plan.engine == "direct"
    assert "every window is computed on its own: on cells it raises IndexError" in caplog.text


def test_a_dilated_maximum_of_nothing_but_padding_is_minus_infinity() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, stride=32, padding=1), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.max_pool2d(self.first(x), (2, 1), 1, (1, 0), (2, 1))
            return self.last(x.clamp(-1, 1).mean((2, 3)))

    torch.manual_seed(0)
    check_against_direct(Pooled().eval(), ShiftGrid(8, 4), "black")


def test_a_net_without_weights_has_no_convolution() -> None:
    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(x.mean((2, 3)), (0, 7))

    images, _ = pictures_of(2)
    model = wrap(Plain().eval(), mean=MEAN, std=STD, size=32)
    with pytest.raises(InputError, match="no convolution that acts on every cell"):
        make_plan(model, images, ShiftGrid(8), Fill.parse("black"), n_images=2, engine="dedup")


def test_a_stored_plan_that_this_version_cannot_follow_is_refused() -> None:
    model = wrap(small_vgg(), mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(1)
    evaluator = prepare(model, plan_of(1000, "float32"), ShiftGrid(8, 4), Fill.parse("black"))
    with pytest.raises(StoreError, match="1000 operations"):
        evaluator(images, labels)


def test_a_stored_plan_for_a_net_that_cannot_be_traced_any_more_is_refused() -> None:
    model = wrap(Branching().eval(), mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(1)
    plan = plan_of(1, "float32", fold_batch_norm=False)
    with pytest.raises(StoreError, match=r"runs 1 operations on cells, but this net cannot be traced \(TraceError\)"):
        prepare(model, plan, ShiftGrid(8, 4), Fill.parse("black"))(images, labels)


def test_scores_that_are_not_finite_name_the_picture() -> None:
    net = small_vgg()
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(3)
    n_served, _ = served(net, (3, 32, 32))
    evaluator = DedupEvaluator(model, plan_of(n_served, "float32"), ShiftGrid(8, 4), Fill.parse("black"))
    normalise = model.preprocessing.normalise

    class Spoilt:
        mean, std = MEAN, STD

        @staticmethod
        def normalise(pictures: Tensor) -> Tensor:
            made = normalise(pictures)
            made[1, 0, 5, 5] = float("nan")
            return made

    evaluator._preprocessing = Spoilt()
    with pytest.raises(ModelOutputError, match="not finite") as caught:
        evaluator(images, labels)
    assert caught.value.positions == (1,)


def test_progress_counts_every_window_once() -> None:
    net = small_vgg()
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(3)
    grid = ShiftGrid(16, 8)
    ticks: list[int] = []
    DedupEvaluator(model, plan_of(6, "float32"), grid, Fill.parse("black"), ticks.append)(images, labels)
    assert ticks == [grid.n_shifts, 2 * grid.n_shifts, 3 * grid.n_shifts]


def test_few_cells_fit_a_small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trace(small_vgg(), (3, 32, 32))
    program = Program(found, 6, Layout.of(ShiftGrid(32, 8), (32, 32), None, (0.0, 0.0, 0.0)))
    assert dedup.n_workers(program, plan_of(6), 4) == 4
    monkeypatch.setattr(dedup, "CELL_BYTES", 2 * 8 * program.n_numbers())
    assert dedup.n_workers(program, plan_of(6), 4) == 2
    monkeypatch.setattr(dedup, "CELL_BYTES", 1)
    assert dedup.n_workers(program, plan_of(6), 4) == 1


def on_a_wide_canvas(net: nn.Module, trunk: nn.Module, margin: int, total: int, values: tuple[float, ...]) -> Any:
    """The slow way: the window in the middle of a canvas of fill, the trunk on it, the frame cut out, the head."""

    def scores(windows: Tensor, head: nn.Module) -> Tensor:
        n, c, h, w = windows.shape
        wide = torch.tensor(values, dtype=windows.dtype)[None, :, None, None].expand(
            n, c, h + 2 * margin, w + 2 * margin
        )
        wide = wide.clone()
        wide[:, :, margin : margin + h, margin : margin + w] = windows
        with torch.no_grad():
            frame = trunk(windows).shape[-2:]
            maps = trunk(wide)
            k = margin // total
            return head(maps[:, :, k : k + frame[0], k : k + frame[1]])

    return scores


@pytest.mark.parametrize("options", [{}, {"downsample": "stride"}, {"head": "flatten"}, {"padding": "reflect"}])
def test_the_canvas_control_is_the_trunk_on_a_canvas(options: dict[str, str]) -> None:
    net = small_vgg(**options)
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(2)
    grid, fill = ShiftGrid((32, 16), 16), Fill.parse("0.25")
    plan = plan_of(0, "float64", engine="direct")
    found = prepare(model, plan, grid, fill)(images, labels, "canvas")
    values = fill.normalised(MEAN, STD)
    double = in_double(net)
    slow = on_a_wide_canvas(double, double[:3], 32, 8, values)
    for k in range(2):
        picture = model.preprocessing.normalise(torch.from_numpy(images[k : k + 1]))[0].double()
        scores = slow(every_window(picture, grid, fill, values), double[3])
        loss = torch.nn.functional.cross_entropy(scores, torch.full((len(scores),), int(labels[k])), reduction="none")
        np.testing.assert_allclose(found["loss"][k].reshape(-1), loss.numpy(), atol=1e-5)
        np.testing.assert_array_equal(found["prediction"][k].reshape(-1), scores.argmax(1).numpy())


def test_without_padding_the_canvas_control_is_the_sweep() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    model = wrap(net, mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(2)
    evaluator = prepare(model, plan_of(5, "float64"), ShiftGrid(32, 8), Fill.parse("black"))
    np.testing.assert_allclose(
        evaluator(images, labels, "canvas")["loss"], evaluator(images, labels)["loss"], atol=1e-6
    )


@pytest.mark.parametrize("padding", [0, 1])
def test_the_canvas_control_takes_a_head_that_asks_the_picture_for_its_shape(padding: int) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 10, 8, 8, padding)

        def forward(self, x: Tensor) -> Tensor:
            h, w = x.shape[2:]
            tokens = self.cut(x).flatten(2)
            return tokens.softmax(2).max(2).values * h / w

    torch.manual_seed(2)
    model = wrap(Patches().eval(), mean=MEAN, std=STD, size=32)
    images, labels = pictures_of(2)
    evaluator = prepare(model, plan_of(0, "float64", engine="direct"), ShiftGrid(8, 4), Fill.parse("black"))
    on_canvas, swept = evaluator(images, labels, "canvas")["loss"], evaluator(images, labels)["loss"]
    assert np.allclose(on_canvas, swept, atol=1e-6) == (padding == 0)


def test_a_canvas_needs_a_trunk_and_a_constant_fill(tmp_path: Any) -> None:
    images = sl.ImageSet(*pictures_of(2))

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x * x.mean((2, 3), keepdim=True)).mean((2, 3))

    grid = ShiftGrid(8, 4)
    gated = wrap(Gate().eval(), mean=MEAN, std=STD, size=32)
    with pytest.raises(InputError, match=r"convolutional trunk .*mul"):
        sl.sweep(gated, images, grid, out=tmp_path / "gate.zarr", controls=("canvas",))
    assert not (tmp_path / "gate.zarr").exists()
    fine = wrap(small_vgg(), mean=MEAN, std=STD, size=32)
    with pytest.raises(InputError, match="no constant"):
        sl.sweep(fine, images, grid, out=tmp_path / "edge.zarr", fill="edge", controls=("canvas",))
    done = sl.sweep(fine, images, grid, out=tmp_path / "fine.zarr")
    assert done.controls == ()
    assert sl.sweep(fine, images, grid, out=tmp_path / "fine.zarr", controls=("canvas",)).controls == ("canvas",)


@pytest.mark.parametrize("include", [True, False])
def test_an_average_counts_padding_but_never_overhang(include: bool) -> None:
    torch.manual_seed(0)
    pool = nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=include)
    net = nn.Sequential(nn.Conv2d(3, 10, 3), pool, nn.Flatten(), nn.Linear(10 * 16 * 16, 10)).eval()
    check_against_direct(net, ShiftGrid(16, 8), "0.25")
