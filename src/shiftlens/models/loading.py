"""From what a user types to a `Model`: every spec, its weights, and its preprocessing."""

from __future__ import annotations

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.preprocessing import Numbers, Preprocessing, Size
from shiftlens.devices import resolve_device, tensors_of
from shiftlens.errors import InputError
from shiftlens.given import CHANGED, as_given
from shiftlens.models.checkpoints import fit_weights, named_as, read_weights
from shiftlens.models.exported_programs import load_exported
from shiftlens.models.factories import call_factory
from shiftlens.models.hf_models import load_hf
from shiftlens.models.loaded import Loaded
from shiftlens.models.matching import held_out
from shiftlens.models.onnx_models import load_onnx
from shiftlens.models.probing import Classifier, Probe, evaluating, scores_of
from shiftlens.models.programs import refuse_program
from shiftlens.models.runs import load_run
from shiftlens.models.runspec import MODEL_JSON
from shiftlens.models.wrapping import Model, build_model, wrap
from shiftlens.models.zoo import LIBRARIES, classes_in
from shiftlens.naming import nearest, unknown_name
from shiftlens.paths import kind_of

__all__ = [
    "Classifier",
    "Model",
    "Preprocessing",
    "Probe",
    "as_model",
    "evaluating",
    "load_model",
    "model_and_images",
    "scores_of",
    "wrap",
]

FILES = ("hf", "onnx", "pt2")
"""Kinds of specs that name files of other programs; no code in them is run, but for a program of `torch.export`."""

RANDOM = "random"
"""The value of `--weights` that asks for random ones of seed 0."""

SHIPPED = Path(__file__).resolve().parent.parent / "weights"
"""Where shipped weights are: one run directory for each NAME of `pretrained:NAME`."""


def _library_net(kind: str, name: str, weights: str | Path | None, key: str | None) -> Loaded:
    library, spec = LIBRARIES[kind], f"{kind}:{name}"
    if weights is None:
        module, names = library.pretrained(name)
        return Loaded(module, library.preprocessing(name, module), names)
    module = library.net(name, None)
    notes: list[str] = []
    names = None
    if weights != RANDOM:
        state = named_as(module, read_weights(weights, key, notes), notes)
        n_classes = classes_in(module, state)
        # Weights for as many classes as the default ones are taken to be for the same; random ones know none.
        names = library.class_names(name) if n_classes is None else None
        if n_classes is not None:
            module = library.net(name, n_classes)
        fit_weights(module, state, f"{spec} (from {weights})", notes)
        notes.append(
            f"{spec}: preprocessing is that of its default weights; yours may differ (--mean, --std, --input-size)"
        )
    return Loaded(module, library.preprocessing(name, module), names, tuple(notes))


def _own_code(spec: str, weights: str | Path | None, key: str | None) -> Loaded:
    module = call_factory(spec)
    notes: list[str] = []
    if weights is not None and weights != RANDOM:
        if not isinstance(module, nn.Module):
            raise InputError(f"model: {spec} returned {type(module).__name__}, which takes no weights; omit --weights")
        fit_weights(module, read_weights(weights, key, notes), f"{spec} (from {weights})", notes)
    return Loaded(module, notes=tuple(notes))


def run_of(spec: str | Path) -> Path | None:
    """The run directory that a spec names, by its path or as `pretrained:NAME`; None for another kind of spec."""
    kind, colon, rest = str(spec).partition(":")
    path = _shipped(rest) if kind == "pretrained" and colon else Path(spec)
    return path if str(spec) and kind_of(path) == "folder" else None


def _shipped(name: str) -> Path:
    """Directory of the shipped weights NAME."""
    there = sorted(folder.name for folder in SHIPPED.glob("*") if kind_of(folder / MODEL_JSON) == "file")
    if name in there:
        return SHIPPED / name
    if not there:
        raise InputError(
            f"pretrained:{name}: no weights are shipped with this version; train some with shiftlens train"
        )
    raise unknown_name("pretrained weights", name, there)


