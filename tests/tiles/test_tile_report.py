"""Planted causes are found, each by its name; shares sum to 1; what cannot be reported on is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.gate.evidence import p_at_most
from shiftlens.gate.tile_mismatch import tile_mismatch
from shiftlens.stats import Skipped
from shiftlens.tiles.tile_shares import causes_of
from tiles.planted_causes import TwoLevels, images, model, shares


@pytest.fixture(scope="module")
def plain() -> sl.TileReport:
    return sl.tile_report(model(), images(), tile=24)


def test_batch_norm_in_eval_mode_leaves_grid_and_context_only(plain: sl.TileReport) -> None:
    assert shares(plain) == {"context": pytest.approx(1)}
    shifted = sl.tile_report(model(), images(), tile=24, stride=23)
    assert set(shares(shifted)) == {"grid", "context"}
    assert shares(shifted)["grid"] > 0.02


def test_tiles_shifted_by_a_pixel_with_all_the_context_they_need_are_off_the_grid() -> None:
    net = nn.MaxPool2d(2)
    on_grid = sl.tile_report(sl.wrap(net, mean=0.5, std=0.25), images(), tile=16)
    off_grid = sl.tile_report(sl.wrap(net, mean=0.5, std=0.25), images(), tile=16, stride=15)
    assert on_grid.causes == ()
    assert on_grid.mismatch.value == 0
    assert shares(off_grid) == {"grid": 1.0}
    by_phase = {row["phase"]: row["mismatch"] for row in off_grid.to_dict()["by_phase"]}
    assert by_phase[0] == 0
    assert by_phase[1] > 0


def test_instance_norm_is_most_of_what_grid_context_and_resize_leave() -> None:
    found = sl.tile_report(model(norm="instance"), images(), tile=24, stride=22)
    left = 1 - sum(shares(found).get(cause, 0) for cause in ("grid", "context", "resize"))
    assert left > 0.1
    assert shares(found)["norm"] >= 0.8 * left
    [norm] = [cause for cause in found.causes if cause.cause == "norm"]
    assert {layer.path for layer in norm.layers} == {"down.1", "middle.1", "up.1"}
    assert sum(shares(found).values()) == pytest.approx(1)
    assert found.overlap_measured is None
    assert (found.exact, found.exact_with, found.passes, found.obstacles) == (False, "predict_tiled", 4, ())


def test_a_squeeze_and_excitation_block_is_pooling_by_its_path() -> None:
    found = sl.tile_report(model(gated=True), images(), tile=24)
    assert set(shares(found)) == {"context", "pooling"}
    [pooling] = [cause for cause in found.causes if cause.cause == "pooling"]
    assert [layer.path for layer in pooling.layers] == ["gate.pool"]
    assert pooling.share > 0.02


def test_corners_that_are_aligned_are_a_resize() -> None:
    found = sl.tile_report(model(aligned=True), images(), tile=24)
    assert set(shares(found)) == {"context", "resize"}
    assert (found.exact, found.exact_with, found.passes, found.obstacles) == (False, "predict_tiled", 1, ())
    assert found.recipe["checked"] <= 1e-5


class Attention(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.grow = nn.Conv2d(1, 4, 1)
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grow(x)
        tokens = x.flatten(2).transpose(1, 2)
        if self.how == "layer":
            made = self.heads(tokens, tokens, tokens, need_weights=False)[0]
        elif self.how == "function":
            made = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        else:
            made = torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens
        return x + made.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("how", ["layer", "function", "by hand"])
def test_attention_over_the_whole_tile_is_named(how: str) -> None:
    torch.manual_seed(0)
    found = sl.tile_report(sl.wrap(Attention(how), mean=0.5, std=0.25), images(2, 24), tile=16)
    assert shares(found) == {"attention": pytest.approx(1)}


def test_what_no_step_explains_is_other() -> None:
    class Centred(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.linspace(0, 1, x.shape[-1])

    found = sl.tile_report(sl.wrap(Centred(), mean=0.5, std=0.25), images(2), tile=24)
    assert shares(found) == {"other": pytest.approx(1)}


def test_the_measured_overlap_is_enough_and_one_step_less_is_not(plain: sl.TileReport) -> None:
    overlap = plain.overlap_measured
    assert overlap is not None
    assert 0 < overlap <= plain.overlap
    span = float(plain.span.max())
    for around, enough in ((overlap, True), (overlap - 2, False)):
        pieces = [_stitched(position, around) for position in range(3)]
        assert (max(pieces) <= plain.tolerance * span) == enough


def _stitched(position: int, overlap: int) -> float:
    """Largest difference of tiles of 24 px with context: an independent loop."""
    net = model().module
    x = (torch.from_numpy(images().batch([position])).float() / 255 - 0.5) / 0.25
    with torch.no_grad(), sl.wrap(net, mean=0.5, std=0.25).evaluating():
        whole, made = net(x), torch.zeros(1, 3, 64, 64)
        for top in (0, 24, 40):
            for left in (0, 24, 40):
                y, x0 = max(0, top - overlap), max(0, left - overlap)
                part = net(x[:, :, y : top + 24 + overlap, x0 : left + 24 + overlap])
                made[:, :, top : top + 24, left : left + 24] = part[:, :, top - y :, left - x0 :][:, :, :24, :24]
    return float((made - whole).abs().max())


def test_shares_and_intervals_of_known_falls() -> None:
    off = np.array([[4.0, 3.0, 1.0], [8.0, 6.0, 2.0]])
    found = causes_of(off, ["grid", "norm"], [(), ("a", "b")], np.arange(2))
    assert [(each.cause, each.share, each.interval) for each in found] == [
        ("grid", 0.25, (0.25, 0.25)),
        ("norm", 0.5, (0.5, 0.5)),
        ("other", 0.25, (0.25, 0.25)),
    ]
    assert [(layer.path, layer.share) for layer in found[1].layers] == [("a", 0.25), ("b", 0.25)]
    assert causes_of(np.zeros((2, 3)), ["grid", "norm"], [(), ()], np.arange(2)) == ()


def test_what_is_said_of_a_segmenter_is_the_share_of_pixels_that_change(plain: sl.TileReport) -> None:
    found = sl.tile_report(model(), images(), tile=24, task="segmentation", overlap=4)
    values = found.to_dict()
    assert values["metric"]["name"] == "changed"
    assert 0 < values["metric"]["value"] < 0.5
    assert values["mismatch"] == pytest.approx(plain.to_dict()["mismatch"])
    assert 0 < values["mismatch_at_overlap"] < values["mismatch"]
    assert plain.to_dict()["mismatch_at_overlap"] == 0
    assert plain.to_dict()["metric"]["value_at_overlap"] is None  # an infinite PSNR


def test_a_limit_can_be_set_on_the_mismatch(plain: sl.TileReport) -> None:
    evidence = tile_mismatch(plain)
    assert not isinstance(evidence, Skipped)
    assert (evidence.value, evidence.unit, evidence.n) == (
        pytest.approx((plain.off[:, 0] / plain.span).mean()),
        "share",
        3,
    )
    low, high = evidence.bounds(0.05)
    assert 0 < low < evidence.value < high
    assert p_at_most(evidence, low / 2) < 0.05 < p_at_most(evidence, high)
    none_left = tile_mismatch(plain, with_overlap=True)
    assert not isinstance(none_left, Skipped)
    assert none_left.value == 0
    masks = tile_mismatch(
        sl.tile_report(model(), images(2), tile=24, task="segmentation", overlap=4), with_overlap=True
    )
    assert not isinstance(masks, Skipped)
    assert 0 <= masks.bounds(0.05)[0] < masks.value < masks.bounds(0.05)[1] <= 1
    assert isinstance(tile_mismatch(sl.tile_report(model(), images(1), tile=24)), Skipped)


class Strange(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        if self.how == "classifier":
            return x.mean((2, 3)).repeat(1, 4)
        if self.how == "boxes":
            return [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.ones(1)}] * len(x)
        if self.how == "random":
            return x + torch.rand_like(x)
        if self.how == "even":
            if x.shape[-1] % 8:
                raise ValueError("sides must be multiples of 8")
            return nn.functional.interpolate(nn.functional.avg_pool2d(x, 8), scale_factor=8)
        if self.how == "single":
            return x[:, :1]
        if self.how == "large" and x.shape[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x


@pytest.mark.parametrize(
    ("how", "given", "said"),
    [
        ("classifier", {}, "nothing to tile"),
        ("boxes", {}, "boxes"),
        ("random", {}, "another output when it is run again"),
        ("even", {"tile": 20}, "multiples of 8"),
        ("same", {"tile": 64}, "whole image"),
        ("same", {"tile": 0}, "at least 1"),
        ("same", {"overlap": 12}, "smallest tile that works has 25 px"),
        ("same", {"overlap": -1}, "overlap"),
        ("same", {"stride": 30}, "in no tile"),
        ("same", {"tolerance": 0}, "tolerance"),
        ("same", {"task": "classification"}, "nothing to tile"),
        ("same", {"task": "detection"}, "merged"),
        ("same", {"task": "segmentations"}, "did you mean"),
        ("single", {"task": "segmentation"}, "at least 2 classes"),
    ],
)
def test_what_cannot_be_reported_on_is_refused(how: str, given: dict[str, Any], said: str) -> None:
    wanted = sl.wrap(Strange(how), mean=0.5, std=0.25)
    with pytest.raises(sl.InputError, match=said):
        sl.tile_report(wanted, images(1), **{"tile": 24, **given})


def test_an_image_that_does_not_fit_is_held_against_the_largest_tile_that_does() -> None:
    found = sl.tile_report(sl.wrap(Strange("large"), mean=0.5, std=0.25), images(1), tile=16)
    assert found.size == (32, 32)
    assert any("does not fit at once" in note for note in found.notes)


def test_a_net_is_back_in_its_own_mode() -> None:
    net = TwoLevels().train()
    sl.tile_report(sl.wrap(net, mean=0.5, std=0.25), images(1), tile=24)
    assert net.training
    assert net.down[1].training
