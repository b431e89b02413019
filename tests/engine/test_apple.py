"""Apple's GPUs, with a CPU in their place: only the net is there, and what it says is held against the CPU."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, own_net, pictures_of
from torch import Tensor, nn

from shiftlens.data.imageset import ImageSet
from shiftlens.devices import has_bfloat16, machine_kind, resolve_device
from shiftlens.engine import direct
from shiftlens.engine.direct import Elsewhere
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.evaluation import evaluate
from shiftlens.models.loading import load_model, wrap
from shiftlens.models.wrapping import Model
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.sweep_result import Sweep


class There(Elsewhere):
    """Remembers what it was asked, and answers a little wrong if it is told to."""

    batches: list[int]
    times = 1.0

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        assert device == torch.device("mps")
        super().__init__(net, torch.device("cpu"))

    def forward(self, x: Tensor) -> Tensor:
        type(self).batches.append(len(x))
        return super().forward(x) * self.times


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> type[There]:
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: True))
    monkeypatch.setattr(There, "batches", [], raising=False)
    monkeypatch.setattr(There, "times", 1.0)
    monkeypatch.setattr(direct, "Elsewhere", There)
    return There


@pytest.fixture(scope="module")
def model() -> Model:
    return wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))


def swept(model: Model, out: Path, device: str, fill: str = "black", **options: object) -> Sweep:
    pixels, labels = pictures_of(5, 6, 8, 4)
    return sweep(model, ImageSet(pixels, labels), ShiftGrid((4, 5)), fill=fill, device=device, out=out, **options)


@pytest.mark.parametrize("fill", ["black", "edge"])
def test_a_sweep_is_that_of_a_cpu_and_goes_on(
    model: Model, there: type[There], fill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls = ("occlusion", "flip") if fill == "black" else ("flip",)
    found = swept(model, tmp_path / "mps.zarr", "mps", fill, controls=controls)
    assert there.batches
    plan = found.header.plan
    assert (plan.device, plan.dtype, plan.engine, plan.settle) == ("mps", "float32", "direct", 0.0)
    assert plan.machine.startswith("mps ")
    exact = swept(model, tmp_path / "cpu.zarr", "cpu", fill, controls=controls)
    for a, b in ((found, exact), *((found.control(name), exact.control(name)) for name in controls)):
        np.testing.assert_array_equal(a.dataset["prediction"].values, b.dataset["prediction"].values)
        np.testing.assert_allclose(a.dataset["loss"].values, b.dataset["loss"].values, atol=1e-5)
    monkeypatch.setattr(torch.backends.mps, "is_available", cache(lambda: False))
    with pytest.raises(InputError, match="device 'mps' was asked for, but torch sees no such GPU"):
        swept(model, tmp_path / "mps.zarr", "mps", fill)


def test_a_gpu_that_computes_otherwise_is_refused(
    model: Model, there: type[There], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(there, "times", 1.001)
    with pytest.raises(InputError, match=r"gives other logits on mps than on the CPU .*take --device cpu"):
        swept(model, tmp_path / "s.zarr", "mps")
    assert not (tmp_path / "s.zarr").exists()


def test_a_gpu_that_begins_to_compute_otherwise_is_noticed(
    model: Model, there: type[There], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", 1)  # a chunk an image

    def told(done: int, total: int) -> None:
        there.times = 1.1

    with pytest.raises(ModelOutputError, match="the module alone"):
        swept(model, tmp_path / "s.zarr", "mps", progress=told)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"engine": "dedup"}, "engine dedup is not there for Apple's GPUs"),
        ({"dtype": "bfloat16"}, "Apple's GPUs .mps. compute in float32 here, got dtype bfloat16"),
        ({"dtype": "float64"}, "compute in float32 here, got dtype float64"),
        ({"controls": ("canvas",)}, "the canvas control is not there for Apple's GPUs"),
    ],
)
@pytest.mark.usefixtures("there")
def test_what_is_not_there_is_refused(model: Model, options: dict[str, object], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        swept(model, tmp_path / "s.zarr", "mps", **options)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.usefixtures("there")
def test_only_sweeps_go_there(model: Model) -> None:
    with pytest.raises(InputError, match="device 'mps' is for sweeps only; expected auto, cpu or cuda"):
        evaluate(model, "digits", device="mps")
    net = load_model("torchvision:resnet18", weights="random", input_size=32, device="mps").module
    assert isinstance(net, nn.Module)
    assert next(net.parameters()).device == torch.device("cpu")
    assert not has_bfloat16(torch.device("mps"))
    assert machine_kind(resolve_device("mps", apple=True)).startswith("mps ")


def test_without_one_it_is_said(model: Model, tmp_path: Path) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="device 'mps' was asked for, but torch sees no such GPU"):
        swept(model, tmp_path / "s.zarr", "mps")
