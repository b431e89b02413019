"""Which plan is chosen: what is measured may not be exact enough, and that is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, own_net, pictures_of, random_statistics
from torch import nn

from shiftlens import devices
from shiftlens.engine import tuning
from shiftlens.engine.evaluators import make_plan, prepare
from shiftlens.engine.logit_distance import largest_difference
from shiftlens.engine.plan import Plan
from shiftlens.errors import InputError
from shiftlens.models.loading import wrap
from shiftlens.nn.vgg import VGG
from shiftlens.shifts import Fill, ShiftGrid


def plan_for(
    net: object,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str = "auto",
    size: tuple[int, int] = (6, 8),
    *,
    n_images: int = 2000,
    has_units: bool = True,
    seconds: float = 1.0,
) -> Plan:
    """The plan of a sweep that takes `seconds` a window, on a machine with or without units for bfloat16."""

    def rate(search: object, plan: Plan, *_: object, **__: object) -> float:
        return (1.5 if plan.batch_size == 32 else 1.0) / (seconds if plan.dtype == "bfloat16" else 1.0)

    monkeypatch.setattr(tuning, "has_bfloat16", lambda device: has_units)
    monkeypatch.setattr(tuning, "_rate", rate)
    monkeypatch.setattr(tuning, "compiled", lambda search, best, direct: best)
    images, _ = pictures_of(4, *size, 4)
    model = wrap(net, mean=MEAN, std=STD, size=size)  # type: ignore[arg-type]
    return make_plan(model, images, ShiftGrid(3), Fill.parse("black"), n_images=n_images, dtype=dtype)


def test_the_fastest_that_agrees_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_for(own_net(), monkeypatch)
    assert (plan.dtype, plan.batch_size, plan.fold_batch_norm) == ("bfloat16", 32, True)
    assert plan_for(own_net(), monkeypatch, "float32").dtype == "float32"


@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 1.0, 50.0])
def test_the_number_format_follows_from_the_hardware_and_the_size_of_the_sweep(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Whatever the clock says: two sweeps begun apart on one machine choose the same."""
    assert plan_for(own_net(), monkeypatch, seconds=seconds).dtype == "bfloat16"
    assert plan_for(own_net(), monkeypatch, seconds=seconds, has_units=False).dtype == "float32"
    assert plan_for(own_net(), monkeypatch, seconds=seconds, n_images=100).dtype == "float32"


def test_which_hardware_multiplies_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for units, has in (((), False), (("avx_ne_convert",), False), (("avx512_bf16",), True), (("bf16",), True)):
        monkeypatch.setattr(devices, "_bfloat16_units", lambda units=units: units)
        assert devices.has_bfloat16(cpu) is has
    for capability, has in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert devices.has_bfloat16(gpu) is has


def test_bfloat16_is_refused_where_it_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = own_net()
    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        net[4].bias += 300  # type: ignore[operator]  # all scores round to 300
    assert plan_for(net, monkeypatch).dtype == "float32"


def test_an_explicit_bfloat16_still_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = random_statistics(VGG("vgg6", width=8, size=16))
    plan = plan_for(net, monkeypatch, "bfloat16", (16, 16))
    assert (plan.dtype, plan.fold_batch_norm) == ("bfloat16", True)


def test_a_callable_has_its_own_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4]

    assert plan_for(net, monkeypatch).dtype == "float32"
    with pytest.raises(InputError, match="plain callable"):
        plan_for(net, monkeypatch, "bfloat16")


def test_an_offset_shared_by_all_classes_hides_no_difference() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    b = torch.tensor([[1.0, 2.0, 3.3]])
    assert largest_difference(a + 1e4, b + 1e4) == pytest.approx(largest_difference(a, b), rel=1e-2)
    assert largest_difference(a, b) > 0.1


def check_a_measured_plan(n_images: int) -> Plan:
    images, labels = pictures_of(3, 6, 8, 4)
    model = wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))
    grid, fill = ShiftGrid(2), Fill.parse("edge")
    plan = make_plan(model, images, grid, fill, n_images=n_images)
    result = prepare(model, plan, grid, fill)(images, labels)
    assert np.isfinite(result["loss"]).all()
    return plan


def test_a_measured_plan_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "COMPILING", np.inf)
    assert not check_a_measured_plan(10**9).compiled


@pytest.mark.slow
def test_a_plan_for_which_the_net_was_compiled_runs() -> None:
    check_a_measured_plan(10**9)


class _Squeezes(nn.Module):
    """`squeeze` takes the batch away where it is one image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3), keepdim=True).squeeze())


class _Workspace(_Squeezes):
    """Room for 64 images in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.space = torch.zeros(64, 6, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.space[: len(x)].copy_(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("net", [_Squeezes, _Workspace])
@pytest.mark.parametrize("tick", [0.01, 0.1, 1.0])
def test_a_slow_machine_finds_a_plan_for_a_net_with_limits_to_its_batches(net: type[nn.Module], tick: float) -> None:
    """Where all takes long, the checks take smaller batches than those that are timed."""
    now = [0.0]

    def clock() -> float:
        now[0] += tick
        return now[0]

    images, labels = pictures_of(4, 8, 8, 4)
    model = wrap(net().eval(), mean=MEAN, std=STD, size=(8, 8))
    grid, fill = ShiftGrid(3), Fill.parse("black")
    plan = make_plan(model, images, grid, fill, n_images=100_000, dtype="float32", clock=clock)
    assert np.isfinite(prepare(model, plan, grid, fill)(images, labels)["loss"]).all()
