"""Nets of torchvision, transformers and PP-OCR, and those that we ship: each held against a naive loop over windows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference_tasks as reference
import shiftlens as sl
from shiftlens.shifts import ShiftGrid, translate
from shiftlens.sweeping import sweep
from shiftlens.tasks.dense import Dense
from shiftlens.tasks.detection import Detection
from shiftlens.tasks.segmentation import Segmentation
from shiftlens.tasks.task import Task
from tasks.small_tasks import lively

pytestmark = pytest.mark.slow
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    from sklearn.datasets import load_sample_image

    picture = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float()
    return F.interpolate(picture, size, mode="bilinear", antialias=True).round().byte().numpy()


def torchvision_net(room: str, name: str, **options: Any) -> nn.Module:
    import torchvision.models

    torch.manual_seed(0)
    net: nn.Module = getattr(getattr(torchvision.models, room), name)(weights=None, weights_backbone=None, **options)
    return net.eval()


def faster_rcnn() -> nn.Module:
    """With norms as if trained a little, and last layers so weak that every class is seen."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    net = torchvision_net("detection", name, box_score_thresh=0.001, rpn_post_nms_top_n_test=30)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.fill_(0.25)  # type: ignore[union-attr]
    for layer in net.roi_heads.box_predictor.children():  # type: ignore[union-attr, operator]
        layer.weight.data *= min(1e-2 / float(layer.weight.detach().std()), 1.0)
    return net


def segformer() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, sr_ratios=[2, 1], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=5,
    )  # fmt: skip
    net: nn.Module = transformers.SegformerForSemanticSegmentation(config).eval()
    return net


class Boxes(nn.Module):
    """As a user's file would say it: a detector of transformers, then the library's own post-processing."""

    def __init__(self, net: nn.Module, scores_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.scores_of = net.eval(), scores_of

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = self.net(x)
        scores, labels = self.scores_of(found.logits).max(-1)
        centre, extent = found.pred_boxes[..., :2], found.pred_boxes[..., 2:]
        limits = x.new_tensor([x.shape[-1], x.shape[-2]] * 2)
        boxes = torch.cat([centre - extent / 2, centre + extent / 2], -1) * limits
        return [{"boxes": b, "scores": s, "labels": k} for b, s, k in zip(boxes, scores, labels, strict=True)]


def detr() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=12, num_labels=3,
    )  # fmt: skip
    net = transformers.DetrForObjectDetection(config)
    return Boxes(net, lambda logits: 2 * logits.softmax(-1)[..., :-1].clamp(max=0.5))


def rt_detr() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, decoder_in_channels=[16, 16, 16], decoder_ffn_dim=16, decoder_layers=1,
        decoder_attention_heads=2, num_queries=12, num_denoising=0, num_labels=3,
    )  # fmt: skip
    return Boxes(transformers.RTDetrForObjectDetection(config), torch.sigmoid)


def text_detector() -> Callable[[Tensor], Tensor]:
    runtime = pytest.importorskip("onnxruntime")
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or not package.submodule_search_locations:
        pytest.skip("rapidocr-onnxruntime is not installed")
    file = Path(package.submodule_search_locations[0]) / "models" / "ch_PP-OCRv4_det_infer.onnx"
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def ssd() -> nn.Module:
    return lively(torchvision_net("detection", "ssdlite320_mobilenet_v3_large", score_thresh=0.001))


LOW = Detection(score_threshold=0.012)
NETS: dict[str, tuple[Callable[[], Any], Task, tuple[int, int]]] = {
    "fcn_resnet50": (lambda: lively(torchvision_net("segmentation", "fcn_resnet50")), Segmentation(), (48, 64)),
    "deeplabv3": (
        lambda: lively(torchvision_net("segmentation", "deeplabv3_mobilenet_v3_large")), Segmentation(), (64, 64),
    ),
    "ssdlite320": (ssd, LOW, (64, 96)),
    "fasterrcnn_320": (faster_rcnn, LOW, (64, 96)),
    "SegFormer": (segformer, Segmentation(), (64, 64)),
    "DETR": (detr, Detection(score_threshold=0.25), (64, 64)),
    "RT-DETR": (rt_detr, Detection(score_threshold=0.005), (96, 96)),
    "PP-OCRv4": (text_detector, Dense(), (64, 96)),
}  # fmt: skip


def maps(found: Any, size: tuple[int, int]) -> Tensor:
    """The map of a net's answer for one image, [k, h, w]."""
    raw = found["out"] if isinstance(found, dict) and "out" in found else getattr(found, "logits", found)
    assert isinstance(raw, Tensor)
    return F.interpolate(raw, size, mode="bilinear", align_corners=False)[0] if raw.shape[-2:] != size else raw[0]


