"""Nets of other libraries by name: torchvision's (always there) and timm's (extra `models`).

Of torchvision classifiers, segmenters and detectors.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from shiftlens.data.preprocessing import INTERPOLATIONS, Preprocessing
from shiftlens.data.transforms import preset_of
from shiftlens.errors import InputError
from shiftlens.models.checkpoints import StateDict, describe_misfit
from shiftlens.naming import one_line, unknown_name

MOST_CLASSES = 100_000
"""Classes for which a library's net is built because a file's weights are."""

_SECONDS_TO_CONNECT = 5.0


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers of seed 0 inside, and as they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _is_classifier(name: str) -> bool:
    """Whether a torchvision net is a classifier, or else a segmenter or detector; `InputError` for an unknown name."""
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    others = [each for module in (zoo.segmentation, zoo.detection) for each in zoo.list_models(module=module)]
    if name not in names and name not in others:
        raise unknown_name("torchvision model", name, [*names, *others])
    return name in names


def _torchvision_default(name: str) -> Any:
    """The default weights' entry of a torchvision net; None for a net that has none."""
    import torchvision.models as zoo

    _is_classifier(name)
    entries = zoo.get_model_weights(name)
    return getattr(entries, "DEFAULT", None)


def torchvision_net(name: str, n_classes: int | None = None) -> nn.Module:
    """A torchvision net with random weights of seed 0; `InputError` with the nearest name for an unknown one."""
    import torchvision.models as zoo

    options: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if not _is_classifier(name):
        options["weights_backbone"] = None  # left open, they are downloaded
    if name in ("inception_v3", "googlenet"):
        options["init_weights"] = True  # left open, torchvision warns
    with seeded():
        return zoo.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def _torchvision_preprocessing(name: str, _: nn.Module) -> Preprocessing:
    """The transforms of the default weights: also right for random weights, so that the two can be compared."""
    entry = _torchvision_default(name)
    if entry is None:
        return Preprocessing()
    transforms = entry.transforms()
    if _is_classifier(name):
        return preset_of(transforms)
    # Segmenters and detectors take images of any size; detectors normalise themselves.
    mean, std = getattr(transforms, "mean", (0.0,)), getattr(transforms, "std", (1.0,))
    return Preprocessing(mean=tuple(mean), std=tuple(std), declared=True)


def _torchvision_classes(name: str) -> tuple[str, ...] | None:
    """Names of the classes of a torchvision net's default weights."""
    categories = getattr(_torchvision_default(name), "meta", {}).get("categories")
    return None if categories is None else tuple(categories)


def _torchvision_pretrained(name: str) -> tuple[nn.Module, tuple[str, ...] | None]:
    """A torchvision net with its default weights, and their class names; downloads them once."""
    import torchvision.models as zoo

    entry = _torchvision_default(name)
    if entry is None:
        raise InputError(f"torchvision:{name} has no default weights; use --weights random or a file")
    try:
        if not (Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rpartition("/")[2]).exists():
            connect(entry.url)
        module = zoo.get_model(name, weights=entry, progress=False)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"torchvision:{name}: its weights are not in torch's cache and could not be downloaded from {entry.url}"
            f" ({one_line(error)}); use --weights random or a file"
        ) from None
    return module, _torchvision_classes(name)


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise InputError("timm models need timm: pip install 'shiftlens[models]'") from None


def _timm_name(name: str) -> Any:
    timm = _timm()
    # Names such as hf-hub:... would reach the network, also from a run directory.
    if not timm.is_model(name.partition(".")[0]) or ":" in name or "/" in name:
        raise unknown_name("timm model", name, timm.list_models())
    return timm


def _timm_net(name: str, n_classes: int | None = None) -> nn.Module:
    """A timm model with random weights of seed 0; `InputError` with the nearest name for an unknown one."""
    timm = _timm_name(name)
    options: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    with seeded():
        return timm.create_model(name, pretrained=False, **options)  # type: ignore[no-any-return]


