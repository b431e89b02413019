"""What a source of models gives: a net and what it declares."""

from __future__ import annotations

from dataclasses import dataclass, field

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.models.probing import Classifier


@dataclass(frozen=True)
class Loaded:
    """A net and what its source declares."""

    module: Classifier
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
