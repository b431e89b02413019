"""Every odd kind of picture file: converted by the rule of docs/images.md, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from shiftlens.data.decode import SizeRule, decode, fit, from_pil, read_header
from shiftlens.data.preprocessing import INTERPOLATIONS
from shiftlens.errors import InputError

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_rgb_png_comes_back_exactly() -> None:
    pixels = decode(encoded(Image.fromarray(RGB)), "here")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_other_lossless_formats(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    grey = Image.fromarray(RGB[:, :, 0])
    pixels = decode(encoded(grey, kind, **options), "here")
    np.testing.assert_array_equal(pixels, np.repeat(RGB[:, :, :1], 3, axis=2))


def test_grey_is_repeated() -> None:
    pixels = decode(encoded(Image.fromarray(RGB[:, :, 1])), "here")
    assert pixels.shape == (5, 7, 3)
    for channel in range(3):
        np.testing.assert_array_equal(pixels[:, :, channel], RGB[:, :, 1])


def test_one_bit_becomes_0_and_255() -> None:
    bits = RGB[:, :, 0] > 127
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(bits)), "here")[:, :, 0], bits * 255)


def test_palette_looks_up_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 1]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putdata([0, 1, 2, 1])
    expected = [[[10, 20, 30], [200, 100, 50], [1, 2, 3], [200, 100, 50]]]
    np.testing.assert_array_equal(decode(encoded(image), "here"), expected)


def test_transparency_is_laid_on_black() -> None:
    rgba = np.dstack([RGB, RNG.integers(0, 256, (5, 7), dtype=np.uint8)])
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    pixels = decode(encoded(Image.fromarray(rgba)), "here")
    expected = np.floor(RGB.astype(float) * rgba[:, :, 3:] / 255 + 0.5)
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(pixels[0, 0], 0)
    np.testing.assert_array_equal(pixels[0, 1], RGB[0, 1])


def test_transparent_palette_entry_and_colour_key_are_black() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([250, 0, 0, 0, 250, 0])
    image.putdata([0, 1])
    np.testing.assert_array_equal(decode(encoded(image, transparency=0), "here"), [[[0, 0, 0], [0, 250, 0]]])
    keyed = Image.fromarray(np.array([[[9, 9, 9], [8, 7, 6]]], dtype=np.uint8))
    np.testing.assert_array_equal(decode(encoded(keyed, transparency=(9, 9, 9)), "here"), [[[0, 0, 0], [8, 7, 6]]])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_to_eight(kind: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(values), kind), "here")
    expected = np.floor(values / 65535 * 255 + 0.5).astype(int)
    np.testing.assert_array_equal(pixels, np.repeat(expected[:, :, None], 3, axis=2))
    assert expected.tolist() == [[0, 0, 1, 1, 128, 254, 255, 255]]


def test_cmyk_jpeg_is_converted() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink: no cyan, all magenta and yellow
    pixels = decode(encoded(cmyk, "JPEG", quality=100), "here")
    assert pixels.shape == (16, 16, 3)
    assert pixels[:, :, 0].min() > 240
    assert pixels[:, :, 1:].max() < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_makes_it_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(decode(data, "here"), upright)
    assert read_header(data, "here").size == upright.shape[:2]
    if orientation == 6:  # known by hand: stored on its side, to be turned clockwise
        np.testing.assert_array_equal(upright, np.rot90(RGB, -1))


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for kind in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(data, "here"), np.broadcast_to([255, 0, 0], (4, 4, 3)))


def test_header_tells_jpeg_from_others() -> None:
    image = Image.fromarray(RGB)
    assert read_header(encoded(image, "JPEG"), "here").is_jpeg
    assert not read_header(encoded(image, "PNG"), "here").is_jpeg


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_short_is_refused_by_name(kind: str) -> None:
    data = encoded(Image.fromarray(np.asarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))), kind)
    with pytest.raises(InputError, match=r"^picture 3 \(a\.png\) cannot be decoded: .*truncated") as caught:
        decode(data[: len(data) // 2], "picture 3 (a.png)")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "is empty"), (b"hello, I am no picture", "is no picture"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no picture")],
)
def test_no_picture_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"^row 9 {reason}"):
        decode(data, "row 9")
    with pytest.raises(InputError, match=f"^row 9 {reason}"):
        read_header(data, "row 9")


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="here has floating-point pixels"):
        decode(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "here")


@pytest.mark.parametrize("factor", [1, 3])
def test_decompression_bomb_is_refused(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 34 // factor)  # the picture has 35
    with pytest.raises(InputError, match="here is too large to decode safely"):
        decode(data, "here")


def test_a_png_that_claims_to_be_huge_is_refused_without_decoding() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match="too large to decode safely"):
        read_header(data, "here")


@given(st.binary(max_size=200), st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP"]), st.integers(0, 60))
def test_damaged_bytes_never_raise_anything_else(noise: bytes, kind: str, keep: int) -> None:
    data = encoded(Image.fromarray(RGB), kind)[:keep] + noise
    try:
        pixels = decode(data, "here")
    except InputError as error:
        message = str(error)
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3
        return
    assert message.startswith("here ")
    assert "\n" not in message


def test_grey_may_be_kept_grey() -> None:
    assert from_pil(Image.fromarray(RGB[:, :, 0]), "here", keep_grey=True).shape == (5, 7, 1)
    assert from_pil(Image.fromarray(RGB), "here", keep_grey=True).shape == (5, 7, 3)


@given(
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.integers(4, 24),
    st.integers(0, 6),
    st.sampled_from(["nearest", "bilinear", "bicubic"]),
)
def test_fit_is_torchvisions_resize_and_centre_crop(
    have: tuple[int, int], side: int, extra: int, interpolation: str
) -> None:
    pixels = np.random.default_rng(have).integers(0, 256, (*have, 3), dtype=np.uint8)
    reference = v2.Compose(
        [v2.Resize(side + extra, getattr(v2.InterpolationMode, interpolation.upper())), v2.CenterCrop(side)]
    )
    ours = fit(pixels, SizeRule((side, side), side + extra, interpolation), lambda: "here")
    np.testing.assert_array_equal(ours, np.asarray(reference(Image.fromarray(pixels))))


def test_fit_leaves_the_exact_size_alone_and_covers_the_rest() -> None:
    assert fit(RGB, SizeRule((5, 7), None, "bilinear"), lambda: "here") is RGB
    for have in ((9, 30), (30, 9), (4, 4), (11, 11)):
        picture = np.zeros((*have, 1), np.uint8)
        assert fit(picture, SizeRule((10, 12), None, "bilinear"), lambda: "here").shape == (10, 12, 1)
    # Covering: the sides match in one direction, so nothing but the other direction is cut.
    ramp = np.broadcast_to(np.arange(30, dtype=np.uint8)[None, :, None], (10, 30, 1))
    cut = fit(ramp, SizeRule((10, 10), None, "nearest"), lambda: "here")
    np.testing.assert_array_equal(cut[0, :, 0], np.arange(10, 20))


def test_fit_refuses_a_cut_larger_than_the_picture() -> None:
    with pytest.raises(InputError, match=r"^picture 4 is 10x10 .* too small to cut 8x20"):
        fit(np.zeros((10, 10, 3), np.uint8), SizeRule((8, 20), 8, "bilinear"), lambda: "picture 4")


@pytest.mark.parametrize(("shape", "size"), [((1, 600_000, 3), (224, 224)), ((600_000, 1, 1), (150, 40))])
def test_fit_refuses_what_resizing_would_make_enormous(shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    with pytest.raises(
        InputError, match=r"^picture 4 is .* would be resized to .* too long and narrow .* cut it"
    ) as caught:
        fit(np.zeros(shape, np.uint8), SizeRule(size, None, "bilinear"), lambda: "picture 4")
    assert "\n" not in str(caught.value)


def test_fit_takes_what_is_asked_for_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 450)
    picture = np.zeros((10, 40, 3), np.uint8)
    assert fit(picture, SizeRule((20, 20), None, "bilinear"), lambda: "here").shape == (20, 20, 3)
    assert fit(picture, SizeRule((10, 10), 20, "bilinear"), lambda: "here").shape == (10, 10, 3)
    with pytest.raises(InputError, match="here is 10x41 and would be resized to 20x82, more than 1600 pixels"):
        fit(np.zeros((10, 41, 3), np.uint8), SizeRule((20, 20), None, "bilinear"), lambda: "here")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # so a user says that there is no limit
    assert fit(np.zeros((10, 41, 3), np.uint8), SizeRule((20, 20), None, "bilinear"), lambda: "here").shape == (
        20,
        20,
        3,
    )


def test_every_interpolation_of_a_constant_is_the_constant() -> None:
    constant = np.full((9, 9, 3), 77, np.uint8)
    for name in INTERPOLATIONS:
        out = fit(constant, SizeRule((5, 13), None, name), lambda: "here")
        assert torch.equal(torch.from_numpy(out.copy()), torch.full((5, 13, 3), 77, dtype=torch.uint8))
