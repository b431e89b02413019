"""`inspect`: the arithmetic of every layer of a net at one size, and the sizes nearby that treat all sides alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from shiftlens.arithmetic.evenness import ONE_SIZE, even_sizes
from shiftlens.arithmetic.layers import Layer, layer_of, matches
from shiftlens.arithmetic.nets import Net, graph_of, net_of
from shiftlens.arithmetic.unseen import Unseen
from shiftlens.errors import InputError
from shiftlens.graph import GEOMETRIC, Graph, Sides
from shiftlens.graph.axis import Step, plan
from shiftlens.graph.sites import Pair
from shiftlens.models.skeletons import as_net
from shiftlens.models.wrapping import Model
from shiftlens.naming import Printed, aligned, count_of
from shiftlens.nn.downsample import BlurPool2d, ReducedLayer2d
from shiftlens.stats import Skipped

KIND = "inspection"

Plans = tuple[list[Step | None], list[Step | None]]


@dataclass(frozen=True, repr=False)
class Inspection(Printed):
    """Layer arithmetic of a net at one input size.

    Attributes
    ----------
    model
        The net's name.
    size
        (h, w) in pixels.
    layers
        In call order.
    even_sizes
        For "h" and "w": sizes nearby, ascending, at which every layer uses as much padding on one side as on the other.
    notes
        What could not be seen, by name.
    unseen
        What is no layer with a window, and so was not looked at: attention, position embeddings, function calls.
    model_options
        How the model was named beside its spec, for the commands of findings.

    Examples
    --------
    >>> found = sl.inspect(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1)), 32)
    >>> found.is_even, [layer.path for layer in found.uneven]
    (False, ['0'])
    >>> print(found.summary()[0])
    Sequential at 32x32: 1 of 1 layer is uneven: 0
    """

    model: str
    size: Pair
    layers: tuple[Layer, ...]
    even_sizes: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    model_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def uneven(self) -> tuple[Layer, ...]:
        """The layers that treat opposite sides differently."""
        return tuple(layer for layer in self.layers if not layer.is_even)

    @property
    def is_even(self) -> bool:
        """Whether no layer does."""
        return not self.uneven

    @property
    def takes_one_size(self) -> bool:
        """Whether the net took no other size that was tried."""
        return ONE_SIZE in self.notes

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens inspect --json`."""
        return {
            "kind": KIND,
            "model": self.model,
            "size": list(self.size),
            "even": self.is_even,
            "even_sizes": {axis: list(sizes) for axis, sizes in self.even_sizes.items()},
            "layers": [layer.to_dict() for layer in self.layers],
            "notes": [*self.notes, *self.unseen],
            "model_options": dict(self.model_options),
        }

    def __repr__(self) -> str:
        return f"<Inspection: {self.summary()[0]}>"

    def lines(self, *, only_uneven: bool = False) -> list[str]:
        """The same for people: one line a layer (or for each uneven one), and what follows from it."""
        shown = self.uneven if only_uneven else self.layers
        head = ("layer", "kind", "kernel", "stride", "in", "out", "used l r t b", "unused", "reach", "field")
        table = aligned([head, *(_row(layer) for layer in shown)])
        for number, layer in enumerate(shown, start=1):
            if not layer.is_even:
                table[number] += "  <- uneven"
        return [*table, "", *self.summary()]

    def summary(self) -> list[str]:
        """What follows from the table, in sentences."""
        h, w = self.size
        said = [_verdict(self)]
        sizes = {axis: ", ".join(map(str, found)) or "none nearby" for axis, found in self.even_sizes.items()}
        if not self.takes_one_size:
            said.append(f"even sizes nearby: height {sizes['h']}; width {sizes['w']}")
        tensorflow = _tensorflow(self.uneven)
        if tensorflow:
            said.append(tensorflow)
        last = next((layer for layer in reversed(self.layers) if isinstance(layer.clean_share, float)), None)
        maps = [layer for layer in self.layers if layer.out_size != (1, 1) and isinstance(layer.clean_share, float)]
        gone = next((layer for layer in maps if layer.clean_share == 0.0), None)
        if gone is not None:
            said.append(f"padding can reach every cell from {gone.name} ({gone.out_size[0]}x{gone.out_size[1]}) on")
        elif maps and last is not None:
            share = maps[-1].clean_share
            if isinstance(share, float):
                said.append(f"at {h}x{w}, {100 * share:.0f} % of the cells of {maps[-1].name} are free of any padding")
        return [*said, *(f"note: {note}" for note in (*self.notes, *self.unseen))]


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _verdict(found: Inspection) -> str:
    h, w = found.size
    judged = sum(not isinstance(layer.used, Skipped) and not layer.merged for layer in found.layers)
    if found.is_even:
        some, alike = ("only layer", "treats") if judged == 1 else (f"{judged} layers", "treat")
        which, rest = f"{'the' if judged == 1 else 'all'} {some}", ""
        if found.unseen:
            which, rest = f"the {some} that {'was' if judged == 1 else 'were'} looked at", "; the rest is not judged"
        return f"{found.model} at {h}x{w}: {which} {alike} opposite sides alike{rest}"
    names = [layer.name for layer in found.uneven]
    verb = "is" if len(names) == 1 else "are"
    return f"{found.model} at {h}x{w}: {len(names)} of {count_of(judged, 'layer')} {verb} uneven: {_some(names)}"


