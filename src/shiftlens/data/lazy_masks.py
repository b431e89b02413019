"""Masks that lie in files: each is read when it is asked for, as images are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shiftlens.data.decode import SizeRule
from shiftlens.errors import InputError
from shiftlens.tasks.task import IGNORED_PIXEL

Mask = NDArray[np.uint8]


class MaskReader(Protocol):
    """Where masks come from; positions are those of the images in their source."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def mask(self, position: int) -> Mask:
        """Class numbers [h, w], in the mask's own size."""
        ...

    def stored(self, position: int) -> bytes:
        """Checksum of the mask's stored form."""
        ...

    def where(self, position: int) -> str:
        """How an error names the mask."""
        ...


@dataclass(frozen=True, eq=False)
class LazyMasks:
    """Masks of some images: `masks[2:4]` is an array [2, h, w].

    Attributes
    ----------
    reader
        Where they come from.
    index
        Position of each in its source.
    rule
        How they are brought to one size; None where they keep their own.
    numbers
        Another class number [256] for each; None where they keep their own.
    """

    reader: MaskReader
    index: NDArray[np.int64]
    rule: SizeRule | None = None
    numbers: Mask | None = None
    _looks: dict[int, tuple[tuple[int, ...], frozenset[int]]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.index)

    def at(self, positions: Any) -> LazyMasks:
        """Those of some images."""
        return LazyMasks(self.reader, np.atleast_1d(self.index[positions]), self.rule, self.numbers, self._looks)

    def __getitem__(self, positions: Any) -> Mask:
        """Read some of them; `InputError` where their sizes differ."""
        index = np.atleast_1d(self.index[positions]).tolist()
        found = [self._read(position) for position in index]
        other = next((k for k, mask in enumerate(found) if mask.shape != found[0].shape), None)
        if other is not None:
            (h, w), (oh, ow) = found[0].shape, found[other].shape
            first, second = (self.reader.where(index[k]) for k in (0, other))
            raise InputError(f"masks must share one size, got {h}x{w} ({first}) and {oh}x{ow} ({second})")
        return np.stack(found)

    @cached_property
    def digest(self) -> bytes:
        """Over the stored form of all, in order."""
        total = hashlib.sha256()
        for position in self.index.tolist():
            total.update(self.reader.stored(position))
        return total.digest()

    def refuse_other_size(self, sizes: NDArray[np.int64]) -> None:
        """Refuse a mask of another size than its image, of (h, w) of each, and masks of nothing but 0 and 255.

        Every mask is read once.
        """
        looks = self._looked()
        for position, (shape, _), size in zip(self.index.tolist(), looks, sizes.tolist(), strict=True):
            if self.rule is None and list(shape) != size:
                raise InputError(
                    f"{self.reader.where(position)} is {shape[0]}x{shape[1]}, its image {size[0]}x{size[1]}"
                )
        classes = frozenset[int]().union(*(each for _, each in looks))
        if classes <= {0, IGNORED_PIXEL} and IGNORED_PIXEL in classes:
            raise InputError(
                f"{self.reader.where(int(self.index[0]))} and all other masks hold only 0 and 255, and 255 counts for "
                "nothing: number the classes from 0 (1 where the object is)"
            )

    @property
    def classes(self) -> set[int]:
        """Every class number there is, 255 too."""
        return {k if self.numbers is None else int(self.numbers[k]) for _, look in self._looked() for k in look}

    @property
    def highest(self) -> NDArray[np.int64]:
        """The highest class [n] of each; -1 where no pixel counts."""
        renumber = (lambda k: k) if self.numbers is None else (lambda k: int(self.numbers[k]))
        found = [max((renumber(k) for k in classes - {IGNORED_PIXEL}), default=-1) for _, classes in self._looked()]
        return np.array(found, np.int64)

    def _looked(self) -> list[tuple[tuple[int, ...], frozenset[int]]]:
        """Size and classes of each mask as it is stored; read once."""
        for position in self.index.tolist():
            if position not in self._looks:
                mask = self.reader.mask(position)
                self._looks[position] = (mask.shape, frozenset(np.unique(mask).tolist()))
        return [self._looks[position] for position in self.index.tolist()]

    def _read(self, position: int) -> Mask:
        mask = self.reader.mask(position)
        if self.numbers is not None:
            mask = self.numbers[mask]
        return mask if self.rule is None else on_rule(mask, self.rule, self.reader.where(position))


def on_rule(mask: Mask, rule: SizeRule, where: str) -> Mask:
    """A mask [h, w] brought to the rule's size as its image is, by the nearest pixel."""
    h, w = mask.shape
    placing = rule.placing((h, w), lambda: where)
    # The pixel at the centre of each new one, in whole numbers: floor((k + 1/2) * old / new).
    rows = (2 * (placing.top + np.arange(rule.size[0])) + 1) * h // (2 * placing.new_h)
    columns = (2 * (placing.left + np.arange(rule.size[1])) + 1) * w // (2 * placing.new_w)
    return np.asarray(mask[rows[:, None], columns])
