"""PP-OCRv4 text detection under shifts, on scikit-image's pictures: what docs/explanation/text-detection.md reports.

    pip install 'shiftlens[onnx]' rapidocr-onnxruntime scikit-image
    python text_maps.py prepare        # pictures/ and masks/: where text is seen unshifted
    shiftlens sweep --model text_maps.py:make --mean 0.5 --std 0.5 --data masks:pictures,masks --task segmentation \\
        --fill edge --max-shift 4 --out near.zarr        # and --max-shift 32 --step 8 --out far.zarr,
                                                         # and --max-shift 1x32 --out line.zarr
    python text_maps.py report         # the numbers, ocr-shift.png and ocr-line.png
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage, stats

import shiftlens as sl

SIDE = 384
LEAST = 200  # pixels of text that a picture needs
SHOWN = ("page", "coins")


class TwoClasses(torch.nn.Module):
    """Two logits a pixel: no text, text. Text is where the map is above 0.3, as in the package's configuration."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        text = self.net(images)
        return torch.cat([0.6 - text, text], 1)


def folder_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def make() -> torch.nn.Module:
    file = folder_of("rapidocr_onnxruntime") / "models" / "ch_PP-OCRv4_det_infer.onnx"
    return TwoClasses(sl.load_model(f"onnx:{file}", mean=0.5, std=0.5).module)


def seen(model: Any, pixels: np.ndarray, shift: int = 0, fill: str = "edge") -> np.ndarray:
    """Where text is seen [h, w] in an image [h, w, 3] that is moved to the right."""
    x = model.preprocessing.normalise(torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()))
    with torch.no_grad():
        return model(sl.translate(x, shift, 0, fill)).argmax(1)[0].numpy()


def prepare() -> None:
    """Of every picture the 384x384 with most text, at 1 to 3 times the size that fits its shorter side."""
    pictures, masks = Path("pictures"), Path("masks")
    pictures.mkdir(exist_ok=True)
    masks.mkdir(exist_ok=True)
    model = sl.wrap(make(), mean=0.5, std=0.5, size=SIDE)
    for file in sorted((folder_of("skimage") / "data").iterdir()):
        if file.suffix not in (".png", ".jpg") or file.stem.endswith(("right", "RGB")):
            continue  # the same picture twice
        with Image.open(file) as opened:
            image = opened.convert("RGBA" if opened.mode in ("P", "RGBA", "LA") else "RGB")
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        best: tuple[int, np.ndarray, np.ndarray] | None = None
        for times in (1, 2, 3):
            scale = times * SIDE / min(image.size)
            if not 0.7 <= scale <= 4.5:
                continue
            w, h = (max(SIDE, round(side * scale)) for side in image.size)
            pixels = np.asarray(image.resize((w, h), Image.Resampling.BICUBIC))
            for top in range(0, h - SIDE + 1, SIDE):
                for left in range(0, w - SIDE + 1, SIDE):
                    tile = pixels[top : top + SIDE, left : left + SIDE]
                    text = seen(model, tile).astype(np.uint8)
                    if text.sum() > (LEAST if best is None else best[0]):
                        best = (int(text.sum()), tile, text)
        if best is not None:
            Image.fromarray(best[1]).save(pictures / f"{file.stem}.png")
            Image.fromarray(best[2]).save(masks / f"{file.stem}.png")


def with_interval(values: np.ndarray) -> str:
    """Mean over pictures in per cent, and its 95 % interval (Student's t)."""
    mean, half = values.mean(), stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{100 * mean:.1f} [{100 * (mean - half):.1f}, {100 * (mean + half):.1f}]"


