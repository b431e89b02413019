"""From the bytes of a picture file, or a picture in memory, to 8-bit pixels: one rule for each odd kind.

The rules are listed for users in docs/images.md. `DECODE_RULE` enters every digest: raise it when a rule changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from shiftlens.errors import InputError
from shiftlens.naming import one_line

DECODE_RULE = "decode-1"

# Only plain raster formats: others start helper programs (EPS), or read what the picture's name says.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHER_SUFFIXES = (".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".jp2", ".avif")
PICTURE_SUFFIXES = frozenset((*_JPEG_SUFFIXES, *_OTHER_SUFFIXES))

Pixels = UInt8[np.ndarray, "h w c"]

_ORIENTATION_TAG = 0x0112
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
"""What makes a stored picture upright, for each EXIF orientation but 1."""


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture tell: upright `size` (h, w) in pixels, and whether JPEG compressed it."""

    size: tuple[int, int]
    is_jpeg: bool


def read_header(data: bytes, where: str) -> Header:
    """Size and kind of an encoded picture, its pixels not decoded; `InputError` for none, or one too large."""
    with _opened(data, where) as image:
        w, h = image.size
        return Header((w, h) if _orientation(image) >= 5 else (h, w), image.format in ("JPEG", "MPO"))


def decode(data: bytes, where: str) -> Pixels:
    """Decode a picture file's bytes to 8-bit RGB [h, w, 3], by the rules of docs/images.md.

    `where` names the picture in an `InputError`: not a picture, cut short, damaged, too large, or of floating-point
    pixels.
    """
    with _opened(data, where) as image:
        turn = _orientation(image)
        pixels = from_pil(image, where)
    if turn in _UPRIGHT:
        pixels = np.ascontiguousarray(_UPRIGHT[turn](pixels))
    return pixels


def from_pil(image: Image.Image, where: str, *, keep_grey: bool = False) -> Pixels:
    """8-bit pixels of a picture that Pillow has opened or made: RGB, or one channel for grey if `keep_grey`."""
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them raise
        raise InputError(f"{where} cannot be decoded: {one_line(error)}") from error
    mode = image.mode
    if mode == "F":
        raise InputError(f"{where} has floating-point pixels; expected 8 or 16 bits a channel")
    if mode == "I" or mode.startswith("I;16"):
        return _grey(_eight_bits(np.asarray(image), where), keep_grey)
    if "transparency" in image.info or mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        if mode in ("RGBa", "La"):  # Pillow converts these only to their own straight kind
            image = image.convert("RGBA" if mode == "RGBa" else "LA")
        return _on_black(np.asarray(image.convert("RGBA")))
    if mode in ("L", "1"):
        return _grey(np.asarray(image.convert("L")), keep_grey)
    if mode == "LAB":
        raise InputError(f"{where} is in the LAB colour space; expected grey, palette, RGB, RGBA, CMYK or YCbCr")
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))


class Placing(NamedTuple):
    """Where the pixels of a picture go when it is scaled to (`new_h`, `new_w`) and cut at (`top`, `left`)."""

    new_h: int
    new_w: int
    top: int
    left: int


