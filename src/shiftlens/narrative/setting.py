"""How a sweep was made, and the commands that continue from it: each a tuple of arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from shiftlens.data.images import DATA_KINDS
from shiftlens.given import CHANGED, MODEL_OPTIONS, option_words
from shiftlens.lens.feature_run import FeatureRun
from shiftlens.nn.vgg import ARCHITECTURES
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import CONFIDENCE
from shiftlens.sweeps.header import SweepHeader
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.tasks.classification import CLASSIFICATION

WHOLE_SPECS = tuple(name for name, kind in DATA_KINDS.items() if kind.is_optional or not kind.takes_argument)
"""Specs of images that are a name alone."""

PACKAGE_MODELS = ("pretrained:", "torchvision:", "timm:", "hf:", "onnx:")

Command = tuple[str, ...]


def metric_option(metric: str | None) -> Command:
    """The option of a command that names a metric; nothing for the default."""
    return () if metric is None else ("--metric", metric)


@dataclass(frozen=True)
class Named:
    """A model and images as a command line names them: specs, or MODEL and DATA where they have none, and options."""

    model: str = "MODEL"
    options: Mapping[str, Any] = field(default_factory=dict)
    data: str = "DATA"
    data_options: Mapping[str, Any] = field(default_factory=dict)
    n_images: int | None = None

    @staticmethod
    def of_run(run: FeatureRun) -> Named:
        """What a feature run knows of them."""
        model = named_model(run.model, run.model_options)
        data = data_named(run.data or "", run.data_options)
        return Named(model, run.model_options, data, run.data_options, run.n_images or None)

    @property
    def model_words(self) -> Command:
        """The options that make this model."""
        return ("--model", self.model, *(option_words(self.options, MODEL_OPTIONS) if self.model != "MODEL" else ()))

    @property
    def data_words(self) -> Command:
        """The options that open these images, beside their spec."""
        limit = () if self.n_images is None or self.data_options == CHANGED else ("--limit", str(self.n_images))
        return (*option_words(self.data_options, ("data_root", "split")), *limit)

    @property
    def code_words(self) -> Command:
        """What a run directory that is made of this model needs: the code of a user's own factory."""
        if _is_factory(self.model):
            return ("--code", self.model.rpartition(":")[0])
        return option_words(self.options, ("code",)) if self.model != "MODEL" else ()

    @property
    def skeleton_words(self) -> Command:
        """The options that name the net without its weights and preprocessing."""
        return ("--model", self.model, *option_words(self.options, ("code",)))

    def inspect_command(self, size: tuple[int, int]) -> Command:
        """Layer arithmetic at a size (h, w) in pixels, in which weights and preprocessing play no part."""
        return ("shiftlens", "inspect", *self.skeleton_words, "--size", f"{size[0]}x{size[1]}")

    def repair_command(self, out: str, *, padding: str = "", blur: bool = False, shift: int = 0) -> Command:
        """Repair it with another padding, or blur and fine-tuning with shifts."""
        how = ("--padding", padding) if padding else ("--downsample", "blur") if blur else ()
        words = ["shiftlens", "repair", *self.model_words, *how]
        if shift:
            words += ["--finetune-epochs", "2", "--finetune-shift", str(shift), "--data", self.data]
            words += option_words(self.data_options, ("data_root",))
        return (*words, "--out", out)

    def finetune_command(self, facts: Mapping[str, Any], out: str) -> Command:
        """Fine-tune it, unchanged, as another model was: `facts` of that one's run (`Healing.to_dict`)."""
        settings = facts.get("settings")
        given: Mapping[str, Any] = settings if isinstance(settings, Mapping) else {}
        words = ["shiftlens", "repair", *self.model_words]
        options = {"--finetune-epochs": "epochs", "--finetune-shift": "shift", "--lr": "lr", "--seed": "seed"}
        words += [word for option, name in options.items() if name in given for word in (option, str(given[name]))]
        words += {"none": ["--no-flip"], "alternating": ["--flip"]}.get(str(given.get("flip")), [])
        images = str(facts.get("images", self.data))
        words += ["--data", data_named(images, {})]
        words += option_words(self.data_options, ("data_root",)) if images == self.data else ()
        return (*words, "--out", out)


def _is_factory(spec: str) -> bool:
    return ":" in spec and not spec.startswith(PACKAGE_MODELS)


def named_model(name: str, options: Mapping[str, Any] | None = None, *, known: bool = False) -> str:
    """A model's name as the command line takes it; MODEL for what was only an object in Python."""
    return name if (known or ":" in name or "/" in name) and options != CHANGED else "MODEL"


