"""`shiftlens repair` end to end on a handful of digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from shiftlens.cli import main
from shiftlens.data.digits import open_digits
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models.loading import load_model
from shiftlens.models.runs import save_run
from shiftlens.models.skeletons import load_skeleton
from shiftlens.nn import VGG

FEW = ["--data", "digits", "--limit", "40", "--quiet", "--json"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = VGG("vgg6", width=2, downsample="stride", size=32).eval()
    save_run(
        tmp_path / "run",
        net,
        build={"factory": "shiftlens.nn.vgg:VGG", "kwargs": net.config},
        preprocessing=Preprocessing((0.1,) * 3, (0.3,) * 3, (32, 32), None, "bilinear", True),
        class_names=open_digits().class_names,
    )
    return tmp_path / "run"


def test_repair_of_a_repair_is_a_model_like_any_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["repair", "--model", str(run), "--padding", "reflect", "--out", str(first), *FEW]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(first)
    assert len(told["edits"]) == 9
    assert told["edits"][0] == {"path": "0.0", "what": "padding", "before": "zeros", "after": "reflect"}
    assert told["before"]["n"] == told["after"]["n"] == 40
    more = ["--downsample", "blur", "--size", "even", "--reestimate", "--finetune-epochs", "1", "--lr", "0.001"]
    more += ["--finetune-shift", "5", "--flip"]
    assert main(["repair", "--model", str(first), *more, "--out", str(second), *FEW]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [edit["what"] for edit in told["edits"]] == ["downsample"] * 3 + ["input size"]
    assert [each["kind"] for each in told["healed"]] == ["batch norm", "fine-tune"]
    assert told["healed"][1]["settings"]["shift"] == 5
    assert told["healed"][1]["settings"]["flip"] == "alternating"

    model = load_model(second)
    assert model.input_size == (33, 33)
    assert model.module[0][6].layer.padding_mode == "reflect"
    spec = json.loads((second / "model.json").read_text())
    assert spec["parents"] == [load_model(run).digest, load_model(first).digest]
    assert len(spec["edits"]) == 13
    assert spec["training"]["healed"] == told["healed"]
    assert spec["metrics"]["accuracy"] == told["after"]["accuracy"]
    skeleton = load_skeleton(second).module
    assert repr(skeleton) == repr(model.module)

    assert main(["evaluate", "--model", str(second), *FEW]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == told["after"]["accuracy"]
    assert main(["inspect", "--model", str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["even"] is True


def test_what_people_read(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    command = ["repair", "--model", str(run), "--padding", "circular", "--only", "0", "--out", out]
    assert main([*command, "--data", "digits", "--limit", "20", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0.0: padding zeros -> circular"
    assert "accuracy at (0, 0):" in lines[-2]
    assert lines[-1] == f"wrote {out}"
    command = ["repair", "--model", str(run), "--finetune-epochs", "1", "--no-flip", "--out", f"{out}-tuned"]
    assert main([*command, "--data", "digits", "--limit", "40", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fine-tune: 32 images of digits, 1 epoch of 2 steps, no mirror images, loss ")
    assert lines[1].startswith("expect little of fewer than ")


def test_pictures_may_be_padded_to_the_even_size(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["repair", "--model", str(run), "--size", "even", "--size-by", "symmetric", "--out", str(out), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["edits"][0]["sides"] == [0, 1, 0, 1]
    model = load_model(out)
    assert model.input_size == (32, 32)
    assert torch.isfinite(model.scores(torch.zeros(1, 3, 32, 32))).all()


def test_the_split_says_what_is_learnt_from_or_measured_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["repair", "--model", str(run), "--padding", "reflect", "--data", "digits", "--quiet", "--json"]
    found = {}
    for split in ("train", "all"):
        assert main([*base, "--split", split, "--out", str(tmp_path / split)]) == 0
        found[split] = json.loads(capsys.readouterr().out)["after"]["n"]
    assert found == {"train": 1438, "all": 1797}
    learns = [*base, "--limit", "60", "--reestimate", "--split"]
    assert main([*learns, "all", "--out", str(tmp_path / "learnt")]) == 0
    said = json.loads(capsys.readouterr().out)
    # What is learnt from measures nothing.
    assert (said["before"], said["after"]) == (None, None)
    assert said["healed"][0]["n_images"] == 60


def test_a_library_net(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    spec = "torchvision:shufflenet_v2_x0_5"
    command = ["repair", "--model", spec, "--weights", "random", "--input-size", "64", "--padding", "symmetric"]
    assert main([*command, "--downsample", "polyphase", "--out", str(out), "--json", "--quiet"]) == 0
    capsys.readouterr()
    assert load_model(out).n_classes == 1000


@pytest.mark.filterwarnings("always::shiftlens.errors.NoEffectWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to repair"),
        (["--padding", "mirror"], "unknown padding mode 'mirror'"),
        (["--downsample", "max"], "unknown down-sampling 'max'"),
        (["--padding", "reflect", "--only", "features"], "unknown layer 'features'"),
        (["--size", "big"], "--size must be H or HxW"),
        (["--size", "even", "--size-by", "stretch"], "unknown padding mode 'stretch'"),
        (["--reestimate"], "need images: give --data"),
        (["--finetune-epochs", "2"], "need images: give --data"),
        (["--finetune-shift", "4", "--reestimate", "--data", "digits"], "--finetune-shift needs --finetune-epochs"),
        (["--no-flip", "--reestimate", "--data", "digits"], "--flip needs --finetune-epochs"),
        (
            ["--finetune-shift", "-1", "--finetune-epochs", "1", "--data", "digits"],
            "shift must be at least 0 pixels, got -1",
        ),
        (["--finetune-epochs", "-1"], "epochs must be at least 1, got -1"),
        (["--finetune-epochs", "1", "--lr", "0", "--data", "digits"], "lr must be above 0"),
        (["--padding", "zeros"], "nothing was changed"),
        (["--padding", "reflect", "--size", "even", "--size-by", "partial"], "for a convolution only"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(
    arguments: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["repair", "--model", str(run), *arguments, "--out", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert message in said.splitlines()[-1]
    assert [line for line in said.splitlines() if not line.startswith("warning: ")] == said.splitlines()[-1:]
    assert not out.exists()


def test_other_classes_and_unnamed_code_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = json.loads((run / "model.json").read_text())
    spec["class_names"] = [f"animal {k}" for k in range(10)]
    (run / "model.json").write_text(json.dumps(spec))
    command = ["repair", "--model", str(run), "--padding", "reflect", "--finetune-epochs", "1"]
    assert main([*command, *FEW[:4], "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "not the same task" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("from shiftlens.nn import VGG\ndef make():\n    return VGG('vgg6', width=2)\n")
    own = ["repair", "--model", "own.py:make", "--input-size", "32", "--mean", "0.5", "--padding", "reflect"]
    assert main([*own, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--model", str(tmp_path / "out"), "--limit", "4", "--quiet"]) == 2
    assert "is run only where you name it: give --code own.py" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(tmp_path / "out"), "--code", "own.py", "--limit", "4", "--quiet"]) == 0
    capsys.readouterr()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert main([*own, "--out", str(tmp_path / "full"), "--quiet"]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_net_of_no_named_size_is_exported_with_the_size_that_repair_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("from shiftlens.nn import VGG\ndef make():\n    return VGG('vgg6', width=2)\n")
    command = ["repair", "--model", "own.py:make", "--mean", "0.5", "--std", "1", "--padding", "reflect", "--quiet"]
    sized = [[], ["--input-size", "32"]]
    for out, size in zip(("any", "named"), sized, strict=True):
        assert main([*command, *size, "--data", "digits", "--limit", "4", "--out", out]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "input size" in line] == [
        "any names no input size, since none was given: --input-size 32x32 where one is needed (export)"
    ]
    export = ["export", "any", "--code", "own.py", "--out", "deployed", "--quiet"]
    assert main(export) == 2
    assert "--input-size" in capsys.readouterr().err
    assert main([*export, "--input-size", "32x32"]) == 0
