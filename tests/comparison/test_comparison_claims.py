"""What is planted is claimed, with sign and size; what is not there is not; intervals hold what they promise."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from comparison.draws import claims, coverage, null_claims, quickly
from comparison.pairs import axis, pair_of, plateau, sources, with_header
from narrative.commands import parse
from shiftlens.analysis.arm_scores import Scores, score
from shiftlens.analysis.arms import align
from shiftlens.analysis.paired import Difference, non_inferiority, paired_estimate
from shiftlens.analysis.winners import FEWEST_IMAGES, Winner, first_half, winners
from shiftlens.models.behaviour import Behaviour
from shiftlens.narrative.comparing import compared
from shiftlens.narrative.comparison_notes import doubts
from shiftlens.narrative.comparison_sentences import _difference
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.finding_parts import Significance
from shiftlens.stats import Estimate, Skipped
from shiftlens.tasks.classification import ACCURACY
from sweeps.small_sweeps import PLAN

REACH = 10
HOSTILE = ("<script>alert(1)</script>", "\x1b[31mred", "$\\alpha_{", "[bold]x[/bold]")


def tilt(points: float) -> np.ndarray:
    return points * np.tanh(axis(REACH) / 2)[None, :]


@pytest.fixture(scope="module")
def planted():
    """A baseline; a wider plateau; one that leans to the right; one that leans to the left as much."""
    base = plateau(REACH, edge=6)
    means = [base, plateau(REACH, edge=8.5), base + tilt(0.25), base + tilt(-0.25)]
    return pair_of(np.random.default_rng(2), 700, means)


@pytest.fixture(scope="module")
def found(planted):
    return compared(sources(planted), n_resamples=300)


def test_a_wider_plateau_is_an_improvement(planted, found):
    wide = found["b"]
    assert set(wide.better) == {"near", "everywhere", "worst", "retained", "agreement"}
    assert wide.worse == ()
    assert wide.map.holds
    assert wide.map.better.sum() > 100
    assert not wide.map.worse.any()
    distance = np.hypot(*np.meshgrid(axis(REACH), axis(REACH)))
    assert 5 < distance[wide.map.better].mean() < 9
    size = 100 * (planted[1].correct.mean() - planted[0].correct.mean())
    assert wide.differences["everywhere"].estimate.value == pytest.approx(size)
    assert wide.as_good[1].holds


def test_with_the_baseline_swapped_it_is_a_loss(planted):
    back = compared(sources(planted[:2]), baseline=1, n_resamples=300)
    assert set(back["a"].worse) == {"near", "everywhere", "worst", "retained", "agreement"}
    assert {each.severity for each in back.got_worse} == {"warn"}
    assert len(back.got_worse) == 5
    assert back["a"].map.worse.sum() > 100
    assert not back["a"].as_good[1].holds


def test_a_planted_lean_is_worse_and_a_lean_turned_round_is_no_change(planted, found):
    assert found["c"].worse == ("side-x",)
    assert found["d"].worse == ("side-x",)
    assert found.rows[2].asymmetry_lr.value > 5
    assert found.rows[3].asymmetry_lr.value < -5
    turned = compared(sources([planted[2], planted[3], planted[0]]), n_resamples=300)
    assert turned["b"].differences["side-x"].verdict == "undecided"
    assert turned["c"].better == ("side-x",)
    assert turned["c"].differences["side-x"].estimate.value < -4
    # The lean of the map itself is there all the same.
    assert turned["b"].map.holds


def test_an_image_counts_once_however_the_arms_are_ordered(planted, found):
    turned = compared(sources([planted[1], planted[0]]), baseline=1, n_resamples=300)
    two = compared(sources(planted[:2]), n_resamples=300)
    assert turned["a"].to_dict()["differences"] == two["b"].to_dict()["differences"]


# ---- winners


def test_halves_are_fixed_disjoint_and_belong_to_the_images():
    index = np.arange(101) * 3
    half = first_half(index)
    assert half.sum() == 50
    assert np.array_equal(half, first_half(index))
    mixed = np.random.default_rng(0).permutation(101)
    assert np.array_equal(first_half(index[mixed]), half[mixed])
    assert 10 < half[:50].sum() < 40


def test_winners_are_chosen_on_one_half_and_stated_on_the_other(planted):
    aligned = align(sources(planted))
    half = first_half(aligned.index)
    near = np.array([score(aligned, k, n_resamples=0).values("near") for k in range(4)])
    won = {each.criterion: each for each in winners(aligned)}
    best = won["near"]
    assert best.which == int(near[:, half].mean(axis=1).argmax()) == 1
    assert best.chosen_by == pytest.approx(near[1, half].mean())
    assert best.stated.value == pytest.approx(near[1, ~half].mean())
    assert best.difference.value == pytest.approx(100 * (near[1, ~half] - near[0, ~half]).mean())
    assert (best.n_chosen, best.n_stated) == (350, 350)
    at_rest = [planted[k].correct[:, REACH, REACH] for k in (1, 0)]
    expected = 100 * (at_rest[0][~half].mean() - at_rest[1][~half].mean())
    assert best.difference_at_rest.value == pytest.approx(expected)
    assert won["retained"].which == 1
    assert won["retained"].difference.lo > 0
    assert won["retained"].stated.n == 350


def test_an_area_bought_with_accuracy_does_not_win_among_the_as_accurate():
    base = plateau(REACH, edge=6)
    poor_and_flat = np.full_like(base, 0.3)
    made = pair_of(np.random.default_rng(2), 400, [base, poor_and_flat, plateau(REACH, edge=7) + 0.1])
    won = {each.criterion: each for each in winners(align(sources(made)))}
    assert won["retained"].which == 1
    assert won["retained"].difference_at_rest.hi < 0
    assert won["retained-as-accurate"].which == 2
    assert won["retained-as-accurate"].difference_at_rest.value > 0


def test_the_baseline_wins_ties_and_has_no_difference(planted):
    won = winners(align(sources([planted[0], planted[0]]), 1))
    assert all(isinstance(each, Winner) and each.which == 1 for each in won)
    assert all(isinstance(each.difference, Skipped) for each in won)
    few = [
        replace(made, variables={k: v[:9] for k, v in made.variables.items()}, labels=made.labels[:9])
        for made in planted
    ]
    assert winners(align(sources(few)))[0].why == "two halves need 20 images, of which there are 9"
    assert FEWEST_IMAGES > 9


def test_a_winner_flatters_itself_only_where_it_was_chosen():
    """Eight equally good arms: the winner's score on its own half is too high, on the other half it is right."""
    rng = np.random.default_rng(5)
    chosen, stated = [], []
    for _ in range(60):
        made = pair_of(rng, 120, [np.full((3, 3), 1.0)] * 8, shared=0.3)
        best = next(each for each in winners(align(sources(made))) if each.criterion == "at-rest")
        everywhere = np.mean([arm.correct[:, 1, 1].mean() for arm in made])
        chosen.append(best.chosen_by - everywhere)
        stated.append(best.stated.value - everywhere)
    assert np.mean(chosen) > 0.02
    assert abs(np.mean(stated)) < 3 * np.std(stated) / np.sqrt(60) < 0.02