def _timm_preprocessing(_: str, module: nn.Module) -> Preprocessing:
    """What the model's pretrained configuration says; `resize` is the side before cropping to its `crop_pct`."""
    data = importlib.import_module("timm.data")
    config = data.resolve_model_data_config(module)
    size = (int(config["input_size"][1]), int(config["input_size"][2]))
    interpolation = str(config["interpolation"])
    return Preprocessing(
        mean=tuple(float(value) for value in config["mean"]),
        std=tuple(float(value) for value in config["std"]),
        size=size,
        resize=int(min(size) / float(config["crop_pct"])),
        interpolation=interpolation if interpolation in INTERPOLATIONS else "bilinear",
        declared=True,
    )


def _timm_pretrained(name: str) -> tuple[nn.Module, None]:
    """A timm model with its pretrained weights; downloads them once."""
    timm = _timm_name(name)
    hub: Any = importlib.import_module("huggingface_hub.constants")
    was_offline = hub.HF_HUB_OFFLINE
    unreachable: OSError | None = None
    try:
        connect(hub.ENDPOINT)
    except OSError as error:
        unreachable = error
    try:
        # Its client tries ten times, for a minute; without a connection, the cache is all that can serve.
        hub.HF_HUB_OFFLINE = was_offline or unreachable is not None
        return timm.create_model(name, pretrained=True), None
    except Exception as error:  # the hub's client raises some twenty kinds, none of which is a crash of ours
        why = unreachable or error
        raise InputError(
            f"timm:{name}: its weights are not in the cache and could not be downloaded"
            f" ({type(why).__name__}: {one_line(why)}); use --weights random or a file"
        ) from None
    finally:
        hub.HF_HUB_OFFLINE = was_offline


def declared_size(module: nn.Module) -> tuple[int, int] | None:
    """(h, w) that a net says itself, as those of timm do; None for others."""
    config = getattr(module, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else None
    return (int(size[1]), int(size[2])) if isinstance(size, tuple | list) and len(size) == 3 else None


def connect(url: str) -> None:
    """Find out within seconds whether a server, or the proxy in front of it, can be reached; `OSError` if not."""
    target = urlsplit(getproxies().get(urlsplit(url).scheme) or url)
    try:
        with socket.create_connection((target.hostname or "", target.port or 443), timeout=_SECONDS_TO_CONNECT):
            pass
    except OSError as error:
        raise OSError(f"no connection to {target.hostname}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Library:
    """Nets that are named `KIND:NAME`.

    `net` builds one by name, with random weights of seed 0 and so many classes (None: its own number), `pretrained` one
    with its default weights and their class names; `class_names` and `preprocessing` are what these declare.
    """

    net: Callable[[str, int | None], nn.Module]
    pretrained: Callable[[str], tuple[nn.Module, tuple[str, ...] | None]]
    class_names: Callable[[str], tuple[str, ...] | None]
    preprocessing: Callable[[str, nn.Module], Preprocessing]


LIBRARIES: dict[str, Library] = {
    "torchvision": Library(torchvision_net, _torchvision_pretrained, _torchvision_classes, _torchvision_preprocessing),
    "timm": Library(_timm_net, _timm_pretrained, lambda _: None, _timm_preprocessing),
}


def classes_in(module: nn.Module, state: StateDict) -> int | None:
    """Number of classes that a file's weights are for, when that alone is why they do not fit; else None."""
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    other = {
        name for name, value in own.items() if isinstance(state.get(name), Tensor) and state[name].shape != value.shape
    }
    counts = {(tuple(own[name].shape)[:1], tuple(state[name].shape)[:1]) for name in other}
    rest = {name: value for name, value in own.items() if name not in other}
    if len(counts) != 1 or describe_misfit(rest, {name: state[name] for name in state if name not in other}):
        return None
    same_otherwise = all(own[name].shape[1:] == state[name].shape[1:] for name in other)
    ((_, (n_classes, *_)),) = counts
    # A tensor of one number may say that it has any shape: a file does not decide how much memory is taken.
    return int(n_classes) if same_otherwise and n_classes <= MOST_CLASSES else None
