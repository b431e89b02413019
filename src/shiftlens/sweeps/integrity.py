"""Whether a sweep on disk is what was written: every chunk, what is known beforehand, and the means."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.engine.plan import CONTROLS
from shiftlens.errors import StoreError
from shiftlens.naming import Printed
from shiftlens.shifts import ShiftGrid
from shiftlens.storage.groups import open_array
from shiftlens.storage.locking import disk_errors
from shiftlens.sweeps.group import ChunkState, SweepGroup
from shiftlens.sweeps.header import read_header, sweep_exists
from shiftlens.sweeps.layout import KNOWN
from shiftlens.sweeps.sweep_store import CONTROL_PREFIX, KEPT, SweepStore

_SHOWN = 20


@dataclass(frozen=True)
class Fault:
    """One thing that is not right.

    Attributes
    ----------
    control
        The control's name, None for the sweep itself, "kept_outputs" for the outputs that were kept.
    what
        Of a chunk: "absent" (nothing there), "torn" (partly there, or unreadable) or "wrong" (readable, but not what
        was written). Of the means: "wrong". Of a group that cannot be opened: "damaged".
    where
        "chunk", the name of a mean ("accuracy", "mean_loss") or "group".
    chunk
        Its number, from 0; None for the others.
    images
        First and last place of a chunk's images in the sweep.
    detail
        One line for people.
    """

    control: str | None
    what: str
    where: str
    chunk: int | None
    images: tuple[int, int] | None
    detail: str


@dataclass(frozen=True, repr=False)
class Verification(Printed):
    """What `verify_sweep` found.

    Attributes
    ----------
    out
        Path of the sweep.
    n_chunks, n_whole
        Chunks in all groups, and those that are there and right.
    n_images
        Images of the sweep.
    controls
        Names of the controls that were looked at.
    complete
        Whether all groups call themselves complete.
    faults
        Empty when all is right.
    notes
        What could not be verified, and why.
    """

    out: str
    n_chunks: int
    n_whole: int
    n_images: int
    controls: tuple[str, ...]
    complete: bool
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every chunk is there and right, and so is all else."""
        return not self.faults

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens verify --json`."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> list[str]:
        """The same for people."""
        said = [f"{self.out}: {self.n_whole:,} of {self.n_chunks:,} chunks are there and right"]
        for control in dict.fromkeys(fault.control for fault in self.faults):
            of = f" of control {control}" if control else ""
            of = " of the kept outputs" if control == KEPT else of
            for what in ("torn", "wrong", "absent"):
                numbers = [
                    fault.chunk
                    for fault in self.faults
                    if (fault.control, fault.what, fault.where) == (control, what, "chunk") and fault.chunk is not None
                ]
                if numbers:
                    said.append(f"{what}: {'chunk' if len(numbers) == 1 else 'chunks'} {_ranges(numbers)}{of}")
            said += [f.detail for f in self.faults if f.control == control and f.where != "chunk"]
        said += [f"not verified: {note}" for note in self.notes]
        if any(fault.where != "group" for fault in self.faults):
            said.append("run the same sweep again: it computes exactly these, to the same bytes")
        return said


def verify_sweep(path: str | Path) -> Verification:
    """Read a whole sweep and its controls, and hold every number against its checksum; changes nothing.

    Parameters
    ----------
    path
        The Zarr group that `sweep` wrote.

    Returns
    -------
    Verification
        A sweep that was interrupted has chunks that are "absent"; those of a running one may be "torn" for a moment.

    Raises
    ------
    StoreError
        No sweep is there at all, or one of another version.

    Examples
    --------
    >>> found = verify_sweep("vgg.zarr")
    >>> print(found)
    vgg.zarr: 1 of 1 chunks are there and right
    >>> found.ok, found.faults
    (True, ())
    """
    where = Path(path)
    if not sweep_exists(where):
        raise StoreError(f"no sweep at {where}: nothing is there")
    faults: list[Fault] = []
    notes: list[str] = []
    groups: list[SweepGroup] = []
    controls: tuple[str, ...] = ()
    try:
        store = SweepStore(where)
        groups.append(store.main)
        controls = store.controls
    except StoreError as error:
        faults.append(Fault(None, "damaged", "group", None, None, str(error)))
    for control in controls:
        try:
            groups.append(store.group(control))
        except StoreError as error:
            faults.append(Fault(control, "damaged", "group", None, None, str(error)))
    try:
        kept = store.kept if groups else None
        groups += [kept] if kept else []
    except StoreError as error:
        faults.append(Fault(KEPT, "damaged", "group", None, None, str(error)))
    n_whole = 0
    for group in groups:
        states = [group.state(chunk) for chunk in range(group.n_chunks)]
        n_whole += states.count("whole")
        faults += [_chunk_fault(group, k, state) for k, state in enumerate(states) if state != "whole"]
        if group.complete and states.count("whole") == group.n_chunks:
            faults += [_mean_fault(group, name) for name in group.wrong_means()]
        elif group.complete:
            notes.append(
                f"{' and '.join(group.means_of)} of {group.path}: they are those of chunks that are not all there"
            )
    return Verification(
        out=str(path),
        n_chunks=sum(group.n_chunks for group in groups),
        n_whole=n_whole,
        n_images=groups[0].n_images if groups else 0,
        controls=controls,
        complete=bool(groups) and not any(f.where == "group" for f in faults) and all(g.complete for g in groups),
        faults=tuple(faults),
        notes=tuple(notes),
    )


def _chunk_fault(group: SweepGroup, chunk: int, state: ChunkState) -> Fault:
    span = group.span(chunk)
    images = span.start, span.stop - 1
    detail = f"{group.path}: chunk {chunk} (images {images[0]} to {images[1]}) is {state}"
    control = KEPT if group.path.name == KEPT else group.header.control
    return Fault(control, state, "chunk", chunk, images, detail)


def _mean_fault(group: SweepGroup, name: str) -> Fault:
    detail = f"{group.path}: {name} is unreadable or not that of the chunks"
    return Fault(group.header.control, "wrong", name, None, None, detail)


def _ranges(numbers: list[int]) -> str:
    """`1, 3 to 5, 9`; a long list is cut."""
    runs: list[list[int]] = []
    for k in numbers:
        if runs and k == runs[-1][1] + 1:
            runs[-1][1] = k
        else:
            runs.append([k, k])
    shown = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs[:_SHOWN])
    return shown if len(runs) <= _SHOWN else f"{shown} and {len(numbers):,} in all"


def restore_known(
    path: Path,
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    grid: ShiftGrid,
    n_objects: NDArray[np.int64] | None = None,
) -> list[str]:
    """Write what is known beforehand of a sweep and its controls again where it is torn; returns the names.

    The caller holds the lock, and has made sure that the sweep is of these images and this grid. What is not there at
    all, or of another shape, is left for `SweepGroup` to refuse.
    """
    places = [path, *(place for c in CONTROLS if (place := path / f"{CONTROL_PREFIX}{c}").is_dir())]
    restored = []
    for place in places:
        if place != path and not _is_control_of(path, place):
            continue
        known = zip((*KNOWN, "n_objects"), (labels, index, grid.dys, grid.dxs, n_objects), strict=True)
        for name, values in known:
            if values is None:
                continue
            try:
                array = open_array(place, name, "r+")
                if array.shape != values.shape or array.dtype != values.dtype:
                    continue
            except Exception:  # the metadata are damaged in whatever way; opening the group says so
                continue
            try:
                right = np.array_equal(np.asarray(array[:]), values)
            except Exception:  # Zarr raises what it happens to meet
                right = False
            if not right:
                with disk_errors(path, "write to"):
                    array[:] = values
                restored.append(f"{place.name}/{name}")
    return restored


def _is_control_of(path: Path, place: Path) -> bool:
    """Whether the attributes say so: a group of another sweep is not touched, opening it says what it is."""
    try:
        return read_header(place) == read_header(path).for_control(place.name.removeprefix(CONTROL_PREFIX))
    except StoreError:
        return False
