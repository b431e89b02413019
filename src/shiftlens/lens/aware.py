"""Which channels of a net know where the border is, and what that does: the result of `neurons`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from shiftlens.naming import Printed
from shiftlens.stats import Skipped

KINDS = ("edge", "pair", "corner", "frame")


@dataclass(frozen=True)
class Neuron:
    """One channel that is flagged.

    Attributes
    ----------
    channel
        Its number.
    kind
        "edge" (one side), "pair" (two opposite sides), "corner" (two that meet) or "frame" (three or four).
    sides
        Which, of left, right, top, bottom.
    excited
        For each of them: whether it responds more strongly there than inside.
    distance
        For each of them: Kolmogorov and Smirnov's D between the border and the interior.
    q_value
        For each of them: corrected over the layer's channels and sides (Benjamini-Hochberg).
    own
        Whether it is this layer's own padding: with another padding in this layer only, no side keeps D >= 0.5. None
        where the layer does not pad with zeros.
    """

    channel: int
    kind: str
    sides: tuple[str, ...]
    excited: tuple[bool, ...]
    distance: tuple[float, ...]
    q_value: tuple[float, ...]
    own: bool | None


@dataclass(frozen=True)
class NeuronLayer:
    """Flagged channels of one convolution, and how many were flagged but did not hold when the pictures were turned."""

    path: str
    n_channels: int
    neurons: tuple[Neuron, ...]
    n_content: int


@dataclass(frozen=True)
class Impact:
    """What another padding for the flagged channels alone changes, against as many random channels of the same layers.

    Attributes
    ----------
    n_channels
        How many channels were given another padding.
    changed
        Share of images whose prediction changes.
    accuracy_change
        Accuracy minus that of the net as it is, in points.
    random_changed, random_accuracy_change
        The same for random channels, mean over draws.
    """

    n_channels: int
    changed: float
    accuracy_change: float
    random_changed: float
    random_accuracy_change: float


@dataclass(frozen=True, repr=False)
class Neurons(Printed):
    """Padding-aware neurons of a net; `skipped` names the layers that were left out, and why."""

    model: str
    data: str
    n_images: int
    layers: tuple[NeuronLayer, ...]
    impact: Impact | Skipped
    skipped: tuple[Skipped, ...]

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens neurons --json`."""
        impact = self.impact
        return {
            "model": self.model,
            "data": self.data,
            "n_images": self.n_images,
            "layers": [asdict(layer) for layer in self.layers],
            "impact": None if isinstance(impact, Skipped) else asdict(impact),
            "skipped": [asdict(each) for each in (*self.skipped, *([impact] if isinstance(impact, Skipped) else []))],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        said = []
        for layer in self.layers:
            kinds = [f"{sum(n.kind == kind for n in layer.neurons)} {kind}" for kind in KINDS]
            counts = ", ".join(text for text in kinds if not text.startswith("0 ")) or "none"
            own = sum(bool(n.own) for n in layer.neurons)
            text = f"{layer.path}: {len(layer.neurons)} of {layer.n_channels} channels are padding-aware ({counts})"
            if layer.neurons:
                text += f"; {own} by this layer's own padding"
            if layer.n_content:
                text += f"; {layer.n_content} more follow what is in the pictures"
            said.append(text)
        if isinstance(self.impact, Impact):
            found = self.impact
            said.append(
                f"reflect padding for these {found.n_channels} channels alone changes {100 * found.changed:.1f} % of "
                f"the predictions and accuracy by {found.accuracy_change:+.1f} points; for as many random channels "
                f"{100 * found.random_changed:.1f} % and {found.random_accuracy_change:+.1f}"
            )
        else:
            said.append(f"impact not measured: {self.impact.why}")
        return [*said, *(f"note: {each.site} left out: {each.why}" for each in self.skipped)]
