"""Tiles are exact: on random nets, with the printed overlap and grid, and with no step of the grid less."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor, nn

import shiftlens as sl
from shiftlens.arithmetic import tile_geometry
from shiftlens.errors import InputError
from shiftlens.graph.geometry import TileGeometry
from shiftlens.tiles.tile_fitting import Fitting, fit_tiles
from shiftlens.tiles.tile_layout import tile_spans
from shiftlens.tiles.tile_recipe import Recipe, recipe_of
from shiftlens.tiles.tile_windows import Span
from tiles.local_nets import build, plans

EXACT = 1e-10


def off(found: Tensor, whole: Tensor) -> float:
    """Largest |difference| over the range of the whole image's output; infinite where cells are missing."""
    if found.shape != whole.shape:
        return float("inf")
    return float((found - whole).abs().max() / (whole.max() - whole.min()).clamp_min(1e-300))


def tiled(net: nn.Module, x: Tensor, spans: list[tuple[Span, ...]], strides: tuple[Fraction, Fraction]) -> Tensor:
    """A tiling by hand, which asks the plan for nothing but where windows and cores are."""
    bands = []
    for row in spans[0]:
        band = []
        for column in spans[1]:
            ys = torch.arange(row.lo, row.hi) % x.shape[2]
            xs = torch.arange(column.lo, column.hi) % x.shape[3]
            band.append(net(x[:, :, ys][:, :, :, xs])[:, :, row.cells(strides[0]), column.cells(strides[1])])
        bands.append(torch.cat(band, 3))
    return torch.cat(bands, 2)


def refused_or_off(
    net: nn.Module, x: Tensor, spans: list[tuple[Span, ...]], geometry: TileGeometry, whole: Tensor
) -> bool:
    """Whether a tiling is not exact, or has tiles that a layer does not take."""
    try:
        return off(tiled(net, x, spans, geometry.stride), whole) > EXACT
    except (RuntimeError, InputError):
        return True


def by_recipe(recipe: Recipe, net: nn.Module, image: Tensor) -> Tensor:
    names: dict[str, Any] = {"torch": torch, "net": net, "image": image}
    exec(recipe.loop(), names)
    output: Tensor = names["output"]
    return output


def fitted(net: nn.Module, more: tuple[int, int]) -> tuple[Fitting, tuple[int, int], tuple[int, int]]:
    """Tiles a step longer than the smallest, and an image of more than one of them, off the grid where it may be."""
    try:
        geometry = tile_geometry(net, 72)
    except InputError:
        assume(False)
        raise
    tile = tuple(least + grid for least, grid in zip(geometry.smallest_tile, geometry.grid, strict=True))
    size = tuple(n + 2 * grid for n, grid in zip(tile, geometry.grid, strict=True))
    try:
        size_off = (size[0] + more[0], size[1] + more[1])
        found = fit_tiles(net, size_off, (tile[0], tile[1]))
        if not found.obstacles:
            return found, size_off, (tile[0], tile[1])
    except InputError:
        pass
    return fit_tiles(net, (size[0], size[1]), (tile[0], tile[1])), (size[0], size[1]), (tile[0], tile[1])


def check(plan: dict[str, Any]) -> None:
    net = build(plan, linear=False)
    found, size, tile = fitted(net, (plan["seed"] % 5, plan["seed"] % 7))
    assert found.geometry.is_local, found.obstacles
    image = torch.randint(0, 256, (1, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(plan["seed"]))
    model = sl.wrap(net, mean=0, std=1)
    x = model.preprocessing.normalise(image[None]).double()
    with torch.no_grad():
        whole = net(x)
        assert whole.shape[1:] == found.output
        assert off(by_recipe(recipe_of(found, max(tile)), net, x), whole) <= EXACT
        if plan["seed"] % 3 == 0:
            assert off(sl.predict_tiled(model, image, tile=tile, quiet=True), whole[0]) <= EXACT
        straight = build(plan, linear=True)
        whole, geometry = straight(x), found.geometry
        for axis in (0, 1):
            if geometry.overlap[axis]:
                spans = [found.layout.rows, found.layout.columns]
                less = geometry.overlap[axis] - geometry.grid[axis]
                core = tile[axis] - 2 * geometry.overlap[axis]
                circular = geometry.circular[axis]
                assert off(tiled(straight, x, spans, geometry.stride), whole) <= EXACT
                spans[axis] = tile_spans(size[axis], core + 2 * less, less, geometry.grid[axis], circular=circular)
                assert refused_or_off(straight, x, spans, geometry, whole)


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@given(plans())
@settings(max_examples=10, deadline=None, suppress_health_check=QUIET)
def test_random_nets_are_exact_with_the_printed_overlap_and_not_with_less(plan: dict[str, Any]) -> None:
    check(plan)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(plans())
@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
def test_200_random_nets_are_exact_with_the_printed_overlap_and_not_with_less(plan: dict[str, Any]) -> None:
    check(plan)
