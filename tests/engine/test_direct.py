"""The direct path against a naive loop: nets of every source, all fills, controls, rectangles."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import reference
import shiftlens as sl
from shiftlens.devices import machine_kind
from shiftlens.engine import direct
from shiftlens.engine.evaluators import check_request, make_plan, prepare
from shiftlens.engine.folding import fold_batch_norm
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.errors import InputError, ModelOutputError, StoreError
from shiftlens.models.loading import Model, load_model, wrap
from shiftlens.nn.center_points import CenterPoints
from shiftlens.nn.unet import UNet
from shiftlens.shifts import Fill, ShiftGrid

FILLS = ["black", "mean", "0.25", "0.1,0.5,0.9", "edge", "reflect", "symmetric", "wrap"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def evaluated(
    model: Model, images: Any, labels: Any, grid: ShiftGrid, fill: Fill, plan: Plan, control: str | None = None
) -> ChunkResult:
    return prepare(model, plan, grid, fill)(images, labels, control)


def plan_of(dtype: str = "float32", **changes: object) -> Plan:
    machine = machine_kind(torch.device("cpu"))
    values: dict[str, object] = {
        "engine": "direct",
        "dtype": dtype,
        "batch_size": 7,
        "channels_last": True,
        "fold_batch_norm": True,
        "compiled": False,
        "device": "cpu",
        "machine": machine,
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def random_statistics(net: nn.Module) -> nn.Module:
    """Batch norms as after training: otherwise folding them would be tested on the identity."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.1)
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net.eval()


def own_net() -> nn.Module:
    """Position-sensitive to the last pixel, so that a swapped dx and dy cannot pass."""
    torch.manual_seed(3)
    return random_statistics(
        nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6 * 8, 4)
        )
    )


def pictures_of(n: int, h: int, w: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, h, w), dtype=np.uint8), rng.integers(0, n_classes, n)


def check_against_naive(
    model: Model, net: nn.Module, size: tuple[int, int], grid: ShiftGrid, fill: str, n: int
) -> None:
    """float32: predictions equal except ties under 1e-4 in the scores, losses within 1e-4."""
    images, labels = pictures_of(n, *size, model.n_classes)
    result = evaluated(model, images, labels, grid, Fill.parse(fill), plan_of())
    mean, std = np.float32(MEAN)[:, None, None], np.float32(STD)[:, None, None]
    normalised = (images.astype(np.float32) / np.float32(255) - mean) / std
    parsed = Fill.parse(fill)
    values = list(parsed.normalised(MEAN, STD)) if parsed.is_constant else None
    shifts = [(int(dx), int(dy)) for dy in grid.dys for dx in grid.dxs]
    rule = "constant" if parsed.is_constant else fill
    scores, losses = reference.naive_sweep(net, normalised, labels, shifts, rule, values)
    assert result["loss"].shape == (n, *grid.shape)
    np.testing.assert_allclose(result["loss"].reshape(n, -1), losses, atol=1e-4)
    got = result["prediction"].reshape(n, -1)
    best = scores.max(-1)
    chosen = np.take_along_axis(scores, got[..., None], -1)[..., 0]
    assert (best - chosen).max() < 1e-4
    shares = np.exp(scores - best[..., None])
    np.testing.assert_allclose(result["confidence"].reshape(n, -1), 1 / shares.sum(-1), atol=2e-3)


@pytest.mark.parametrize("fill", FILLS)
def test_a_users_own_net_equals_a_naive_loop(fill: str) -> None:
    net = own_net()
    model = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    check_against_naive(model, net, (6, 8), ShiftGrid((7, 9)), fill, n=2)


@pytest.mark.parametrize("fill", FILLS)
def test_vgg8_equals_a_naive_loop(fill: str) -> None:
    torch.manual_seed(0)
    net = random_statistics(sl.nn.VGG("vgg8"))
    check_against_naive(wrap(net, mean=MEAN, std=STD, size=32), net, (32, 32), ShiftGrid(32, 16), fill, n=1)


@pytest.mark.parametrize("fill", FILLS)
def test_resnet18_equals_a_naive_loop(fill: str) -> None:
    model = load_model("torchvision:resnet18", weights="random", input_size=64, mean=MEAN, std=STD)
    assert isinstance(model.module, nn.Module)
    random_statistics(model.module)
    check_against_naive(model, model.module, (64, 64), ShiftGrid(16, 16), fill, n=1)


