"""Make the image that a reader drags on the site's front page: `python docs/draw_stage.py`.

A small VGG is trained on the embedded handwritten digits (scikit-learn's, BSD licence) and swept over 40 test images.
What the page shows of them is written to docs/images/stage.json; the site's hook (site_hooks.py) makes the page of it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import shiftlens as sl
from shiftlens.reporting.stage_part import stage_part
from shiftlens.reporting.thumbnails import Source
from shiftlens.training import TrainSettings

OUT = Path(__file__).parent / "images" / "stage.json"
N_IMAGES, REACH, EPOCHS = 40, 16, 16


def main() -> None:
    """Train, sweep, write."""
    images = sl.load_images("digits", split="test", limit=N_IMAGES)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainSettings(arch="vgg8", width=8, epochs=EPOCHS)
        sl.train("digits", out=Path(folder) / "run", seed=0, settings=settings)
        model = sl.load_model(Path(folder) / "run")
        sweep = sl.sweep(model, images, sl.ShiftGrid(REACH), out=Path(folder) / "vgg.zarr", dtype="float32")
        part = stage_part([sweep], ["a small VGG"], Source(images))
    assert part is not None
    OUT.write_text(json.dumps({"view": part.view, "data": part.data}, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB, {part.view['n']} images")


if __name__ == "__main__":
    main()
