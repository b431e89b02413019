"""A sweep on disk: one Zarr v3 group that `xarray.open_zarr(path, consolidated=False)` opens.

A control is a subgroup `control_NAME` of the same layout; the outputs that were kept of the first images are a subgroup
`kept_outputs`. A group is built beside its place and renamed into it, so a half-made one is never seen.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftlens.engine.plan import CONTROLS
from shiftlens.errors import StoreError
from shiftlens.storage.locking import built_beside, disk_errors, set_aside
from shiftlens.sweeps.group import SweepGroup
from shiftlens.sweeps.header import SWEEP, SweepHeader
from shiftlens.sweeps.layout import create_group, refuse_unfit
from shiftlens.tasks.stored_form import task_to_table
from shiftlens.tasks.task import Task

CONTROL_PREFIX = "control_"
KEPT = "kept_outputs"


class SweepStore:
    """A sweep's main group and its controls."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._writable = writable
        self.main = SweepGroup(path, writable=writable)
        self._refuse_other_place()
        self._controls: dict[str, SweepGroup] = {}

    @staticmethod
    def create(
        path: Path,
        header: SweepHeader,
        labels: NDArray[np.int64],
        index: NDArray[np.int64],
        n_objects: NDArray[np.int64] | None = None,
        *,
        chunk_size: int,
        controls: tuple[str, ...] = (),
    ) -> SweepStore:
        """Make an empty sweep at `path`, where nothing is (see `sweep_exists`); the caller holds the lock.

        Parameters
        ----------
        path
            Where the group will be.
        header
            What the sweep is of.
        labels, index
            One for each image: its class and its position in the source.
        n_objects
            Objects of each image, where the task has numbers of objects.
        chunk_size
            Images in a chunk, at least 1.
        controls
            Names of the controls to make room for.

        Raises
        ------
        InputError
            A task that no group can be made for.
        StoreError
            The disk is full or refuses; nothing is left behind.
        """
        refuse_unfit(header.task)
        with disk_errors(path, "create"), built_beside(path.resolve(), path) as building:
            create_group(building, header, labels, index, n_objects, chunk_size)
            for control in controls:
                place = building / f"{CONTROL_PREFIX}{control}"
                create_group(place, header.for_control(control), labels, index, n_objects, chunk_size)
        return SweepStore(path, writable=True)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls that have a subgroup; none for a control itself."""
        if self.main.header.control is not None:
            return ()
        with disk_errors(self.path, "read"):
            places = {control: self.path / f"{CONTROL_PREFIX}{control}" for control in CONTROLS}
            return tuple(c for c, place in places.items() if place.is_dir() and any(place.iterdir()))

    def group(self, control: str | None) -> SweepGroup:
        """The main group (None) or a control's; the control must be there.

        Raises
        ------
        StoreError
            It is damaged, or the control is of another sweep than the main group, or another control.
        """
        if control is None:
            return self.main
        if control not in self._controls:
            place = self.path / f"{CONTROL_PREFIX}{control}"
            group = SweepGroup(place, writable=self._writable)
            _refuse_other_control(self.main, group, control)
            self._controls[control] = group
        return self._controls[control]

    def add_control(self, control: str) -> None:
        """Make an empty subgroup for a control that is not there yet."""
        target = self.path.resolve() / f"{CONTROL_PREFIX}{control}"
        main = self.main
        with main.folder.writing(), built_beside(target, self.path) as building:
            header = main.header.for_control(control)
            create_group(building, header, *main.everyone, main.n_objects, main.chunk_size, main.own_axes)

    @property
    def kept(self) -> SweepGroup | None:
        """The outputs that were kept of the first images, at every shift; None where none were.

        Raises
        ------
        StoreError
            They are damaged, or those of another sweep.
        """
        place = self.path / KEPT
        with disk_errors(self.path, "read"):
            if not place.is_dir() or not any(place.iterdir()):
                return None
        group = SweepGroup(place, writable=self._writable)
        right, found = kept_header(self.main.header, group.header.task), group.header
        n = group.n_population
        pairs = zip(self.main.everyone, group.everyone, strict=True)
        if right.model_dump() != found.model_dump() or any((mine[:n] != own).any() for mine, own in pairs):
            raise StoreError(f"{place} holds outputs of another sweep than the one in {self.path}: remove it")
        return group

    def keeping(self, task: Task, n: int) -> SweepGroup:
        """The group that keeps what `task` says of the outputs of the first `n` images or more.

        One of fewer images, or that cannot be read, is replaced by an empty one.
        """
        try:
            group = self.kept
        except StoreError:
            group = None
        wanted = task_to_table(task)
        if group is not None and group.n_population >= n and task_to_table(group.header.task) == wanted:
            return group
        main, target = self.main, self.path.resolve() / KEPT
        labels, index = (values[:n] for values in main.everyone)
        with main.folder.writing():
            if target.exists():
                with disk_errors(self.path, "write to"):
                    shutil.rmtree(set_aside(target, self.path.resolve()))
            with built_beside(target, self.path) as building:
                create_group(building, kept_header(main.header, task), labels, index, None, 1)
        return SweepGroup(target, writable=True)

    def _refuse_other_place(self) -> None:
        """A control that is opened by itself must be named so, and of the sweep in whose folder it lies, if it does."""
        control = self.main.header.control
        if control is None:
            return
        with disk_errors(self.path, "read"):
            place = self.path.resolve()
        if place.name != f"{CONTROL_PREFIX}{control}":
            raise StoreError(
                f"{self.path} holds the control {control} of a sweep: expected it in a folder "
                f"{CONTROL_PREFIX}{control} of that sweep, got {place.name}"
            )
        try:
            if not SWEEP.lies_at(place.parent):
                return
        except StoreError:
            return  # it lies in a folder of something else
        _refuse_other_control(SweepGroup(place.parent), self.main, control)


def kept_header(header: SweepHeader, task: Task) -> SweepHeader:
    """The header of what is kept of a sweep's outputs."""
    return header.model_copy(update={"task": task, "schedule": None})


def _refuse_other_control(main: SweepGroup, group: SweepGroup, control: str) -> None:
    """Refuse a group that is whole but not this control of this sweep: moved here, or renamed.

    All that is under the main group's seal must be the same in the control, which has its name under its own.
    """
    right, found = main.header.for_control(control), group.header
    other = [name for name in SweepHeader.model_fields if getattr(right, name) != getattr(found, name)]
    for name, mine, theirs in zip(("label", "index"), main.everyone, group.everyone, strict=True):
        if not np.array_equal(mine, theirs):
            other.append(name)
    if not np.array_equal(main.n_objects, group.n_objects):  # type: ignore[arg-type]  # both are None without objects
        other.append("n_objects")
    if main.chunk_size != group.chunk_size:
        other.append("layout")
    if other:
        raise StoreError(
            f"{group.path} is not the control {control} of the sweep in {main.path}: its {', '.join(other)} "
            f"{'is' if len(other) == 1 else 'are'} of another; remove it, and ask for the control again to measure it"
        )