def data_named(name: str, options: Mapping[str, Any]) -> str:
    """A source's name as the command line takes it; DATA for what was only an object, or chosen, in Python."""
    return name if (name in WHOLE_SPECS or ":" in name) and options != CHANGED else "DATA"


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
        Of an adaptive sweep, in points of a share: what was asked for; what is reached for all shifts together, once
        complete.
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

    @cached_property
    def named(self) -> Named:
        """The model and the images, as many as were to be measured."""
        header = self.header
        options: Mapping[str, Any] = header.model_options
        # Sweeps of older versions do not say what a factory was given beside its name.
        if _is_factory(header.model) and not options and header.preprocessing.declared:
            options = {"mean": [*header.preprocessing.mean], "std": [*header.preprocessing.std]}
        model = named_model(header.model, options, known=bool(header.training))
        n_images = self.n_population or self.n_images
        return Named(model, options, data_named(header.data, header.data_options), header.data_options, n_images)

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

    def may_have(self, control: str) -> bool:
        """Whether a control can be added: it is defined for the task and the fill."""
        return control in self.header.task.controls and (control == "flip" or self.header.fill.is_constant)

    def sweep_command(
        self,
        *,
        control: str = "",
        keep: int = 0,
        fill: str = "",
        step: int = 0,
        wider: bool = False,
        narrower: bool = False,
        model: str = "",
        out: str = "",
    ) -> Command:
        """Add a control to this sweep, or make another sweep with one thing changed; empty and 0 mean unchanged.

        `keep` keeps the outputs of so many images, `wider` doubles the largest shift, `narrower` halves the half-width
        of an adaptive sweep.
        """
        grid, words = self.header.grid, ["shiftlens", "sweep", *self._model_and_data(model)]
        if self.half_width_asked is not None:
            words += ["--half-width", f"{self.half_width_asked / (2 if narrower else 1):g}"]
        usual = ShiftGrid.default_for(self.header.image_size)
        if wider or (grid.max_y, grid.max_x) != (usual.max_y, usual.max_x):
            factor = 2 if wider else 1
            words += ["--max-shift", f"{factor * grid.max_y}x{factor * grid.max_x}"]
        if (step or grid.step) != 1:
            words += ["--step", str(step or grid.step)]
        words += ["--fill", fill] if fill else self._fill_words()
        if control:
            words += ["--control", control]
        if keep:
            words += ["--keep-outputs", str(keep)]
        if self.header.task.name != CLASSIFICATION.name:
            words += ["--task", self.header.task.name]
        changed = "-wide" if wider else f"-{fill}" if fill else f"-step{step}" if step else ""
        path = self.path.with_name(f"{self.path.stem}{changed}.zarr") if changed else self.path
        return (*words, "--out", out or str(path))

    def evaluate_command(self, dx: int, dy: int) -> Command:
        """Measure one shift; empty where something else than classification was measured, which evaluate cannot."""
        if self.header.task.name != CLASSIFICATION.name:
            return ()
        return ("shiftlens", "evaluate", *self._model_and_data(), "--shift", str(dx), str(dy), *self._fill_words())

    def train_command(self, *, downsample: str = "") -> Command:
        """Train such a net with another padding, or another down-sampling; empty where it is none that train makes."""
        asked = self.header.training.get("asked")
        settings = asked.get("settings", {}) if isinstance(asked, Mapping) else {}
        if settings.get("arch") not in ARCHITECTURES:
            return ()
        data = ("--data", self.named.data, *option_words(self.header.data_options, ("data_root",)))
        padding = "circular" if settings.get("padding") == "reflect" else "reflect"
        change = ("--downsample", downsample) if downsample else ("--padding", padding)
        return ("shiftlens", "train", *data, "--arch", settings["arch"], *change, "--out", f"runs/{change[1]}")

    def plot_command(self) -> Command:
        """Draw the sweep."""
        return ("shiftlens", "plot", str(self.path), *metric_option(self.metric), "--out", "figures")

    def _model_and_data(self, other: str = "") -> list[str]:
        named = self.named
        model = ("--model", other, *named.code_words) if other else named.model_words
        return [*model, "--data", named.data, *named.data_words, *option_words(named.data_options, ("label_map",))]

    def _fill_words(self) -> Command:
        values = self.header.fill.values
        if self.fill == "black":
            return ()
        return ("--fill", self.fill if values is None else ",".join(map(str, values)))
