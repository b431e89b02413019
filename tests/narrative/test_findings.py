"""Findings say what was planted, on the right side and of the right size; a quiet sweep says that it is quiet."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import typer

from analysis.planted import arrays, margins, predicting, sweep, trend
from cuts import cut
from narrative.commands import parse
from narrative.diagnosed import PLAIN, said_of
from shiftlens.analysis.summary import all_metrics
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, Significance, number
from shiftlens.narrative.findings import diagnose
from shiftlens.narrative.rendering import as_rich, as_text
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.thresholds import THRESHOLDS, checked_thresholds, weighed
from shiftlens.narrative.words import quoted, size_of
from shiftlens.stats import Estimate
from sweeps.small_sweeps import header

REACH = 10
NORMALISED = Preprocessing((0.47 / 4,), (0.25,), declared=True)
HOSTILE = ("<script>alert(1)</script>", "\x1b[31mred", "$\\alpha_{", "a" * 300, "[bold]x[/bold]")


def lean(turn_x=0.0, turn_y=0.0):
    def mean(dys, dxs):
        tilt = turn_x * np.tanh(dxs / 2)[None, :] + turn_y * np.tanh(dys / 2)[:, None]
        return trend(dys, dxs, edge=8, soft=2.5) + tilt

    return sweep(11, 500, REACH, mean=mean)


def mirrored(made):
    return replace(made, variables={name: cells[:, :, ::-1].copy() for name, cells in made.variables.items()})


def swapped(made):
    return replace(made, variables={name: np.swapaxes(cells, 1, 2).copy() for name, cells in made.variables.items()})


def by_id(found):
    assert len({each.id for each in found}) == len(found), "ids repeat"
    return {each.id: each for each in found}


@pytest.fixture(scope="module")
def leaning():
    return lean(turn_x=0.25, turn_y=-0.12)


@pytest.fixture(scope="module")
def found(leaning):
    return by_id(said_of(leaning))


def test_a_planted_side_is_named_with_its_size(leaning, found):
    right = leaning.correct[:, :, REACH + 1 :].mean()
    left = leaning.correct[:, :, :REACH].mean()
    said = found["asymmetry-x"]
    assert said.severity == "warn"
    assert said.value == pytest.approx(100 * (right - left), abs=0.3)
    assert said.value > 3
    assert re.match(
        r"Accuracy is .* higher for shifts to the right than for shifts to the left, averaged over", said.statement
    )
    quoted = float(re.search(r"Accuracy is ([\d.]+) points", said.statement)[1])
    assert quoted == pytest.approx(said.value, abs=0.06)
    assert said.interval[0] < said.value < said.interval[1]
    assert said.p_value <= 0.02
    assert said.quantity == Quantity("accuracy", "x")
    assert said.action.command[-4:-2] == ("--control", "flip")
    assert "for shifts up than for shifts down" in found["asymmetry-y"].statement
    assert found["asymmetry-y"].value < 0


def test_the_clearest_pair_is_said_with_its_better_place_first(leaning, found):
    share = 100 * leaning.correct.mean(axis=0)
    for name in ("asymmetry-x-pairs", "asymmetry-y-pairs"):
        places = re.findall(r"\((-?\d+), (-?\d+)\)", found[name].statement)
        better, worse = (share[REACH + int(dy), REACH + int(dx)] for dx, dy in places)
        assert better - worse == pytest.approx(abs(found[name].value))
        assert f"is {better - worse:.1f} points [" in found[name].statement
    assert found["asymmetry-y-pairs"].value < 0


def test_where_all_shifts_are_alike_none_is_the_worst():
    made = sweep(3, 40, 2, mean=lambda dys, dxs: np.full((len(dys), len(dxs)), 50.0))
    said = by_id(said_of(made, n_resamples=50, max_shift=(2, 2)))["accuracy-worst"].statement
    assert re.match(r"Accuracy is the same under all 25 shifts, 100.0 % \[", said)


def test_an_interval_that_excludes_0_is_said_to_be_corrected_for_less_than_the_test(leaning):
    metrics = all_metrics(leaning, n_resamples=100)
    lost = replace(metrics)
    vars(lost)["tests"] = tuple(replace(each, holm_p=0.2) for each in metrics.tests)
    said = by_id(diagnose(lost, Setting(header(**PLAIN))))
    for name in ("asymmetry-x", "asymmetry-x-pairs"):
        assert min(said[name].interval) > 0 or max(said[name].interval) < 0
        end = f", which is not significant after correction for all {len(metrics.tests)} tests of the sweep (p = 0.2)."
        assert said[name].statement.endswith(end)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.5, 0.25, 0.75, "share", 9, ""), "50.0 % [25.0, 75.0]"),
        (Estimate(-3.25, -4.5, -2, "points", 9, ""), "-3.2 points [-4.5, -2.0]"),
        (Estimate(0.0501, 0.04, 0.06, "nats", 9, ""), "0.050 nats [0.040, 0.060]"),
        (Estimate(1234, 1000, 2000, "px^2", 9, "", at_least=True), "at least 1,234 px² [1,000, 2,000]"),
        (Estimate(2, 1.9, 2.1, "px", 9, ""), "2.00 px [1.90, 2.10]"),
    ],
)
def test_numbers_in_words(estimate, text):
    assert quoted(estimate) == text
    if estimate.value < 0:
        assert size_of(estimate) == "3.2 points [2.0, 4.5]"


def test_a_mirrored_map_gives_mirrored_findings(leaning, found):
    other = by_id(said_of(mirrored(leaning)))
    assert set(other) == set(found)
    sign = {"asymmetry-x": -1, "asymmetry-x-pairs": -1, "centre-x": -1}
    for name, one in found.items():
        two, turn = other[name], sign.get(name, 1)
        assert two.severity == one.severity, name
        if one.value is None:
            assert two.value is None
            continue
        # A quarter-period wave turns its sign, an even one does not.
        odd = name.startswith("aliasing-x") and "right of multiples" in one.evidence
        turn = -1 if odd else turn
        assert two.value == pytest.approx(turn * one.value, abs=1e-6), name
        if one.interval is not None:
            assert sorted(turn * np.array(two.interval)) == pytest.approx(one.interval, abs=1e-4), name
    assert "for shifts to the left than for shifts to the right" in other["asymmetry-x"].statement
    assert other["asymmetry-y"].statement == found["asymmetry-y"].statement


def test_swapping_dx_and_dy_swaps_the_axes(leaning, found):
    other = by_id(said_of(swapped(leaning)))
    for name in ("asymmetry-{}", "asymmetry-{}-pairs", "centre-{}", "aliasing-{}-2"):
        for one, two in (("x", "y"), ("y", "x")):
            a, b = found[name.format(one)], other[name.format(two)]
            assert a.severity == b.severity
            assert a.value == pytest.approx(b.value, abs=1e-6), (name, one)
    assert "for shifts down than for shifts up" in other["asymmetry-y"].statement
    assert "for shifts to the left than for shifts to the right" in other["asymmetry-x"].statement
    for name in ("retained-95", "agreement", "accuracy-mean"):
        assert found[name].value == pytest.approx(other[name].value)


def test_what_is_significant_and_small_is_no_warning(found):
    usual = found["asymmetry-x"]
    assert usual.severity == "warn"
    size = abs(usual.value)
    for thresholds, severity in (({"points": size * 1.01}, "info"), ({"points": size * 0.99}, "warn"), ({}, "warn")):
        (made,) = weighed([usual], checked_thresholds(thresholds))
        assert made.severity == severity
        assert ("no warning: it is smaller than" in made.note) == (severity == "info")
        assert (made.statement, made.p_value) == (usual.statement, usual.p_value)


def test_a_loss_that_recovers_by_a_twentieth_of_a_nat_is_no_warning():
    """2.88 nats up and 0.05 down again, on so many images that it is certain."""
    test = Significance(0.001, "all tests of the sweep", True)
    for rise, severity in ((-0.05, "info"), (-0.11, "warn")):
        estimate = Estimate(rise, rise - 0.01, rise + 0.01, "nats", 10_000, "max-t bootstrap over images")
        made = Finding("irregular", "It falls again.", Quantity("loss"), estimate, test, severity="warn", which="loss")
        assert weighed([made], THRESHOLDS)[0].severity == severity


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "1", True])
def test_a_threshold_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="threshold of at least 0 points"):
        checked_thresholds({"points": wrong})


def test_a_ring_of_recovery_is_said_with_its_places():
    def mean(dys, dxs):
        r = np.hypot(dys[:, None], dxs[None, :])
        return trend(dys, dxs, edge=30) - 0.9 * np.exp(-(((r - 5) / 1.5) ** 2))

    made = sweep(2, 500, REACH, mean=mean)
    told = by_id(said_of(made, n_resamples=1500))
    said, loss = told["irregular-accuracy"], told["irregular-loss"]
    assert said.severity == "warn"
    falls, rises = map(float, re.findall(r"by ([\d.]+) points", said.statement))
    assert 15 < rises <= falls + 10
    assert said.value == pytest.approx(rises, abs=0.06)
    assert "falls by" in said.statement
    assert "then rises again" in said.statement
    assert "loss rises by" in loss.statement
    assert "then falls again" in loss.statement
    # With a control that recovers too, the picture has emptied: no warning.
    emptied = by_id(said_of(replace(made, controls={"occlusion": made}), n_resamples=1500))["irregular-accuracy"]
    assert emptied.severity == "note"
    assert "the image has left the view" in emptied.statement


def test_a_shifted_centre_is_said():
    made = sweep(4, 500, REACH, mean=lambda y, x: trend(y, x, edge=5, soft=1.5, centre=(2, -1)))
    said = by_id(said_of(made))
    assert said["centre-x"].statement.endswith("] to the right of (0, 0).")
    assert said["centre-y"].statement.endswith("] above (0, 0).")
    assert said["centre-x"].value == pytest.approx(2, abs=0.4)


def test_a_ripple_is_said():
    rng = np.random.default_rng(4)
    d = np.arange(-20, 21.0)
    wave = 0.25 * np.cos(2 * np.pi * d / 4)[:, None]
    made = arrays(margins(rng, 400, trend(d, d, edge=13, soft=3) + wave), rng, strides=(2, 4))
    said = by_id(said_of(made))["aliasing-y-4"]
    assert said.severity == "warn"
    assert "period 4 px, a stride of the net: it is higher at multiples of 4 px" in said.statement
    assert 2 < said.value < 9


def test_controls_are_said():
    rng = np.random.default_rng(3)
    d = np.arange(-8, 9.0)
    moved = arrays(margins(rng, 400, trend(d, d, edge=4)), rng)
    kept = arrays(margins(rng, 400, trend(d, d, edge=7)), rng)
    kept = predicting(kept, np.where(kept.correct, moved.labels[:, None, None], 9), labels=moved.labels)
    made = replace(moved, controls={"occlusion": kept})
    said = by_id(said_of(made))
    truth = 100 * (kept.correct.mean() - moved.correct.mean())
    assert said["placement-effect"].severity == "warn"
    assert said["placement-effect"].value == pytest.approx(truth, abs=1)
    assert said["placement-effect"].statement.startswith("Position itself makes accuracy ")
    assert "Losing the pixels" in said["occlusion-effect"].statement
    assert said["lost-content"].severity == "info"
    assert "of the image is lost. The occlusion control measures it" in said["lost-content"].statement
    assert said["new-edge"].severity == "note"
    assert said["new-edge"].statement.endswith("unless the image ends in that colour.")
    other = replace(kept, controls={"occlusion": moved}, labels=moved.labels)
    gained = by_id(said_of(other))["placement-effect"]
    assert gained.severity == "note"
    assert "better than on unshifted images" in gained.statement


def test_lost_content_and_an_edge_that_cost_nothing_are_said_to():
    rng = np.random.default_rng(3)
    d = np.arange(-8, 9.0)
    moved = arrays(margins(rng, 400, trend(d, d, edge=4)), rng)
    still = np.broadcast_to(moved.prediction[:, 8:9, 8:9], moved.prediction.shape)
    said = by_id(said_of(replace(moved, controls={"occlusion": predicting(moved, still, labels=moved.labels)})))
    for name in ("lost-content", "new-edge"):
        assert "cost of" in said[name].statement
        assert "is seen: 0.0 points [0.0, 0.0] with the occlusion control" in said[name].statement
        assert said[name].severity == "info"
        assert said[name].action is None


def test_what_the_padding_does_is_said():
    rng = np.random.default_rng(3)
    d = np.arange(-8, 9.0)
    moved = arrays(margins(rng, 400, trend(d, d, edge=4)), rng)
    kept = arrays(margins(rng, 400, trend(d, d, edge=7)), rng)
    kept = predicting(kept, np.where(kept.correct, moved.labels[:, None, None], 9), labels=moved.labels)
    said = by_id(said_of(replace(moved, controls={"canvas": kept})))
    truth = 100 * (kept.correct.mean() - moved.correct.mean())
    assert said["padding-effect"].severity == "warn"
    assert said["padding-effect"].question == "C"
    assert said["padding-effect"].value == pytest.approx(truth, abs=0.1)
    assert said["padding-effect"].statement.startswith("The padding makes accuracy ")
    assert "of this loss are due to the padding" in said["padding-position-effect"].statement
    other = replace(kept, controls={"canvas": moved}, labels=moved.labels)
    helped = by_id(said_of(other))
    assert "] better on average" in helped["padding-effect"].statement
    assert "the padding is not the cause" in helped["padding-position-effect"].statement
    rest = moved.origin
    blinded = kept.prediction.copy()
    blinded[:, *rest] = np.where(np.arange(400) % 3 == 0, blinded[:, *rest], 9)
    lower = predicting(kept, blinded)
    unfair = by_id(said_of(replace(moved, controls={"canvas": lower}), fill="black"))
    assert "The two are not comparable" in unfair["padding-position-effect"].statement
    assert unfair["padding-position-effect"].action.command[-6:-2] == ("--fill", "mean", "--control", "canvas")
    same = by_id(said_of(replace(moved, controls={"canvas": moved})))
    assert "no significant difference" in same["padding-effect"].statement
    assert "a net without padding has none to replace" in same["padding-effect"].statement
    assert "The part due to the padding is not significant" in same["padding-position-effect"].statement


def test_a_quiet_sweep_says_that_nothing_is_significant():
    found = said_of(sweep(1008, 150, REACH))
    assert not found.with_severity("warn")
    quiet = found.named("nothing-significant")
    assert quiet.severity == "note"
    assert "none of the" in quiet.statement
    assert found.named("tests") is None


def test_every_metric_is_a_statement_with_number_unit_and_interval(found):
    for name in (
        "accuracy-at-rest", "loss-at-rest", "accuracy-mean", "accuracy-worst", "loss-worst", "classes", "retained-95",
        "retained-90", "retained-50", "worst-of-radius", "centre-x", "centre-y", "asymmetry-x", "asymmetry-y-pairs",
        "aliasing-x-2", "agreement", "pairwise-consistency", "flip-rate", "pairwise-consistency-right",
    ):  # fmt: skip
        each = found[name]
        assert each.value is not None, name
        assert each.unit in ("share", "points", "nats", "px", "px^2"), name
        assert each.interval[0] <= each.value <= each.interval[1], name
        assert re.search(r"\d \[-?[\d.,]+, -?[\d.,]+\]", re.sub(r" (%|points|nats|px²?) \[", " [", each.statement)), (
            each
        )
        assert "images" in each.evidence, name
    assert all(each.question == "A" for each in found.values())
    # Only what holds warns.
    metrics_hold = {each.id for each in found.values() if each.p_value is not None and each.p_value <= 0.02}
    assert {each.id for each in found.values() if each.severity == "warn"} == metrics_hold


def test_at_least_is_said_where_the_grid_ends():
    said = by_id(said_of(sweep(0, 100, 5, mean=lambda y, x: trend(y, x, edge=30)), max_shift=(5, 5)))["retained-95"]
    assert "within at least 120 px² [63, 121]" in said.statement
    assert "radius of at least" in said.statement
    assert ("--max-shift", "10x10") in pairwise(said.action.command)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("one image", "one image has no interval"),
        ("all right", "no image changes between opposite shifts"),
        ("all wrong", "no image is right at (0, 0)"),
        ("one class", "a model of one class always agrees with itself"),
        ("one side", "no pair of opposite shifts along x"),
        ("one shift", "fewer than two shifts outward"),
        ("coarse", "shares a factor with the stride"),
    ],
)
def test_what_cannot_be_measured_is_said_with_its_reason(made, said):
    base = sweep(0, 40, 6)
    labels = np.zeros(40, np.int64)
    only = {"labels": labels, "class_names": ("only",)}
    cases = {
        "one image": lambda: cut(base, images=slice(1)),
        "all right": lambda: predicting(base, np.broadcast_to(base.labels[:, None, None], base.loss.shape)),
        "all wrong": lambda: predicting(base, np.full(base.loss.shape, 9)),
        "one class": lambda: predicting(base, labels[:, None, None] * base.prediction, **only),
        "one side": lambda: cut(base, columns=slice(6, None)),
        "one shift": lambda: cut(base, rows=slice(6, 7), columns=slice(6, 7)),
        "coarse": lambda: replace(base, dys=base.dys * 4, dxs=base.dxs * 4, picture_size=(64, 64)),
    }
    found = said_of(cases[made](), step=4 if made == "coarse" else 1)
    by_id(found)
    reasons = [each for each in found if each.kind == "skipped"]
    assert any(said in each.statement for each in reasons), [each.statement for each in reasons]
    assert all(each.severity == "info" for each in reasons)
    assert not found.with_severity("warn")
    json.dumps([each.to_dict() for each in found], allow_nan=False)
    if made == "coarse":
        step = found.named("step-and-stride")
        assert "Shifts are 4 px apart" in step.statement
        assert "(2, 4)" in step.statement


def test_pitfalls_are_named_where_they_apply():
    made = replace(sweep(0, 60, 9), picture_size=(9, 9))
    training = {"augmentation": {"shift": 2, "shift_fill": "reflect", "mirror": "alternating"}, "asked": {}}
    notes = ("images are JPEG-compressed", "skipped files that are no pictures by name: 3 (first: x.txt)")
    said = by_id(said_of(made, training=training, data_notes=notes, preprocessing=NORMALISED, model_notes=("odd",)))
    for name in (
        "lost-content", "new-edge", "fill-space", "blank-limit", "shifts-in-training", "mirrors-in-training",
        "jpeg-copy", "data-note", "model-note",
    ):  # fmt: skip
        assert said[name].severity == "note", name
    assert "up to 2 px" in said["shifts-in-training"].statement
    healed = [{"kind": "batch norm", "settings": {}}, {"kind": "fine-tune", "settings": {"shift": 8}}, "odd"]
    later = by_id(said_of(made, training=training | {"healed": healed}))["shifts-in-training"]
    assert "up to 8 px to each side were in the training (fill reflect)" in later.statement
    assert later.value == 8
    assert "photographers-bias" in said
    assert "step-and-stride" not in said
    assert "-0.47" in said["fill-space"].statement
    wrap = replace(made, fill="wrap", fill_is_constant=False)
    said = by_id(said_of(wrap, fill="wrap"))
    assert "lost-content" not in said
    assert "fill-space" not in said
    assert "seam" in said["new-edge"].statement
    assert said["shifts-in-training"].severity == "info"
    said = by_id(said_of(replace(made, n_missing=5)))
    assert "the 60 of 65 images that are there" in said["incomplete"].statement


class Reader(HTMLParser):
    """Collects tags and text of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_hostile_class_names_stay_text():
    for k in range(5):
        names = (*HOSTILE[k:], *HOSTILE[:k])
        found = said_of(replace(sweep(0, 60, 9), class_names=names))
        page = Reader(found._repr_html_())
        assert page.tags <= {"ul", "li", "p", "strong", "code"}
        for text in (
            found._repr_html_(),
            str(found),
            *(as_text(each.severity, each.statement, each.evidence, each.action) for each in found),
        ):
            assert "\x1b" not in text
        assert all("\n" not in each.statement and len(each.statement) < 600 for each in found)
    evil = Finding(
        "x", HOSTILE[0], estimate=number(1.0, "<b>"), action=Action(*HOSTILE[:1], HOSTILE[:2]), note=HOSTILE[0]
    )
    page = Reader(evil._repr_html_())
    assert "script" not in page.tags
    assert page.text.count(HOSTILE[0]) == 4
    shown = as_rich("warn", HOSTILE[1] + HOSTILE[4], evil.action, evil.evidence).plain
    assert "\x1b" not in shown
    assert HOSTILE[4] in shown
    assert "\x1b" not in as_text("warn", HOSTILE[1], HOSTILE[1], Action(HOSTILE[1], HOSTILE[1:2]))
    assert "\x1b" not in Finding("x", HOSTILE[1], action=Action(HOSTILE[1], HOSTILE[1:2]))._repr_html_()


