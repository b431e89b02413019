"""What a training run says about itself, to people and to programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shiftlens.naming import Printed, count_of
from shiftlens.stats import wilson


@dataclass(frozen=True, repr=False)
class TrainResult(Printed):
    """Where the run is and how it went.

    Attributes
    ----------
    out
        The run directory, for `load_model`.
    epochs
        One row an epoch: `epoch` (from 1), `train_loss` (nats, mean over the epoch, of the smoothed targets),
        `accuracy` (share of right answers among `n` validation images; None without any), `seconds`.
    accuracy, accuracy_interval
        Of the finished net on all validation images, one plain float32 pass; 95 % Wilson interval. None without any.
    n_validation, n_steps
        Images behind the accuracy; steps taken.
    seconds
        Of all epochs, over all sittings.
    resumed_epochs
        Epochs that earlier sittings had done.
    """

    out: Path
    epochs: tuple[dict[str, Any], ...]
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    n_validation: int
    n_steps: int
    seconds: float
    resumed_epochs: int = 0

    @classmethod
    def from_record(cls, out: Path, record: Mapping[str, Any], resumed_epochs: int) -> TrainResult:
        """Read the record of a run whose last epoch is done."""
        epochs = record["epochs"]
        accuracy, n = epochs[-1]["accuracy"], epochs[-1]["n"]
        interval = None
        if accuracy is not None:
            low, high = wilson(round(accuracy * n), n)
            interval = (float(low), float(high))
        seconds = sum(row["seconds"] for row in epochs)
        n_steps = record["schedule"]["n_steps"]
        return cls(out, tuple(epochs), accuracy, interval, n, n_steps, seconds, resumed_epochs)

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens train --json`."""
        interval = None if self.accuracy_interval is None else list(self.accuracy_interval)
        return vars(self) | {"epochs": list(self.epochs), "accuracy_interval": interval, "out": str(self.out)}

    def lines(self) -> list[str]:
        """The same for people."""
        trained = (
            f"trained {count_of(len(self.epochs), 'epoch')}, {self.n_steps:,} steps, {self.seconds:.0f} s: {self.out}"
        )
        if self.accuracy is None or self.accuracy_interval is None:
            return [trained]
        low, high = (100 * bound for bound in self.accuracy_interval)
        return [
            trained,
            f"accuracy {100 * self.accuracy:.2f} % [{low:.2f}, {high:.2f}] on {count_of(self.n_validation, 'image')}",
        ]
