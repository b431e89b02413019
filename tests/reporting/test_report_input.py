"""What is given and where it goes: told apart by kind, compared where that can be, refused in one line otherwise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.planted import arrays, margins, trend
from reporting.planted import Page, sweep, unpacked
from shiftlens.analysis.arrays import SweepArrays
from shiftlens.analysis.directions import directions
from shiftlens.arithmetic import inspect
from shiftlens.cli import main
from shiftlens.data.images import load_images
from shiftlens.errors import InputError, StoreError
from shiftlens.narrative.comparing import compare
from shiftlens.nn.vgg import VGG
from shiftlens.reporting import report
from shiftlens.reporting import writing as gather
from shiftlens.reporting.comparison_part import comparisons
from shiftlens.reporting.encoding import packed, png_uri, script_json
from shiftlens.reporting.feature_part import thinned
from shiftlens.reporting.given_items import given
from shiftlens.reporting.page import written_whole
from shiftlens.reporting.saved_results import saved_result
from shiftlens.reporting.thumbnails import MOST_IMAGES, Source, chosen, gallery, sprite_of
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.stats import Skipped
from shiftlens.sweeps.sweep_result import Sweep


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("given")


@pytest.fixture(scope="module")
def tiny(place: Path) -> Sweep:
    return sweep(place / "tiny.zarr", 12, 1)


@pytest.fixture(scope="module")
def arithmetic(place: Path) -> Path:
    path = place / "arithmetic.json"
    path.write_text(json.dumps(inspect(VGG("vgg6", width=4, downsample="stride").eval(), 32, name="net").to_dict()))
    return path


def test_kinds_are_told_apart(tiny: Sweep, arithmetic: Path) -> None:
    found = given([arithmetic, tiny.path, tiny])
    assert ([each.path for each in found.sweeps], len(found.inspections)) == ([tiny.path, tiny.path], 1)
    assert given(tiny).sweeps == (tiny,)
    both = compare([tiny, tiny], names=["a", "b"])
    assert given([both]).comparisons == (both,)


def test_arithmetic_comes_back_as_it_was(arithmetic: Path) -> None:
    net = VGG("vgg6", width=4, downsample="stride").eval()
    truth = inspect(net, 32, name="net")
    found = saved_result(arithmetic)
    assert found.to_dict() == truth.to_dict()
    assert [layer.name for layer in found.uneven] == [layer.name for layer in truth.uneven] != []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: [v], "should be an object"),
        (lambda v: v | {"kind": "sweep"}, "kind: .* 'inspection' or 'comparison'"),
        (lambda v: {k: v[k] for k in v if k != "layers"}, "layers: Field required"),
        (lambda v: v | {"layers": []}, "layers: .* at least 1 item"),
        (lambda v: v | {"size": [32]}, r"size\.1: Field required"),
        (lambda v: v | {"size": [32, True]}, r"size\.1: .* valid integer"),
        (lambda v: v | {"model": 3}, "model: .* valid string"),
        (
            lambda v: v | {"layers": [v["layers"][0] | {"used": {"left": "1"}}]},
            r"layers\.0\.used\.left: .* valid integer",
        ),
    ],
)
def test_arithmetic_that_is_something_else(arithmetic: Path, place: Path, change: Any, text: str) -> None:
    path = place / "changed.json"
    path.write_text(json.dumps(change(json.loads(arithmetic.read_text()))))
    with pytest.raises(StoreError, match=f"changed.json cannot be reported on .*{text}.*: expected a sweep"):
        saved_result(path)


def test_what_cannot_be_reported_on(place: Path, tiny: Sweep) -> None:
    for items in ([], ()):
        with pytest.raises(InputError, match="nothing to report"):
            report(items, place / "none.html")
    with pytest.raises(InputError, match="cannot report on int"):
        report([3], place / "none.html")
    (place / "empty").mkdir()
    (place / "torn.zarr").mkdir()
    (place / "torn.zarr" / "zarr.json").write_text('{"attributes": {"kind": "swe')
    (place / "study.zarr").mkdir()
    (place / "study.zarr" / "zarr.json").write_text('{"node_type": "group", "attributes": {"kind": "study"}}')
    (place / "text.txt").write_text("hello")
    for name, text in (
        ("absent.zarr", "nothing is at .*absent.zarr"),
        ("empty", "empty holds nothing of this tool"),
        ("torn.zarr", "holds nothing of this tool .its zarr.json is not the metadata of a Zarr group"),
        ("study.zarr", "is of kind 'study'"),
        ("text.txt", "text.txt cannot be reported on"),
    ):
        with pytest.raises(StoreError, match=text) as caught:
            report([tiny, place / name], place / "none.html")
        assert "expected a sweep, a feature run" in str(caught.value), name
        assert "\n" not in str(caught.value)
    assert not (place / "none.html").exists()


def test_where_it_cannot_be_written(place: Path, tiny: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"ends in \.html, got .*tiny\.zarr"):
        report([tiny], tiny.path)
    (place / "there.html").mkdir()
    with pytest.raises(StoreError, match="is a directory"):
        report([tiny], place / "there.html")
    (place / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*out\.html"):
        report([tiny], place / "file" / "out.html")
    # What was there stays whole when the writing fails, and nothing is left beside it.
    old = place / "old.html"
    old.write_text("old")
    before = {each.name for each in place.iterdir()}

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gather, "_laid_out", lambda *_: ({"title": "t", "notes": []}, {}, []))
    monkeypatch.setattr(gather, "render", lambda *_: b"page")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="no space left"):
        report([tiny], old)
    monkeypatch.undo()
    assert old.read_text() == "old"
    assert {each.name for each in place.iterdir()} == before


def test_a_report_has_the_rights_of_any_file(place: Path) -> None:
    mask = os.umask(0o027)
    try:
        with written_whole(place / "rights.html") as building:
            building.write_text("x")
    finally:
        os.umask(mask)
    assert (place / "rights.html").stat().st_mode & 0o777 == 0o640


def test_only_what_asks_the_same_question_is_compared(place: Path, tiny: Sweep) -> None:
    same = sweep(place / "same.zarr", 12, 1, edge=1.0)
    edge = sweep(place / "edge.zarr", 12, 1, fill=Fill("edge"))
    wide = sweep(place / "wide.zarr", 12, 2, fill=Fill("edge"))
    made, reasons = comparisons([tiny, edge, same, wide], ["tiny", "edge", "same", "wide"], 0)
    assert [each.names for each in made] == [("tiny", "same")]
    assert len(reasons) == 2
    assert "edge cannot be compared with tiny: expected the same fill, black, got edge." in reasons
    assert "wide cannot be compared with tiny: expected the same fill, black, got edge." in reasons
    other = sweep(place / "edge2.zarr", 12, 1, fill=Fill("edge"))
    made, reasons = comparisons([tiny, edge, other], ["tiny", "edge", "edge2"], 0)
    assert [each.names for each in made] == [("edge", "edge2")]
    assert comparisons([tiny], ["tiny"], 0) == ([], [])
    fewer = sweep(place / "fewer.zarr", 10, 1)
    made, reasons = comparisons([tiny, fewer], ["tiny", "fewer"], 0)
    assert made == []
    assert reasons[0].startswith("fewer cannot be compared with tiny: expected the same images")
    assert "--partial compares those" in reasons[0]
    [both], none = comparisons([tiny, fewer], ["tiny", "fewer"], 0, partial=True)
    assert (both.n_images, none) == (10, [])


def test_pictures_only_of_the_images_of_the_sweep(place: Path, tiny: Sweep) -> None:
    from shiftlens.analysis.arrays import from_sweep
    from shiftlens.analysis.summary import all_metrics

    metrics = all_metrics(from_sweep(tiny), n_resamples=50)
    for source, why in (
        (Source(), ""),
        (Source("digits"), ""),
        (Source(load_images("digits", limit=12)), ""),
        (Source(load_images("digits", limit=11)), "does not hold the images"),
        (Source(load_images("digits", split="train")), "does not hold the images"),
    ):
        data, said = gallery(tiny, metrics, source)
        assert (data["sprite"] is None) == bool(why)
        assert why in said
    changed = sweep(place / "changed.zarr", 12, 1, data_digest="sha256:other")
    data, said = gallery(changed, metrics, Source())
    assert data["sprite"] is None
    assert "the digests differ" in said
    named = sweep(place / "named.zarr", 12, 1, data="cifar10")
    data, said = gallery(named, metrics, Source())
    assert data["sprite"] is None
    assert "--data cifar10" in said


def test_pictures_of_an_adaptive_sweep_that_has_stopped(place: Path) -> None:
    from shiftlens.analysis.arrays import from_sweep
    from shiftlens.analysis.summary import all_metrics
    from shiftlens.models.loading import wrap
    from shiftlens.sweeping import run_sweep

    images = load_images("digits", limit=300)
    model = wrap(VGG("vgg6", width=2).eval(), mean=0.5, std=0.25, size=32)
    made, _ = run_sweep(model, images, ShiftGrid(1), out=place / "adaptive.zarr", half_width=45.0)
    assert made.n_images < made.n_population == 300
    data, why = gallery(made, all_metrics(from_sweep(made), n_resamples=50), Source(images))
    assert why == ""
    assert data["sprite"] is not None


def test_the_images_shown_are_fragile_ones_and_a_ladder() -> None:
    rng = np.random.default_rng(1)
    d = np.arange(-6, 7.0)
    made = arrays(margins(rng, 300, trend(d, d, edge=4)), rng)
    from shiftlens.analysis.summary import all_metrics

    metrics = all_metrics(made, n_resamples=50)
    rows = chosen(metrics)
    assert len(rows) == MOST_IMAGES
    assert len(np.unique(rows)) == MOST_IMAGES
    survived = made.correct.sum(axis=(1, 2))
    # Of the ladder both ends are there; of the fragile, the one that is right at rest and fails most near it.
    assert {survived.min(), survived.max()} <= set(survived[rows])
    strong = metrics.retained[0]
    assert not isinstance(strong, Skipped)
    lost = np.where(made.correct[:, 6, 6], (~made.correct[:, strong.region]).sum(axis=1), -1)
    assert lost.max() in lost[rows]
    assert np.sort(lost)[-32] >= np.sort(lost[rows])[-32] >= np.sort(lost)[-33]


def test_large_pictures_become_small_ones() -> None:
    pixels = np.zeros((3, 1, 96, 192), np.uint8)
    pixels[1] = 200
    sprite, size = sprite_of(pixels)
    assert size == (24, 48)
    assert sprite.shape == (24, 144, 3)
    assert (sprite[:, 48:96] == 200).all()
    assert sprite[:, :48].max() == sprite[:, 96:].max() == 0


@pytest.mark.parametrize(
    ("centre", "worst"),
    [((2, 0), "to the left"), ((-2, 0), "to the right"), ((0, 2), "up"), ((0, -2), "down"), ((2, 2), "up and left")],
)
def test_the_worst_direction_is_opposite_to_where_the_region_lies(centre: tuple[float, float], worst: str) -> None:
    rng = np.random.default_rng(0)
    d = np.arange(-8, 9.0)
    found = directions(arrays(margins(rng, 200, trend(d, d, edge=5, centre=centre)), rng).values())
    assert not isinstance(found, Skipped)
    assert found.names[found.worst] == worst
    assert found.gap.lo > 0
    assert (found.worst - found.opposite) % 4 == 0
    gap = 100 * (found.means[found.opposite].value - found.means[found.worst].value)
    assert found.gap.value == pytest.approx(gap, rel=1e-6)


def test_directions_of_a_net_without_any_are_equal_and_of_odd_grids_are_skipped() -> None:
    d = np.arange(-5, 6)
    length = np.hypot(d[:, None], d[None, :])
    # Right within 3 px, whatever the direction: distances alone must not make one worse than its opposite.
    prediction = np.repeat((length > 3)[None].astype(np.uint8), 6, axis=0)
    made = SweepArrays(
        {"prediction": prediction, "loss": np.ones(prediction.shape, np.float32)},
        np.zeros(6, np.int64),
        d,
        d,
        ("a", "b"),
        picture_size=(32, 32),
    )
    found = directions(made.values())
    assert not isinstance(found, Skipped)
    assert found.gap.value == 0
    assert (
        "holds no pair"
        in directions(
            SweepArrays(
                {"prediction": prediction[:, 5:, 5:6], "loss": np.ones((6, 6, 1), np.float32)},
                np.zeros(6, np.int64),
                d[5:],
                np.array([0]),
                ("a", "b"),
            ).values()
        ).why
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], "u1"), ([0, 256], "u2"), ([0, 70000], "u4"), ([-1, 5], "i4"), ([0.5, np.nan], "f4"), ([True], "u1")],
)
def test_arrays_are_packed_as_small_as_they_go(values: list[float], dtype: str) -> None:
    made = packed(np.array(values))
    assert made["dtype"] == dtype
    assert np.array_equal(unpacked(made), np.array(values), equal_nan=True)


def test_nothing_in_the_data_can_end_its_element() -> None:
    text = script_json({"a": "</script><!--&\u2028\u2029"})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"a": "</script><!--&\u2028\u2029"}
    with pytest.raises(ValueError, match="JSON"):
        script_json({"a": float("nan")})


def test_pictures_keep_their_colours() -> None:
    import base64
    import io

    from PIL import Image

    rng = np.random.default_rng(0)
    for pixels in (rng.integers(0, 256, (40, 40, 3), np.uint8), rng.integers(0, 4, (40, 40, 3), np.uint8) * 80):
        data = base64.b64decode(png_uri(pixels).partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), pixels)


def test_large_maps_are_thinned_from_both_borders() -> None:
    maps = np.arange(112.0)[None, :, None] * np.ones((100, 1, 112))
    small = thinned(maps)
    assert small.shape == (16, 64, 64)
    assert thinned(maps, 20_000).shape == (4, 64, 64)
    assert thinned(np.zeros((64, 32, 32))).shape == (64, 32, 32)
    assert (small[0, 0, 0], small[0, -1, 0]) == (0, 111)
    assert thinned(np.zeros((70, 8, 8))).shape == (64, 8, 8)


def test_the_command(tiny: Sweep, arithmetic: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "made" / "report.html"
    code = main(["report", str(tiny.path), str(arithmetic), "--title", "My <title>", "--out", str(out), "--json"])
    captured = capsys.readouterr()
    assert code == 0
    values = json.loads(captured.out)
    assert values["files"] == [str(out)]
    assert len(values["verdict"]) == 3
    page = Page(out)
    assert "My <title>" in page.visible
    assert "inspection-0" in {attributes.get("id") for _, attributes in page.tags}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to report"),
        (["absent.zarr"], "nothing is at absent.zarr"),
        (["{tiny}", "--out", "{tiny}"], "ends in .html"),
        (["{tiny}", "--size", "32"], "--size is the input of --model"),
        (["{tiny}", "--model", "nothing:like"], "nothing"),
        (["{tiny}", "--data", "cifra10", "--out", "{place}/x.html"], "did you mean 'cifar10'"),
    ],
)
def test_bad_use_is_one_line(
    words: list[str], text: str, tiny: Sweep, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *(word.format(tiny=tiny.path, place=place) for word in words), "-q"]) == 2
    captured = capsys.readouterr()
    assert text in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not captured.out
    assert not (place / "x.html").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    assert re.search(r"Example:\s+shiftlens report vgg\.zarr", capsys.readouterr().out)


WRITER = """
import sys
from pathlib import Path
from shiftlens.reporting.page import written_whole
with written_whole(Path(sys.argv[1])) as building:
    building.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_report_left_is_removed_by_the_next_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    others = [
        tmp_path / name for name in (".r.html.mine.partial", ".q.html.abcd1234.partial", "r.html.abcd1234.partial")
    ]
    for other in others:
        other.touch()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        (partial,) = [p for p in tmp_path.glob(".r.html.*.partial") if p not in others]
        with written_whole(out) as building:
            building.write_text("new")
        assert partial.read_text() == "half"
        writer.kill()
        writer.wait()
    assert partial.exists()
    with written_whole(out) as building:
        building.write_text("newer")
    assert sorted(tmp_path.iterdir()) == sorted([out, *others])
    assert out.read_text() == "newer"