@settings(max_examples=25)
@given(h=st.integers(2, 5), w=st.integers(2, 5), my=st.integers(0, 6), mx=st.integers(1, 6), step=st.integers(1, 3))
def test_occlusion_and_flip_on_any_shape(h: int, w: int, my: int, mx: int, step: int) -> None:
    grid = ShiftGrid((my, mx), min(step, max(my, mx)))
    weights = torch.randn(4, 3 * h * w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def net(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ weights.T.to(x.dtype)

    model = wrap(net, mean=MEAN, std=STD, size=(h, w))
    images, labels = pictures_of(2, h, w, 4)
    fill = Fill.parse("0.3")
    values = list(fill.normalised(MEAN, STD))
    normalised = (images.astype(np.float32) / np.float32(255) - np.float32(MEAN)[:, None, None]) / np.float32(STD)[
        :, None, None
    ]
    shifts = [(int(dx), int(dy)) for dy in grid.dys for dx in grid.dxs]
    plan = plan_of(channels_last=False, fold_batch_norm=False)
    occluded = evaluated(model, images, labels, grid, fill, plan, "occlusion")
    _, losses = reference.naive_sweep(net, normalised, labels, shifts, "constant", values, occlude=True)
    np.testing.assert_allclose(occluded["loss"].reshape(2, -1), losses, atol=1e-4)
    flipped = evaluated(model, images, labels, grid, fill, plan, "flip")
    mirrored = np.ascontiguousarray(normalised[..., ::-1])
    _, losses = reference.naive_sweep(net, mirrored, labels, shifts, "constant", values)
    np.testing.assert_allclose(flipped["loss"].reshape(2, -1), losses, atol=1e-4)


def test_black_fill_is_the_same_number_as_a_black_pixel() -> None:
    images = np.zeros((1, 3, 4, 4), dtype=np.uint8)
    seen: list[torch.Tensor] = []

    def net(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x.flatten(1)[:, :2]

    model = wrap(net, mean=MEAN, std=STD, size=(4, 4))
    evaluated(model, images, np.zeros(1, dtype=np.int64), ShiftGrid(3), Fill.parse("black"), plan_of())
    for batch in seen[1:]:
        assert torch.equal(batch, batch[:1, :, :1, :1].expand_as(batch))


def test_windows_without_content_are_evaluated_once() -> None:
    n_rows = 0

    def net(x: torch.Tensor) -> torch.Tensor:
        nonlocal n_rows
        n_rows += len(x)
        return x.flatten(1)[:, :3]

    model = wrap(net, size=(3, 3), mean=0.5, std=0.5)
    assert model.n_classes == 3
    n_rows = 0
    images, labels = pictures_of(4, 3, 3, 3)
    grid = ShiftGrid(4)
    evaluated(model, images, labels, grid, Fill.parse("mean"), plan_of())
    assert n_rows == 4 * 25 + 2  # |dx| and |dy| up to 2 leave something in view; one is looked at again
    n_rows = 0
    evaluated(model, images, labels, grid, Fill.parse("wrap"), plan_of())
    assert n_rows == 4 * 81 + 1


@pytest.mark.parametrize("control", [None, "occlusion", "flip"])
def test_a_background_that_is_fill_counts_as_no_content(control: str | None) -> None:
    n_rows = 0

    def net(x: torch.Tensor) -> torch.Tensor:
        nonlocal n_rows
        n_rows += len(x)
        return x.flatten(1)[:, :40] @ torch.linspace(-1, 1, 120).reshape(40, 3)

    model = wrap(net, size=(5, 8), mean=MEAN, std=STD)
    images = np.zeros((3, 3, 5, 8), dtype=np.uint8)
    images[0, 1, 2:4, 1:3] = 200
    images[1, 0, 0, 7] = 1  # the third picture is black all over
    labels = np.array([0, 1, 2])
    grid, fill = ShiftGrid((4, 6)), Fill.parse("black")
    assert model.n_classes == 3
    n_rows = 0
    result = evaluated(model, images, labels, grid, fill, plan_of(), control)
    assert n_rows < 9 * 13 + 1
    values = list(fill.normalised(MEAN, STD))
    shown = images[..., ::-1].copy() if control == "flip" else images
    mean, std = np.float32(MEAN)[:, None, None], np.float32(STD)[:, None, None]
    normalised = (shown.astype(np.float32) / np.float32(255) - mean) / std
    shifts = [(int(dx), int(dy)) for dy in grid.dys for dx in grid.dxs]
    occlude = control == "occlusion"
    _, losses = reference.naive_sweep(net, normalised, labels, shifts, "constant", values, occlude=occlude)
    np.testing.assert_allclose(result["loss"].reshape(3, -1), losses, atol=1e-4)


def test_blocks_of_large_pictures_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = own_net()
    model = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    images, labels = pictures_of(5, 6, 8, 4)
    arguments = (model, images, labels, ShiftGrid(2), Fill.parse("edge"), plan_of("float64"))
    whole = evaluated(*arguments)
    monkeypatch.setattr(direct, "MAX_CANVAS", 1)
    split = evaluated(*arguments)
    np.testing.assert_array_equal(whole["prediction"], split["prediction"])
    np.testing.assert_allclose(whole["loss"], split["loss"], atol=1e-6)


def test_a_score_that_is_not_finite_names_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        scores = x.flatten(1)[:, :3].clone()
        scores[x.amax((1, 2, 3)) > 0.9] = float("nan")
        return scores

    model = wrap(net, size=(4, 4), mean=0.0, std=1.0)
    images = np.zeros((4, 3, 4, 4), dtype=np.uint8)
    images[2] = 255
    for block in (2**24, 1):
        monkeypatch.setattr(direct, "MAX_CANVAS", block)
        with pytest.raises(ModelOutputError, match="not finite") as caught:
            evaluated(model, images, np.zeros(4, dtype=np.int64), ShiftGrid(1), Fill.parse("black"), plan_of())
        assert caught.value.positions == (2,)


@pytest.mark.parametrize("shape", [(4, 3), (6, 2), (6, 4)])
def test_scores_of_another_shape_name_their_images(shape: tuple[int, int]) -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        scores = x.flatten(1)[:, :4]
        return scores[:, :3] if len(x) != 6 else scores[: shape[0], : shape[1]]

    model = wrap(net, size=(4, 4), mean=0.0, std=1.0)
    images, labels = pictures_of(2, 4, 4, 3)
    plan = plan_of(batch_size=6, channels_last=False, fold_batch_norm=False)
    with pytest.raises(ModelOutputError, match=r"expected scores \(6, 3\) for a batch of 6, the model gave") as caught:
        evaluated(model, images, labels, ShiftGrid(1), Fill.parse("edge"), plan)
    assert caught.value.positions == (0,)


def test_the_users_module_is_left_as_it_was() -> None:
    net = own_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = wrap(net, mean=MEAN, std=STD, size=(6, 8))
    images, labels = pictures_of(2, 6, 8, 4)
    evaluated(model, images, labels, ShiftGrid(1), Fill.parse("black"), plan_of("bfloat16"))
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_folding_takes_convolution_then_norm_only() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.before, self.second = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
            self.shared, self.after = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.first(x)))
            x = torch.relu(self.second(self.before(x)))
            return (self.after(self.shared(x)) + self.shared(x)).mean((2, 3))

    torch.manual_seed(0)
    net = random_statistics(Both()).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = net(x)
    folded, n_folded = fold_batch_norm(copy.deepcopy(net))
    assert n_folded == 1
    torch.testing.assert_close(folded(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "of"), [(UNet(n_classes=2, width=2).eval(), 8), (CenterPoints(n_classes=2, width=2).eval(), 4)]
)
def test_the_scene_nets_are_traced_and_folded_and_refuse_other_sizes(net: nn.Module, of: int) -> None:
    random_statistics(net)
    x = torch.rand(2, 1, 16, 24)
    expected = net(x)
    folded, n_folded = fold_batch_norm(copy.deepcopy(net))
    assert n_folded == sum(isinstance(part, nn.BatchNorm2d) for part in net.modules())
    torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=f"sides that are multiples of {of}, got 16x26"):
        folded(torch.rand(1, 1, 16, 26))


