"""What a forward pass is made of, as far as space is concerned: sites, where they read from, and the list of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shiftlens.errors import InputError
from shiftlens.naming import nearest

Pair = tuple[int, int]
"""(vertical, horizontal)."""

PICTURE = -1
"""The place of the input picture among the sources of a site."""

WINDOWED = ("conv", "max pool", "average pool", "lp pool", "slice")
"""Kinds that slide a window: `kernel`, `stride`, `dilation` and `padding` say everything about their geometry."""

GEOMETRIC = (*WINDOWED, "transposed conv", "pad", "resize", "adaptive pool", "global pool", "shuffle", "unknown")
"""Kinds that change, or may change, the size of the map: what layer arithmetic is about (a `sum` does not)."""


@dataclass(frozen=True)
class Sides:
    """Cells added on each side; a negative number cuts cells off."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __add__(self, other: Sides) -> Sides:
        return Sides(self.left + other.left, self.right + other.right, self.top + other.top, self.bottom + other.bottom)

    def __bool__(self) -> bool:
        return any((self.left, self.right, self.top, self.bottom))

    def along(self, axis: int) -> Pair:
        """(before, after) along axis 0 (vertical) or 1 (horizontal)."""
        return (self.top, self.bottom) if axis == 0 else (self.left, self.right)

    @staticmethod
    def of(vertical: Pair, horizontal: Pair) -> Sides:
        """From (before, after) along each axis."""
        return Sides(*horizontal, *vertical)

    def to_dict(self) -> dict[str, int]:
        """The four sides by name."""
        return {"left": self.left, "right": self.right, "top": self.top, "bottom": self.bottom}


@dataclass(frozen=True)
class OpKey:
    """One function call of a forward pass: the module it happens in, its name, and which of that name there.

    `channels_last` says that its output is [n, h, w, c] instead of [n, c, h, w].
    """

    path: str
    name: str
    number: int
    channels_last: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Source:
    """One map that a site reads: the index of the site that made it (or `PICTURE`), and its share.

    The share is 1, or less after a concatenation, which mixes maps by their numbers of channels.
    """

    index: int
    share: float = 1.0


@dataclass(frozen=True)
class Site:
    """One place where a forward pass computes a map over space.

    Attributes
    ----------
    index
        Position in call order.
    path
        The layer's module path; for a plain function, the module that calls it and the function with "()".
    call
        0 for the first time that this path was met in one forward pass, 1 for the second, ...
    kind
        conv, transposed conv, max pool, average pool, lp pool, adaptive pool, global pool, pad, slice, resize, shuffle,
        sum (of branches), or unknown (changes the size by a rule that is not known here).
    kernel, stride, dilation
        (vertical, horizontal), cells of the map that is read. For a resize or shuffle all 1.
    padding
        What is added on each side before the windows slide: the layer's own, plus explicit padding right before it.
        For a transposed convolution, what is cut off afterwards.
    own
        The layer's own part of that.
    mode
        Padding mode, as in `shiftlens.nn.pad`; "none" without padding, "-inf" for a max pool, "constant" for another
        number, several joined by "+"; how a resize interpolates ("bilinear", "bilinear aligned").
    ceil_mode
        Whether a last, incomplete window counts.
    counts_padding
        Whether an average pool divides by the whole window at the border.
    in_size, out_size
        (h, w) of the map that is read (before any padding) and of the map that is made.
    in_channels, out_channels, groups
        Channels; groups of a convolution.
    sources
        Which maps are read.
    merged
        For a pad: true where a window follows, and counts this padding as its own.
    scale
        Of a resize or shuffle: output size over input size; None where the output's size was given in cells.
    output_padding
        Of a transposed convolution: rows and columns added at the end.
    op
        The function call whose output this is.
    after
        The function call that holds this site's output after its activation (or, where none follows directly, after
        its normalisation); `op` itself where there is neither.
    activation
        Name of that activation; None where there is none.
    layer
        Type of the layer, or the function's name.
    """

    index: int
    path: str
    call: int
    kind: str
    kernel: Pair
    stride: Pair
    dilation: Pair
    padding: Sides
    own: Sides
    mode: str
    ceil_mode: bool
    counts_padding: bool
    in_size: Pair
    out_size: Pair
    in_channels: int
    out_channels: int
    groups: int
    sources: tuple[Source, ...]
    merged: bool
    scale: tuple[float, float] | None
    output_padding: Pair
    op: OpKey
    after: OpKey
    activation: str | None
    layer: str

    @property
    def name(self) -> str:
        """The path, with #2 for the second call, #3 for the third, ..."""
        return self.path if self.call == 0 else f"{self.path}#{self.call + 1}"

    @property
    def extent(self) -> Pair:
        """Cells from a window's first tap to its last, `dilation * (kernel - 1) + 1`."""
        return (self.dilation[0] * (self.kernel[0] - 1) + 1, self.dilation[1] * (self.kernel[1] - 1) + 1)


