"""`hf:DIR_OR_ID`: models of transformers, from a local directory or the hub's cache; no code of theirs is ever run."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shiftlens.data.preprocessing import INTERPOLATIONS, Preprocessing
from shiftlens.errors import InputError
from shiftlens.models.loaded import Loaded
from shiftlens.models.zoo import connect, seeded
from shiftlens.naming import distinct, one_line, printable
from shiftlens.paths import kind_of, read_file, with_home

HEADS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSemanticSegmentation": "AutoModelForSemanticSegmentation",
    "ForObjectDetection": "AutoModelForObjectDetection",
    "ForDepthEstimation": "AutoModelForDepthEstimation",
}
"""By the end of an architecture's name, the class of transformers that builds it."""

_PLAIN_ATTENTION = (None, "eager", "sdpa")
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers 0 to 5


class Detector(nn.Module):
    """A detector of transformers, its boxes in pixels by its processor's own post-processing, without a threshold."""

    def __init__(self, net: nn.Module, processor: Any) -> None:
        super().__init__()
        self.net = net
        self.post_process = processor.post_process_object_detection

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        """[n, c, h, w] to boxes [k, 4] (left, top, right, bottom), scores [k] and labels [k] of each image."""
        sizes = [(x.shape[2], x.shape[3])] * len(x)
        found: list[dict[str, Tensor]] = self.post_process(self.net(pixel_values=x), threshold=0.0, target_sizes=sizes)
        return found


class Pixels(nn.Module):
    """A net of transformers that is called with images alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        """[n, c, h, w] to what the net gives."""
        return self.net(pixel_values=x)


def load_hf(name: str, *, random: bool = False) -> Loaded:
    """A classifier, segmenter, detector or depth model of transformers.

    Parameters
    ----------
    name
        A local directory with `config.json`, else an id such as `google/vit-base-patch16-224`, from the hub's cache or
        downloaded into it.
    random
        Weights of seed 0 in place of its own.

    Raises
    ------
    InputError
        One line: transformers is not installed; nothing of that name, or no connection; another kind of model; a
        configuration that wants code of its own to be run; weights that are missing or do not fit.
    """
    library = _library()
    where = _place(name)
    config = _config(library, where, name)
    found = next((str(each) for each in config.architectures or () if any(str(each).endswith(h) for h in HEADS)), None)
    if found is None:
        known = ", ".join(f"*{head}" for head in HEADS)
        raise InputError(f"hf:{name} is {config.architectures or config.model_type!r:.80}; expected one of {known}")
    head = next(each for each in HEADS if found.endswith(each))
    net = _net(library, getattr(library, HEADS[head]), where, name, config, random)
    settings = _settings(where, name)
    # Detectors scale a photograph to a side of 800 px or so; its shape decides the other, so that no size is declared.
    preprocessing = _preprocessing(settings, sized=head != "ForObjectDetection")
    names = _names(config)
    module: nn.Module = Pixels(net)
    if head == "ForObjectDetection":
        module = Detector(net, _processor(library, where, name))
    return Loaded(module.eval(), preprocessing, names)


def _library() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise InputError("models of transformers need transformers: pip install 'shiftlens[hf]'") from None


def _place(name: str) -> str:
    """A local directory's path, or an id of the hub that is in its cache or can be downloaded."""
    path = with_home(name)
    if kind_of(path) == "folder":
        if kind_of(path / "config.json") != "file":
            raise InputError(f"hf:{name} is a folder without config.json; expected what save_pretrained wrote")
        return str(path)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is None or ".." in name:
        raise InputError(f"hf:{name!r:.80} is no folder, and no id of the hub such as microsoft/resnet-50")
    return name


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without transformers' own progress bars and remarks: what matters is raised."""
    logs = library.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


@contextmanager
def _reached(name: str, where: str, what: str) -> Iterator[dict[str, Any]]:
    """Options of every call: no code of the repository, and no network that does not answer within seconds."""
    offline: OSError | None = None
    if kind_of(where) != "folder":
        hub: Any = importlib.import_module("huggingface_hub.constants")
        try:
            connect(hub.ENDPOINT)
        except OSError as error:
            offline = error
    else:
        offline = OSError("a local folder is read alone")
    try:
        yield {"trust_remote_code": False, "local_files_only": offline is not None}
    except InputError:
        raise
    except Exception as error:  # transformers and the hub's client raise some thirty kinds
        if kind_of(where) == "folder":
            raise InputError(f"hf:{name}: its {what} cannot be read: {one_line(error)}") from None
        why = offline or error
        raise InputError(
            f"hf:{name}: its {what} is not in the cache and could not be downloaded ({type(why).__name__}: "
            f"{one_line(why)}); name a local folder"
        ) from None