def test_a_net_that_branches_on_its_input_is_swept_unfolded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "shiftlens")

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.convolution(x))
            return (x if x.square().sum() >= 0 else -x).mean((2, 3))

    model = wrap(Branching().eval(), mean=MEAN, std=STD, size=(8, 8))
    images, _ = pictures_of(1, 8, 8, 4)
    plan = make_plan(model, images, ShiftGrid(1), Fill.parse("black"), n_images=1)
    assert not plan.fold_batch_norm
    assert plan.dtype == "float32"
    assert [each for each in caplog.messages if "is not used" in each] == [
        "float32, batch norm folded, batches of 9 is not used: "
        "torch cannot trace a net whose forward branches or loops on its input"
    ]


def test_plans_survive_json_and_refuse_what_is_none() -> None:
    plan = plan_of()
    assert Plan.from_json(plan.to_json()) == plan
    for text in (
        "{}",
        "nonsense",
        "[1]",
        plan.to_json().replace('"direct"', '"magic"'),
        plan.to_json().replace("7", '"7"'),
    ):
        with pytest.raises(StoreError, match="stored plan"):
            Plan.from_json(text)


def test_a_plan_of_another_machine_is_refused() -> None:
    model = wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))
    with pytest.raises(StoreError, match="was made for 'another'"):
        prepare(model, plan_of(machine="another"), ShiftGrid(1), Fill.parse("black"))


@pytest.mark.parametrize(
    ("engine", "dtype", "controls", "fill", "message"),
    [
        ("fast", "auto", (), "black", "unknown engine 'fast'"),
        ("auto", "float8", (), "black", "unknown dtype 'float8'"),
        ("auto", "auto", ("occlude",), "black", "unknown control 'occlude'"),
        ("auto", "auto", ("occlusion",), "wrap", "has no blank"),
    ],
)
def test_bad_requests_are_named(engine: str, dtype: str, controls: tuple[str, ...], fill: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_request(ShiftGrid(1), Fill.parse(fill), engine, dtype, controls)
