"""PP-OCRv4 text detection: its squeeze-and-excitation blocks read the whole page, and its tiles are exact."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import shiftlens as sl


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_ten_pools_in_five_passes_give_the_whole_pages_output() -> None:
    pytest.importorskip("onnx2torch")
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or not package.submodule_search_locations:
        pytest.skip("rapidocr-onnxruntime is not installed")
    file = Path(package.submodule_search_locations[0]) / "models" / "ch_PP-OCRv4_det_infer.onnx"
    model = sl.load_model(f"onnx:{file}", mean=0.5, std=0.5)
    model.module.double()  # in float32 the net itself makes 1e-5 of rounding
    y, x = np.mgrid[:32, :1216]
    strokes = 235 - 200 * ((x // 3 % 5 < 2) & (abs(y - 16) < 9) & (x % 140 < 110))
    image = torch.from_numpy(np.repeat(strokes[None].astype(np.uint8), 3, 0))
    with torch.no_grad(), model.evaluating():
        whole = model.module(model.preprocessing.normalise(image[None]).double())[0]
    said: list[int] = []
    found = sl.predict_tiled(model, image, tile=1184, quiet=True, progress=lambda done, total: said.append(total))
    assert said[0] == 5 * 5  # tiles and passes
    assert float((found - whole).abs().max() / (whole.max() - whole.min())) <= 1e-10
