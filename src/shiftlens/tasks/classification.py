"""Classification: the predicted class of each window, its cross-entropy and its confidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.tasks.task import Read, Task, Variable

if TYPE_CHECKING:
    from torch import Tensor

ACCURACY = Variable(
    "accuracy", "bool", "share", "higher", "share", "accuracy", bounds=(0, 1), needs=("prediction",)
)  # fmt: skip
AGREEMENT = Variable(
    "agreement", "bool", "share", "higher", "share", "agreement with the unshifted image", bounds=(0, 1),
    needs=("prediction",),
)  # fmt: skip
LOSS = Variable("loss", "float32", "nats", "lower", "number", "cross-entropy loss", bounds=(0, np.inf))
PREDICTION = Variable("prediction", "uint16", long_name="predicted class")
CONFIDENCE = Variable("confidence", "float16", "share", long_name="softmax of the predicted class", bounds=(0, 1))


@dataclass(frozen=True)
class Classification(Task):
    """Logits [window, class] to prediction, loss and confidence; accuracy is made of the prediction and the label."""

    name: str = "classification"
    needs_labels: bool = True
    has_margin: bool = True
    variables: tuple[Variable, ...] = (PREDICTION, LOSS, CONFIDENCE)

    def metrics(self, *, labelled: bool) -> tuple[Variable, ...]:
        """Accuracy and loss; without labels, agreement with the unshifted image."""
        return (ACCURACY, LOSS) if labelled else (AGREEMENT,)

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: Tensor) -> dict[str, Tensor]:
        """Rows [window] of logits [window, class] and true classes [window].

        `margin`, the best logit less the second best, is not stored: it tells which windows half precision leaves in
        doubt.
        """
        import torch

        log_total = torch.logsumexp(outputs, dim=1)
        best, prediction = outputs.max(dim=1)
        # `amax`, since where the second best is does not matter: with a million classes looking for it takes longest.
        second = outputs.scatter(1, prediction[:, None], -torch.inf).amax(dim=1)
        return {
            "prediction": prediction,
            "loss": log_total - outputs.gather(1, state[:, None])[:, 0],
            "confidence": torch.exp(best - log_total),
            "margin": best - second,
        }

    def disagreement(
        self, found: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]], tolerance: float
    ) -> tuple[str, str] | None:
        """The loss must be the same, and so must the class unless it is a near tie."""
        allowed = tolerance * (1 + float(exact["loss"]))
        same_class = found["prediction"] == exact["prediction"] or exact["margin"] <= 2 * allowed
        if abs(float(found["loss"]) - float(exact["loss"])) <= allowed and same_class:
            return None
        a, b = (f"class {rows['prediction']} and a loss of {float(rows['loss']):.4f}" for rows in (found, exact))
        return a, b

    def measured(self, name: str, read: Read, labels: NDArray[np.int64], origin: tuple[int, int]) -> NDArray[Any]:
        """Accuracy and agreement from the prediction; loss as it is stored."""
        if name == "accuracy":
            return np.asarray(read("prediction") == labels[:, None, None])
        if name == "agreement":
            prediction = read("prediction")
            return np.asarray(prediction == prediction[:, origin[0], origin[1], None, None])
        return read(name)


CLASSIFICATION = Classification()
