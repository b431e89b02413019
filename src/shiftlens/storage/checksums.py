"""What a sweep's numbers must be to be believed: one seal for what it is of, one checksum for each image.

Zarr's own codec already refuses a chunk whose bytes were cut or flipped. It does not see a chunk that is whole and not
the right one: of another sweep, of another place, of a loss that belongs to an older prediction. So every image has a
64-bit checksum over all three of its arrays, its place, its label and the sweep's seal. It is an array over `image`,
in the chunks of the others: one more small file a chunk, written last and once, and no new dimension for a reader.
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


def seal_of(
    attributes: Mapping[str, Any],
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    dys: NDArray[np.int64],
    dxs: NDArray[np.int64],
) -> str:
    """`sha256:...` over what is known before the first number: attributes without `LATER`, labels, index, shifts."""
    known = {key: value for key, value in attributes.items() if key not in LATER}
    total = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, values in (("label", labels), ("index", index), ("dy", dys), ("dx", dxs)):
        total.update(f"|{name} {len(values)}|".encode())
        total.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
    return f"sha256:{total.hexdigest()}"


def state_seal_of(seal: str, state: Mapping[str, Any]) -> str:
    """`sha256:...` over the attributes that change later: whether it is complete, where it stopped, with what width."""
    return f"sha256:{hashlib.sha256((seal + json.dumps(state, sort_keys=True)).encode()).hexdigest()}"


def checksums(
    seal: str,
    span: slice,
    prediction: NDArray[np.unsignedinteger[Any]],
    loss: NDArray[np.float32],
    confidence: NDArray[np.float16],
) -> NDArray[np.uint64]:
    """Checksum of each image of a chunk; never 0, which means "not written".

    Parameters
    ----------
    seal
        Of the group (`seal_of`); it covers the labels.
    span
        Places of the images in the sweep.
    prediction, loss, confidence
        [image, dy, dx], as they are stored.
    """
    key = bytes.fromhex(seal.removeprefix("sha256:"))
    whole = [np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for a in (prediction, loss, confidence)]
    sums = np.empty(len(prediction), dtype=np.uint64)
    for k in range(len(sums)):
        one = hashlib.blake2b((span.start + k).to_bytes(8, "little"), digest_size=8, key=key)
        for values in whole:
            one.update(values[k].data)
        sums[k] = int.from_bytes(one.digest(), "little") or 1
    return sums
