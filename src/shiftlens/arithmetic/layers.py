"""One row of layer arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shiftlens.graph import WINDOWED, Graph, Sides, Site
from shiftlens.graph.axis import Step, same_padding
from shiftlens.graph.sites import Pair
from shiftlens.stats import Skipped


@dataclass(frozen=True)
class Layer:
    """What one layer does with its padding, at one input size.

    Attributes
    ----------
    path, call
        Module path (a plain function ends with "()"), and 0 for its first call in a forward pass, 1 for the second.
    kind
        conv, transposed conv, max pool, average pool, lp pool, adaptive pool, global pool, pad, slice, resize, shuffle
        or unknown.
    kernel, stride, dilation
        (vertical, horizontal), cells.
    padding
        What is added on each side, explicit padding right before the layer included; negative where cells are cut.
    mode
        Padding mode; "none" without padding.
    in_size, out_size
        (h, w), cells, before padding and after the layer.
    unused
        (vertical, horizontal) rows and columns of the padded map that no window reaches, at the bottom and right;
        negative: overhang of an incomplete last window. `Skipped` where the layer's rule is not known.
    used
        Padding that windows reach, each side; negative: rows or columns of the map itself are dropped.
    receptive_field
        (h, w) in pixels of the picture that one cell depends on; `Skipped` where it cannot be followed.
    border_reach
        Cells of the output, counted from each side, that depend on what padding puts beside the picture (here or in
        any layer before).
    reach_pixels
        The same in pixels of the picture.
    tensorflow_same
        Padding on each side under TensorFlow's SAME, which puts the odd row at the end; None for layers without
        windows.
    merged
        For explicit padding: the next layer counts it as its own, so it is not judged here.
    """

    path: str
    call: int
    kind: str
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Sides
    mode: str
    in_size: Pair
    out_size: Pair
    unused: Pair | Skipped
    used: Sides | Skipped
    receptive_field: Pair | Skipped
    border_reach: Sides | Skipped
    reach_pixels: Sides | Skipped
    tensorflow_same: Sides | None
    merged: bool

    @property
    def name(self) -> str:
        """The path, with #2 for the second call."""
        return self.path if self.call == 0 else f"{self.path}#{self.call + 1}"

    @property
    def is_even(self) -> bool:
        """Whether opposite sides are treated alike, as far as is known."""
        used = self.used
        return isinstance(used, Skipped) or (used.left == used.right and used.top == used.bottom)

    @property
    def clean_share(self) -> float | Skipped:
        """Share of the output's cells, 0 to 1, that no padding can reach."""
        if isinstance(self.border_reach, Skipped):
            return self.border_reach
        (h, w), reach = self.out_size, self.border_reach
        return max(0, h - reach.top - reach.bottom) * max(0, w - reach.left - reach.right) / (h * w)

    def to_dict(self) -> dict[str, Any]:
        """The keys of a layer in `shiftlens inspect --json`; what could not be found is null, with a reason."""
        unknown = (self.unused, self.receptive_field)
        skipped = next((each for each in unknown if isinstance(each, Skipped)), None)
        return {
            "path": self.path,
            "call": self.call,
            "kind": self.kind,
            "kernel": list(self.kernel),
            "stride": list(self.stride),
            "dilation": list(self.dilation),
            "padding": self.padding.to_dict(),
            "mode": self.mode,
            "in_size": list(self.in_size),
            "out_size": list(self.out_size),
            "unused": None if isinstance(self.unused, Skipped) else list(self.unused),
            "used": _sides(self.used),
            "even": self.is_even,
            "merged": self.merged,
            "receptive_field": None if isinstance(self.receptive_field, Skipped) else list(self.receptive_field),
            "border_reach": _sides(self.border_reach),
            "reach_pixels": _sides(self.reach_pixels),
            "tensorflow_same": _sides(self.tensorflow_same),
            "skipped": None if skipped is None else skipped.why,
        }


def _sides(value: Sides | Skipped | None) -> dict[str, int] | None:
    return value.to_dict() if isinstance(value, Sides) else None


_FROM_SITE = (
    "path",
    "call",
    "kind",
    "kernel",
    "stride",
    "dilation",
    "padding",
    "mode",
    "in_size",
    "out_size",
    "merged",
)


def layer_of(site: Site, vertical: Step | None, horizontal: Step | None) -> Layer:
    """A site's two axes as one row."""
    same = None
    if site.kind in WINDOWED and site.kind != "slice":
        same = Sides.of(*(same_padding(site.in_size[axis], site.extent[axis], site.stride[axis]) for axis in (0, 1)))
    facts: dict[str, Any] = {name: getattr(site, name) for name in _FROM_SITE}
    if vertical is None or horizontal is None:
        why = Skipped(site.name, "its sizes follow a rule that is not known here")
        return Layer(
            **facts,
            unused=why,
            used=why,
            receptive_field=why,
            border_reach=why,
            reach_pixels=why,
            tensorflow_same=same,
        )
    # A resize or a sum of branches uses no padding: nothing is left over.
    unused = (vertical.unused or 0, horizontal.unused or 0)
    if not (vertical.followed and horizontal.followed):
        why = Skipped(site.name, "its rows and columns cannot be followed from the picture")
        return Layer(
            **facts,
            unused=unused,
            used=Sides.of(vertical.used, horizontal.used),
            receptive_field=why,
            border_reach=why,
            reach_pixels=why,
            tensorflow_same=same,
        )
    reach = Sides.of(vertical.reach, horizontal.reach)
    pixels = Sides.of(*((round(s.reach[0] * s.jump), round(s.reach[1] * s.jump)) for s in (vertical, horizontal)))
    return Layer(
        **facts,
        unused=unused,
        used=Sides.of(vertical.used, horizontal.used),
        receptive_field=(vertical.field, horizontal.field),
        border_reach=reach,
        reach_pixels=pixels,
        tensorflow_same=same,
    )


def matches(graph: Graph, steps: tuple[list[Step | None], list[Step | None]]) -> bool:
    """Whether planned sizes are those of a real forward pass; what is not known, or not judged, counts as right."""
    return all(
        step is None or site.merged or (step.n_in == site.in_size[axis] and step.n_out == site.out_size[axis])
        for axis in (0, 1)
        for site, step in zip(graph, steps[axis], strict=True)
    )
