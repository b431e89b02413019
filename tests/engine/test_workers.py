"""Batches side by side give what one after another gives, and leave torch as it was."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from test_direct import MEAN, STD, own_net, pictures_of, plan_of
from torch import nn

from shiftlens.engine import direct
from shiftlens.engine.direct import DirectEvaluator
from shiftlens.engine.workers import Workers, replicas
from shiftlens.errors import ModelOutputError
from shiftlens.models.loading import wrap
from shiftlens.shifts import Fill, ShiftGrid


def three(net: nn.Module) -> Workers:
    return Workers(replicas(net, 3))


def test_replicas_share_their_weights_but_not_what_they_may_write_into() -> None:
    net = own_net()
    first, second, third = replicas(net, 3)
    assert first is net
    assert isinstance(second, nn.Module)
    assert isinstance(third, nn.Module)
    for a, b, c in zip(net.parameters(), second.parameters(), third.parameters(), strict=True):
        assert a.data_ptr() == b.data_ptr() == c.data_ptr()
    for a, b, c in zip(net.buffers(), second.buffers(), third.buffers(), strict=True):
        assert len({a.data_ptr(), b.data_ptr(), c.data_ptr()}) == 3
    assert second[0] is not net[0]  # type: ignore[index]


def test_results_come_in_order_and_side_by_side() -> None:
    together = threading.Barrier(3, timeout=30)
    seen: list[object] = []

    def slow_first(net: object, item: int) -> int:
        if item < 3:
            together.wait()  # passes only if three calls run at once, each with a net of its own
            seen.append(net)
        time.sleep(0.02 * (3 - item) if item < 3 else 0)
        return item * item

    assert list(three(own_net()).map(slow_first, range(8))) == [item * item for item in range(8)]
    assert len({id(net) for net in seen}) == 3


def test_the_number_of_threads_is_as_before_also_after_an_exception() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def fails(net: object, item: int) -> int:
            assert torch.get_num_threads() == 1
            if item == 2:
                raise ModelOutputError("no", (5,))
            return item

        with pytest.raises(ModelOutputError) as caught:
            list(three(own_net()).map(fails, range(10_000)))
        assert caught.value.positions == (5,)
        assert torch.get_num_threads() == 2
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert found == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("control", [None, "occlusion", "flip"])
def test_a_chunk_has_the_same_bits_whatever_the_workers(control: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wrap(own_net(), mean=MEAN, std=STD, size=(6, 8))
    images, labels = pictures_of(5, 6, 8, 4)
    arguments = (model, plan_of("bfloat16"), ShiftGrid((7, 9)), Fill.parse("black"))
    ticks: list[int] = []
    alone = DirectEvaluator(*arguments)(images, labels, control)
    original = direct.replicas
    monkeypatch.setattr(direct, "replicas", lambda net, n: original(net, 3))
    together = DirectEvaluator(*arguments, ticks.append)(images, labels, control)
    for name in ("prediction", "loss", "confidence"):
        np.testing.assert_array_equal(alone[name], together[name])
    assert ticks == sorted(ticks)
    assert len(ticks) > 3