def report() -> None:
    """IoU of text by distance and by phase, and how far from an edge of text it changes."""
    for name in ("near", "far"):
        iou, dys, dxs = text_iou(name)
        distance = np.maximum(abs(dys[:, None]), abs(dxs[None]))
        for d in np.unique(distance)[1:]:
            print(f"{d} px: IoU of text {with_interval(iou[:, distance == d].mean(1))} %")
    iou, dys, dxs = text_iou("line")
    row = iou[:, dys == 0][:, 0]
    for stride in (2, 4, 8, 16, 32):
        print(f"dx mod {stride}: {with_interval(phase_effect(row, dxs, stride))} points")
    model = sl.wrap(make(), mean=0.5, std=0.5, size=SIDE)
    files = sorted(Path("pictures").glob("*.png"))
    kept = {}
    for shift in (1, 8, 32):
        near = []
        for file in files:
            pixels = np.asarray(Image.open(file))
            a, b = seen(model, pixels)[:, : SIDE - shift] == 1, seen(model, pixels, shift)[:, shift:] == 1
            edge = ndimage.distance_transform_edt(a) + ndimage.distance_transform_edt(~a)
            near.append(((a != b) & (edge <= 4)).sum() / max((a != b).sum(), 1))
            kept[file.stem, shift] = (a, b)
        print(f"{shift} px right: of changed pixels within 4 px of an edge of text {with_interval(np.array(near))} %")
    for fill in ("edge", "wrap"):
        kept_32 = []
        for file in files:
            pixels = np.asarray(Image.open(file))
            a, b = seen(model, pixels)[:, : SIDE - 32] == 1, seen(model, pixels, 32, fill)[:, 32:] == 1
            kept_32.append((a & b).sum() / max((a | b).sum(), 1))
        print(f"32 px right, fill {fill}: IoU of text {with_interval(np.array(kept_32))} %")
    draw(kept)
    draw_line(100 * row, dxs, [file.stem for file in files].index("page"))


def text_iou(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU of text with the unshifted map [picture, dy, dx], and the shifts."""
    data = sl.open_sweep(f"{name}.zarr").dataset
    common, union = (data[key].isel({"class": 1}).values for key in ("intersection", "union"))
    return common / np.maximum(union, 1), data["dy"].values, data["dx"].values


def phase_effect(row: np.ndarray, dxs: np.ndarray, stride: int) -> np.ndarray:
    """IoU [picture] at multiples of a stride, without 0, minus the mean of the two shifts half a stride beside."""
    at = [d for d in dxs if d % stride == 0 and d != 0 and abs(d) + stride // 2 <= dxs.max()]
    at = at or [d for d in dxs if abs(d) == stride]
    beside = [[d - stride // 2, d + stride // 2] if abs(d) + stride // 2 <= dxs.max() else [d - np.sign(d)] for d in at]
    place = {int(d): k for k, d in enumerate(dxs)}
    effects = [
        row[:, place[int(d)]] - row[:, [place[int(e)] for e in b]].mean(1) for d, b in zip(at, beside, strict=True)
    ]
    return np.mean(effects, axis=0)


def draw(kept: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(9.6, 5.0), layout="constrained")
    for row, name in zip(axes, SHOWN, strict=True):
        row[0].imshow(np.asarray(Image.open(f"pictures/{name}.png").convert("L")), cmap="gray")
        row[0].contour(np.pad(kept[name, 1][0], ((0, 0), (0, 1))), [0.5], colors="tab:orange", linewidths=1)
        row[0].set_title(f"{name}: text, unshifted", fontsize=9)
        for axis, shift in zip(row[1:], (1, 8, 32), strict=True):
            a, b = kept[name, shift]
            shown = np.full((*a.shape, 3), 255, np.uint8)
            shown[a & b], shown[a & ~b], shown[~a & b] = (205, 205, 205), (200, 60, 40), (40, 90, 190)
            axis.imshow(shown)
            axis.set_title(f"{shift} px right: IoU {100 * (a & b).sum() / (a | b).sum():.0f} %", fontsize=9)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.savefig("ocr-shift.png", dpi=90)
    Image.open("ocr-shift.png").convert("RGB").quantize(48).save("ocr-shift.png", optimize=True)


def draw_line(row: np.ndarray, dxs: np.ndarray, page: int) -> None:
    import matplotlib.pyplot as plt

    mean, half = row.mean(0), stats.t.ppf(0.975, len(row) - 1) * stats.sem(row)
    figure, axis = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    label = f"95 % interval over {len(row)} pictures"
    axis.fill_between(dxs, mean - half, np.minimum(mean + half, 100), alpha=0.2, lw=0, label=label)
    axis.plot(dxs, mean, label=f"mean of {len(row)} pictures")
    axis.plot(dxs, row[page], "--", label="the page")
    axis.set(ylim=(0, 102), xlim=(-32, 32), xticks=range(-32, 33, 8))
    axis.set(xlabel="shift dx (px), right is positive", ylabel="IoU of text (%)")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False, loc="lower center")
    figure.savefig("ocr-line.png", dpi=90)
    Image.open("ocr-line.png").convert("RGB").quantize(32).save("ocr-line.png", optimize=True)


if __name__ == "__main__":
    {"prepare": prepare, "report": report}[sys.argv[1]]()