# ---- sentences


def test_every_difference_has_a_sentence_with_its_numbers(found):
    assert len({each.id for each in found.findings}) == len(found.findings)
    said = {each.id: each for each in found.findings}
    n_verdicts = 0
    for each in found.against:
        for quantity, made in each.differences.items():
            finding = said[f"difference-{quantity}-{each.which}"]
            n_verdicts += 1
            start = {"better": "Improved", "worse": "Got worse", "undecided": "Inconclusive"}[made.verdict]
            assert finding.statement.startswith(start)
            assert finding.severity == ("warn" if made.verdict == "worse" else "info")
            assert (finding.value, finding.interval) == (made.estimate.value, (made.estimate.lo, made.estimate.hi))
            assert finding.p_value == made.holm_p
            assert (finding.quantity.of, finding.quantity.versus) == (each.name, "a")
            assert finding.test.holds == (made.verdict != "undecided")
            groups = {"better": found.improved, "worse": found.got_worse, "undecided": found.cannot_be_told}
            assert [verdict for verdict, group in groups.items() if finding in group] == [made.verdict]
            quoted = re.search(
                r"(?:by |is )(-?[\d,.]+) (?:points?|px²) \[(-?[\d,.]+), (-?[\d,.]+)\]", finding.statement
            )
            numbers = [float(text.replace(",", "")) for text in quoted.groups()]
            expected = (made.estimate.value, made.estimate.lo, made.estimate.hi)
            if made.verdict != "undecided" and made.estimate.value < 0:
                expected = (-expected[0], -expected[2], -expected[1])
            assert numbers == pytest.approx(expected, abs=0.51 if quantity == "retained" else 0.051)
            if made.verdict == "undecided":
                would = re.search(
                    r"A true difference of ([\d.]+) (?:points|px²) would be found with 80 %", finding.statement
                )
                assert float(would[1]) == pytest.approx(made.detectable, rel=0.1)
    groups = (found.improved, found.got_worse, found.cannot_be_told)
    assert sum(map(len, groups)) == n_verdicts == 24
    assert {each.question for each in found.findings} == {"D"}
    sections = found.findings.by_section()
    headings = [heading for heading, _ in sections]
    assert headings[:3] == ["Improved", "Got worse", "Inconclusive"]
    assert sum(len(group) for _, group in sections) == len(found.findings)


