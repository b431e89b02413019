"""One axis of one site: how many cells come out, what padding is used, how far borders reach, what a cell sees.

Definitions (methods of the project, section 2). A window of `extent` cells slides with step `s` over `n` cells with
`b` added before and `a` after. What is left over at the end is `u = n + b + a - ((n_out - 1) s + extent)`; used padding
is `(b, a - u)`. A negative used number means that cells of the picture itself are dropped; a negative `u` is the
overhang of a last, incomplete window (`ceil_mode`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from shiftlens.graph.sites import PICTURE, WINDOWED, Graph, Site
from shiftlens.nn.pooling import out_cells


@dataclass(frozen=True)
class Step:
    """What a site does along one axis.

    Attributes
    ----------
    n_in, n_out
        Cells before and after.
    unused
        `u` above; None where a window's arithmetic does not apply.
    used
        (before, after), cells.
    reach
        (before, after): how many cells of the output, counted from each end, depend on what padding puts beside the
        picture, at this site or any before it.
    seam
        (before, after): how many cells of the output, counted from each end, would be other numbers if the image went
        on beyond that end. At least `reach`: interpolation and transposed convolutions, too, miss neighbours there.
    lo, hi
        What the first output cell sees: pixels of the input, from and to (beyond the picture is negative).
    jump
        Pixels of the input between neighbouring output cells.
    followed
        Whether rows and columns can be followed from the picture to here. If not, `reach`, `lo`, `hi` and `jump` mean
        nothing; the rest is still right, at the size of the forward pass.
    """

    n_in: int
    n_out: int
    unused: int | None
    used: tuple[int, int]
    reach: tuple[int, int]
    lo: Fraction
    hi: Fraction
    jump: Fraction
    followed: bool = True
    seam: tuple[int, int] = (0, 0)

    @property
    def is_even(self) -> bool:
        """Whether as much is used before as after."""
        return self.used[0] == self.used[1]

    @property
    def field(self) -> int:
        """Receptive field in pixels of the input."""
        return math.ceil(self.hi - self.lo) + 1


def same_padding(n: int, extent: int, stride: int) -> tuple[int, int]:
    """(before, after) that TensorFlow's SAME adds: the odd cell goes to the end."""
    total = max((-(-n // stride) - 1) * stride + extent - n, 0)
    return total // 2, total - total // 2


def step_of(site: Site, axis: int, before: Step, *, same: bool = False) -> Step | None:
    """What a site does to an axis on which `before` happened; None where its rule is not known.

    Parameters
    ----------
    site
        Of a graph.
    axis
        0 vertical, 1 horizontal.
    before
        What is known of the map that the site reads.
    same
        Whether the site computes its padding from the size, as TensorFlow's SAME does.

    Raises
    ------
    ValueError
        Nothing comes out: the map is too small for the site.
    """
    n, jump = before.n_out, before.jump
    extent, stride = site.extent[axis], site.stride[axis]
    b, a = same_padding(n, extent, stride) if same else site.padding.along(axis)
    made = _step_of(site, axis, before, n, jump, extent, stride, b, a)
    return made if made is None or before.followed else replace(made, followed=False)


def _step_of(
    site: Site, axis: int, before: Step, n: int, jump: Fraction, extent: int, stride: int, b: int, a: int
) -> Step | None:
    if site.kind in WINDOWED:
        n_out = out_cells(n, extent, stride, b, a, site.ceil_mode)
        if n_out < 1:
            raise ValueError(f"{site.name} gets {n} cells and needs {extent - b - a}")
        u = n + b + a - ((n_out - 1) * stride + extent)
        reach, seam = (_window_reach(n, n_out, extent, stride, b, each) for each in (before.reach, before.seam))
        hi = before.hi + jump * (extent - 1 - b)
        return Step(n, n_out, u, (b, a - u), reach, before.lo - jump * b, hi, jump * stride, seam=seam)
    if site.kind == "transposed conv":
        return _transposed(site, axis, before)
    if site.kind == "pad":
        n_out = n + b + a
        if n_out < 1:
            raise ValueError(f"{site.name} gets {n} cells and cuts {-b - a}")
        reach, seam = ((_within(r + b, n_out), _within(q + a, n_out)) for r, q in (before.reach, before.seam))
        shift = jump * b
        # Judged by itself only where no window follows that counts it as its own.
        used = (0, 0) if site.merged else (b, a)
        return Step(n, n_out, 0, used, reach, before.lo - shift, before.hi - shift, jump, seam=seam)
    if site.kind == "sum":
        return replace(before, n_in=n, unused=None, used=(0, 0))
    if site.kind in ("resize", "shuffle"):
        return _resized(site, axis, before)
    if site.kind in ("adaptive pool", "global pool"):
        return _adaptive(site, axis, before)
    return None


def _within(count: int, n: int) -> int:
    return min(max(count, 0), n)


def _window_reach(n: int, n_out: int, extent: int, stride: int, before: int, reach: tuple[int, int]) -> tuple[int, int]:
    """Windows that see padding, or a cell that depends on padding, counted from each end."""
    first_clean = -(-(reach[0] + before) // stride)
    last_seen = -(-(n - reach[1] + before - extent + 1) // stride)
    return _within(first_clean, n_out), n_out - _within(last_seen, n_out)


def _transposed(site: Site, axis: int, before: Step) -> Step:
    n, jump, stride, extent = before.n_out, before.jump, site.stride[axis], site.extent[axis]
    b, a = site.padding.along(axis)
    extra = site.output_padding[axis]
    n_out = (n - 1) * stride - b - a + extent + extra
    if n_out < 1:
        raise ValueError(f"{site.name} gets {n} cells and leaves nothing")
    lo = before.lo + jump * Fraction(b - extent + 1, stride)
    hi = before.hi + jump * Fraction(b, stride)

    def grown(cells: int, cut: int) -> int:
        return _within((cells - 1) * stride + extent - cut, n_out)

    first, last = before.reach
    reach = (grown(first, b) if first else 0, grown(last, a - extra) if last else 0)
    # What lies beyond the map would reach in as far as the kernel is longer than the stride.
    seam = (grown(before.seam[0], b), grown(before.seam[1], a - extra))
    # What is cut off at the end is less by the output padding: the same unevenness, the other way round.
    return Step(n, n_out, extra, (b, a - extra), reach, lo, hi, jump / stride, seam=seam)


def _resized(site: Site, axis: int, before: Step) -> Step | None:
    n, base = before.n_out, site.in_size[axis]
    if site.scale is not None:
        n_out, factor = int(n * site.scale[axis]), Fraction(site.scale[axis]).limit_denominator(4096)
    elif n == base:
        n_out, factor = site.out_size[axis], Fraction(site.out_size[axis], n)
    else:
        return None
    if n_out < 1:
        raise ValueError(f"{site.name} gets {n} cells and leaves nothing")
    # An interpolated cell sees one neighbour more on each side.
    one = Fraction(0) if site.kind == "shuffle" else before.jump
    if site.mode == "bilinear aligned":
        seam = _aligned_seam(n, n_out, factor, before.seam)
    else:
        seam = _resized_reach(site.mode, n, n_out, factor, before.seam)
    found = _resized_reach(site.mode, n, n_out, factor, before.reach)
    first, last = (cells if given else 0 for cells, given in zip(found, before.reach, strict=True))
    lo, hi = before.lo - one, before.hi + one
    return Step(n, n_out, None, (0, 0), (first, last), lo, hi, before.jump / factor, seam=seam)


def _resized_reach(mode: str, n: int, n_out: int, factor: Fraction, reach: tuple[int, int]) -> tuple[int, int]:
    """Cells from each end that read one of the first or last `reach` cells, or one beyond the map."""
    first, last, half = reach[0], n - reach[1], Fraction(1, 2)
    if mode.startswith(("nearest-exact", "nearest", "none")):  # cell o reads floor(o / factor); "exact": of its middle
        middle = half if mode.startswith("nearest-exact") else Fraction(0)
        begin = math.ceil(first * factor - middle)
        # A cell of a shuffle to channels holds several: all must be right.
        end = math.floor(last * factor) if mode == "none" else math.ceil(last * factor - middle)
    else:  # from (o + 1/2) / factor - 1/2, between two cells; cubic: between two pairs
        more = 1 if mode.startswith("bicubic") else 0
        if mode.endswith("aligned") and n > 1:  # from o (n - 1) / (n_out - 1)
            factor, half = Fraction(n_out - 1, n - 1), Fraction(0)
            more, last = (1, last) if more else (0, last - 1)
            return _within(math.ceil((first + more) * factor), n_out), n_out - _within(
                math.floor((last - more) * factor) + 1, n_out
            )
        begin = math.ceil((first + more + half) * factor - half)
        end = math.floor((last - more - half) * factor - half) + 1
    return _within(begin, n_out), n_out - _within(end, n_out)


def _aligned_seam(n: int, n_out: int, factor: Fraction, seam: tuple[int, int]) -> tuple[int, int]:
    """The same in a part of a map whose corners are aligned: a cell is read up to half a cell off its own place."""
    half = Fraction(1, 2)
    begin = math.ceil((seam[0] + 1) * factor - half)
    end = math.floor((n - seam[1] - 1) * factor - half) + 1
    return _within(begin, n_out), n_out - _within(end, n_out)


def _adaptive(site: Site, axis: int, before: Step) -> Step:
    n, n_out = before.n_out, site.out_size[axis]
    starts = [i * n // n_out for i in range(n_out)]
    ends = [-(-(i + 1) * n // n_out) for i in range(n_out)]
    width = max(end - start for start, end in zip(starts, ends, strict=True))
    reach, seam = (
        (sum(start < r for start in starts), sum(end > n - q for end in ends)) for r, q in (before.reach, before.seam)
    )
    hi = before.hi + before.jump * (width - 1)
    return Step(n, n_out, 0, (0, 0), reach, before.lo, hi, before.jump * Fraction(n, n_out), seam=seam)


def plan(graph: Graph, axis: int, n: int, same: frozenset[int] = frozenset()) -> list[Step | None]:
    """Every site's step along one axis for an input of `n` pixels; None where its rule is not known.

    At the graph's own size, what comes after an unknown rule goes on from the real size (`Step.followed` is False); at
    another size that is not known, and all that comes after is None. `same` are the places of sites that pad as
    TensorFlow's SAME does.

    Raises
    ------
    ValueError
        A site gets too little, or branches of different sizes meet.
    """
    picture = Step(n, n, None, (0, 0), (0, 0), Fraction(0), Fraction(0), Fraction(1))
    steps: list[Step | None] = []
    for site in graph:
        sources = [picture if s.index == PICTURE else steps[s.index] for s in site.sources]
        known = [step for step in sources if step is not None]
        if known and len(known) == len(sources):
            before = joined(site.name, known)
        elif n == graph.size[axis]:
            real = site.in_size[axis]
            before = replace(picture, n_in=real, n_out=real, followed=False)
        else:
            steps.append(None)
            continue
        steps.append(step_of(site, axis, before, same=site.index in same))
    return steps


def joined(where: str, sources: list[Step]) -> Step:
    """Several maps read as one at a place: a cell sees what any of them sees; `ValueError` for different sizes."""
    if len({step.n_out for step in sources}) > 1:
        sizes = " and ".join(str(step.n_out) for step in sources)
        raise ValueError(f"branches of {sizes} cells meet at {where}")
    return replace(
        sources[0],
        reach=(max(step.reach[0] for step in sources), max(step.reach[1] for step in sources)),
        seam=(max(step.seam[0] for step in sources), max(step.seam[1] for step in sources)),
        lo=min(step.lo for step in sources),
        hi=max(step.hi for step in sources),
        followed=all(step.followed for step in sources),
    )
