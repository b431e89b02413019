"""docs/how-to/use-a-repaired-model.md runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import shiftlens as sl
from shiftlens import surgery

pytestmark = [
    pytest.mark.docs,
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

DOC = Path(__file__).parents[2] / "docs" / "how-to" / "use-a-repaired-model.md"


def run(repair: dict[str, str]) -> dict[str, Any]:
    model = sl.load_model("pretrained:vgg-cifar10")
    repaired, edits = surgery.repair(model, **repair)
    surgery.save_repaired("runs/vgg-blur", repaired, surgery.origin_of("pretrained:vgg-cifar10", model), edits)
    space: dict[str, Any] = {"__name__": "doc"}
    for block in re.findall(r"^```python\n(.*?)^```", DOC.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(block, DOC.name, "exec"), space)
    return space


def test_every_line_runs_and_the_exports_give_the_nets_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = run({"downsample": "blur"})
    other, expected = space["other"], space["deployed"](space["other"])
    for exported in (space["loaded"], torch.jit.load("vgg-blur.pt")):
        torch.testing.assert_close(exported(other), expected, rtol=0, atol=1e-5)


def test_circular_padding_is_saved_by_way_of_the_exported_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net, _ = sl.repair(sl.nn.VGG("vgg6", width=4).eval(), padding="circular")
    x, other = torch.rand(2, 3, 32, 32), torch.rand(5, 3, 32, 32)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with pytest.raises(RuntimeError, match="Could not export Python function"):
        torch.jit.trace(net, x).save("net.pt")
    torch.jit.trace(program, x).save("net.pt")
    torch.testing.assert_close(torch.jit.load("net.pt")(other), net(other), rtol=0, atol=1e-6)