@pytest.mark.parametrize(("lo", "clear"), [(3.0, True), (-0.5, False)])
def test_what_cannot_be_told_does_not_contradict_its_own_interval(found, lo, clear):
    each = found.against[0]
    seen = each.differences["near"]
    estimate = replace(seen.estimate, value=4.7, lo=lo, hi=6.5)
    made = replace(seen, estimate=estimate, verdict="undecided", holm_p=0.06, detectable=3.7)
    text = _difference("near", made, each, found, None).statement
    assert f"is 4.7 points [{lo:.1f}, 6.5]" in text
    assert (
        f"which is not significant after correction for all {found.n_tests} tests of the comparison (p = " in text
    ) == clear
    # What could be found is said of the truth, in a sentence of its own: not of the number seen here.
    assert text.endswith(". A true difference of 3.7 points would be found with 80 % probability.")


def test_the_map_says_where(found):
    said = found.findings.named("difference-map-1").statement
    place = re.search(r"\(dx, dy\) = \((-?\d+), (-?\d+)\)", said)
    dx, dy = (int(text) for text in place.groups())
    value = found["b"].map.value[dy + REACH, dx + REACH]
    assert found.findings.named("difference-map-1").value == value == np.nanmax(found["b"].map.value)
    assert f"better than 'a' at {found['b'].map.better.sum()} and worse at 0 of 441 shifts" in said


def test_worse_by_less_than_the_margin_is_no_warning(planted):
    usual, lenient = (compared(sources(planted[:2]), 1, margin=margin, n_resamples=300) for margin in (0.3, 90.0))
    for found, severity in ((usual, "warn"), (lenient, "info")):
        near = found.findings.named("difference-near-0")
        assert found["a"].differences["near"].verdict == "worse"
        assert near.severity == severity
        assert near.section == "worse"


def test_sentence_picture_and_interval_of_a_map_agree():
    base, raised = plateau(5, edge=4), np.zeros((11, 11))
    raised[5:7, 8:10] = 1
    # With 0.35 a few shifts of these draws would leave the band, although no test of the comparison holds.
    for seed, lift, holds in ((3, 0.35, False), (4, 0.35, False), (37, 0.35, False), (3, 1.5, True)):
        made = pair_of(np.random.default_rng(seed), 300, [base, base + lift * raised])
        found = compared(sources(made), n_resamples=300)
        said, shown = found.findings.named("difference-map-1"), found["b"].map
        assert shown.holds == holds
        assert (shown.better | shown.worse).any() == holds
        assert (not said.estimate.lo <= 0 <= said.estimate.hi) == holds
        assert ("do not differ significantly at any single shift" in said.statement) != holds


