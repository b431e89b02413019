"""What `features` gives: maps and scores by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.graph.sites import unknown_site
from shiftlens.lens.map_scores import Scores
from shiftlens.naming import Printed, aligned, count_of, printable
from shiftlens.stats import Skipped

SILENT = "every map of the blank input is zero, as in a net without biases; use input black, or an average over images"
ZEROS_ON_ZEROS = "a first layer that pads these zeros with zeros cannot show one"


@dataclass(frozen=True)
class Average:
    """A site's map averaged over pictures.

    Attributes
    ----------
    n
        How many pictures.
    mean, variance
        Over pictures, [c, h, w]; the variance is the mean squared distance from the mean.
    rolled, flipped
        Means of the controls, [c, h, w]; None where they were not asked for.
    scores
        See `Scores`.
    """

    n: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    rolled: NDArray[np.float64] | None
    flipped: NDArray[np.float64] | None
    scores: Scores


@dataclass(frozen=True)
class LayerMaps:
    """One site's maps.

    Attributes
    ----------
    path, call, kind, index
        Which site; `index` is its place among all of the net's.
    activation
        Name of the activation after which the maps were taken; None where there is none.
    maps
        Of the one picture, [c, h, w].
    scores
        How much of them the picture cannot explain.
    average
        Over many pictures; None where none were given.
    in_channels
        Channels of what it reads; None where that is not known.
    """

    path: str
    call: int
    kind: str
    index: int
    activation: str | None
    maps: NDArray[np.floating[Any]]
    scores: Scores
    average: Average | None = None
    in_channels: int | None = None

    @property
    def label(self) -> str:
        """Name, kind and channels, for a picture: "1.0 conv 64->128"."""
        n = self.maps.shape[0]
        channels = str(n) if self.in_channels in (None, n) else f"{self.in_channels}->{n}"
        return f"{self.name} {self.kind} {channels}"

    @property
    def name(self) -> str:
        """The path, with #2 for the second call."""
        return self.path if self.call == 0 else f"{self.path}#{self.call + 1}"

    def to_dict(self) -> dict[str, Any]:
        """The keys of a layer in `shiftlens features --json`."""
        about = {"path": self.path, "call": self.call, "kind": self.kind, "shape": list(self.maps.shape)}
        average = {} if self.average is None else {"average": self.average.scores.to_dict() | {"n": self.average.n}}
        return about | self.scores.to_dict() | average


