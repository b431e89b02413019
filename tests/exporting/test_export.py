"""Exported nets: equal to the model under shifts, in a process where shiftlens cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.errors import InputError, StoreError
from shiftlens.exporting import exported, plain_source
from shiftlens.nn.vgg import VGG
from shiftlens.shifts import translate


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )


def repaired(**how: str) -> sl.Model:
    fixed, _ = sl.repair(chain(), **how)
    return sl.wrap(fixed.eval(), mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], size=(20, 24))


REPAIRS = [{"padding": mode} for mode in ("symmetric", "circular", "partial", "distribution")] + [
    {"downsample": kind} for kind in ("blur", "polyphase")
]

ALONE = """
import sys
sys.modules["shiftlens"] = None  # an import of it fails
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
from net import load
net = load()
with torch.no_grad():
    out = [net(torch.from_numpy(images)) for images in np.load(sys.argv[2]).values()]
np.savez(sys.argv[3], *[each.numpy() for each in out])
assert not any(name.startswith("shiftlens.") for name in sys.modules)
"""

ALONE_ONNX = """
import sys
sys.modules["shiftlens"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
out = [session.run(None, {"images": images})[0] for images in np.load(sys.argv[2]).values()]
np.savez(sys.argv[3], *out)
"""


def shifted_images(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Batches of 1 and 4 images, each moved by another shift."""
    rng = np.random.default_rng(1)
    batches = [
        translate(rng.integers(0, 256, (n, 3, 20, 24)).astype(np.float32) / 255, dx, dy)
        for n, (dx, dy) in ((1, (2, 0)), (4, (-5, 3)), (4, (0, 0)))
    ]
    np.savez(tmp_path / "in.npz", *batches)
    return tmp_path / "in.npz", batches


def alone(code: str, what: Path, tmp_path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The images, and what the exported net makes of them in a process of its own."""
    given, batches = shifted_images(tmp_path)
    command = [sys.executable, "-c", code, str(what), str(given), str(tmp_path / "out.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return batches, list(np.load(tmp_path / "out.npz").values())


def expected(model: sl.Model, images: np.ndarray) -> np.ndarray:
    mean, std = (
        np.array(each, np.float32)[:, None, None] for each in (model.preprocessing.mean, model.preprocessing.std)
    )
    with torch.no_grad():
        return model.module(torch.from_numpy((images - mean) / std)).numpy()


@pytest.mark.parametrize("how", REPAIRS, ids=lambda how: "-".join(how.values()))
def test_every_repair_is_exported_as_it_is(how: dict[str, str], tmp_path: Path) -> None:
    model = repaired(**how)
    found = sl.export(model, tmp_path / "net")
    assert found.difference <= 1e-5
    source = (tmp_path / "net" / "net.py").read_text()
    assert "import shiftlens" not in source
    net = plain_source.read_source(tmp_path / "net" / "net.py")
    images = np.random.default_rng(2).uniform(size=(3, 3, 20, 24)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(images)).numpy(), expected(model, images), atol=1e-5)


def test_it_runs_where_shiftlens_cannot_be_imported(tmp_path: Path) -> None:
    model = repaired(padding="symmetric", downsample="polyphase")
    sl.export(model, tmp_path / "net")
    batches, got = alone(ALONE, tmp_path / "net", tmp_path)
    for images, outputs in zip(batches, got, strict=True):
        np.testing.assert_allclose(outputs, expected(model, images), atol=1e-5)


def test_it_can_be_trained_further_and_has_the_models_own_names(tmp_path: Path) -> None:
    model = repaired(padding="partial")
    sl.export(model, tmp_path / "net")
    net = plain_source.read_source(tmp_path / "net" / "net.py")
    net(torch.rand(2, 3, 20, 24)).sum().backward()
    assert {name.removeprefix("net.") for name, _ in net.named_parameters()} == dict(chain().named_parameters()).keys()
    assert all(each.grad is not None for each in net.parameters())
    assert "device(type='cpu')" not in (tmp_path / "net" / "net.py").read_text()


class Named(nn.Module):
    """A net that returns a table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.conv(x)
        return {"out": y, "aux": y.mean((2, 3))}


def test_outputs_keep_their_form(tmp_path: Path) -> None:
    net = Named().eval()
    sl.export(sl.wrap(net, mean=[0.0] * 3, std=[1.0] * 3, size=(8, 9)), tmp_path / "net")
    made = plain_source.read_source(tmp_path / "net" / "net.py")(torch.ones(2, 3, 8, 9))
    assert list(made) == ["out", "aux"]
    torch.testing.assert_close(made["aux"], net(torch.ones(2, 3, 8, 9))["aux"])


@pytest.mark.parametrize(
    "how",
    [{"padding": "symmetric", "downsample": "polyphase"}, {"downsample": "blur"}],
    ids=lambda how: "-".join(how.values()),
)
def test_an_onnx_file_takes_any_number_of_images(how: dict[str, str], tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    model = repaired(**how)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of torch's exporter, for its developers
        found = sl.export(model, tmp_path / "net.onnx")
    assert found.format == "onnx"
    assert found.difference <= 1e-5
    batches, got = alone(ALONE_ONNX, tmp_path / "net.onnx", tmp_path)
    for images, outputs in zip(batches, got, strict=True):
        np.testing.assert_allclose(outputs, expected(model, images), atol=1e-5)


def test_a_run_directory_is_exported_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from shiftlens.data.preprocessing import Preprocessing
    from shiftlens.models.runs import save_run

    net = VGG("vgg6", n_classes=4, padding="symmetric")
    save_run(
        tmp_path / "run",
        net,
        build={"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config},
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, (32, 32)),
    )
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "run"), "--format", "torch", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "torch"
    assert [Path(file).name for file in found["files"]] == ["net.py", "weights.pt"]
    assert main(["export", str(tmp_path / "run"), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--out", str(out), "--overwrite", "--batch", "3"]) == 0
    assert main(["export", "--out", str(out)]) == 2
    assert "expected a model to export" in capsys.readouterr().err


class Branching(nn.Module):
    """What it computes depends on the numbers in the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


def test_bad_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = repaired(padding="symmetric")
    with pytest.raises(InputError, match="did you mean 'torch'"):
        sl.export(model, tmp_path / "net", "troch")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="plain callable"):
        sl.export(sl.wrap(lambda x: x.mean((2, 3)), mean=[0.0] * 3, std=[1.0] * 3, size=8), tmp_path / "net")
    with pytest.raises(InputError, match=r"torch\.export cannot trace this net"):
        sl.export(sl.wrap(Branching(), mean=[0.0] * 3, std=[1.0] * 3, size=8), tmp_path / "net")
    with pytest.raises(InputError, match="at least 1"):
        sl.export(model, tmp_path / "net", batch=0)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(StoreError, match="something else"):
        sl.export(model, tmp_path / "other")
    with pytest.raises(StoreError, match="is a file"):
        sl.export(model, tmp_path / "other" / "letter.txt")
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX needs onnx, onnxscript, onnxruntime: pip install 'shiftlens\[onnx\]'"):
        sl.export(model, tmp_path / "net.onnx")


def test_files_that_differ_from_the_model_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(source: Path) -> exported.Run:
        net = plain_source.read_source(source)
        return lambda images: [net(images.flip(-1)).detach()]

    monkeypatch.setattr(exported, "_run_torch", spoiled)
    with pytest.raises(InputError, match="differs from the model by"):
        sl.export(repaired(padding="symmetric"), tmp_path / "net")
    assert list((tmp_path / "net").iterdir()) == []
