"""What a result's numbers must be to be believed: a seal for the group, and a checksum for each image.

Zarr's own codec refuses a chunk whose bytes were cut or flipped. It does not see a chunk that is whole and not the
right one: of another result, of another place, of one array and not of the others. So every image has a 64-bit checksum
over all its arrays, its place and the group's seal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LATER = ("complete", "seal", "state_seal")
"""Attributes that `seal_of` leaves out: what is written after the group was made (see `state_seal_of`)."""


class Seal:
    """SHA-256 over attributes and arrays, in the order in which they are added."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes; their order does not matter."""
        self._total.update(json.dumps(attributes, sort_keys=True).encode())

    def add_array(self, head: str, values: NDArray[Any]) -> None:
        """Add an array: `head`, which says what it is, and its bytes in little endian."""
        self._total.update(f"|{head}|".encode())
        self._total.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)

    def text(self) -> str:
        """`sha256:...`."""
        return f"sha256:{self._total.hexdigest()}"


def seal_of(
    attributes: Mapping[str, Any],
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    dys: NDArray[np.int64],
    dxs: NDArray[np.int64],
    n_objects: NDArray[np.int64] | None = None,
) -> str:
    """`sha256:...` over what is known before the first number: attributes without `LATER`, labels, index, shifts.

    And how many objects each image has, where that is known.
    """
    seal = Seal()
    seal.add_attributes({key: value for key, value in attributes.items() if key not in LATER})
    known = {"label": labels, "index": index, "dy": dys, "dx": dxs}
    for name, values in (known if n_objects is None else known | {"n_objects": n_objects}).items():
        seal.add_array(f"{name} {len(values)}", values.astype(np.int64, copy=False))
    return seal.text()


def state_seal_of(seal: str, state: Mapping[str, Any]) -> str:
    """`sha256:...` over the attributes that change later, and the seal of those that do not."""
    return f"sha256:{hashlib.sha256((seal + json.dumps(state, sort_keys=True)).encode()).hexdigest()}"


def checksums(seal: str, span: slice, *arrays: NDArray[Any]) -> NDArray[np.uint64]:
    """Checksum of each image of a chunk; never 0, which means "not written".

    Parameters
    ----------
    seal
        Of the group (`seal_of`).
    span
        Places of the images in the result.
    arrays
        [image, ...], as they are stored.
    """
    key = bytes.fromhex(seal.removeprefix("sha256:"))
    whole = [np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for a in arrays]
    sums = np.empty(span.stop - span.start, dtype=np.uint64)
    for k in range(len(sums)):
        one = hashlib.blake2b((span.start + k).to_bytes(8, "little"), digest_size=8, key=key)
        for values in whole:
            one.update(values[k].data)
        sums[k] = int.from_bytes(one.digest(), "little") or 1
    return sums