def _tensorflow(uneven: tuple[Layer, ...]) -> str:
    """One layer as an example of the other convention."""
    for layer in uneven:
        same, used = layer.tensorflow_same, layer.used
        if (
            same is not None
            and isinstance(used, Sides)
            and (same.left, same.right)
            == (used.right, used.left)
            != (
                used.left,
                used.right,
            )
        ):
            return (
                f"TensorFlow's SAME leans to the other side: at {layer.name} it uses {same.left} left and {same.right} "
                f"right, here it is {used.left} and {used.right}"
            )
    return ""


def _row(layer: Layer) -> tuple[str, ...]:
    def sized(pair: Pair) -> str:
        return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"

    used, reach, field = layer.used, layer.border_reach, layer.receptive_field
    sides = "?"
    if layer.merged:
        sides = "(next)"
    elif isinstance(used, Sides):
        sides = f"{used.left} {used.right} {used.top} {used.bottom}"
    kernel = sized(layer.kernel) + (f" d{sized(layer.dilation)}" if layer.dilation != (1, 1) else "")
    return (
        layer.name,
        layer.kind,
        kernel,
        sized(layer.stride),
        sized(layer.in_size),
        sized(layer.out_size),
        sides,
        "?" if isinstance(layer.unused, Skipped) else sized(layer.unused),
        "?" if isinstance(reach, Skipped) else str(max(reach.left, reach.right, reach.top, reach.bottom)),
        "?" if isinstance(field, Skipped) else sized(field),
    )


def inspect(module: Net | str | Path, size: int | Pair | None = None, *, name: str | None = None) -> Inspection:
    """Say, for each layer, how much of its padding is used on each side, and which input sizes would be even.

    No weights and no images are needed: shapes come from one forward pass without numbers. A layer is even if it uses
    as much padding before as after, along each axis; a net is even at a size if all its layers are.

    Parameters
    ----------
    module
        An `nn.Module`, a `Model` or a spec (of which no weights are loaded) that takes images [n, c, h, w].
    size
        (h, w) or one number, pixels; default what the model declares.
    name
        For people; default the net's type, or the model's name.

    Returns
    -------
    Inspection
        `.layers[i].path, .call, .unused, .used`; `.uneven`; `.even_sizes`; `print` shows a table.

    Raises
    ------
    InputError
        A net without spatial layers, or one that does not take this size (the layer and its size are named).

    Source
    ------
    arXiv 2010.02178, section 3 (uneven application of padding).

    Examples
    --------
    >>> import torch
    >>> found = inspect(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), (32, 32))
    >>> found.layers[0].unused, found.even_sizes["h"]
    ((1, 1), (27, 29, 31, 33, 35, 37))
    """
    module, size = as_net(module, size)
    net = net_of(module)
    with Unseen(net) as unseen:
        graph = graph_of(module, size, name=name)
    if not graph.of_kind(*GEOMETRIC):
        raise InputError(f"{graph.name} has no spatial layers (convolutions or pools) that can be seen")
    plans, notes = _plans(graph)
    sites = [(site, v, h) for site, v, h in zip(graph, *plans, strict=True) if site.kind in GEOMETRIC]
    layers = tuple(layer_of(site, v, h) for site, v, h in sites)
    even, more = even_sizes(net, graph)
    notes += [*more, *_of_blurs(net, [layer.path for layer in layers if not layer.is_even])]
    options = module.options if isinstance(module, Model) else {}
    return Inspection(graph.name, graph.size, layers, even, (*graph.notes, *notes), unseen.sentences(), options)


def _of_blurs(net: nn.Module, uneven: list[str]) -> Iterator[str]:
    """What a blur (arXiv 1904.11486) in the place of a stride does not change."""
    parts = dict(net.named_modules())
    still = [path for path in uneven if isinstance(parts.get(path), BlurPool2d)]
    if still:
        yield (
            f"{_some(still)}: a blur with a stride keeps the same cells as the stride alone, so that it is as "
            "uneven; what it lessens is how much one pixel of shift changes them"
        )
    early = [
        f"{path}.reduce"
        for path, part in parts.items()
        if isinstance(part, ReducedLayer2d)
        and isinstance(part.layer, nn.Conv2d)
        and isinstance(part.reduce, BlurPool2d)
        if not hasattr(part, "activation")
    ]
    if early:
        yield (
            f"{_some(early)}: the blur is right behind the convolution; an activation that the net's own code "
            "calls comes after it, where the paper has it before"
        )


def _plans(graph: Graph) -> tuple[Plans, list[str]]:
    """Both axes at the graph's own size; a site whose real size is another is not known, nor what comes after it."""
    try:
        plans = (plan(graph, 0, graph.size[0]), plan(graph, 1, graph.size[1]))
    except ValueError as error:
        none: list[Step | None] = [None] * len(graph)
        return (none, none), [f"sizes cannot be followed: {error}"]
    if matches(graph, plans):
        return plans, []
    first = next(
        k
        for k, site in enumerate(graph)
        for axis in (0, 1)
        if (step := plans[axis][k]) is not None and step.n_out != site.out_size[axis]
    )
    none = [None] * (len(graph) - first)
    return ([*plans[0][:first], *none], [*plans[1][:first], *none]), [
        f"sizes from {graph.sites[first].name} on do not follow the usual rule"
    ]