def load_model(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    input_size: Size | None = None,
    resize: Size | None = None,
    crop: Size | None = None,
    interpolation: str | None = None,
    picture_size: Size | None = None,
    picture_channels: int | None = None,
    code: str | Path | None = None,
    module: nn.Module | None = None,
    device: str = "auto",
) -> Model:
    """Load a model by its spec, in evaluation mode, checked and ready to be measured.

    Parameters
    ----------
    spec
        A run directory; `pretrained:NAME`; `torchvision:NAME`; `timm:NAME`; `hf:DIR_OR_ID` (transformers: a folder,
        else an id of the hub); `onnx:FILE`; `pt2:FILE` (a program of `torch.export`); `path/to/file.py:factory` or
        `package.module:factory`. The last three run the code they name; the others never run any.
    weights
        A safetensors or PyTorch file, or `"random"` (seed 0). Without: the library's default weights (downloaded once),
        or what the factory itself sets.
    weights_key
        Where the weights lie in a file that holds several tables of tensors, e.g. `"ema"` or `"ema.shadow"`.
    mean, std
        Pixel range 0 to 1, one number or one a channel, in place of what the model declares.
    input_size
        H or HxW in pixels, in place of what the model declares.
    resize, crop, interpolation
        How images of another size come to it: their shorter side becomes `resize` pixels (with (h, w) they are
        stretched to these), by `nearest`, `bilinear`,
        `bicubic`, `lanczos`, `box` or `hamming`, and `crop` (the input size by another name) is cut out of the middle.
    picture_size
        (h, w) of the pictures: the input size of a model that declares none.
    picture_channels
        Channels of the pictures: those of the input where a net takes several numbers of channels.
    code
        For a run directory of a net that your own factory builds: its `file.py` or `package.module`, which is run, if
        it is still what the run was made with.
    module
        For a run directory of a net that was made in Python: a net of the same layers, which is not changed.
    device
        `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns
    -------
    Model
        Probed with two blank pictures where a size is known.

    Raises
    ------
    InputError
        One line: an unknown spec or name (with the nearest), weights that are missing, refused, broken or do not fit,
        code that raises, a net that does not take the size or is no classifier.
    StoreError
        A run directory that is not as it was written.

    Examples
    --------
    >>> load_model("torchvision:resnet18", weights="random", input_size=64).n_classes
    1000
    """
    target = tensors_of(resolve_device(device, apple=True))
    name, run = str(spec), run_of(spec)
    if run is None and (code is not None or module is not None):
        what = "--code" if module is None else "module="
        raise InputError(f"{what} belongs to a run directory of a net of your own; {name} is none")
    if weights_key is not None and weights in (None, RANDOM):
        raise InputError(f"a weights key is of a file: give --weights FILE beside --weights-key {weights_key}")
    said: dict[str, Any] = {"mean": mean, "std": std, "resize": resize, "crop": crop, "interpolation": interpolation}
    options = as_given(weights=weights, weights_key=weights_key, code=code, input_size=input_size, **said)
    said["size"] = input_size
    if run is not None:
        if weights is not None:
            raise InputError(f"{name} holds its own weights; omit --weights")
        pictures = {"picture_size": picture_size, "picture_channels": picture_channels}
        model = load_run(run, name=name, overrides=said | pictures, code=code, module=module)
    else:
        loaded = _load(name, weights, weights_key)
        if isinstance(loaded.module, nn.Module):
            loaded.module.eval()
        model = build_model(
            loaded.module,
            loaded.preprocessing.overridden(**said),
            name,
            class_names=loaded.class_names,
            picture_size=picture_size,
            picture_channels=picture_channels,
            native_size=loaded.preprocessing.size,
            notes=loaded.notes,
        )
    if isinstance(model.module, nn.Module):
        model.module.to(target)
    return model.with_facts(options=options if module is None else CHANGED)


def as_model(model: Model | nn.Module | str | Path, images: ImageSet | None = None, *, device: str = "auto") -> Model:
    """What a public function takes for a model, as a `Model`: a spec is loaded, an `nn.Module` is wrapped.

    The size and channels of `images` count where the model declares none. What a reader of the results must know of a
    model that is loaded or wrapped here, such as that it declares no preprocessing, is a warning.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, str | Path):
        size, channels = (None, None) if images is None else (images.size, images.n_channels)
        model = load_model(model, picture_size=size, picture_channels=channels, device=device)
    elif isinstance(model, nn.Module):
        model = build_model(model, Preprocessing(), type(model).__name__)
    else:
        raise InputError(
            "expected a Model (load_model, wrap), an nn.Module or a spec such as 'torchvision:resnet18', got "
            f"{type(model).__name__}"
        )
    for note in model.notes:
        warnings.warn(note, stacklevel=3)
    return model


def model_and_images(
    model: Model | nn.Module | str | Path, images: ImageSet | str, *, device: str = "auto"
) -> tuple[Model, ImageSet]:
    """Both arguments of a public function in their own form: see `as_model`, `as_images` and `held_out`."""
    images = as_images(images)
    model = as_model(model, images, device=device)
    return model, held_out(model, images)


def _load(name: str, weights: str | Path | None, key: str | None) -> Loaded:
    kind, _, rest = name.partition(":")
    if kind in LIBRARIES and rest:
        return _library_net(kind, rest, weights, key)
    if kind in FILES and rest:
        if key is not None or weights not in ((None, RANDOM) if kind == "hf" else (None,)):
            raise InputError(f"{name} holds its own weights; omit --weights")
        if kind == "hf":
            return load_hf(rest, random=weights == RANDOM)
        return load_onnx(rest) if kind == "onnx" else load_exported(rest)
    where, colon, factory = name.rpartition(":")
    if colon and factory.isidentifier():
        if where.endswith(".py") or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", where):
            best = nearest(where, [*LIBRARIES, "pretrained", *FILES])
            is_there = "." in where or kind_of(f"{where}.py") != "nothing" or importlib.util.find_spec(where)
            if best and not is_there:
                raise unknown_name("model kind", where, [*LIBRARIES, "pretrained", *FILES], hint=best)
            return _own_code(name, weights, key)
        raise InputError(f"model: {where} is neither a .py file nor a module name")
    if name.endswith(".py"):
        raise InputError(f"model: {name} needs a factory: {name}:NAME, a function in it that returns the model")
    if kind_of(name) == "file":
        refuse_program(Path(name), "model")
        raise InputError(f"model: {name} is a file; name what builds the net (file.py:factory), and this as --weights")
    expected = (
        "a run directory, pretrained:NAME, torchvision:NAME, timm:NAME, hf:DIR_OR_ID, onnx:FILE, pt2:FILE, "
        "file.py:factory or package.module:factory"
    )
    raise InputError(f"model: {name!r} does not exist and is no spec; expected {expected}")
