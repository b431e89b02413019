"""Mean kernels: whether a layer looks more to one side than to the other.

With zero padding, a net in training finds out where the border is, and the mean kernel of a layer can end up lopsided.
The tile is that of arXiv 2010.02178, figure 6; the scalar and its null are this project's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from shiftlens.arithmetic import Net, graph_of, net_of
from shiftlens.errors import InputError
from shiftlens.models.loading import Model, load_model
from shiftlens.naming import Printed, aligned, count_of
from shiftlens.stats import Skipped, benjamini_hochberg, exceedance_p

FloatArray = NDArray[np.float64]
N_NULL = 999

AUGMENTATION = "a net trained on images and their mirror images has no reason to lean to the left or right"


@dataclass(frozen=True)
class MeanKernel:
    """One convolution's mean kernel.

    Attributes
    ----------
    path
        Of the layer.
    kernel
        Mean over output and input channels, [rows, columns].
    asymmetry_lr, asymmetry_ud
        Sum of the absolute values of the part that is odd under a mirror, over the sum of the absolute values: 0 for a
        symmetric kernel, at most 1. `Skipped` for a kernel one cell wide (or all zero).
    lean_x, lean_y
        Sum of the right (lower) half minus the left (upper) half, over the sum of the absolute values: positive when
        the weights are larger on the right (below).
    p_lr, p_ud
        Share of nets, with each filter mirrored or not by the toss of a coin, whose odd part is at least as large;
        corrected over the layers (Benjamini-Hochberg).
    n_filters
        Output channels.
    """

    path: str
    kernel: FloatArray
    asymmetry_lr: float | Skipped
    asymmetry_ud: float | Skipped
    lean_x: float
    lean_y: float
    p_lr: float | None
    p_ud: float | None
    n_filters: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        values = asdict(self) | {"kernel": self.kernel.tolist()}
        for name in ("asymmetry_lr", "asymmetry_ud"):
            if isinstance(getattr(self, name), Skipped):
                values[name] = None
        return values


@dataclass(frozen=True, repr=False)
class Kernels(Printed):
    """Mean kernels of a net's convolutions, in call order; `notes` name the layers that were left out."""

    model: str
    layers: tuple[MeanKernel, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens kernels --json`."""
        layers = [layer.to_dict() for layer in self.layers]
        return {"model": self.model, "layers": layers, "notes": list(self.notes)}

    def __repr__(self) -> str:
        return f"<Kernels of {self.model}: {count_of(len(self.layers), 'layer')}>"

    def lines(self) -> list[str]:
        """The same for people, one line a layer."""
        head = ("layer", "asymmetry left/right", "p", "asymmetry up/down", "p")
        rows = [
            (
                layer.path,
                f"{_number(layer.asymmetry_lr)} {_way(layer.lean_x, 'right', 'left')}",
                _number(layer.p_lr),
                f"{_number(layer.asymmetry_ud)} {_way(layer.lean_y, 'below', 'above')}",
                _number(layer.p_ud),
            )
            for layer in self.layers
        ]
        return [*aligned([head, *rows]), *(f"note: {note}" for note in self.notes)]


def _number(value: float | Skipped | None) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _way(lean: float, more: str, less: str) -> str:
    return "" if lean == 0 else f"({more if lean > 0 else less})"


def kernels(module: Net | str | Path, *, seed: int = 0) -> Kernels:
    """Mean kernel of each convolution that is at least 3 cells wide along an axis, its asymmetry, and a null for it.

    Parameters
    ----------
    module
        A net, a `Model`, or a spec.
    seed
        Of the null.

    Returns
    -------
    Kernels
        In the order in which the layers are called (of definition, where the net declares no input size). A layer that
        is called twice is there once.

    Raises
    ------
    InputError
        No such convolution, or weights that are not there.

    Source
    ------
    arXiv 2010.02178, figure 6 (the mean kernel).

    Examples
    --------
    >>> layer = kernels(nn.Sequential(nn.Conv2d(3, 8, 3))).layers[0]
    >>> layer.path, layer.kernel.shape
    ('0', (3, 3))
    """
    if isinstance(module, str | Path):
        module = load_model(module)
    net = net_of(module)
    name = module.name if isinstance(module, Model) else type(net).__name__
    rng = np.random.default_rng(seed)
    found = []
    for path, layer in _convolutions(module, net):
        weight = layer.weight
        if weight.is_meta:
            raise InputError(f"{name} has no weights: mean kernels are made of them")
        found.append(_mean_kernel(path or type(layer).__name__, weight, rng))
    if not found:
        raise InputError(f"{name} has no convolution layer with a kernel of at least 3 cells")
    return Kernels(name, tuple(_corrected(found)), (AUGMENTATION,))


def _convolutions(module: Net, net: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    there = {
        path: part for path, part in net.named_modules() if isinstance(part, nn.Conv2d) and max(part.kernel_size) >= 3
    }
    size = module.input_size if isinstance(module, Model) else None
    if size is None:
        return list(there.items())
    order = dict.fromkeys(site.op.path for site in graph_of(module, size))
    return [(path, there[path]) for path in [*order, *(p for p in there if p not in order)] if path in there]


def _mean_kernel(path: str, weight: Tensor, rng: np.random.Generator) -> MeanKernel:
    # Mean over the inputs of each filter first: the null mirrors whole filters, whose inputs belong together.
    filters = weight.detach().double().mean(1).cpu().numpy()
    mean = filters.mean(0)
    total = float(np.abs(mean).sum())
    lr, p_lr = _asymmetry(filters, 2, rng)
    ud, p_ud = _asymmetry(filters, 1, rng)
    h, w = mean.shape
    right, left = mean[:, (w + 1) // 2 :].sum(), mean[:, : w // 2].sum()
    below, above = mean[(h + 1) // 2 :].sum(), mean[: h // 2].sum()
    return MeanKernel(
        path=path,
        kernel=mean,
        asymmetry_lr=lr,
        asymmetry_ud=ud,
        lean_x=float(right - left) / total if total else 0.0,
        lean_y=float(below - above) / total if total else 0.0,
        p_lr=p_lr,
        p_ud=p_ud,
        n_filters=len(filters),
    )


def _asymmetry(filters: FloatArray, axis: int, rng: np.random.Generator) -> tuple[float | Skipped, float | None]:
    """The scalar and its p-value; the null keeps each filter's symmetric part and turns its odd part by a coin."""
    if filters.shape[axis] < 2:
        return Skipped("asymmetry", "the kernel is one cell wide along this axis"), None
    n = len(filters)
    odd = ((filters - np.flip(filters, axis)) / 2).reshape(n, -1)
    scale = float(np.abs(filters.mean(0)).sum())
    if scale == 0:
        return Skipped("asymmetry", "the mean kernel is zero"), None
    real = float(np.abs(odd.mean(0)).sum())
    coins = rng.integers(0, 2, size=(N_NULL, n)) * 2.0 - 1.0
    # The odd part alone: as a share of the mean kernel it cannot pass 1, and would tie there.
    null = np.abs(coins @ odd / n).sum(1)
    # Rounding must not decide between the real net and its exact mirror image.
    return real / scale, exceedance_p(null, real * (1 - 1e-12))


def _corrected(found: list[MeanKernel]) -> list[MeanKernel]:
    for name in ("p_lr", "p_ud"):
        places = [k for k, layer in enumerate(found) if getattr(layer, name) is not None]
        adjusted = benjamini_hochberg([getattr(found[k], name) for k in places])
        for k, p_value in zip(places, adjusted.tolist(), strict=True):
            found[k] = replace(found[k], **{name: p_value})
    return found
