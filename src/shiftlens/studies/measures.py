"""The names of everything that is measured of a trained net, with what they are and their units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What a number of a run is.

    Attributes
    ----------
    called
        In words.
    unit
        Of the number; a difference of "%" is in points.
    """

    called: str
    unit: str = ""

    @property
    def difference_unit(self) -> str:
        """Of a difference of two such numbers."""
        return "points" if self.unit == "%" else self.unit


SWEEP: dict[str, Measure] = {
    "unshifted": Measure("accuracy on unshifted images", "%"),
    "near": Measure("mean accuracy under shifts of at most 8 px", "%"),
    "everywhere": Measure("mean accuracy under all shifts", "%"),
    "worst": Measure("images right under every shift of at most 4 px", "%"),
    "fooled": Measure("images right unshifted and wrong under some shift of at most 4 px, of those right", "%"),
    "retained_area": Measure("area in which 95 % of the accuracy is kept", "px^2"),
    "side_x": Measure("accuracy, right less left", "points"),
    "side_y": Measure("accuracy, down less up", "points"),
    "agreement": Measure("predictions equal to the unshifted one, within 8 px", "%"),
    "consistency": Measure("equal predictions among pairs of shifts", "%"),
    "loss_unshifted": Measure("loss on unshifted images", "nats"),
    "loss_near": Measure("mean loss under shifts of at most 8 px", "nats"),
}
"""Of each sweep, with the sweep's name before: `black.near`."""

FEATURES: dict[str, Measure] = {
    "energy": Measure("artefact energy on the blank input, mean over convolutions"),
    "contrast_lr": Measure("left/right asymmetry on the blank input, mean over convolutions"),
    "contrast_ud": Measure("up/down asymmetry on the blank input, mean over convolutions"),
    "pattern": Measure("position pattern: energy of the average over rolled images, mean over convolutions"),
    "untrained_pattern": Measure("position pattern of the same net before training"),
}
PROBE: dict[str, Measure] = {
    "r2": Measure("R2 of the position probe, mean over convolutions"),
    "untrained_r2": Measure("R2 of the position probe before training, mean over convolutions"),
}
NEURONS: dict[str, Measure] = {
    "count": Measure("padding-aware neurons", "neurons"),
    "share": Measure("padding-aware neurons, of all channels looked at", "%"),
}
CROPS: dict[str, Measure] = {
    "accuracy": Measure("accuracy on the middle crop of the image", "%"),
    "fooled": Measure("middle crops right, and wrong when moved by one pixel, of those right", "%"),
    "chosen_accuracy": Measure("accuracy on the crop that is chosen of the middle view", "%"),
    "chosen_fooled": Measure("chosen crops right, and wrong when the view moves by one pixel, of those right", "%"),
}
"""Of nets that were trained on what is cut out of images; of others they are missing."""

CONSISTENCY = Measure("equal predictions for two random views", "%")
