"""`Model`: a net or a callable together with everything that must be known to measure it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shiftlens.data.preprocessing import Numbers, Preprocessing, Size, parse_size
from shiftlens.data.transforms import preprocessing_of, turns_grey
from shiftlens.errors import InputError
from shiftlens.models.checkpoints import refuse_non_finite
from shiftlens.models.digests import model_digest
from shiftlens.models.probing import (
    Classifier,
    Probe,
    channel_candidates,
    evaluating,
    input_channels,
    plausible_channels,
    probe,
    refuse_script,
    scores_of,
)
from shiftlens.naming import count_of, printable

_UNDECLARED = (
    "{} declares no preprocessing: images enter with mean 0 and std 1 (set --mean and --std, or mean= and std= of wrap)"
)


@dataclass(frozen=True, eq=False)
class Model:
    """What is measured: a net or any callable, its preprocessing, and facts about it.

    Use `load_model` or `wrap`. Facts that need a look at the net (`n_classes`, `n_macs`, `strides`) come from one
    forward pass of two blank pictures of `input_size`, made when first asked for.

    Parameters
    ----------
    module
        An `nn.Module` or a callable: normalised float32 [n, c, h, w] to scores [n, k] (or what `scores_of` finds in
        its output).
    preprocessing
        With one mean and std for each channel, where the number of channels is known.
    name
        The spec, or the class's name; for people.
    class_names
        One name a class, or None.
    picture_size
        (h, w) of the pictures, used where the model declares no size.
    native_size
        (h, w) that the model's source declares, before any override; for error messages.
    training
        Facts from a run directory; {} when unknown.
    notes
        Sentences that a reader of results must know.
    picture_channels
        Channels of the pictures, which count where a net takes several numbers of channels and declares none.
    options
        What `load_model` was given beside the spec, by name; empty for a model that was made in Python.

    Examples
    --------
    >>> model = sl.wrap(sl.nn.VGG("vgg6", width=4), mean=0.5, std=0.25, size=32)
    >>> model.input_size, model.n_classes, model.strides
    ((32, 32), 10, (2, 4, 8))
    >>> model.scores(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    module: Classifier
    preprocessing: Preprocessing
    name: str
    class_names: tuple[str, ...] | None = None
    picture_size: tuple[int, int] | None = None
    native_size: tuple[int, int] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    picture_channels: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.input_size or ())) or "any size"
        names = "" if self.class_names is None else f", {count_of(len(self.class_names), 'class', 'classes')}"
        return f"<Model {self.name}: {self.n_parameters:,} parameters, input {size}{names}>"

    def _repr_html_(self) -> str:
        rows = {"network": type(self.module).__name__, "parameters": f"{self.n_parameters:,}"}
        rows["input"] = "x".join(map(str, self.input_size or ())) or "any size"
        if self.class_names is not None:
            rows["classes"] = f"{len(self.class_names):,} ({', '.join(self.class_names[:3])}, ...)"
        cells = "".join(f"<tr><th>{name}</th><td>{escape(printable(value))}</td></tr>" for name, value in rows.items())
        return f"<table><caption>{escape(printable(self.name))}</caption>{cells}</table>"

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Call the module, in the mode that it is in; see also `scores`."""
        return self.module(*inputs, **options)

    def __getitem__(self, index: Any) -> Any:
        """Index the module: `model[0][3]` is a layer of a chain of chains."""
        return self.module[index]  # type: ignore[index]

    def __len__(self) -> int:
        """Length of the module."""
        return len(self.module)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.module)  # type: ignore[call-overload, no-any-return]

    def __bool__(self) -> bool:
        return True  # whether or not the module has a length

    @property
    def is_module(self) -> bool:
        """True for an `nn.Module`, False for a bare callable."""
        return isinstance(self.module, nn.Module)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(h, w) of the input in pixels: what the model declares, else the pictures' own; None when unknown."""
        return self.preprocessing.size or self.picture_size

    @cached_property
    def n_channels(self) -> int:
        """Channels of the input, of those that the net takes: one for each mean, the images' own number, 3, 1.

        Where no size is known, or the net does not take it: the first that no convolution objects to.
        """
        if self.input_size is not None:
            with suppress(InputError):
                return self.probed.n_channels
        return plausible_channels(self.module, self._candidates, self.input_size)

    @property
    def _candidates(self) -> tuple[int, ...]:
        n_means = len(self.preprocessing.mean)
        # A single mean is the same for all channels, however many.
        return channel_candidates(self.module, n_means if n_means > 1 else None, self.picture_channels)

    @property
    def device(self) -> torch.device:
        """Where the net's first tensor is; the CPU for a bare callable."""
        if isinstance(self.module, nn.Module):
            for tensor in (*self.module.parameters(), *self.module.buffers()):
                return tensor.device
        return torch.device("cpu")

    @property
    def n_parameters(self) -> int:
        """Numbers that training sets, shared ones counted once; 0 for a bare callable."""
        return sum(p.numel() for p in self.module.parameters()) if isinstance(self.module, nn.Module) else 0

    @cached_property
    def probed(self) -> Probe:
        """What one forward pass of two blank pictures told.

        Raises
        ------
        InputError
            No size is known, the net does not take that size, or it is no classifier; or it has another number of
            classes than names.
        """
        if self.input_size is None:
            raise InputError(f"{self.name} declares no input size: give one (--input-size, or size= in Python)")
        found = probe(self.module, self._candidates, self.input_size, name=self.name, declared_size=self.native_size)
        if self.class_names is not None and found.n_classes not in (None, len(self.class_names)):
            raise InputError(f"{self.name} gives {found.n_classes} scores, and has {len(self.class_names)} class names")
        return found

    @property
    def n_classes(self) -> int:
        """Number of scores for each picture; `InputError` for a model that is no classifier."""
        if self.probed.n_classes is None:
            raise InputError(self.probed.no_classes)
        return self.probed.n_classes

    @property
    def n_macs(self) -> int | None:
        """Multiply-adds of convolution and linear layers for one picture; None for a bare callable."""
        return self.probed.n_macs

    @property
    def strides(self) -> tuple[int, ...]:
        """Distinct cumulative down-sampling factors, ascending, without 1; empty for a bare callable."""
        return self.probed.strides

    @property
    def digest(self) -> str:
        """`sha256:...` over structure, weights, own code and preprocessing; of a bare callable over its name.

        Computed each time, since a net in a notebook may have been trained further in between.
        """
        p = self.preprocessing
        text = f"{p.mean}|{p.std}|{p.size}|{p.resize}|{p.interpolation}"
        if isinstance(self.module, nn.Module):
            return model_digest(self.module, text)
        told = getattr(self.module, "content", self.name)
        return f"sha256:{hashlib.sha256(f'callable|{told}|{text}'.encode()).hexdigest()}"

    def at(self, picture_size: tuple[int, int]) -> Model:
        """The same model for pictures of (h, w) pixels, which matter where it declares no size of its own."""
        return self if self.picture_size == picture_size else replace(self, picture_size=picture_size)

    def with_facts(self, **changes: Any) -> Model:
        """The same net with other fields; what it told when it was looked at is kept, and not asked again."""
        other = replace(self, **changes)
        vars(other).update({key: vars(self)[key] for key in ("probed", "n_channels") if key in vars(self)})
        return other

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode for every layer inside a `with`, each layer's own mode afterwards."""
        return evaluating(self.module)

    def scores(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Scores of normalised pictures, in evaluation mode, without gradients."""
        with torch.no_grad(), self.evaluating():
            return scores_of(self.module(x))


def wrap(
    module: Classifier,
    *,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    size: Size | None = None,
    transform: Any = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
) -> Model:
    """Make a `Model` of a net or a callable at hand, e.g. in a notebook.

    The net is not copied and not moved. It may be in training mode: it is measured in evaluation mode, and every layer
    is back in its own mode afterwards. `DataParallel` and `torch.compile` wrappings are looked through.

    Parameters
    ----------
    module
        An `nn.Module`, or a callable from normalised float32 [n, c, h, w] to scores [n, k].
    mean, std
        Pixel range 0 to 1, one number or one a channel. Without both: 0 and 1, and a warning.
    size
        (h, w) or one number, pixels. Without: the pictures' own size.
    transform
        The torchvision transform that the net was evaluated with, in place of all these: `Resize(n)`, `CenterCrop`,
        `Grayscale(1)`, `ToTensor`, `Normalize`, or a preset of torchvision's weights. What is given beside it comes
        first.
    class_names
        One name a class.
    name
        For people and plots; default the class's or function's name.

    Raises
    ------
    InputError
        Nothing callable, weights that are NaN or infinite, numbers out of range, or (with `size`) a net that does not
        take this size; or a transform with another step, or one to grey for a net of three channels.

    Warns
    -----
    UserWarning
        Neither a mean nor a std nor a transform is given.

    Examples
    --------
    >>> from shiftlens.nn import VGG
    >>> wrap(VGG("vgg6", width=4), mean=0.5, std=0.25, size=32).strides
    (2, 4, 8)
    """
    declared = Preprocessing() if transform is None else preprocessing_of(transform)
    preprocessing = declared.overridden(mean=mean, std=std, size=size)
    title = name or getattr(module, "__name__", None) or type(module).__name__
    grey = 1 if transform is not None and turns_grey(transform) else None
    model = build_model(
        module, preprocessing, title, class_names=class_names, picture_channels=grey, native_size=declared.size
    )
    if grey and model.n_channels != 1:
        raise InputError(f"transform: Grayscale gives 1 channel, {title} takes {model.n_channels}")
    if not preprocessing.declared:
        warnings.warn(_UNDECLARED.format(title), stacklevel=2)
    return model


def build_model(
    module: Classifier,
    preprocessing: Preprocessing,
    name: str,
    *,
    class_names: Sequence[str] | None = None,
    picture_size: Size | None = None,
    picture_channels: int | None = None,
    native_size: tuple[int, int] | None = None,
    training: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Model:
    """Check a net and what is known about it, and put them together; looks at the net with blank pictures."""
    for inner in ("_orig_mod", "module"):
        wrapped = isinstance(module, nn.Module) and (inner == "_orig_mod" or _is_parallel(module))
        if wrapped and isinstance(getattr(module, inner, None), nn.Module):
            module = getattr(module, inner)
    if not callable(module) or isinstance(module, Model):
        raise InputError(f"model: expected an nn.Module or a callable, got {type(module).__name__}")
    said = list(notes)
    refuse_script(module, name)
    if isinstance(module, nn.Module):
        if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
            raise InputError(f"{name} has layers whose shape is not set yet: run one picture through it first")
        refuse_non_finite(module, name)
    elif not hasattr(module, "content"):
        said.append(
            f"{name} is a plain callable: its digest covers its name only; another one is told by what it answers on "
            "fixed pictures"
        )
    if not preprocessing.declared:
        said.append(_UNDECLARED.format(name))
    names = None if class_names is None else tuple(str(n) for n in class_names)
    seen = _own_size(picture_size)
    facts = dict(training or {})
    model = Model(module, preprocessing, name, names, seen, native_size, facts, tuple(said), picture_channels)
    if model.input_size is not None:
        _ = model.probed  # a net that does not fit is said now, not in the middle of the work
    if input_channels(module) is None:
        return model
    return model.with_facts(preprocessing=preprocessing.for_channels(model.n_channels))


def _own_size(picture_size: Size | None) -> tuple[int, int] | None:
    """The images' own size (h, w) as an input size."""
    if picture_size is None:
        return None
    try:
        return parse_size(picture_size)
    except InputError as error:
        raise InputError(
            f"the images are too large or too long and narrow to be taken as they are ({error}): give --input-size, or "
            "cut them"
        ) from None


def _is_parallel(module: nn.Module) -> bool:
    return isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel)