def table(found: Any) -> list[list[float]]:
    """The 100 best detections of a net's answer for one image."""
    rows = zip(found[0]["boxes"].tolist(), found[0]["scores"].tolist(), found[0]["labels"].tolist(), strict=True)
    return sorted(([*box, score, label] for box, score, label in rows), key=lambda row: -row[4])[:100]


def check(
    net: Any, task: Task, pixels: Any, targets: Any, swept: sl.Sweep, mean: Any, std: Any, kind: Any = torch.float32
) -> None:
    size = pixels.shape[-2:]
    at = {name: torch.tensor(values)[:, None, None] for name, values in (("mean", mean), ("std", std))}
    x = (torch.from_numpy(pixels).float() / 255 - at["mean"]) / at["std"]
    names = [each.name for each in swept.metrics]
    # The radius of the receptive field, at most a quarter of the frame: test_swept_tasks has it by hand.
    margin = int(swept.header.task.settings.get("margin", 0))
    assert isinstance(task, Detection) or 0 < margin <= min(size) // 4
    with torch.no_grad():
        for k in range(len(x)):
            still = net(x[[k]].to(kind))
            for iy, dy in enumerate(swept.grid.dys.tolist()):
                for ix, dx in enumerate(swept.grid.dxs.tolist()):
                    black = torch.from_numpy(translate(torch.from_numpy(pixels[[k]]), dx, dy, fill="black").numpy())
                    found, shift = net(((black.float() / 255 - at["mean"]) / at["std"]).to(kind)), (dx, dy)
                    if isinstance(task, Detection):
                        rows = reference.detection(targets[k], table(found), shift, size, task.score_threshold)
                    else:
                        pair = maps(found, size).numpy(), maps(still, size).numpy()
                        if isinstance(task, Dense):
                            rows = reference.dense(*pair, shift, margin)
                        else:
                            rows = reference.segmentation(*pair, None if targets is None else targets[k], shift, margin)
                    for name, expected in rows.items():
                        if name in names:
                            got = swept.cells(name)[k : k + 1][0, iy, ix]
                            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5, err_msg=f"{name} {shift}")


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_a_library_is_a_naive_loop(name: str, tmp_path: Path) -> None:
    make, task, size = NETS[name]
    net, pixels = make(), photograph(size)
    targets: Any = None
    if isinstance(task, Segmentation):
        targets = np.random.default_rng(0).integers(0, 5, (1, *size), dtype=np.uint8)
    given: Any = targets
    x = (torch.from_numpy(pixels).float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    if isinstance(task, Detection):
        # Boxes near what the net sees, so that some match.
        with torch.no_grad():
            seen = [row for row in table(net(x)) if row[2] - row[0] > 4 and row[3] - row[1] > 4][:6]
        assert seen
        limits = (size[1], size[0]) * 2
        targets = [[[*(min(max(v, 0.0), m) for v, m in zip(r[:4], limits, strict=True)), r[5]] for r in seen]]
        given = [{"boxes": [row[:4] for row in each], "labels": [int(row[4]) for row in each]} for each in targets]
    model = sl.wrap(net, mean=MEAN, std=STD, size=size, name=name)
    # Of two classes that are nearly tied, rounding chooses one, and another processor the other.
    kind = torch.float64 if isinstance(task, Segmentation) else torch.float32
    options: dict[str, Any] = {"engine": "direct", "dtype": str(kind).removeprefix("torch."), "batch_size": 1}
    made = sweep(model, sl.ImageSet(pixels, given), ShiftGrid((0, 4), 4), out=tmp_path / "s.zarr", task=task, **options)
    check(net.to(kind) if kind == torch.float64 else net, task, pixels, targets, made, MEAN, STD, kind)


@pytest.mark.parametrize(("net", "task"), [("unet", Segmentation()), ("unet", Dense()), ("detector", Detection())])
def test_a_shipped_net_is_a_naive_loop(net: str, task: Task, tmp_path: Path) -> None:
    images, model = sl.load_images("digits-scenes", limit=2), sl.load_model(f"pretrained:{net}-digits")
    made = sweep(model, images, ShiftGrid((12, 12), 12), out=tmp_path / "s.zarr", task=task, engine="direct")
    assert images.targets is not None
    targets: Any = None
    if isinstance(task, Segmentation):
        targets = np.asarray(images.targets.masks)
    elif isinstance(task, Detection):
        assert images.targets.boxes is not None
        targets = [[row for row in each.tolist() if row[4] >= 0] for each in images.targets.boxes]
    rule = model.preprocessing
    with model.evaluating():
        check(model.module, task, images.batch([0, 1]), targets, made, rule.mean, rule.std)
