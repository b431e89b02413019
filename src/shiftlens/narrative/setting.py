"""How a sweep was made, and the commands that continue from it: each a tuple of arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shiftlens.nn.vgg import ARCHITECTURES
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import CONFIDENCE
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.sweep_result import Sweep

EMBEDDED_DATA = ("digits", "cifar10")
PACKAGE_MODELS = ("pretrained:", "torchvision:", "timm:")

Command = tuple[str, ...]


def metric_option(metric: str | None) -> Command:
    """The option of a command that names a metric; nothing for the default."""
    return () if metric is None else ("--metric", metric)


@dataclass(frozen=True)
class Setting:
    """What is known about a sweep besides its numbers.

    Attributes
    ----------
    header
        Of the sweep.
    path
        Where it lies; of a control, where its sweep lies.
    n_images
        Of the whole sweep, missing ones too.
    n_controlled
        For each control that was asked for: how many images are measured.
    n_population
        Of an adaptive sweep: the images that it could take; None for others.
    half_width_asked, half_width
        Of an adaptive sweep, in points: what was asked for; what is reached for all shifts together, once complete.
    metric
        What was asked for; None for the default.
    """

    header: SweepHeader
    path: Path = Path("SWEEP.zarr")
    n_images: int | None = None
    n_controlled: Mapping[str, int] = field(default_factory=dict)
    n_population: int | None = None
    half_width_asked: float | None = None
    half_width: float | None = None
    metric: str | None = None

    @staticmethod
    def of(sweep: Sweep, metric: str | None = None) -> Setting:
        """Read it from a sweep."""
        return Setting(
            sweep.header,
            sweep.path.parent if sweep.header.control else sweep.path,
            sweep.n_images,
            {name: sweep.control(name, partial=True).n_written for name in sweep.controls},
            sweep.n_population if sweep.header.schedule else None,
            sweep.half_width_asked,
            sweep.half_width,
            metric,
        )

    @property
    def model(self) -> str:
        """The spec as on the command line; MODEL where the sweep was made in Python from an object."""
        known = bool(self.header.training) or ":" in self.header.model
        return self.header.model if known else "MODEL"

    @property
    def data(self) -> str:
        """The spec as on the command line; DATA where the sweep was made in Python from an object."""
        return self.header.data if self.header.data in EMBEDDED_DATA or ":" in self.header.data else "DATA"

    @property
    def fill(self) -> str:
        """The fill by name."""
        return self.header.fill.name

    @property
    def fill_values(self) -> tuple[float, ...] | None:
        """What a constant fill is after the model's normalisation, one number a channel; None for an index rule."""
        header = self.header
        if not header.fill.is_constant:
            return None
        return header.fill.normalised(header.preprocessing.mean, header.preprocessing.std)

    @property
    def level(self) -> float:
        """Confidence of `half_width`."""
        return self.header.schedule.level if self.header.schedule else CONFIDENCE

    def sweep_command(
        self,
        *,
        control: str = "",
        fill: str = "",
        step: int = 0,
        wider: bool = False,
        narrower: bool = False,
        model: str = "",
        out: str = "",
    ) -> Command:
        """Add a control to this sweep, or make another sweep with one thing changed; empty and 0 mean unchanged.

        `wider` doubles the largest shift, `narrower` halves the half-width of an adaptive sweep.
        """
        grid, usual = self.header.grid, ShiftGrid.default_for(self.header.image_size)
        reach, far = (grid.max_y, grid.max_x), 2 if wider else 1
        half = (self.half_width_asked or 0) / (2 if narrower else 1)
        changed = "-wide" if wider else f"-{fill}" if fill else f"-step{step}" if step else ""
        path = self.path.with_name(f"{self.path.stem}{changed}.zarr") if changed else self.path
        options = {
            "--limit": self.n_population or self.n_images,
            "--half-width": f"{half:g}" if half else None,
            "--max-shift": f"{far * reach[0]}x{far * reach[1]}"
            if wider or reach != (usual.max_y, usual.max_x)
            else None,
            "--step": (step or grid.step) if (step or grid.step) != 1 else None,
            "--fill": (fill or self.fill) if (fill or self.fill) != "black" else None,
            "--control": control or None,
            "--out": out or path,
        }
        given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        return ("shiftlens", "sweep", *self._model_and_data(model), *given)

    def evaluate_command(self, dx: int, dy: int) -> Command:
        """Measure one shift."""
        fill = () if self.fill == "black" else ("--fill", self.fill)
        return ("shiftlens", "evaluate", *self._model_and_data(), "--shift", str(dx), str(dy), *fill)

    def train_command(self, *, downsample: str = "") -> Command:
        """Train such a net with another padding, or with another down-sampling."""
        asked = self.header.training.get("asked")
        settings = asked.get("settings", {}) if isinstance(asked, Mapping) else {}
        arch = ("--arch", settings["arch"]) if settings.get("arch") in ARCHITECTURES else ()
        padding = "circular" if settings.get("padding") == "reflect" else "reflect"
        change = ("--downsample", downsample) if downsample else ("--padding", padding)
        return ("shiftlens", "train", "--data", self.data, *arch, *change, "--out", f"runs/{change[1]}")

    def plot_command(self) -> Command:
        """Draw the sweep."""
        return ("shiftlens", "plot", str(self.path), *metric_option(self.metric), "--out", "figures")

    def _model_and_data(self, other: str = "") -> list[str]:
        header, words = self.header, ["--model", other or self.model, "--data", self.data]
        # A factory does not declare its normalisation: the command line needs it.
        factory = not other and ":" in header.model and not header.model.startswith(PACKAGE_MODELS)
        if factory and header.preprocessing.declared:
            for option, numbers in (("--mean", header.preprocessing.mean), ("--std", header.preprocessing.std)):
                words += [option, ",".join(f"{number:g}" for number in numbers)]
        return words
