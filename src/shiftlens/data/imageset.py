"""`ImageSet`: a lazy sequence of 8-bit pictures with labels, the one form in which images enter."""

from __future__ import annotations

import copy
import hashlib
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8

from shiftlens.data.decode import DECODE_RULE, SizeRule, fit, with_channels
from shiftlens.data.example_images import ArrayPictures, EncodedPictures, Pictures, as_class_names, as_labels
from shiftlens.data.image_items import item_pictures
from shiftlens.data.preprocessing import INTERPOLATIONS, Resize, is_too_small
from shiftlens.data.selection import positions_in, read_only, stratified_order, stratified_split
from shiftlens.data.surveying import Progress, Survey, surveyed
from shiftlens.data.targets import Targets, as_targets
from shiftlens.errors import InputError
from shiftlens.given import CHANGED
from shiftlens.naming import count_of, unknown_name

Positions = Sequence[int] | Integer[np.ndarray, " _"] | Bool[np.ndarray, " _"] | slice


class ImageSet:
    """Pictures with labels. Pixels are read only when asked for; memory does not grow with the set.

    Parameters
    ----------
    images
        Array or tensor: `(n, h, w)`, `(n, c, h, w)` or `(n, h, w, c)` with 1 or 3 channels (if both the second and
        the last axis could be the channels, the second is). uint8, or floating point from 0 to 1, which becomes the
        nearest of 256 levels. It is not copied: do not change it afterwards. Or a list of Pillow images, arrays or
        tensors, which may differ in size; or any lazy `Pictures`, as every kind of source opens them.
    labels
        One whole number from 0 up for each picture; masks [n, h, w] of class numbers, 255 for pixels that count for
        nothing; a list with `{"boxes": [k, 4], "labels": [k]}` for each picture, boxes as (left, top, right, bottom)
        in pixels, each or none with a `"mask"` [h, w] as well; or None.
    class_names
        One name for each class, no two alike; the numbers themselves if not given.
    name
        What results call the set.
    natural_flip
        Whether a mirrored picture is still of its class (not so for digits): training's default for random flips.

    Attributes
    ----------
    labels
        Class of each picture, int64, read-only; zeros where there are none.
    labelled
        Whether there are classes.
    targets
        Masks, boxes or both (`data.targets.Targets`), or None.
    index
        Position of each picture in its source, int64, read-only.
    class_names, name, natural_flip
        As given.
    n_channels
        1 or 3.
    options
        What `load_images` was given beside the spec, and a sweep as its label map, by name; empty for arrays.

    Raises
    ------
    InputError
        Shapes, types or values other than these, no pictures at all, or a label beyond the class names.

    Examples
    --------
    >>> images = ImageSet(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])
    >>> images.batch([0, 2]).shape, images.class_names
    ((2, 1, 8, 8), ('0', '1'))
    """

    def __init__(
        self,
        images: Any,
        labels: Any = None,
        *,
        class_names: Sequence[str] | None = None,
        name: str = "images",
        natural_flip: bool = True,
    ) -> None:
        pictures: Pictures
        if isinstance(images, Pictures):
            pictures = images
        else:
            pictures = item_pictures(images) if isinstance(images, list | tuple) else ArrayPictures(images)
        self._pictures = pictures
        self._targets = as_targets(labels, len(pictures), name)
        self.labelled = labels is not None and self._targets is None
        if not self.labelled:
            labels = np.zeros(len(pictures), dtype=np.int64)
        self.labels = read_only(as_labels(labels, len(pictures), f"labels of {name}"))
        self.index = read_only(np.arange(len(self.labels), dtype=np.int64))
        if not len(self.labels):
            raise InputError(f"{name} holds no pictures; expected at least 1")
        self._names_given = class_names is not None
        self.class_names = as_class_names(class_names, self.labels, pictures.where, name)
        self.name = name
        self.natural_flip = natural_flip
        self.n_channels = pictures.n_channels
        self.options: Mapping[str, Any] = {}
        self._whole: tuple[ImageSet, int | None] | None = None
        self._rule: SizeRule | None = None
        self._fitted_targets: Targets | None = None
        self._survey: Survey | None = None
        self._digest: str | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, self._known_size() or ())) or "any size"
        return f"ImageSet({self.name!r}, {count_of(len(self), 'picture')}, {size}, {len(self.class_names)} classes)"

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def batch(self, positions: Positions) -> UInt8[np.ndarray, "k c h w"]:
        """Pixels [k, c, h, w] at some positions, 0 to 255, in the order asked for; only these are decoded.

        Parameters
        ----------
        positions
            Positions in this set, negative ones counted from the end, a slice, or one truth value for each picture.

        Raises
        ------
        InputError
            A picture that cannot be read (it is named), or pictures of different sizes.
        IndexError
            A position that is not there.
        """
        source = self.index[positions_in(positions, len(self))]
        order = np.argsort(source, kind="stable")  # storage is read fastest from front to back
        out: UInt8[np.ndarray, "k c h w"] | None = None
        for k, pixels in zip(order, self._pictures.read(source[order].tolist()), strict=True):
            if self._rule is not None:
                where = partial(self._pictures.where, int(source[k]))
                pixels = fit(pixels, self._rule, where)
            if out is None:
                out = np.empty((len(source), self.n_channels, *pixels.shape[:2]), dtype=np.uint8)
            if pixels.shape[:2] != out.shape[2:]:
                first, other = (self._pictures.where(int(source[p])) for p in (order[0], k))
                raise InputError(
                    f"pictures must share one size, got {out.shape[2]}x{out.shape[3]} ({first}) and "
                    f"{pixels.shape[0]}x{pixels.shape[1]} ({other}): give an input size"
                )
            out[k] = with_channels(pixels, self.n_channels).transpose(2, 0, 1)
        if out is None:
            return np.empty((0, self.n_channels, *(self.size or (0, 0))), dtype=np.uint8)
        return out

    def __getitem__(self, position: int) -> tuple[UInt8[np.ndarray, "c h w"], int]:
        """One picture and its label."""
        k = operator.index(position)
        return self.batch([k])[0], int(self.labels[k])

    def __iter__(self) -> Iterator[tuple[UInt8[np.ndarray, "c h w"], int]]:
        """Each picture and its label; one picture in memory at a time."""
        return (self[k] for k in range(len(self)))

    @property
    def size(self) -> tuple[int, int] | None:
        """`(h, w)` in pixels that all pictures share, None if they differ. May look at each picture's header, once."""
        return self._known_size() or self.survey().size

    @property
    def n_source(self) -> int:
        """Number of images in the source, or in its split, of which these are some."""
        return len(self._pictures)

    @property
    def names_given(self) -> bool:
        """Whether `class_names` came with the pictures; False when they are only the classes' numbers."""
        return self._names_given

    @property
    def targets(self) -> Targets | None:
        """Masks, boxes or both, where the size rule puts them."""
        rule = self._rule
        same = rule is None or (self._pictures.size == rule.size and rule.resize in (None, min(rule.size), rule.size))
        if self._fitted_targets is None and self._targets is not None and rule is not None and not same:
            self._fitted_targets = self._targets.fitted(rule, self.survey().sizes, self.name)
        return self._fitted_targets or self._targets

    def with_detections(self, boxes: Float64[np.ndarray, "n k 5"]) -> ImageSet:
        """The same set with boxes that a model found in it, where the size rule puts them; no part of the digest."""
        other = copy.copy(self)
        other._digest, other._fitted_targets = self.digest, Targets(boxes=boxes)
        return other

    def refuse_unfit_targets(self, kind: str) -> None:
        """Refuse "masks" of another size than their picture, or "boxes" outside of it; `InputError` names it."""
        used = None if self._targets is None else self._targets.only(kind)
        if used is not None:
            used.refuse_other_size(self.survey().sizes, self.name)

    @property
    def through_pillow(self) -> bool:
        """Whether Pillow makes the pixels: files that are decoded, pictures that are resized."""
        return self._rule is not None or isinstance(self._pictures, EncodedPictures)

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts that a reader of results must know, found in the stored pictures themselves."""
        n_jpeg = self.survey().n_jpeg
        if not n_jpeg:
            return self._pictures.notes
        share = "" if n_jpeg == len(self) else f" ({n_jpeg:,} of {len(self):,})"
        return (f"images are JPEG-compressed{share}", *self._pictures.notes)

    @property
    def digest(self) -> str:
        """`sha256:...` over the selected pictures, in order, and all that decides what the model is shown.

        That is each picture's file (else its pixels), labels, class names, the size rule, the channels and the version
        of the decoding rules; not the set's name or place.
        """
        if self._digest is None:
            described = [DECODE_RULE, self.survey().content, self.class_names, self._rule, self.n_channels]
            total = hashlib.sha256(json.dumps(described).encode())
            total.update(self.labels.astype("<i8").tobytes())
            if self._targets is not None:
                total.update(self._targets.digest.encode())
            self._digest = "sha256:" + total.hexdigest()
        return self._digest

    def survey(self, progress: Progress | None = None) -> Survey:
        """Read every selected picture's stored form once, and remember checksum, common size and kind.

        `size`, `notes` and `digest` do this themselves when needed; `progress` is called with (pictures done, in all).
        """
        if self._survey is None:
            self._survey = surveyed(self._pictures, self.index, progress)
        return self._survey

    def _known_size(self) -> tuple[int, int] | None:
        if self._rule is not None:
            return self._rule.size
        return self._pictures.size or (self._survey.size if self._survey is not None else None)

    def subset(self, positions: Positions, *, named: bool = False) -> ImageSet:
        """The pictures at some positions, in that order; at least one. `named`: a command line has options for them."""
        chosen = positions_in(positions, len(self))
        if not len(chosen):
            raise InputError(f"a subset of {self.name} needs at least 1 picture, got none")
        other = self._copy()
        other._survey = other._whole = None
        other.labels = read_only(self.labels[chosen])
        other._targets = None if self._targets is None else self._targets.at(chosen)
        other.index = read_only(self.index[chosen])
        other.options = self.options if named else CHANGED
        return other

    def relabelled(self, labels: Any, class_names: Sequence[str]) -> ImageSet:
        """The same images with other labels, one each, and other class names."""
        other = self._copy()
        other.labels = read_only(as_labels(labels, len(self), f"labels of {self.name}"))
        other.class_names, other._names_given, other.labelled = tuple(class_names), True, True
        other._whole = None
        return other

    def renumbered(self, table: Mapping[int, int]) -> ImageSet:
        """The same images with other class numbers in masks and boxes; see `Targets.renumbered`."""
        other = self._copy()
        other._targets = None if self._targets is None else self._targets.renumbered(table)
        other._whole = None
        return other

    def with_options(self, options: Mapping[str, Any]) -> ImageSet:
        """The same set, with more known of how it was asked for."""
        other = copy.copy(self)
        other.options = {**self.options, **options}
        return other

    def unsplit(self) -> ImageSet:
        """The same set, known to be the whole of a source without splits because nobody has asked for a part."""
        other = self._copy()
        other._whole = (self, None)
        return other

    def part(self, split: str, *, limited: bool = True) -> ImageSet | None:
        """`train` or `test` of an `unsplit` source, by the same limit; None where the images were chosen already."""
        if self._whole is None:
            return None
        whole, limit = self._whole
        return whole.subset(stratified_split(whole.labels, split), named=True).limit(limit if limited else None)

    def limit(self, n: int | None) -> ImageSet:
        """The first `n` pictures of a fixed class-stratified order (seed 0); all, in their own order, if `n` is more.

        `InputError` for `n` below 1.
        """
        if n is None:
            return self
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise InputError(f"limit must be a whole number of at least 1, got {n!r}")
        if n >= len(self):
            return self
        other = self.subset(stratified_order(self.labels, self.index)[:n], named=True)
        other._whole = None if self._whole is None else (self._whole[0], n)
        return other

    def fitted(self, size: tuple[int, int], resize: Resize = None, interpolation: str = "bilinear") -> ImageSet:
        """The same pictures, each brought to one size.

        With `resize`, every picture's shorter side becomes `resize`; without, pictures of `size` stay untouched and
        others get the smallest scale at which they cover it. Then the centre is cut out.

        `InputError` for sizes below 1, a `resize` too small for the cut, or an unknown interpolation.

        Parameters
        ----------
        size
            `(h, w)` in pixels.
        resize
            Length of the shorter side before the cut, in pixels, at least that of `size`; (h, w) stretches to these.
        interpolation
            nearest, bilinear, bicubic, lanczos, box or hamming, as Pillow does them, antialiased.
        """
        size = (operator.index(size[0]), operator.index(size[1]))
        if min(size) < 1:
            raise InputError(f"a picture's size must be at least 1x1, got {size[0]}x{size[1]}")
        if is_too_small(resize, size):
            raise InputError(f"resize must be at least {min(size)} to cut {size[0]}x{size[1]}, got {resize}")
        if interpolation not in INTERPOLATIONS:
            raise unknown_name("interpolation", interpolation, INTERPOLATIONS)
        other = self._copy()
        other._whole, other._rule = None, SizeRule(size, resize, interpolation)
        return other

    def with_channels(self, n_channels: int) -> ImageSet:
        """The same pictures with 1 or 3 channels: grey is repeated; colour becomes (299 R + 587 G + 114 B) / 1000."""
        if n_channels not in (1, 3):
            raise InputError(f"pictures have 1 or 3 channels, asked for {n_channels}")
        other = self._copy()
        other._whole, other.n_channels = None, n_channels
        return other

    def _copy(self) -> ImageSet:
        other = copy.copy(self)
        other._digest = other._fitted_targets = None
        return other
