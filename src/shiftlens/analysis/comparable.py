"""What is to be compared: sweeps opened, named, and refused where they do not ask the same question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shiftlens.analysis.arrays import SweepArrays, from_sweep
from shiftlens.data.digits import CANVAS
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, StoreError
from shiftlens.models.behaviour import Behaviour
from shiftlens.naming import distinct, printable, unknown_name
from shiftlens.shifts import Fill
from shiftlens.sweeps.sweep_result import Sweep, open_sweep

SOURCE_SIDES = {"cifar10": 32, "digits": CANVAS}
"""Shorter side in px of the pictures of the data sets whose size is part of their name."""


@dataclass(frozen=True)
class Facts:
    """What a sweep says of itself besides its numbers, as far as a comparison must know it.

    `path`, `model`, `data` are for people; `image_size` is (h, w) px of the net's input; `n_macs` and `n_parameters`
    are None where they are not known. `n_images` are measured of the `n_population` that could be; `half_width`
    (points) is where an adaptive sweep has stopped, None for others; `behaviour` None where an older shiftlens swept.
    """

    path: str = "SWEEP.zarr"
    model: str = "MODEL"
    model_digest: str = ""
    data: str = "DATA"
    data_digest: str = ""
    image_size: tuple[int, int] = (32, 32)
    n_classes: int = 2
    fill: Fill = field(default_factory=lambda: Fill("black"))
    dtype: str = "float32"
    engine: str = "direct"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    training: Mapping[str, Any] = field(default_factory=dict)
    n_parameters: int | None = None
    n_macs: int | None = None
    control: str | None = None
    n_images: int | None = None
    n_population: int | None = None
    half_width: float | None = None
    behaviour: Behaviour | None = None

    @property
    def side(self) -> int:
        """Length in px to which the shorter side of a source picture is brought before the net sees it."""
        return self.preprocessing.resize or min(self.image_size)


@dataclass(frozen=True, eq=False)
class Source:
    """One sweep to compare: its name here, its arrays (read lazily), its facts."""

    name: str
    arrays: SweepArrays
    facts: Facts


def opened(sweeps: Sequence[Sweep | str | Path], names: Sequence[str] | None, *, partial: bool) -> list[Source]:
    """Open and name what a user gave.

    Raises
    ------
    InputError
        Fewer than two sweeps, something that is no sweep, or names that are not one a sweep and distinct.
    StoreError
        Nothing is there, or it is damaged, or not complete while `partial` is False.
    """
    if isinstance(sweeps, Sweep | str | Path):
        raise InputError("expected a list of at least 2 sweeps to compare, got a single one")
    given = list(sweeps)
    if len(given) < 2:
        raise InputError(f"expected at least 2 sweeps to compare, got {len(given)}")
    ready = [_opened(each, partial) for each in given]
    return [
        Source(name, _arrays(sweep), _facts(sweep)) for name, sweep in zip(_names(ready, names), ready, strict=True)
    ]


def _opened(each: Any, partial: bool) -> Sweep:
    if not isinstance(each, Sweep | str | Path):
        raise InputError(f"expected sweeps or their paths to compare, got {type(each).__name__}")
    sweep = each if isinstance(each, Sweep) else open_sweep(each, partial=True)
    if not sweep.complete:
        there = f"{sweep.path} is not complete: {sweep.n_written:,} of {sweep.n_images:,} images are there"
        if not sweep.n_written:
            raise StoreError(f"{there}; run the same sweep again to go on with it")
        if not partial:
            raise StoreError(
                f"{there}; run the same sweep again to finish it, or compare the images that all sweeps hold (partial)"
            )
    return sweep


def _arrays(sweep: Sweep) -> SweepArrays:
    # A control has no part in a comparison: it is not even looked at.
    return replace(from_sweep(sweep), controls={})


def _facts(sweep: Sweep) -> Facts:
    header = sweep.header
    return Facts(
        path=str(sweep.path),
        model=header.model,
        model_digest=header.model_digest,
        data=header.data,
        data_digest=header.data_digest,
        image_size=header.image_size,
        n_classes=header.n_classes,
        fill=header.fill,
        dtype=header.plan.dtype,
        engine=header.plan.engine,
        preprocessing=header.preprocessing,
        training=header.training,
        n_parameters=header.n_parameters,
        n_macs=header.n_macs,
        control=header.control,
        n_images=sweep.n_written,
        n_population=sweep.n_population,
        half_width=sweep.half_width,
        behaviour=header.behaviour,
    )


def _names(sweeps: list[Sweep], names: Sequence[str] | None) -> list[str]:
    if names is None:
        return distinct(printable(sweep.path.stem) or "sweep" for sweep in sweeps)
    wanted = [names] if isinstance(names, str) else [str(name).strip() for name in names]
    if len(wanted) != len(sweeps):
        raise InputError(f"expected {len(sweeps)} names, one a sweep, got {len(wanted)}: {', '.join(wanted)}")
    if len(set(wanted)) < len(wanted) or not all(wanted):
        raise InputError(f"expected {len(sweeps)} distinct names that are not empty, got {', '.join(wanted)}")
    return [printable(name) for name in wanted]


def position_of(baseline: int | str, names: Sequence[str]) -> int:
    """Which sweep is the baseline, by position or by name.

    Raises
    ------
    InputError
        There is no such sweep.
    """
    if isinstance(baseline, str):
        if baseline not in names:
            raise unknown_name("baseline", baseline, names)
        return list(names).index(baseline)
    if isinstance(baseline, bool) or not isinstance(baseline, int | np.integer) or not 0 <= baseline < len(names):
        raise InputError(f"expected a baseline from 0 to {len(names) - 1} or a name, got {baseline!r}")
    return int(baseline)


def refuse_unlike(base: Source, other: Source, *, partial: bool) -> None:
    """Refuse a sweep that cannot be compared with the baseline, and say what differs.

    Parameters
    ----------
    base, other
        The baseline and another.
    partial
        Other images are no reason: those that both hold are compared. Nor are they where an adaptive sweep stopped.

    Raises
    ------
    InputError
        Another kind (sweep or control), classes, fill, images, labels, or grid at the same input size.
    """

    def differs(what: str, expected: object, got: object) -> InputError:
        return InputError(
            f"{other.name} cannot be compared with {base.name}: expected the same {what}, {expected}, got {got}"
        )

    a, b = base.facts, other.facts
    if a.control != b.control:
        raise differs("kind of result", _kind(a), _kind(b))
    if base.arrays.metrics != other.arrays.metrics:
        raise differs("metrics", *(", ".join(m.name for m in each.arrays.metrics) for each in (base, other)))
    if a.n_classes != b.n_classes:
        raise differs("number of classes", a.n_classes, b.n_classes)
    for k, (one, two) in enumerate(zip(base.arrays.class_names, other.arrays.class_names, strict=False)):
        if one != two and not (_numbered(base.arrays) or _numbered(other.arrays)):
            raise differs("classes", f"{printable(one)!r} for class {k}", f"{printable(two)!r}")
    if a.fill != b.fill:
        raise differs("fill", _fill(a.fill), _fill(b.fill))
    _refuse_other_images(base, other, differs, partial)
    if a.image_size == b.image_size:
        for axis, here, there in (
            ("vertical", base.arrays.dys, other.arrays.dys),
            ("horizontal", base.arrays.dxs, other.arrays.dxs),
        ):
            if not np.array_equal(here, there):
                raise differs(f"grid of {axis} shifts", _axis(here), _axis(there))


def _refuse_other_images(base: Source, other: Source, differs: Any, partial: bool) -> None:
    a, b = base.facts, other.facts
    n_a, n_b = base.arrays.n_images, other.arrays.n_images
    partial = partial or a.half_width is not None or b.half_width is not None
    if a.data != b.data:
        raise differs("images", printable(a.data), printable(b.data))
    common, at_a, at_b = np.intersect1d(
        base.arrays.positions, other.arrays.positions, assume_unique=True, return_indices=True
    )
    if not partial and not len(common) == n_a == n_b:
        shared = f"{len(common):,} of them the same; --partial compares those" if len(common) else "none the same"
        raise differs("images", f"{n_a:,} of {printable(a.data)}", f"{n_b:,} ({shared})")
    if not len(common):
        raise differs("images", f"some of the {n_a:,} of {printable(a.data)}", "none of them")
    if len(base.arrays.labels) and len(other.arrays.labels):
        _refuse_other_labels(base, other, differs, common, at_a, at_b)
    # Pictures are brought to each net's own size and channels, which the digest covers too: only where both nets are
    # shown the same thing, and the sets hold the same images, must the digests agree.
    same_view = _view(a) == _view(b) and len(common) == n_a == n_b
    complete = not (base.arrays.n_missing or other.arrays.n_missing)
    # A digest is of all images that could be measured, in their order.
    alike = a.n_population == b.n_population and np.array_equal(base.arrays.positions, other.arrays.positions)
    if same_view and complete and alike and a.data_digest != b.data_digest:
        raise differs("images", f"{printable(a.data)} ({a.data_digest[:19]})", f"others ({b.data_digest[:19]})")


def _refuse_other_labels(base: Source, other: Source, differs: Any, common: Any, at_a: Any, at_b: Any) -> None:
    unequal = np.flatnonzero(base.arrays.labels[at_a] != other.arrays.labels[at_b])
    if len(unequal):
        k = unequal[0]
        raise differs(
            "labels",
            f"{base.arrays.labels[at_a[k]]} for image {common[k]}",
            f"{other.arrays.labels[at_b[k]]} ({len(unequal):,} of {len(common):,} differ)",
        )


def _view(facts: Facts) -> tuple[Any, ...]:
    p = facts.preprocessing
    return facts.image_size, p.resize, p.interpolation, len(p.mean)


def _numbered(arrays: SweepArrays) -> bool:
    """Whether the class names are only the classes' numbers, which say nothing."""
    return arrays.class_names == tuple(str(k) for k in range(len(arrays.class_names)))


def _kind(facts: Facts) -> str:
    return "a sweep" if facts.control is None else f"the control {facts.control}"


def _fill(fill: Fill) -> str:
    return fill.name if fill.values is None else f"{fill.name} {list(fill.values)}"


def _axis(shifts: np.ndarray[Any, Any]) -> str:
    step = int(shifts[1] - shifts[0]) if len(shifts) > 1 else 1
    return f"{shifts[0]} to {shifts[-1]} px" + (f" in steps of {step}" if step > 1 else "")