def _config(library: Any, where: str, name: str) -> Any:
    with _quiet(library), _reached(name, where, "configuration") as options:
        raw, _ = library.PretrainedConfig.get_config_dict(where, local_files_only=options["local_files_only"])
        for key in ("auto_map", "quantization_config", "custom_pipelines"):
            if raw.get(key):
                raise InputError(f"hf:{name}: its configuration has {key}, which would run other code; refused")
        wanted = (
            raw.get(key) for key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
        )
        other = next((each for each in wanted if each not in _PLAIN_ATTENTION), None)
        if other is not None:
            raise InputError(
                f"hf:{name}: its configuration wants the attention {other!r:.60}, which would run other code"
            )
        return library.AutoConfig.from_pretrained(where, **options)


def _net(library: Any, auto: Any, where: str, name: str, config: Any, random: bool) -> nn.Module:
    with _quiet(library), _reached(name, where, "weights") as options, seeded():
        if random:
            built: nn.Module = auto.from_config(config, trust_remote_code=False)
            return built.float()
        net, facts = auto.from_pretrained(
            where, config=config, dtype=torch.float32, output_loading_info=True, weights_only=True, **options
        )
    for what in ("missing_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in facts[what])
        if keys:
            raise InputError(
                f"hf:{name}: its weights do not fit its configuration: {len(keys)} {what.replace('_', ' ')}, the first "
                f"{printable(keys[0])}"
            )
    loaded: nn.Module = net
    return loaded


def _processor(library: Any, where: str, name: str) -> Any:
    with _quiet(library), _reached(name, where, "image processor") as options:
        processor = library.AutoImageProcessor.from_pretrained(where, **options)
        if not hasattr(processor, "post_process_object_detection"):
            raise InputError(f"hf:{name}: its image processor does not say how its boxes are made")
        return processor


def _settings(where: str, name: str) -> Mapping[str, Any]:
    """What `preprocessor_config.json` says; nothing where there is none."""
    path = Path(where) / "preprocessor_config.json"
    if kind_of(where) != "folder":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(where, "preprocessor_config.json")
        if not isinstance(cached, str):
            return {}
        path = Path(cached)
    if kind_of(path) != "file":
        return {}
    try:
        read = json.loads(read_file(path, str(path)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"hf:{name}: {path.name} is no readable JSON: {one_line(error)}") from None
    return read if isinstance(read, dict) else {}


def _preprocessing(settings: Mapping[str, Any], *, sized: bool) -> Preprocessing:
    """The processor's steps as this package's; without a processor, none is declared."""
    if not settings:
        return Preprocessing()
    normalised = settings.get("do_normalize", True) and "image_mean" in settings
    mean = tuple(map(float, settings["image_mean"])) if normalised else (0.0,)
    std = tuple(map(float, settings.get("image_std", (1.0,)))) if normalised else (1.0,)
    size, resize = None, None
    if sized and settings.get("do_resize", True):
        asked = _sides(settings.get("size"))
        crop = _sides(settings.get("crop_size")) if settings.get("do_center_crop") else None
        size = crop or asked
        if asked is not None and size is not None:
            resize = max(min(asked), min(size)) if crop is not None else None
    kind = settings.get("resample", 2)
    named = _RESAMPLING[kind] if isinstance(kind, int) and 0 <= kind < len(_RESAMPLING) else "bilinear"
    return Preprocessing(mean, std, size, resize, named if named in INTERPOLATIONS else "bilinear", declared=True)


def _sides(value: Any) -> tuple[int, int] | None:
    """(h, w) of a size as processors write it: a number, height and width, or the shorter side."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, Mapping):
        if "height" in value and "width" in value:
            return int(value["height"]), int(value["width"])
        if "shortest_edge" in value:
            return int(value["shortest_edge"]), int(value["shortest_edge"])
    return None


def _names(config: Any) -> tuple[str, ...] | None:
    """Names of the classes, where they are more than their numbers."""
    table = getattr(config, "id2label", None) or {}
    numbers = sorted(int(k) for k in table)
    names = [str(table[k]) for k in numbers]
    if numbers != list(range(len(numbers))) or all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return None
    return tuple(distinct(names))
