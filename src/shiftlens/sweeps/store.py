"""A sweep on disk: one Zarr v3 group that `xarray.open_zarr(path, consolidated=False)` opens.

A control is a subgroup `control_NAME` of the same layout. A group is built beside its place and renamed into it, so a
half-made one is never seen. What is in a group: `group`; whether there is one: `existing`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shiftlens.sweeps.attributes import SweepHeader
from shiftlens.sweeps.group import KEPT, SweepGroup
from shiftlens.sweeps.layout import create_group
from shiftlens.sweeps.locking import built_beside, disk_errors
from shiftlens.sweeps.plan import CONTROLS

CONTROL_PREFIX = "control_"


class SweepStore:
    """A sweep's main group and its controls."""

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        self.path = path
        self._writable = writable
        self.main = SweepGroup(path, writable=writable)
        self._controls: dict[str, SweepGroup] = {}

    @staticmethod
    def create(
        path: Path,
        header: SweepHeader,
        labels: NDArray[np.int64],
        index: NDArray[np.int64],
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
        chunk_size
            Images in a chunk, at least 1.
        controls
            Names of the controls to make room for.

        Raises
        ------
        StoreError
            The disk is full or refuses; nothing is left behind.
        """
        with disk_errors(path, "create"), built_beside(path.resolve(), path) as building:
            create_group(building, header, labels, index, chunk_size)
            for control in controls:
                place = building / f"{CONTROL_PREFIX}{control}"
                create_group(place, header.for_control(control), labels, index, chunk_size)
        return SweepStore(path, writable=True)

    @property
    def controls(self) -> tuple[str, ...]:
        """Names of the controls that have a subgroup."""
        with disk_errors(self.path, "read"):
            return tuple(c for c in CONTROLS if (self.path / f"{CONTROL_PREFIX}{c}" / "zarr.json").is_file())

    def group(self, control: str | None) -> SweepGroup:
        """The main group (None) or a control's; the control must be there."""
        if control is None:
            return self.main
        if control not in self._controls:
            place = self.path / f"{CONTROL_PREFIX}{control}"
            self._controls[control] = SweepGroup(place, writable=self._writable)
        return self._controls[control]

    def add_control(self, control: str) -> None:
        """Make an empty subgroup for a control that is not there yet."""
        target = self.path.resolve() / f"{CONTROL_PREFIX}{control}"
        main = self.main
        with disk_errors(self.path, "write to", KEPT), built_beside(target, self.path) as building:
            create_group(building, main.header.for_control(control), *main.everyone, main.chunk_size, main.schema)