@dataclass(frozen=True)
class GlobalLayer:
    """One function call whose output at one place depends on the whole map, or on where in the image that place is.

    Attributes
    ----------
    path
        Of the layer; for a plain function, the module that calls it and the function with "()".
    kind
        norm (statistics over space), pooling (one number for the whole map), attention, or other (moves or mixes
        places, differs from place to place).
    layer
        Type of the layer, or the function's name.
    level
        1 where it depends on no other such call; otherwise one more than the highest level that it depends on.
    freezable
        Whether its statistics are a few numbers a channel that can be summed over tiles and used again.
    op
        The function call.
    sources, size
        The sites that made the map it reads, and that map's (h, w).
    cells
        (h, w) of the map that pooling makes, the same for every size of the image.
    """

    path: str
    kind: str
    layer: str
    level: int
    freezable: bool
    op: OpKey
    sources: tuple[Source, ...]
    size: Pair
    cells: Pair = (1, 1)


@dataclass(frozen=True)
class Output:
    """What a net returns: the first tensor of numbers in it.

    `shape` of one image's numbers; `sources` the sites that it comes from; `lost` says where its rows and columns could
    no longer be followed, and is empty where they are its last two axes.
    """

    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    lost: str


ENDS_AT = "the net ends at layer"
"""How the note of a graph begins whose forward pass ended at a linear layer that does not take the size."""


@dataclass(frozen=True)
class Graph:
    """A net's spatial sites in call order, at one input size.

    Attributes
    ----------
    sites
        In call order.
    size
        (h, w) of the input in pixels.
    n_channels
        Of the input.
    notes
        What could not be seen or followed, by name.
    global_layers
        Calls whose output at one place depends on the whole map, in call order.
    output
        What the net returns; None where the forward pass ended before.
    """

    sites: tuple[Site, ...]
    size: Pair
    n_channels: int
    notes: tuple[str, ...] = ()
    name: str = field(default="the model", compare=False)
    global_layers: tuple[GlobalLayer, ...] = ()
    output: Output | None = None

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    @property
    def is_cut_short(self) -> bool:
        """Whether the net's linear layers do not take this size: the forward pass ended there."""
        return any(note.startswith(ENDS_AT) for note in self.notes)

    def of_kind(self, *kinds: str) -> tuple[Site, ...]:
        """The sites of some kinds, in call order."""
        return tuple(site for site in self.sites if site.kind in kinds)

    def find(self, name: str) -> Site:
        """The site of that name (`path`, or `path#2` for a second call), or of that position in the list.

        Raises
        ------
        InputError
            No such site; suggests the nearest name.
        """
        by_name = {site.name: site for site in self.sites}
        if name in by_name:
            return by_name[name]
        if name.isdecimal() and int(name) < len(self.sites):
            return self.sites[int(name)]
        raise unknown_site(self.name, name, list(by_name))


def unknown_site(model: str, name: str, known: Sequence[str]) -> InputError:
    """The error for a layer that is not there."""
    best = nearest(name, known)
    hint = (
        f"; did you mean {best!r}?" if best else f"; it has {', '.join(known[:6])}{', ...' if len(known) > 6 else ''}"
    )
    return InputError(f"{model} has no spatial layer {name!r}{hint}")