def test_remedies_are_commands_that_exist(planted):
    given = sources(planted[:3])
    paths = ["my zeros.zarr", "b.zarr", "c.zarr"]
    given = [replace(each, path=path) for each, path in zip(given, paths, strict=True)]
    found = compared(given, baseline=1, n_resamples=100)
    commands = {each.action.command for each in found.findings if each.action}
    assert commands
    for command in commands:
        assert command[2:5] == ("b.zarr", "my zeros.zarr", "c.zarr")
        assert parse(command)[0] == "compare"


def test_strange_names_stay_harmless(planted):
    given = [replace(each, name=name) for each, name in zip(sources(planted), HOSTILE, strict=True)]
    found = compared(given, n_resamples=50)
    html = found._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    text = str(found.findings)
    assert "\x1b" not in text
    assert len(found.plot()["differences"].axes) >= 3
    assert json.dumps(found.to_dict())


def test_what_misleads_is_named_where_it_applies(planted):
    def said(*facts):
        given = [with_header(each, **f) for each, f in zip(sources(planted), facts, strict=False)]
        return {each.id: each.statement for each in compared(given, n_resamples=2).findings if each.severity != "warn"}

    plain = said({}, {})
    assert "checkpoints" in plain
    assert not {"input-sizes", "other-view", "precision", "shifts-in-training", "same-model", "fill-space"} & set(plain)
    assert "bfloat16" in said({}, {"plan": replace(PLAN, dtype="bfloat16")})["precision"]
    assert "'b' shift 2" in said({}, {"training": {"augmentation": {"shift": 2}}})["shifts-in-training"]
    same = {"model_digest": "sha256:same"}
    assert said(same, same)["same-model"].startswith("'b' and 'a' are of the same model")


def test_one_side_fine_tuned_is_said_with_the_fair_baseline(planted):
    def said(*facts):
        given = [with_header(each, **f) for each, f in zip(sources(planted), facts, strict=False)]
        return compared(given, n_resamples=2).findings

    settings = {"epochs": 2, "lr": 0.01, "shift": 8, "flip": "none", "seed": 0, "batch": 16}
    tuned = {"training": {"healed": [{"kind": "fine-tune", "images": "folder:p", "settings": settings}]}}
    untuned = {"model": "net.py:make", "model_options": {"weights": "w.pt", "mean": [0.5]}, "training": {}}
    found = said(untuned, tuned).named("fine-tuned")
    assert found.statement.startswith(
        "'b' was fine-tuned, 'a' was not: the difference is of the fine-tuning and of all"
    )
    assert found in doubts(said(untuned, tuned))
    assert " ".join(found.action.command) == (
        "shiftlens repair --model net.py:make --weights w.pt --mean 0.5 --finetune-epochs 2 --finetune-shift 8 "
        "--lr 0.01 --seed 0 --no-flip --data folder:p --out runs/tuned"
    )
    assert parse(found.action.command)[0] == "repair"
    assert said(tuned, untuned).named("fine-tuned").statement.startswith("'a' was fine-tuned, 'b' was not")
    reestimated = {"training": {"healed": [{"kind": "batch norm", "settings": {}}, "odd"]}}
    assert said(tuned, tuned).named("fine-tuned") is None
    assert said(untuned, reestimated).named("fine-tuned") is None


@pytest.mark.parametrize(("p_value", "holds"), [(0.08, False), (0.01, True)])
def test_a_gain_that_only_its_own_interval_shows_is_called_not_significant(found, p_value, holds):
    near = found.findings.named("difference-near-1")
    test = Significance(p_value, "27 tests of the comparison", holds)
    changed = replace(near, estimate=Estimate(10.2, 1.1, 19.4, "points", 72, ""), test=test)
    made = replace(found, findings=Findings([changed if each is near else each for each in found.findings]))
    size = dict(made.summary)["By how much"]
    left_open = ", which is not significant after correction for 27 tests of the comparison (p = 0.08)"
    assert f"'b' +10.2 points [1.1, 19.4]{'' if holds else left_open}; " in size


