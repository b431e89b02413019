"""Why tiles of known nets differ from the whole image's output, and what MONAI's and SAHI's tiles leave.

    python benchmarks/tile_causes.py --out docs/benchmarks/tile_causes.json [--only NAME]

Nets: the shipped U-Net; U-Net and DeepLabV3+ of segmentation-models-pytorch, and MONAI's BasicUNet (instance norm), all
with random weights; PP-OCRv4 text detection as rapidocr-onnxruntime ships it. Images: photographs and lines of a page
that scikit-image ships, and digits-scenes side by side. Packages that are not installed are left out, and said.

The tools are run with the arguments that the recipe prints: MONAI's inferer itself; of SAHI the slices, whose outputs
are averaged here, since it stitches boxes and no maps.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import shiftlens as sl
from header import header
from text_maps import make as text_detector

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def photographs(size: int) -> sl.ImageSet:
    from PIL import Image
    from skimage import data

    made = []
    for each in (data.astronaut(), data.coffee()):
        h, w = each.shape[:2]
        side = min(h, w)
        square = each[(h - side) // 2 :, (w - side) // 2 :][:side, :side]
        made.append(np.asarray(Image.fromarray(square).resize((size, size))).transpose(2, 0, 1))
    return sl.ImageSet(np.stack(made), [0] * len(made), name=f"scikit-image's photographs at {size}x{size}")


def strips() -> sl.ImageSet:
    """Bands of a photograph side by side, 128x3072: much longer than what DeepLab sees, and cheap."""
    pixels = photographs(768).batch([0, 1]).reshape(2, 3, 6, 128, 768)[:, :, 1:5]
    made = pixels.transpose(0, 1, 3, 2, 4).reshape(2, 3, 128, 3072)
    return sl.ImageSet(made, [0, 0], name="bands of scikit-image's photographs, 128x3072")


def lines_of_text() -> sl.ImageSet:
    """Two lines of a page each, as long as the reach of the text detector asks for: 128x1536."""
    from PIL import Image
    from skimage import data

    grey = np.asarray(Image.fromarray(data.page()).resize((1536, 768)))
    strips = np.stack([grey[top : top + 128] for top in (192, 416)])
    return sl.ImageSet(np.repeat(strips[:, None], 3, 1), [0, 0], name="lines of scikit-image's page, 128x1536")


def scenes(n: int = 2) -> sl.ImageSet:
    """Each of 9 scenes side by side: 288x288."""
    source = sl.load_images("digits-scenes", split="test", limit=9 * n)
    pixels = source.batch(range(9 * n)).reshape(n, 3, 3, 1, 96, 96)
    return sl.ImageSet(pixels.transpose(0, 3, 1, 4, 2, 5).reshape(n, 1, 288, 288), [0] * n, name="digits-scenes, 3x3")


def shipped() -> sl.Model:
    return sl.load_model("pretrained:unet-digits", input_size=288)


def smp(kind: str) -> sl.Model:
    import segmentation_models_pytorch as library

    net = getattr(library, kind)("resnet18", encoder_weights=None, classes=3)
    return sl.wrap(net, **IMAGENET, name=f"segmentation-models-pytorch {kind}, resnet18, random weights")


def monai() -> sl.Model:
    from monai.networks.nets import BasicUNet

    net = BasicUNet(spatial_dims=2, in_channels=3, out_channels=3, features=(16, 16, 32, 64, 128, 16))
    return sl.wrap(net, **IMAGENET, name="MONAI BasicUNet, instance norm, random weights")


def text_detection() -> sl.Model:
    return sl.wrap(text_detector(), mean=0.5, std=0.5, name="PP-OCRv4 text detection, by onnx2torch")


CASES: dict[str, tuple[Callable[[], sl.Model], Callable[[], sl.ImageSet], int, str]] = {
    "unet-digits": (shipped, scenes, 64, "segmentation"),
    "smp-unet": (lambda: smp("Unet"), lambda: photographs(640), 320, "segmentation"),
    "smp-deeplab": (lambda: smp("DeepLabV3Plus"), strips, 256, "segmentation"),
    "monai-basicunet": (monai, lambda: photographs(384), 160, "segmentation"),
    "pp-ocrv4": (text_detection, lines_of_text, 256, "segmentation"),
}


def of_tool(call: str, net: Callable[[Tensor], Tensor], x: Tensor, whole: Tensor) -> float | None:
    """What the tool itself leaves, by the arguments that were printed: mean |difference|."""
    if call.startswith("SlidingWindowInferer"):
        from monai.inferers import SlidingWindowInferer

        inferer = eval(call, {"SlidingWindowInferer": SlidingWindowInferer})
        return float((inferer(x, net) - whole).abs().mean())
    from sahi.slicing import get_slice_bboxes

    found = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", call)}
    sides = {name: int(found[name]) for name in ("slice_height", "slice_width")}
    ratios = {name: found[name] for name in ("overlap_height_ratio", "overlap_width_ratio")}
    total, n = torch.zeros_like(whole), torch.zeros_like(whole)
    for left, top, right, bottom in get_slice_bboxes(x.shape[2], x.shape[3], **sides, **ratios):
        total[:, :, top:bottom, left:right] += net(x[:, :, top:bottom, left:right])
        n[:, :, top:bottom, left:right] += 1
    return float((total / n - whole).abs().mean())


def measured(name: str) -> Iterator[dict[str, Any]]:
    """What is known of a net so far, more each time: the report, `predict_tiled`, what each tool leaves."""
    make, images_of, tile, task = CASES[name]
    torch.manual_seed(0)
    begin = time.perf_counter()
    model, images = make(), images_of()
    report = sl.tile_report(model, images, tile=tile, task=task)
    print(report, flush=True)
    found = report.to_dict() | {"seconds": round(time.perf_counter() - begin)}
    yield found
    if report.size == images.size:
        found["predict_tiled"] = _exactness(model, images, int(report.recipe["tile"]))
        yield found
        found["tools"] = {}
        for tool in ("monai", "sahi"):
            left = [_left(model, images, k, report.recipe[tool]) for k in range(len(images))]
            found["tools"][tool] = float(np.mean(left))
            yield found


def _left(model: sl.Model, images: sl.ImageSet, position: int, call: str) -> float:
    x = model.preprocessing.normalise(torch.from_numpy(images.batch([position])))
    with torch.no_grad(), model.evaluating():
        value = of_tool(call, model.module, x, model.module(x))
    assert value is not None
    return value


def _exactness(model: sl.Model, images: sl.ImageSet, tile: int) -> dict[str, Any]:
    """The largest difference of `predict_tiled` from the whole image's output, as a share of its range."""
    pixels = torch.from_numpy(images.batch([0]))
    with torch.no_grad(), model.evaluating():
        whole = model.module(model.preprocessing.normalise(pixels))
    try:
        made = sl.predict_tiled(model, pixels[0], tile=tile, quiet=True)
    except sl.InputError as error:
        return {"refused": str(error)}
    return {"largest": float((made - whole[0]).abs().max() / (whole.max() - whole.min()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=tuple(CASES))
    given = parser.parse_args()
    old = json.loads(given.out.read_text())["nets"] if given.out.exists() else {}
    for name in [given.only] if given.only else CASES:
        try:
            for found in measured(name):
                old[name] = found
                given.out.write_text(json.dumps(header(nets=old), indent=1) + "\n")
        except ImportError as error:
            print(f"{name}: left out ({error})")


if __name__ == "__main__":
    main()
