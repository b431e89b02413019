from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import reference
from shiftlens.errors import InputError
from shiftlens.shifts import Fill, Shift, ShiftGrid, canvas, translate


def test_default_grid_of_a_cifar_picture_has_4225_shifts() -> None:
    grid = ShiftGrid.default_for((32, 32))
    assert grid.shape == (65, 65)
    assert grid.n_shifts == 4225
    assert grid.dys[0] == -32
    assert grid.dys[grid.origin[0]] == grid.dxs[grid.origin[1]] == 0
    assert ShiftGrid.default_for((224, 48)).max_shift == (16, 48)


def test_grid_order_is_rows_of_dy_with_dx_inside() -> None:
    assert list(ShiftGrid((1, 2), step=1))[:3] == [Shift(-2, -1), Shift(-1, -1), Shift(0, -1)]


@given(m=st.integers(1, 40), step=st.integers(1, 40))
def test_zero_is_always_in_the_grid(m: int, step: int) -> None:
    if step > m:
        with pytest.raises(InputError, match="larger than max-shift"):
            ShiftGrid(m, step)
        return
    grid = ShiftGrid(m, step)
    assert 0 in grid.dxs.tolist()
    assert abs(grid.dxs).max() <= m
    assert set(np.diff(grid.dxs).tolist()) == {step}


@pytest.mark.parametrize(("max_shift", "step"), [(0, 1), (-1, 1), (4, 0), (4, -1), ((0, 0), 1), (2.5, 1), (True, 1)])
def test_bad_grids_are_refused(max_shift: object, step: int) -> None:
    with pytest.raises(InputError, match=r"max-shift|step"):
        ShiftGrid(max_shift, step)  # type: ignore[arg-type]


def test_a_grid_that_would_fill_the_memory_is_refused_with_the_largest_that_fits() -> None:
    assert ShiftGrid(2895).n_shifts == 5791**2
    assert ShiftGrid(16_384, step=8192).shape == (5, 5)
    for step in (1, 3):
        with pytest.raises(InputError, match=f"a max-shift of at most {2895 * step} ") as caught:
            ShiftGrid(16_384, step=step)
        assert "\n" not in str(caught.value)
        ShiftGrid(2895 * step, step=step)
        with pytest.raises(InputError, match="shifts, expected at most 33,554,432"):
            ShiftGrid(2896 * step, step=step)


def test_all_4225_shifts_equal_torchvision_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator)
    floats = torch.randn(1, 3, 32, 32, generator=generator)
    for shift in ShiftGrid(32):
        for images in (pictures, floats):
            expected = tv.affine(
                images,
                angle=0.0,
                translate=[shift.dx, shift.dy],
                scale=1.0,
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.NEAREST,
            )
            assert torch.equal(translate(images, shift.dx, shift.dy), expected), shift


@given(
    h=st.integers(2, 6),
    w=st.integers(2, 6),
    dx=st.integers(-15, 15),
    dy=st.integers(-15, 15),
    fill=st.sampled_from(["edge", "reflect", "symmetric", "wrap"]),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
)
def test_index_rules_equal_numpy_pad_and_crop(h: int, w: int, dx: int, dy: int, fill: str, dtype: str) -> None:
    images = np.arange(2 * 3 * h * w).reshape(2, 3, h, w).astype(dtype)
    m = 15
    padded = np.pad(images, ((0, 0), (0, 0), (m, m), (m, m)), mode=fill)  # type: ignore[call-overload]
    expected = padded[..., m - dy : m - dy + h, m - dx : m - dx + w]
    got = translate(images, dx, dy, fill)
    assert got.dtype == images.dtype
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(translate(torch.from_numpy(images), dx, dy, fill).numpy(), expected)


