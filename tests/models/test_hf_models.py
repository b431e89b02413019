"""`hf:DIR_OR_ID`: small models of transformers, saved and loaded; no code of theirs, no network in vain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shiftlens as sl
from shiftlens.cli import main
from shiftlens.errors import InputError
from shiftlens.models.loading import load_model

MESSAGE = r"pip install 'shiftlens\[hf\]'"


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=MESSAGE):
        load_model(f"hf:{tmp_path}")


hf: Any = pytest.importorskip("transformers")


def classifier(folder: Path) -> torch.nn.Module:
    config = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={}
    )
    torch.manual_seed(7)
    net = hf.ResNetForImageClassification(config).eval()
    net.save_pretrained(folder)
    settings = {
        "image_processor_type": "ConvNextImageProcessor", "do_resize": True, "size": {"shortest_edge": 40},
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3,
        "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3],
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return net


def segmenter(folder: Path) -> torch.nn.Module:
    config = hf.SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=4,
    )  # fmt: skip
    torch.manual_seed(0)
    net = hf.SegformerForSemanticSegmentation(config).eval()
    net.save_pretrained(folder)
    return net


def detector(folder: Path) -> torch.nn.Module:
    backbone = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"])
    config = hf.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, backbone=None, use_pretrained_backbone=False,
        num_queries=6, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    net = hf.DetrForObjectDetection(config).eval()
    net.save_pretrained(folder)
    hf.DetrImageProcessor().save_pretrained(folder)
    return net


def test_a_classifier_has_its_names_and_its_preprocessing(tmp_path: Path) -> None:
    net = classifier(tmp_path)
    model = load_model(f"hf:{tmp_path}")
    p = model.preprocessing
    assert (model.class_names, p.size, p.resize, p.interpolation) == (("cat", "dog", "owl"), (32, 32), 40, "bicubic")
    assert (p.mean, p.std, p.declared, model.notes) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), True, ())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.scores(x), net(x).logits)
    assert model.digest == load_model(f"hf:{tmp_path}").digest
    other = load_model(f"hf:{tmp_path}", weights="random")
    assert other.digest == load_model(f"hf:{tmp_path}", weights="random").digest != model.digest


def test_a_segmenter_is_swept_as_a_loop_measures_it(tmp_path: Path) -> None:
    net = segmenter(tmp_path)
    rng = np.random.default_rng(0)
    images = sl.ImageSet(
        rng.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8), rng.integers(0, 4, (3, 32, 32), dtype=np.uint8)
    )
    with pytest.warns(UserWarning, match="declares no preprocessing"):
        found = sl.sweep(f"hf:{tmp_path}", images, sl.ShiftGrid(2), out=tmp_path / "s.zarr", task="segmentation")
    x = torch.from_numpy(images.batch([1])).float() / 255
    shifted = torch.zeros_like(x)
    shifted[:, :, 2:, 1:] = x[:, :, :-2, :-1]  # dx 1, dy 2
    with torch.no_grad():
        maps = [
            torch.nn.functional.interpolate(net(each).logits, (32, 32), mode="bilinear", align_corners=False).argmax(1)
            for each in (x, shifted)
        ]
    same = (maps[0][0, :-2, :-1] == maps[1][0, 2:, 1:]).float().mean()
    stored = found.dataset["pixel_agreement"].isel(image=1).sel(dx=1, dy=2)
    assert float(stored) == pytest.approx(float(same), abs=1e-5)


def test_a_detector_gives_boxes_in_pixels_by_its_processor(tmp_path: Path) -> None:
    net = detector(tmp_path)
    model = load_model(f"hf:{tmp_path}", input_size=(32, 64))
    x = torch.rand(2, 3, 32, 64)
    with torch.no_grad(), model.evaluating():
        found = model(x)
        raw = net(pixel_values=x)
    assert [sorted(each) for each in found] == [["boxes", "labels", "scores"]] * 2
    shares, labels = raw.logits.softmax(-1)[..., :-1].max(-1)
    torch.testing.assert_close(found[1]["scores"], shares[1])
    torch.testing.assert_close(found[1]["labels"], labels[1])
    x_center, y_center, width, height = raw.pred_boxes[1].unbind(-1)
    left = torch.stack([x_center - width / 2, y_center - height / 2], -1) * torch.tensor([64, 32])
    torch.testing.assert_close(found[1]["boxes"][:, :2], left)
    pixels = np.zeros((2, 3, 32, 64), np.uint8)
    images = sl.ImageSet(pixels, [{"boxes": [[4, 4, 20, 20]], "labels": [1]}] * 2)
    swept = sl.sweep(model, images, sl.ShiftGrid(1), out=tmp_path / "s.zarr", task="detection")
    assert swept.objects("object_confidence").shape[0] == 2


# ---- what is refused


def changed(folder: Path, **keys: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: changed(p, auto_map={"AutoModel": "evil.Net"}), "has auto_map, which would run other code"),
        (lambda p: changed(p, quantization_config={"load_in_8bit": True}), "has quantization_config"),
        (lambda p: changed(p, _attn_implementation="kernels-community/evil"), "wants the attention 'kernels-community"),
        (lambda p: changed(p, architectures=["BertForMaskedLM"]), "expected one of .ForImageClassification"),
        (lambda p: changed(p, model_type="none-such"), "its configuration cannot be read"),
        (lambda p: changed(p, hidden_sizes=[8, 24]), "its weights do not fit its configuration|cannot be read"),
        (lambda p: (p / "model.safetensors").write_bytes(b"x" * 99), "its weights cannot be read"),
        (lambda p: (p / "model.safetensors").unlink(), "its weights cannot be read"),
        (lambda p: (p / "config.json").unlink(), "is a folder without config.json"),
        (lambda p: (p / "preprocessor_config.json").write_text("{"), "preprocessor_config.json is no readable JSON"),
    ],
)
def test_directories_that_are_none_are_refused_in_a_line(
    tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    classifier(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('run')\n")
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_model(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> Any:
        return (sys.exit, ("unpickled",))


def test_a_pickle_that_runs_code_is_not_read(tmp_path: Path) -> None:
    classifier(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="its weights cannot be read"):
        load_model(f"hf:{tmp_path}")


def test_an_id_without_a_network_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: Any, **__: Any) -> Any:
        raise OSError("no network here")

    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="not in the cache and could not be downloaded") as caught:
        load_model("hf:nobody/no-such-model")
    assert "\n" not in str(caught.value)
    for spec in ("hf:../up", "hf:a/b/c", "hf:a b"):
        with pytest.raises(InputError, match="is no folder, and no id of the hub"):
            load_model(spec)


def test_what_a_run_directory_cannot_hold_is_repaired_by_the_line_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier(tmp_path / "net")
    command = ["repair", "--model", f"hf:{tmp_path / 'net'}", "--mean", "0.5,0.5,0.5", "--padding", "reflect"]
    assert main([*command, "--exclude", "*.embedder.*", "--size", "33", "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
    made: dict[str, Any] = {}
    exec(said.partition("repair it in Python: ")[2], made)
    assert made["edits"]
    assert not any(".embedder." in each.path for each in made["edits"])
    assert made["fixed"].preprocessing.mean == (0.5, 0.5, 0.5)
    assert made["fixed"].input_size == (33, 33)
    assert "reflect" in {getattr(each, "padding_mode", "") for each in made["fixed"].module.modules()}