def test_digest_and_behaviour_are_held_against_each_other(planted):
    def said(*facts):
        given = [with_header(each, **f) for each, f in zip(sources(planted), facts, strict=False)]
        return {each.id: each for each in compared(given, n_resamples=2).findings}

    def swept(digest, answer, **other):
        return {"model_digest": digest, "behaviour": Behaviour(((0.0, 1.0), answer)), **other}

    names = {"same-model", "other-answers", "like-answers"}
    one = swept("sha256:one", (0.5, 2.0))
    assert names & set(said(one, swept("sha256:one", (0.5, 2.0001)))) == {"same-model"}
    found = said(one, swept("sha256:one", (0.5, 2.01)))
    assert names & set(found) == {"other-answers"}
    assert found["other-answers"].severity == "warn"
    assert found["other-answers"].statement.startswith(
        "'b' and 'a' claim the same model (by digest), but gave different logits"
    )
    assert names & set(said(one, swept("sha256:two", (0.5, 2.01)))) == set()
    assert names & set(said(one, swept("sha256:two", (0.5, 2.0)))) == {"like-answers"}
    # Where nothing can be told from the answers, nothing is said.
    assert names & set(said(one, {"model_digest": "sha256:one"})) == {"same-model"}
    silent = [
        {"model_digest": name, "behaviour": Behaviour(("raises ValueError",))} for name in ("sha256:1", "sha256:2")
    ]
    assert names & set(said(*silent)) == set()
    assert names & set(said(one, swept("sha256:one", (0.5, 3.0), image_size=(16, 16)))) == {"same-model"}


def test_one_spec_and_two_models_are_said_in_one_line(planted):
    def said(*facts):
        given = [with_header(each, **f) for each, f in zip(sources(planted), facts, strict=False)]
        found = compared(given, n_resamples=2).findings.named("other-model")
        return None if found is None else found.statement

    one = {"model": "net.py:make", "model_digest": "sha256:1", "model_options": {"weights": "a.pt", "mean": 0.5}}
    two = one | {"model_digest": "sha256:2"}
    start = "Not the same model in 'a' and 'b', though all name net.py:make: "
    assert said(one, two | {"model_options": {}}) == (
        start + "they were given 'a' --weights a.pt --mean 0.5, 'b' no options."
    )
    assert said(one, two) == start + "its code or weights were changed since."
    assert said(one, one | {"model_options": {}}) is None
    assert said(one, two | {"model": "other.py:make"}) is None
    # Two nets of one class that were wrapped in Python are called alike.
    assert said(one | {"model": "VGG"}, two | {"model": "VGG"}) is None
    assert said(one | {"model": "vgg", "training": {"epochs": 1}}, two | {"model": "vgg"}) is not None


# ---- statistics by simulation


def per_image(a, b):
    """Two arms of which only the values an image are known."""
    nothing = Skipped("", "")
    made = []
    for values in (a, b):
        table = dict.fromkeys(("near", "at-rest", "worst", "side-x"), values)
        made.append(
            Scores(np.zeros((0, 1, 1), bool), np.zeros((1, 1)), table, 0, nothing, np.zeros(0), None, nothing, ACCURACY)
        )
    return made


def test_coverage_of_paired_intervals_of_shares_and_means():
    """1,000 draws of 200 images; truth known in closed form."""
    rng = np.random.default_rng(8)
    held = {"at-rest": 0, "near": 0}
    for _ in range(1000):
        kind = rng.choice(4, 200, p=(0.85, 0.04, 0.08, 0.03))
        a, b = np.isin(kind, (0, 1)).astype(float), np.isin(kind, (0, 2)).astype(float)
        share = paired_estimate(*per_image(a, b), "at-rest")
        held["at-rest"] += share.lo <= 100 * (0.04 - 0.08) <= share.hi
        hard = rng.beta(0.3, 0.2, 200)
        x, y = (rng.binomial(49, hard) / 49, rng.binomial(49, hard**1.2) / 49)
        # E[h] - E[h^1.2] of a Beta(0.3, 0.2), by its moments.
        from scipy.special import beta as complete

        truth = 0.6 - complete(1.5, 0.2) / complete(0.3, 0.2)
        mean = paired_estimate(*per_image(x, y), "near")
        held["near"] += mean.lo <= 100 * truth <= mean.hi
    assert min(held.values()) >= 930
    assert max(held.values()) <= 985