@dataclass(frozen=True, repr=False)
class FeatureRun(Printed):
    """Maps and scores of every layer of a net.

    Attributes
    ----------
    model, model_digest
        The model's name and digest.
    input
        What it was shown: `zeros`, `mean`, `black`, `noise` or a file.
    is_empty
        Whether that has no content.
    size
        (h, w) in pixels.
    after
        Whether maps were taken after each layer's activation.
    layers
        In call order.
    data, data_digest, n_images
        What the averages are over; None and 0 without.
    seed
        Of noise and rolls.
    notes
        What could not be seen, by name.
    software
        Versions that can move a result.
    model_options, data_options
        What was given beside the specs of model and images, by name.
    path
        Where it was read from or written to.

    Examples
    --------
    >>> run = sl.open_features("features.zarr")
    >>> [layer.name for layer in run][:3]
    ['0.0', '0.3', '0.6']
    >>> run["0.3"].kind, run["0.3"].maps.shape, run.n_images
    ('conv', (2, 16, 16), 20)
    """

    model: str
    model_digest: str
    input: str
    is_empty: bool
    size: tuple[int, int]
    after: bool
    layers: tuple[LayerMaps, ...]
    data: str | None = None
    data_digest: str | None = None
    n_images: int = 0
    seed: int = 0
    notes: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[LayerMaps]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> LayerMaps:
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            raise unknown_site(self.model, name, [layer.name for layer in self.layers])
        return found

    @property
    def start(self) -> LayerMaps | None:
        """The first layer whose map of the empty picture leaves the reference; None where none does."""
        for layer in self.layers:
            if not isinstance(layer.scores.reach_cells, Skipped) and layer.scores.reach_cells > 0:
                return layer
        return None

    @property
    def may_start_before(self) -> bool:
        """Whether layers before `start` may have artefacts that an input of zeros hides, see `ZEROS_ON_ZEROS`."""
        return self.input != "black" and self.start is not self.layers[0]

    @property
    def shown(self) -> str:
        """What the one image was: the name that table, findings and figures give its scores."""
        return f"{'blank input' if self.is_empty else 'image'} ({self.input})"

    @property
    def averaged(self) -> str:
        """What the energies of the averages are of, under the same name everywhere; "" without averages."""
        return self._averaged(
            " rolled" if any(each.average and each.average.rolled is not None for each in self) else ""
        )

    @property
    def mirrored(self) -> str:
        """The same for what the averages say of left and right."""
        flipped = any(each.average and each.average.flipped is not None for each in self)
        return f"{self._averaged('')} and their mirror images" if flipped else self._averaged("")

    def _averaged(self, how: str) -> str:
        return f"average of {self.n_images:,}{how} images" if self.n_images else ""

    @property
    def silent(self) -> tuple[LayerMaps, ...]:
        """The layers whose map is zero everywhere: nothing can be said of their borders."""
        return tuple(layer for layer in self.layers if not layer.maps.any())

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens features --json`."""
        return {
            "model": self.model,
            "input": self.input,
            "size": list(self.size),
            "after": self.after,
            "data": self.data,
            "n_images": self.n_images,
            "layers": [layer.to_dict() for layer in self.layers],
            "starts_at": None if self.start is None else self.start.name,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The same for people: one line a layer, and where border artefacts start."""
        head: tuple[str, ...] = ("layer", "kind", "shape", "energy", "reach", "px", "odd l/r", "odd u/d")
        head += ("avg energy", "avg l/r", "avg u/d") if self.n_images else ()
        lines = aligned([head, *(_row(layer) for layer in self.layers)])
        lines += ["", f"energy, reach, odd: of the {self.shown}"]
        if self.n_images:
            lines += [f"avg energy, avg u/d: of the {self.averaged}; avg l/r: of the {self.mirrored}"]
        if self.start is not None:
            lines += [f"border artefacts start at layer {self.start.name} ({self.start.kind}) on the {self.shown}"]
            lines += [ZEROS_ON_ZEROS] if self.may_start_before else []
        elif self.is_empty and len(self.silent) == len(self):
            lines += [f"border artefacts cannot be judged: {SILENT}"]
        elif self.is_empty:
            n_judged = len(self) - len(self.silent)
            lines += [f"no border artefacts on the input {self.input} in {count_of(n_judged, 'layer')}"]
        if self.is_empty and 0 < len(self.silent) < len(self):
            lines += [f"{count_of(len(self.silent), 'layer')} whose maps are zero everywhere cannot be judged"]
        return [printable(line) for line in (*lines, *(f"note: {note}" for note in self.notes))]

    def __repr__(self) -> str:
        seen = f"{self.input} at {self.size[0]}x{self.size[1]}"
        average = f", average over {self.n_images:,} of {self.data}" if self.n_images else ""
        return printable(f"<FeatureRun {self.model} on {seen}{average}: {count_of(len(self), 'layer')}>")


def _row(layer: LayerMaps) -> tuple[str, ...]:
    def text(value: float | Skipped, form: str) -> str:
        return "-" if isinstance(value, Skipped) else f"{value:{form}}"

    def odd(scores: Scores) -> tuple[str, str]:
        return text(scores.contrast_lr, ".2f"), text(scores.contrast_ud, ".2f")

    one, average = layer.scores, layer.average
    reach = text(one.reach_cells, "d"), text(one.reach_pixels, ".0f")
    row = (layer.name, layer.kind, " x ".join(map(str, layer.maps.shape)), text(one.artefact_energy, ".2e"), *reach)
    more = () if average is None else (text(average.scores.artefact_energy, ".2e"), *odd(average.scores))
    return (*row, *odd(one), *more)
