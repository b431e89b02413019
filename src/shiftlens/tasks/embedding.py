"""Embeddings: how far a window's vector turns away from that of the unshifted image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shiftlens.errors import InputError
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.task import State, Task, Variable

if TYPE_CHECKING:
    from torch import Tensor

COSINE = Variable(
    "cosine", "float32", "cosine", "higher", "number", "cosine similarity to the unshifted image", bounds=(-1, 1)
)


@dataclass(frozen=True)
class Embedding(Task):
    """Vectors [window, d] to their cosine similarity with that of the unshifted image; 0 for a vector of zeros."""

    name: str = "embedding"
    needs_reference: bool = True
    variables: tuple[Variable, ...] = (COSINE,)

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Embedding:
        """For a model with a vector for each image."""
        if form.is_detections or len(form.shape) != 1:
            raise InputError(f"an embedding is a vector for each image, the model gives {form.said}")
        return self

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        """The vectors of the unshifted images, of length 1."""
        from torch.nn.functional import normalize

        return {"reference": normalize(reference.double(), dim=1)}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of vectors."""
        from torch.nn.functional import normalize

        turned = (normalize(outputs.double(), dim=1) * state["reference"]).sum(1)
        return {"cosine": turned.clamp(-1, 1)}
