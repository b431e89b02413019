"""Embeddings: how far a window's vector turns away from that of the unshifted image, and whom it resembles then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shiftlens.errors import InputError
from shiftlens.tasks.outputs import OutputForm
from shiftlens.tasks.task import State, Task, Variable

if TYPE_CHECKING:
    from torch import Tensor

COSINE = Variable(
    "cosine", "float32", "", "higher", "number", "cosine similarity to the unshifted image", bounds=(-1, 1)
)
RANK_IN_GALLERY = Variable(
    "rank", "float32", "", "lower", "number", "rank of the own image in the gallery, 1 is first", bounds=(1, np.inf)
)
GALLERY = 1_000
"""Images of a sweep, the first ones, among which the own image is looked for."""
ROUNDING = 1e-9
"""Cosines nearer to each other than this are a tie: the same vectors, multiplied in another order."""


@dataclass(frozen=True)
class Embedding(Task):
    """Vectors [window, d] to their cosine similarity with that of the unshifted image; 0 for a vector of zeros.

    The `rank` is that of the own image among the gallery, ordered by their similarity to the window: 1 where no other
    image of it is more similar. An image that is not in the gallery is ranked as if it were.

    Attributes
    ----------
    n_gallery
        Images in the gallery: the first of a sweep, unshifted.
    gallery
        [image, d] their vectors, of length 1; None, and every rank 1, before `with_gallery`.
    gallery_digest
        SHA-256 of the images in the gallery; "" where it is not known.
    copies
        The gallery on each device where it is used, made before windows are measured there.

    Examples
    --------
    >>> task = Embedding()
    >>> state = task.prepare(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    >>> task.outcome(torch.tensor([[0.0, 2.0]]), None, state)["cosine"].tolist()
    [0.0]
    """

    n_gallery: int = GALLERY
    gallery: Tensor | None = field(default=None, compare=False, repr=False)
    copies: dict[Any, Tensor] = field(default_factory=dict, compare=False, repr=False)
    gallery_digest: str = ""
    name: str = "embedding"
    needs_reference: bool = True
    needs_places: bool = True
    variables: tuple[Variable, ...] = (COSINE, RANK_IN_GALLERY)

    @property
    def settings(self) -> dict[str, Any]:
        """How large the gallery is, and of which images."""
        known = {"gallery_digest": self.gallery_digest} if self.gallery_digest else {}
        return {"n_gallery": self.n_gallery} | known

    def fitted(self, form: OutputForm, size: tuple[int, int]) -> Embedding:
        """For a model with a vector for each image."""
        if form.is_detections or len(form.shape) != 1:
            raise InputError(f"an embedding is a vector for each image, the model gives {form.said}")
        return self

    def with_gallery(self, outputs: Tensor) -> Embedding:
        """The same with the outputs [image, d] on the first unshifted images."""
        return replace(self, n_gallery=len(outputs), gallery=_unit(outputs), copies={})

    def targets(self, labels: NDArray[np.int64], values: NDArray[Any] | None) -> NDArray[Any]:
        """The places of the images among those of the sweep."""
        return labels if values is None else values

    def prepare(self, reference: Tensor, targets: Tensor) -> State:
        """The vectors of the unshifted images, of length 1, and where the images are in the gallery."""
        if self.gallery is not None and reference.device not in self.copies:
            self.copies[reference.device] = self.gallery.to(reference.device)
        return {"reference": _unit(reference), "place": targets}

    def outcome(self, outputs: Tensor, shifts: Tensor | None, state: State) -> dict[str, Tensor]:
        """Rows of a batch of vectors."""
        import torch

        vectors = _unit(outputs)
        own = (vectors * state["reference"]).sum(1)
        rank = torch.ones_like(own)
        if self.gallery is not None:
            others = vectors @ self.copies[vectors.device].T
            each = torch.arange(others.shape[1], device=vectors.device)
            before = (others > own[:, None] + ROUNDING) & (each != state["place"][:, None])
            rank = 1 + before.sum(1).double()
        return {"cosine": own.clamp(-1, 1), "rank": rank}


def _unit(vectors: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(vectors.double(), dim=1)