def test_every_action_has_a_command_that_parses():
    training = {"augmentation": {"shift": 2}, "asked": {"settings": {"arch": "vgg6", "padding": "reflect"}}}
    flipped, factory = lean(0.3, 0.3), {"model": "net.py:make", "preprocessing": NORMALISED}
    cases = [
        said_of(flipped, training=training, n_images=500, max_shift=(10, 10), preprocessing=NORMALISED),
        said_of(replace(flipped, controls={"flip": mirrored(flipped)}), n_controlled={"flip": 500}),
        said_of(replace(flipped, fill="wrap", fill_is_constant=False), fill="wrap", step=2, path="a b/it's.zarr"),
        said_of(replace(flipped, fill="reflect", fill_is_constant=False, n_missing=3), fill="reflect", control="flip"),
        said_of(sweep(2, 300, 6, mean=lambda y, x: trend(y, x, edge=30)), n_images=9, n_controlled={"flip": 3}),
        said_of(flipped, **factory),
    ]
    seen = set()
    for found in cases:
        commands = [each.action.command for each in found if each.action and each.action.command]
        assert commands
        for command in commands:
            name, params = parse(command)
            seen.add(name)
            if name == "sweep":
                assert params["out"] is not None
    assert seen == {"sweep", "evaluate", "train", "plot", "findings"}
    quoted_path = next(each for each in cases[2] if each.action and each.action.command[1] == "plot")
    assert shlex.split(quoted_path.action.line)[2] == "a b/it's.zarr"
    options = set(pairwise(cases[5].named("accuracy-worst").action.command))
    assert {("--model", "net.py:make"), ("--mean", "0.1175"), ("--std", "0.25")} <= options


