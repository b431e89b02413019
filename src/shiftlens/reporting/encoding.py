"""How numbers and pictures get into the page: arrays as base64, data as JSON that no tag can end, PNG data URIs."""

from __future__ import annotations

import base64
import io
import json
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = dict[str, Any]
"""What goes into the page as JSON."""

_ESCAPED = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
STATIC_DPI = 100


def packed(values: NDArray[Any]) -> Data:
    """An array as `{dtype, shape, data}`: little-endian bytes in base64, in the smallest type that holds them.

    Whole numbers become u1, u2 or u4; everything else f4, with nan for what is not there.
    """
    array = np.asarray(values)
    if array.dtype.kind in "bui" and array.size and int(array.min()) >= 0:
        top = int(array.max())
        kind = "u1" if top < 2**8 else "u2" if top < 2**16 else "u4"
    elif array.dtype.kind in "bui":
        kind = "i4"
    else:
        kind = "f4"
    data = np.ascontiguousarray(array.astype(f"<{kind}"))
    return {"dtype": kind, "shape": list(array.shape), "data": base64.b64encode(data.tobytes()).decode("ascii")}


def deflated(values: NDArray[Any], axes: int = 1) -> Data:
    """Whole numbers from 0 to 65535 as `{shape, axes, planes, deflate}`, for tables that vary little along an axis.

    What is compressed (raw deflate, RFC 1951, in base64) are the differences along the last `axes` axes (0: the numbers
    as they are), which wrap around: differences 0, -1, 1, -2, ... become 0, 1, 2, 3, ...; then all their low bytes and,
    where there are two planes, all their high bytes.
    """
    table = np.asarray(values).astype(np.uint16)
    for axis in range(-axes, 0):
        table = np.diff(table, axis=axis, prepend=np.zeros_like(table.take([0], axis)))
    if axes:
        signed = table.astype(np.int16).astype(np.int32)
        table = np.where(signed < 0, -2 * signed - 1, 2 * signed).astype(np.uint16)
    planes = [table & 255] if not table.size or int(table.max()) < 2**8 else [table & 255, table >> 8]
    squeezed = zlib.compress(b"".join(plane.astype(np.uint8).tobytes() for plane in planes), 9, wbits=-15)
    text = base64.b64encode(squeezed).decode("ascii")
    return {"shape": list(table.shape), "axes": axes, "planes": len(planes), "deflate": text}


def script_json(values: Data) -> str:
    """JSON that can stand in a `<script type="application/json">`: nothing in it can end the element or begin another.

    Raises
    ------
    ValueError
        A number that is not finite: those belong into a packed array, or are None.
    """
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPED)


def png_uri(pixels: NDArray[np.uint8]) -> str:
    """Pixels (h, w, 3), or (h, w) of a palette that was applied already, as the data URI of a PNG of fixed bytes."""
    image = Image.fromarray(pixels)
    n_colours = len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) if pixels.ndim == 3 else 0
    if 0 < n_colours <= 256:
        # Few colours, as colour scales have: a palette makes the file a third as large and loses nothing.
        image = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        if not np.array_equal(np.asarray(image.convert("RGB")), pixels):
            image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    """Pixels (h, w, 3) as the data URI of a JPEG: photographs that are shown, not read."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=82, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def figure_uri(figure: Figure) -> str:
    """A matplotlib figure as a PNG data URI of fixed bytes."""
    from shiftlens.figures.drawing import data_uri, png_bytes

    return data_uri(png_bytes(figure, STATIC_DPI))


@cache
def palette(name: str) -> NDArray[np.uint8]:
    """A colour scale of matplotlib as (256, 3) bytes."""
    from matplotlib import colormaps

    table = np.asarray(colormaps[name](np.arange(256)))[:, :3]
    out: NDArray[np.uint8] = np.rint(255 * table).astype(np.uint8)
    return out


MISSING = 217
"""Grey of a cell without a number."""

SMALLEST_PICTURE = 128
"""px: small maps are enlarged by whole factors to at least this, so that they can be seen without a browser's help."""


def coloured(values: NDArray[np.float64], low: float, high: float, name: str) -> NDArray[np.uint8]:
    """Values (h, w) as pixels (h, w, 3) of a colour scale from `low` to `high`, as the page's script draws them."""
    place = np.floor((np.nan_to_num(values, nan=low) - low) / (high - low) * 256)
    # Where a map overflows, its scale is not finite either.
    pixels: NDArray[np.uint8] = palette(name)[np.clip(np.nan_to_num(place, nan=0.0), 0, 255).astype(np.int64)]
    pixels[~np.isfinite(values)] = MISSING
    return pixels


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels (h, w, 3), each repeated as often as brings the longer side to `SMALLEST_PICTURE` or more."""
    factor = max(1, -(-SMALLEST_PICTURE // max(pixels.shape[:2])))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def finite(value: float | None, digits: int = 6) -> float | None:
    """A number for JSON, rounded to what its last bits cannot move; None where it is none."""
    if value is None or not np.isfinite(value):
        return None
    return float(f"{float(value):.{digits}g}")