class SizeRule(NamedTuple):
    """How pictures of another size are brought to `size` (h, w).

    With `resize`, a picture's shorter side becomes `resize` pixels (the longer one the same scale, rounded down), as
    torchvision's `Resize` does. Without, a picture that already has `size` is left alone, any other gets the smallest
    scale at which it covers `size`. With a `resize` of (h, w) it is stretched to that, whatever its shape. Then the
    centre is cut out, as torchvision's `CenterCrop` does (half a pixel: to the even side).
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    interpolation: str

    @property
    def least(self) -> int:
        """Pixels that are asked for at least."""
        side = self.resize or 0
        return max(self.size[0] * self.size[1], side * side if isinstance(side, int) else side[0] * side[1])

    def placing(self, have: tuple[int, int], where: Callable[[], str]) -> Placing:
        """Where a picture of (h, w) pixels goes.

        Raises
        ------
        InputError
            After scaling it is smaller than the piece to be cut.
        """
        (have_h, have_w), (want_h, want_w), resize = have, self.size, self.resize
        if resize is None:
            if have_h * want_w <= have_w * want_h:
                new_h, new_w = want_h, max(want_w, want_h * have_w // have_h)
            else:
                new_h, new_w = max(want_h, want_w * have_h // have_w), want_w
        elif not isinstance(resize, int):
            new_h, new_w = resize
        elif have_h <= have_w:
            new_h, new_w = resize, resize * have_w // have_h
        else:
            new_h, new_w = resize * have_h // have_w, resize
        if new_h < want_h or new_w < want_w:
            raise InputError(
                f"{where()} is {have_h}x{have_w} and, with its shorter side at {resize}, too small to cut "
                f"{want_h}x{want_w}"
            )
        return Placing(new_h, new_w, round((new_h - want_h) / 2), round((new_w - want_w) / 2))


def fit(pixels: Pixels, rule: SizeRule, where: Callable[[], str]) -> UInt8[np.ndarray, "new_h new_w c"]:
    """Scale a picture [h, w, c] and cut its centre, so that it has the size of the rule.

    `InputError`: after scaling the picture is smaller than the piece to be cut, or, being long and narrow, larger than
    what may be decoded.
    """
    have_h, have_w = pixels.shape[:2]
    want_h, want_w = rule.size
    new_h, new_w, top, left = rule.placing((have_h, have_w), where)
    if (new_h, new_w) == (have_h, have_w):
        return pixels if rule.size == (have_h, have_w) else pixels[top : top + want_h, left : left + want_w]
    _refuse_to_grow(pixels, (new_h, new_w), rule.least, where)
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    image = image.resize((new_w, new_h), Image.Resampling[rule.interpolation.upper()])
    cut = np.asarray(image.crop((left, top, left + want_w, top + want_h)))
    return cut[:, :, None] if grey else cut


def opacity(data: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """How opaque each pixel of a picture file is, 0 to 255, upright as `decode` gives it; 255 where it does not say."""
    with _opened(data, where) as image:
        turn = _orientation(image)
        try:
            clear = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA")
            alpha = np.asarray(image.convert("RGBA"))[:, :, 3] if clear else np.full(image.size[::-1], 255, np.uint8)
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes them raise
            raise InputError(f"{where} cannot be decoded: {one_line(error)}") from error
    return np.ascontiguousarray(_UPRIGHT[turn](alpha[:, :, None])[:, :, 0]) if turn in _UPRIGHT else alpha


def decode_mask(data: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """Class numbers of a mask file: grey values, a palette's numbers (not its colours), or 0 and 1 of one bit.

    `InputError` names it by `where`: no picture, damaged, too large, in colour, or with numbers above 255.
    """
    with _opened(data, where) as image:
        try:
            image.load()
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes them raise
            raise InputError(f"{where} cannot be decoded: {one_line(error)}") from error
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise InputError(
                f"{where} has mode {image.mode}; expected class numbers: a grey or a palette picture of one channel"
            )
        classes = np.asarray(image)
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) <= 255:
        raise InputError(f"{where} has class numbers up to {int(classes.max())}; expected 0 to 254, 255 for none")
    return np.array(classes, dtype=np.uint8)


def with_channels(pixels: Pixels, n_channels: int) -> UInt8[np.ndarray, "h w new_c"]:
    """Colour as one channel of grey where `n_channels` is 1; grey stays one channel, which broadcasts to three."""
    if n_channels == 3 or pixels.shape[2] == 1:
        return pixels
    # Whole-number arithmetic: a grey picture stored as RGB comes back exactly. Source: ITU-R BT.601 luma.
    luma = (pixels.astype(np.uint32) @ np.array([299, 587, 114], dtype=np.uint32) + 500) // 1000
    return luma.astype(np.uint8)[:, :, None]


def _refuse_to_grow(pixels: Pixels, new: tuple[int, int], wanted: int, where: Callable[[], str]) -> None:
    """A picture of a million by one is small, and enormous once its shorter side is that of an input.

    What is `wanted` itself, in pixels, is the user's own decision, and pictures of up to 4 by 1 come with it.
    """
    if Image.MAX_IMAGE_PIXELS is None:
        return
    most = max(Image.MAX_IMAGE_PIXELS, 4 * wanted)
    if new[0] * new[1] > most:
        raise InputError(
            f"{where()} is {pixels.shape[0]}x{pixels.shape[1]} and would be resized to {new[0]}x{new[1]}, more than "
            f"{most} pixels: it is too long and narrow to be resized safely; cut it"
        )


def _opened(data: bytes, where: str) -> Image.Image:
    if not data:
        raise InputError(f"{where} is empty; expected a picture")
    try:
        image = Image.open(io.BytesIO(data), formats=_known_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{where} is too large to decode safely: {one_line(error)}") from error
    except UnidentifiedImageError:
        known = ", ".join(_known_formats())
        raise InputError(f"{where} is no picture, or cut short within its header; expected one of {known}") from None
    except Exception as error:  # a damaged header makes Pillow's readers raise anything
        raise InputError(f"{where} cannot be decoded: {one_line(error)}") from error
    # Pillow only warns between one and two times its limit; here the limit is the limit.
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise InputError(
            f"{where} is too large to decode safely: {image.height}x{image.width} is more than Pillow's limit of "
            f"{Image.MAX_IMAGE_PIXELS} pixels"
        )
    return image


def _known_formats() -> tuple[str, ...]:
    if "TIFF" not in Image.OPEN:
        Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    # Read once, before the pixels are: a tag that comes after them must not turn a picture whose header said otherwise.
    # A TIFF is left out because Pillow turns it upright by itself.
    if image.format == "TIFF" or not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged side note does not make the picture unreadable
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


_EXIF_KEYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def _eight_bits(grey: np.ndarray, where: str) -> UInt8[np.ndarray, "h w"]:
    """65535 becomes 255, rounded to nearest: v * 255 / 65535 is v / 257."""
    lowest, highest = int(grey.min()), int(grey.max())
    if lowest < 0 or highest > 65535:
        raise InputError(f"{where} has grey values from {lowest} to {highest}; expected 8 or 16 bits (0 to 65535)")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey(grey: UInt8[np.ndarray, "h w"], keep_grey: bool) -> Pixels:
    one = grey[:, :, None]
    return one if keep_grey else np.repeat(one, 3, axis=2)


def _on_black(rgba: UInt8[np.ndarray, "h w 4"]) -> Pixels:
    """Colour times opacity, rounded to nearest: transparent parts are black, which is also the default fill."""
    wide = rgba.astype(np.uint16)
    return ((wide[:, :, :3] * wide[:, :, 3:] + 127) // 255).astype(np.uint8)
