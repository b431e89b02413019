"""The options that commands share, each written once, and what makes a command of a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftlens.cli.console import Shell, remarks
from shiftlens.errors import InputError
from shiftlens.naming import of_source

if TYPE_CHECKING:
    from shiftlens.data.images import ImageSet
    from shiftlens.models.loading import Model

Answer = tuple[dict[str, Any], list[str]]
"""What a command prints: one JSON object with `--json`, otherwise the lines."""

ModelSpec = Annotated[
    str,
    typer.Option(
        "--model",
        help="Run directory, pretrained:NAME, torchvision:NAME, timm:NAME, hf:DIR_OR_ID, onnx:FILE, pt2:FILE, "
        "file.py:factory or module:factory.",
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Weights file for a factory; 'random' for torchvision: or timm:.")
]
WeightsKey = Annotated[
    str | None, typer.Option("--weights-key", help="Key of the weights in a file that holds several tables: ema.")
]
Code = Annotated[
    str | None,
    typer.Option("--code", help="Run this file.py or package.module: for a run directory of a net of your own code."),
]
InputSize = Annotated[str | None, typer.Option("--input-size", help="The model's input, H or HxW pixels.")]
DATA = (
    "digits, cifar10, folder:PATH, parquet:PATH, torchvision:NAME; with masks or boxes coco:IMAGES,ANNOTATIONS.json, "
    "yolo:DIR, fiftyone:DIR, masks:IMAGES,MASKS or digits-scenes; without labels images:DIR"
)
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder with data sets (else $SHIFTLENS_DATA, else downloaded).")
]
Limit = Annotated[int | None, typer.Option("--limit", help="Use N images only, a fixed class-stratified subset.")]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        "--label-map",
        help='JSON file that names the model\'s class of each class: {"cat": "tabby", "dog": 207}.',
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", help="train, test or all (default: to train, train; else test, or all where a source has no splits)."
    ),
]
Task = Annotated[
    str,
    typer.Option(
        "--task",
        help="classification (needs labels), segmentation (uses masks), detection (uses boxes), dense, embedding.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="Images in a forward pass (default: the fastest); 1 if outputs depend on the batch."
    ),
]
Fill = Annotated[
    str,
    typer.Option("--fill", help="What enters: black, mean, edge, reflect, symmetric, wrap, or pixel values (0 to 1)."),
]
Size = Annotated[str | None, typer.Option("--size", help="The input, H or HxW pixels (default: the model's own).")]
Layers = Annotated[str | None, typer.Option("--layers", help="Only these layers: names, separated by commas.")]
Partial = Annotated[bool, typer.Option("--partial", help="Accept an incomplete sweep and use the images it has.")]
Metric = Annotated[
    str | None, typer.Option("--metric", help="Metric of the sweep, by name (default: its task's, such as accuracy).")
]
Evidence = Annotated[bool, typer.Option("--evidence", help="Also print how each number was measured.")]
Format = Annotated[str, typer.Option("--format", help="File format of the figures: png or svg.")]
Pictures = Annotated[Path | None, typer.Option("--pictures", help="Directory for figures, made if missing.")]
Picture = Annotated[Path | None, typer.Option("--picture", help="Also draw a figure: a .png or .svg file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N]; sweep also takes mps.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of the random numbers.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no remarks and no progress; warnings stay.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, all else on stderr.")]


class Options:
    """A group of options: a dataclass, each field an option."""


@dataclass(frozen=True)
class ModelOptions(Options):
    """Which model, and what it expects."""

    model: ModelSpec
    weights: Weights = None
    weights_key: WeightsKey = None
    code: Code = None
    mean: Annotated[
        str | None, typer.Option("--mean", help="Pixel means the model expects, range 0 to 1: 0.5,0.5,0.5")
    ] = None
    std: Annotated[str | None, typer.Option("--std", help="Pixel standard deviations the model expects, 0 to 1.")] = (
        None
    )
    input_size: InputSize = None
    resize: Annotated[
        str | None,
        typer.Option("--resize", help="Before the crop: the shorter side in pixels, or HxW: an image is stretched."),
    ] = None
    crop: Annotated[str | None, typer.Option("--crop", help="What is cut out of the middle: the input size.")] = None
    interpolation: Annotated[
        str | None, typer.Option("--interpolation", help="nearest, bilinear, bicubic, lanczos, box or hamming.")
    ] = None
    device: Device = "auto"

    def load(self, shell: Shell, images: ImageSet | None = None, device: str | None = None) -> Model:
        """Load the model for these images; what it notes (such as guessed preprocessing) is printed as a warning.

        `device` stands in for the one that was asked for.
        """
        from shiftlens.models.loading import load_model

        loaded = load_model(
            self.model,
            weights=self.weights,
            weights_key=self.weights_key,
            code=self.code,
            mean=self.mean,
            std=self.std,
            input_size=size(self.input_size, "--input-size"),
            resize=self.resize,
            crop=size(self.crop, "--crop"),
            interpolation=self.interpolation,
            picture_size=None if images is None else images.size,
            picture_channels=None if images is None else images.n_channels,
            device=device or self.device,
        )
        for note in loaded.notes:
            shell.warn(note)
        return loaded


@dataclass(frozen=True)
class OptionalModel(ModelOptions):
    """A model that may be left out: "" then."""

    model: ModelSpec = ""


@dataclass(frozen=True)
class ImageOptions(Options):
    """Which images, and how many of them."""

    data: Annotated[str, typer.Option("--data", help=f"{DATA}.")] = "digits"
    limit: Limit = None
    data_root: DataRoot = None
    split: Split = None

    def load(self, shell: Shell) -> ImageSet:
        """Open the images; what they note (such as JPEG compression) is printed."""
        images = images_of(self.data, self.data_root, self.limit, self.split)
        for note in images.notes:
            shell.say(f"note: {note}")
        return images


@dataclass(frozen=True)
class OptionalImages(ImageOptions):
    """Images that may be left out: "" then."""

    data: Annotated[str, typer.Option("--data", help=f"{DATA}. Default: images that fit the model.")] = ""


def images_of(spec: str, data_root: Path | None, limit: int | None = None, split: str | None = None) -> ImageSet:
    """Open images by what the options say; a download is announced."""
    from shiftlens.data.images import load_images

    return load_images(spec, split=split, data_root=data_root, limit=limit)


def command(function: Callable[..., Answer | None]) -> Callable[..., None]:
    """Make of a function what Typer takes for a command.

    The function gets a `Shell` first. A parameter whose type is a group of `Options` stands for all its options;
    `--quiet` and `--json` are added. What the function returns is printed; None means that it has printed itself.
    """
    signature = inspect.signature(function, eval_str=True)
    groups: dict[str, tuple[type[Options], list[inspect.Parameter]]] = {}
    options: list[inspect.Parameter] = []
    for each in list(signature.parameters.values())[1:]:
        if isinstance(each.annotation, type) and issubclass(each.annotation, Options):
            inner = list(inspect.signature(each.annotation, eval_str=True).parameters.values())
            groups[each.name] = (each.annotation, inner)
            options += inner
        else:
            options.append(each)
    for name, kind in (("quiet", Quiet), ("json", Json)):
        options.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind))

    def run(*, quiet: bool, json: bool, **values: Any) -> None:
        shell = Shell(quiet, json)
        filled = {
            name: kind(**{option.name: values.pop(option.name) for option in inner})
            for name, (kind, inner) in groups.items()
        }
        with remarks(shell):
            answer = function(shell, **values, **filled)
            if answer is not None:
                shell.result(*answer)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {}
    vars(run)["__signature__"] = inspect.Signature(
        [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    )
    return run


def size(text: str | None, what: str, least: int = 1, most: int = 999_999) -> tuple[int, int] | None:
    """`H` or `HxW` as `(h, w)` in pixels.

    Raises
    ------
    InputError
        Anything else, or numbers below `least` or above `most`.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,99})(?:x(\d{1,99}))?", text.strip())
    if not match:
        raise InputError(f"{what} must be H or HxW whole pixels, got {text!r}")
    h = int(match[1])
    w = int(match[2]) if match[2] else h
    if min(h, w) < least:
        raise InputError(f"{what} must be at least {least}, got {text!r}")
    if max(h, w) > most:
        raise InputError(f"{what} must be at most {most} pixels, got {text!r}")
    return h, w


def used(n: int, images: ImageSet) -> str:
    """How many of a source's images a result is of: `6 of 30 images of folder:x`."""
    return f"{of_source(n, images.n_source)} of {images.name}"


def names(text: str | None) -> list[str] | None:
    """Names that are separated by commas; None where the option is not given."""
    return None if text is None else [name.strip() for name in text.split(",")]


def numbers(text: str | None, what: str) -> dict[str, float] | None:
    """`name=number,...` as a table; None where the option is not given.

    Raises
    ------
    InputError
        Anything else.
    """
    try:
        return None if text is None else {k.strip(): float(v) for k, v in (each.split("=") for each in text.split(","))}
    except ValueError:
        raise InputError(f"{what} must be names with numbers, such as points=1,nats=0.1, got {text!r}") from None


def wrote(*files: object) -> list[str]:
    """One line for each file that was written."""
    return [f"wrote {file}" for file in files]