@given(
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    dx=st.integers(-7, 7),
    dy=st.integers(-7, 7),
    dtype=st.sampled_from([torch.uint8, torch.bool, torch.bfloat16, torch.float16, torch.float64]),
)
def test_black_on_any_dtype_and_shape(h: int, w: int, dx: int, dy: int, dtype: torch.dtype) -> None:
    images = torch.randint(0, 2, (1, 2, h, w)).to(dtype)
    got = translate(images, dx, dy)
    assert got.dtype == dtype
    expected = reference.translated(images[0].float().numpy(), dx, dy, "constant", [0, 0])
    np.testing.assert_array_equal(got[0].float().numpy(), expected)


def test_numbers_per_channel_stand_where_nothing_is_seen() -> None:
    got = translate(np.zeros((3, 2, 2)), 1, 0, (0.25, 0.5, 0.75))
    assert got[:, :, 0].tolist() == [[0.25] * 2, [0.5] * 2, [0.75] * 2]
    assert not got[:, :, 1].any()
    assert translate(np.zeros((2, 2), dtype=np.uint8), 0, 1, 7).tolist() == [[7, 7], [0, 0]]


@pytest.mark.parametrize(
    ("images", "fill", "message"),
    [
        (np.zeros((3, 2, 2), dtype=np.uint8), 0.5, "not a value of uint8 images"),
        (np.zeros((3, 2, 2), dtype=np.uint8), 256, "not a value of uint8 images"),
        (np.zeros((3, 2, 2)), (1.0, 2.0), "fill has 2 values, the images have 3 channels"),
        (np.zeros((3, 2, 2)), float("nan"), "finite"),
        (np.zeros((3, 2, 2)), "mean", "pass the numbers"),
        (np.zeros((3, 2, 2)), "blurred", "unknown fill 'blurred'"),
        (np.zeros(3), "black", r"\[\.\.\., h, w\]"),
    ],
)
def test_bad_translations_are_refused(images: np.ndarray, fill: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        translate(images, 1, 0, fill)  # type: ignore[arg-type]


def test_half_a_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="whole pixels"):
        translate(np.zeros((2, 2)), 0.5, 0)  # type: ignore[arg-type]


def test_black_and_mean_after_normalisation() -> None:
    assert Fill.parse("mean").normalised((0.5, 0.4), (0.2, 0.1)) == (0.0, 0.0)
    assert Fill.parse("black").normalised((0.5, 0.4), (0.25, 0.1)) == (-2.0, -4.0)
    assert Fill.parse("0.75").normalised((0.5,), (0.25,)) == (1.0,)
    assert Fill.parse([1.0, 0.0]).normalised((0.5, 0.5), (0.5, 0.5)) == (1.0, -1.0)
    with pytest.raises(InputError, match="2 values, the model's input has 3 channels"):
        Fill.parse("0.1,0.2").normalised((0.0,) * 3, (1.0,) * 3)
    with pytest.raises(InputError, match="index rule"):
        Fill.parse("wrap").normalised((0.0,), (1.0,))


@pytest.mark.parametrize("bad", ["grey", "1.5", "-0.1", "nan", "", "0.1,,0.2", 2.0])
def test_bad_fills_are_refused(bad: object) -> None:
    with pytest.raises(InputError, match="fill"):
        Fill.parse(bad)  # type: ignore[arg-type]


@given(
    h=st.integers(2, 5),
    w=st.integers(2, 5),
    my=st.integers(0, 7),
    mx=st.integers(0, 7),
    fill=st.sampled_from(["black", "0.5", "edge", "reflect", "symmetric", "wrap"]),
)
def test_every_window_of_the_canvas_is_a_translation(h: int, w: int, my: int, mx: int, fill: str) -> None:
    images = torch.randn(2, 3, h, w)
    parsed = Fill.parse(fill)
    values = parsed.normalised((0.0,) * 3, (1.0,) * 3) if parsed.is_constant else None
    wide = canvas(images, my, mx, parsed.rule, values)
    for dy in range(-my, my + 1):
        for dx in range(-mx, mx + 1):
            window = wide[..., my - dy : my - dy + h, mx - dx : mx - dx + w]
            expected = translate(images, dx, dy, fill if values is None else values)
            assert torch.equal(window, expected)