def test_a_planted_bad_command_is_caught():
    with pytest.raises(typer.TyperException):
        parse(["shiftlens", "repair", "--model", "x"])
    with pytest.raises(typer.TyperException):
        parse(["shiftlens", "sweep", "--model", "x", "--no-such", "1"])


def test_the_record_has_the_keys_of_the_json(found):
    keys = ["id", "question", "severity", "statement", "value", "unit", "interval", "p_value", "evidence", "remedy"]
    for each in found.values():
        assert list(each.to_dict()) == [*keys, "section", "quantity", "action"]
    odd = Finding("x", "s", estimate=Estimate(float("nan"), 1.0, float("inf"), "px", 3, "t")).to_dict()
    assert (odd["value"], odd["interval"], odd["evidence"]) == (None, [1.0, None], "3 images; interval: t.")
    assert Finding("x", "s", estimate=number(3.0, "px")).to_dict()["interval"] is None
    said = Finding("x", "It moves.", action=Action("Do it", ("shiftlens", "plot", "a b")), which="y", severity="warn")
    assert (said.id, said.remedy) == ("x-y", "Do it: `shiftlens plot 'a b'`")
    assert said.to_dict()["action"] == {"text": "Do it", "command": ["shiftlens", "plot", "a b"]}
    assert str(Findings([said])) == "warn: It moves."
    assert (
        as_text(said.severity, said.statement, said.evidence, said.action)
        == "warn: It moves.\n  -> Do it: `shiftlens plot 'a b'`"
    )


def test_accuracy_that_is_no_better_than_chance_is_said_first():
    rng = np.random.default_rng(0)
    d = np.arange(-2, 3.0)
    poor = arrays(margins(rng, 200, trend(d, d, edge=1)), rng)
    poor = predicting(poor, np.full_like(poor.prediction, 9), labels=np.arange(200) % 3)
    first = said_of(poor)[0]
    assert first.kind == "chance"
    assert first.statement.startswith("Unshifted, accuracy is 0.0 % [0.0, 1.9], not above the 33.5 % that the most")
    good = predicting(
        poor, np.broadcast_to((np.arange(200) % 3)[:, None, None], poor.prediction.shape), labels=poor.labels
    )
    assert "chance" not in by_id(said_of(good))
