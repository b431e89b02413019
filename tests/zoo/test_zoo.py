"""Every net of the zoo, with its verdict: equal to the naive loop, however it is computed, or refused and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import harness
import nets_aliasing
import nets_architectures
import nets_batch
import nets_branches
import nets_heads
import nets_inputs
import nets_layers
import nets_layout
import nets_numbers
import nets_outputs
import nets_parametrised
import nets_patched
import nets_state
import pytest
import torch
from drawn_nets import PIECES, drawn
from harness import CASES, ONE_BY_ONE, VIEWS, Case, View
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from shiftlens.engine import cutting, tuning
from shiftlens.errors import InputError

ROOMS = (
    nets_aliasing,
    nets_architectures,
    nets_batch,
    nets_branches,
    nets_heads,
    nets_inputs,
    nets_layers,
    nets_layout,
    nets_numbers,
    nets_outputs,
    nets_parametrised,
    nets_patched,
    nets_state,
)


@pytest.fixture(autouse=True)
def as_in_a_long_sweep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that `auto` may take is looked at, and batches run side by side: nets that share something would race."""
    monkeypatch.setattr(tuning, "WORTH_MEASURING", 1e-6)
    monkeypatch.setattr(tuning, "MEASURED_SECONDS", 1e-4)
    monkeypatch.setattr(cutting, "WORTH_CUTTING", 0.0)
    monkeypatch.setattr(cutting, "IMAGES_TO_CUT", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def differences(case: Case, view: View) -> list[str]:
    """What differs from the naive loop, in any way of computing that is taken."""
    exact = harness.naive(case.net(), view)
    model = harness.wrapped(case.net())
    one = None
    if case.verdict == "one_by_one":
        one = 1
        why = harness.refusal(lambda: harness.run_engine(model, view, "auto"))
        assert ONE_BY_ONE in why, f"{view.name}: {why!r}"
    found = harness.check_candidates(model, view, exact, one)
    if not view.thorough:
        return found
    for name in ("auto",) if one else ("direct", "auto", "dedup"):
        try:
            result = harness.run_engine(model, view, name, one)
        except InputError as error:
            if name == "dedup" and not case.shares and "cannot serve" in str(error):
                continue
            raise
        if why := harness.wrong(result, exact, view.labels):
            found.append(f"{view.name}: engine {name}: {why}")
    return found


def keep(case: Case) -> None:
    """Hold a net to its verdict, whatever the first image is."""
    with case.around():
        for name in case.views:
            view = VIEWS[name]
            if case.verdict == "refused":

                def sweep(view: View = view) -> None:
                    model = harness.wrapped(case.net())
                    for engine_name in ("direct", "auto"):
                        harness.run_engine(model, view, engine_name)

                why = harness.refusal(sweep)
                assert why, f"{name}: not refused"
                assert case.says in why, f"{name}: {why}"
                assert "\n" not in why
            else:
                found = differences(case, view)
                assert not found, "\n".join(found)


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")  # a net's own buffer
@pytest.mark.parametrize("case", [case for case in CASES.values() if case.fast], ids=lambda case: case.name)
def test_nets_keep_their_verdict(case: Case) -> None:
    keep(case)


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")  # a net's own buffer
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's, and the net is meant so
@pytest.mark.parametrize("case", [case for case in CASES.values() if not case.fast], ids=lambda case: case.name)
def test_the_whole_zoo_keeps_its_verdicts(case: Case) -> None:
    keep(case)


def test_every_room_and_every_verdict_is_in_the_zoo() -> None:
    assert {case.make.__module__ for case in CASES.values()} == {room.__name__ for room in ROOMS}
    assert {case.verdict for case in CASES.values()} == {"equal", "one_by_one", "refused"}


def test_the_naive_loop_can_fail() -> None:
    """A wrong loss, a wrong class and a wrong order of shifts are seen."""
    view, net = VIEWS["ordinary"], CASES["Plain"].net()
    exact = harness.naive(net, view)
    right = harness.run_engine(harness.wrapped(net), view, "direct")
    assert not harness.wrong(right, exact, view.labels)
    assert harness.wrong(right | {"loss": right["loss"] + 2e-4}, exact, view.labels)
    assert harness.wrong(right | {"prediction": (right["prediction"] + 1) % 4}, exact, view.labels)
    assert harness.wrong(right | {"loss": right["loss"][:, :, ::-1]}, exact, view.labels)


MIXING = {name for name, piece in PIECES.items() if piece.mixes}


@pytest.mark.slow
@settings(
    max_examples=20,
    deadline=None,
    derandomize=False,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(names=st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=4), seed=st.integers(0, 2**20))
def test_drawn_nets_are_equal_or_refused(names: list[str], seed: int) -> None:
    """Pieces put together at random; whether the batch matters is found by looking, not by the check under test."""
    view = VIEWS["ordinary"]
    net = drawn(names, seed)
    case = Case("drawn", lambda: drawn(names, seed), "equal")
    mixes = bool(MIXING & set(names))
    if mixes:
        some = harness.windows(view)[:48]
        exact = harness.alone(net, some)
        with torch.no_grad():
            together = drawn(names, seed).eval()(some).double()
        if float((exact - together).abs().max()) <= 1e-2 * float(exact.abs().max()):
            return  # too little to be sure that it shows
        case = replace(case, verdict="one_by_one")
    event(case.verdict)
    found = differences(case, view)
    assert not found, "\n".join(found)