def test_a_net_that_is_worse_by_the_margin_seldom_passes_as_good():
    rng = np.random.default_rng(9)
    passed = 0
    for _ in range(1000):
        kind = rng.choice(3, 2000, p=(0.955, 0.02, 0.025))
        a, b = np.isin(kind, (0, 1)).astype(float), np.isin(kind, (0, 2)).astype(float)
        passed += non_inferiority(*per_image(a, b), "at-rest", 0.5, 1).holds
    assert 10 <= passed <= 40


def test_an_asymmetry_that_only_turned_round_is_claimed_as_seldom_as_any_null():
    """|A| = |B| with opposite signs: neither direction may be claimed more often than the level says."""
    rng = np.random.default_rng(10)
    p = [
        paired_estimate(*per_image(rng.normal(0.2, 1, 150), rng.normal(-0.2, 1, 150)), "side-x").p_value
        for _ in range(1000)
    ]
    assert np.mean(np.array(p) <= 0.05) <= 0.07
    assert np.mean(np.array(p) <= 0.05) >= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "means",
    [
        [plateau(7, edge=4), plateau(7, edge=4.4) + 0.05 * np.tanh(axis(7))[None, :]],
        [plateau(7, edge=5), plateau(7, edge=5)],
        [plateau(7, edge=4), plateau(7, edge=4), plateau(7, edge=5) - 0.1],
    ],
    ids=["cliff", "null", "three arms"],
)
def test_coverage_of_every_interval_of_a_comparison(means):
    """1,000 draws of 300 images from 10,000 whose own differences are the truth."""
    held = coverage(means, n=300, n_draws=1000, seed=3)
    assert {"band", "retained b", "near b", "shift b"} <= set(held)
    assert {name: share for name, share in held.items() if share < 0.93} == {}


@pytest.mark.slow
@pytest.mark.parametrize("n_arms", [2, 4])
def test_comparisons_of_equals_claim_something_in_at_most_five_in_a_hundred(n_arms):
    claimed = []
    for seed, mean in enumerate((plateau(9, edge=5), np.full((19, 19), 1.5))):
        claimed += null_claims(mean, n=400, n_draws=100, n_arms=n_arms, seed=seed)
    assert len(claimed) == 200
    assert sum(map(bool, claimed)) <= 10


@pytest.mark.slow
def test_the_detectable_difference_is_found_four_times_in_five():
    """A whole map raised by the very size that a comparison said it would find."""
    base = np.full((9, 9), 1.0)
    lift = 0.2
    claimed, sizes = [], []
    for draw in range(200):
        found = quickly(sources(pair_of(np.random.default_rng(draw), 400, [base, base + lift])), n_resamples=100)
        near = found["b"].differences["near"]
        claimed.append("near b" in claims(found))
        sizes.append((near.estimate.value, near.detectable))
    true, detectable = np.mean(sizes, axis=0)
    assert true == pytest.approx(detectable, rel=0.03), (true, detectable)
    # Holm's later steps ask for less than its first, on which the size is computed.
    assert 0.72 <= np.mean(claimed) <= 0.92


def test_a_region_that_touches_the_edge_has_an_open_difference(planted):
    wide = pair_of(np.random.default_rng(2), 700, [plateau(REACH, edge=6), plateau(REACH, edge=40)])
    found = compared(sources(wide), n_resamples=300)
    one = found["b"].differences["retained"]
    assert isinstance(one, Difference)
    assert isinstance(one.estimate, Estimate)
    assert (one.verdict, one.estimate.hi, one.estimate.at_least) == ("better", np.inf, True)
    assert found.to_dict()["rows"][1]["retained_at_least"] is True
    assert found["b"].to_dict()["differences"]["retained"]["interval"][1] is None
    assert (
        "px² or more (the grid ends before the region does)" in found.improved.named("difference-retained-1").statement
    )
    back = compared(sources(wide), 1, n_resamples=300)["a"].differences["retained"]
    assert (back.verdict, back.estimate.lo, back.estimate.value) == ("worse", -np.inf, -one.estimate.value)
    both = compared(sources([wide[1], wide[1]]), n_resamples=100)
    assert both["b"].differences["retained"].why == "both regions touch the grid's edge: sweep further out"
