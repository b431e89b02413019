"""What is known about a sweep besides its numbers, and the commands that would go on from it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shiftlens.nn.vgg import ARCHITECTURES
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import CONFIDENCE
from shiftlens.sweeps.sweep_result import Sweep

EMBEDDED_DATA = ("digits", "cifar10")
PACKAGE_MODELS = ("pretrained:", "torchvision:", "timm:")


@dataclass(frozen=True)
class Setting:
    """How a sweep was made, as far as a reader must know it.

    Attributes
    ----------
    path
        Where it lies.
    model, data
        Specs as on the command line, or words in capitals where the sweep was made in Python from objects.
    n_images
        Of the whole sweep, missing ones too.
    max_shift, step, fill
        (y, x) px, px, and by name.
    fill_values
        What a constant fill is after the model's normalisation, one number a channel; None for a rule.
    image_size
        (h, w) in px.
    mean, std
        Of the normalisation; only where the command line needs them (a factory does not declare them).
    training
        What the run directory says about the model's training; {} when nothing is known.
    data_notes, model_notes
        Facts about images and model.
    control
        The control that this is, when a control was opened by itself.
    n_controlled
        For each control that was asked for: how many images are measured.
    n_population
        Of an adaptive sweep: the images that it could take; None for others.
    asked
        Of an adaptive sweep: the half-width that was asked for, in points.
    half_width, level
        Of one that is complete: the half-width of all accuracies together in points, and its confidence.
    """

    path: str = "SWEEP.zarr"
    model: str = "MODEL"
    data: str = "DATA"
    n_images: int | None = None
    max_shift: tuple[int, int] | None = None
    step: int = 1
    fill: str = "black"
    fill_values: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    data_notes: tuple[str, ...] = ()
    model_notes: tuple[str, ...] = ()
    control: str | None = None
    n_controlled: Mapping[str, int] = field(default_factory=dict)
    n_population: int | None = None
    asked: float | None = None
    half_width: float | None = None
    level: float = CONFIDENCE

    @staticmethod
    def of(sweep: Sweep) -> Setting:
        """Read it from a sweep's attributes."""
        header = sweep.header
        known_model = bool(header.training) or ":" in header.model
        factory = ":" in header.model and not header.model.startswith(PACKAGE_MODELS)
        declared = factory and header.preprocessing.declared
        mean, std = header.preprocessing.mean, header.preprocessing.std
        constant = header.fill.is_constant
        return Setting(
            path=str(sweep.path.parent if header.control else sweep.path),
            model=header.model if known_model else "MODEL",
            data=header.data if header.data in EMBEDDED_DATA or ":" in header.data else "DATA",
            n_images=sweep.n_images,
            max_shift=(header.grid.max_y, header.grid.max_x),
            step=header.grid.step,
            fill=header.fill.name,
            fill_values=header.fill.normalised(mean, std) if constant else None,
            image_size=header.image_size,
            mean=mean if declared else None,
            std=std if declared else None,
            training=header.training,
            data_notes=header.data_notes,
            model_notes=header.model_notes,
            control=header.control,
            n_controlled={name: sweep.control(name, partial=True).n_written for name in sweep.controls},
            n_population=sweep.n_population if header.schedule else None,
            asked=sweep.half_width_asked,
            half_width=sweep.half_width,
            level=header.schedule.level if header.schedule else CONFIDENCE,
        )

    def sweep_command(self, *, control: str = "", fill: str = "", step: int = 0) -> str:
        """The command that adds a control to this sweep, or makes another with one thing changed, in backticks."""
        words = ["shiftlens", "sweep", *self._model_and_data()]
        n_images = self.n_population or self.n_images
        if n_images is not None:
            words += ["--limit", str(n_images)]
        if self.asked is not None:
            words += ["--half-width", f"{self.asked:g}"]
        if self.max_shift and (self.image_size is None or self.max_shift != _default_reach(self.image_size)):
            words += ["--max-shift", f"{self.max_shift[0]}x{self.max_shift[1]}"]
        if (step or self.step) != 1:
            words += ["--step", str(step or self.step)]
        if (fill or self.fill) != "black":
            words += ["--fill", fill or self.fill]
        if control:
            words += ["--control", control]
        changed = f"-{fill}" if fill else f"-step{step}" if step else ""
        path = Path(self.path)
        words += ["--out", str(path.with_name(f"{path.stem}{changed}.zarr")) if changed else self.path]
        return f"`{shlex.join(words)}`"

    def narrower_command(self) -> str:
        """The command that goes on with an adaptive sweep to half its half-width, in backticks."""
        return replace(self, asked=(self.asked or 0.0) / 2).sweep_command()

    def wider_command(self) -> str:
        """The command that makes another sweep, twice as far out, in backticks."""
        path = Path(self.path)
        reach = self.max_shift or (16, 16)
        wide = replace(self, max_shift=(2 * reach[0], 2 * reach[1]), path=str(path.with_name(f"{path.stem}-wide.zarr")))
        return wide.sweep_command()

    def evaluate_command(self, dx: int, dy: int) -> str:
        """The command that measures one shift, in backticks."""
        words = ["shiftlens", "evaluate", *self._model_and_data(), "--shift", str(dx), str(dy)]
        if self.fill != "black":
            words += ["--fill", self.fill]
        return f"`{shlex.join(words)}`"

    def train_command(self, *, downsample: str = "") -> str:
        """The command that trains such a net with another padding (or down-sampling), in backticks."""
        asked = self.training.get("asked")
        settings = asked.get("settings", {}) if isinstance(asked, Mapping) else {}
        words = ["shiftlens", "train", "--data", self.data]
        if settings.get("arch") in ARCHITECTURES:
            words += ["--arch", settings["arch"]]
        if downsample:
            words += ["--downsample", downsample, "--out", f"runs/{downsample}"]
        else:
            other = "circular" if settings.get("padding") == "reflect" else "reflect"
            words += ["--padding", other, "--out", f"runs/{other}"]
        return f"`{shlex.join(words)}`"

    def plot_command(self) -> str:
        """The command that draws the sweep, in backticks."""
        return f"`{shlex.join(['shiftlens', 'plot', self.path, '--out', 'pictures'])}`"

    def _model_and_data(self) -> list[str]:
        words = ["--model", self.model, "--data", self.data]
        for option, numbers in (("--mean", self.mean), ("--std", self.std)):
            if numbers is not None:
                words += [option, ",".join(f"{number:g}" for number in numbers)]
        return words


def _default_reach(size: tuple[int, int]) -> tuple[int, int]:
    grid = ShiftGrid.default_for(size)
    return grid.max_y, grid.max_x
