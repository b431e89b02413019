"""Recorded steps, with a stand-in for the GPU's recorder: the course of steps one by one; recording learns nothing."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F

from shiftlens.nn.vgg import VGG
from shiftlens.training import Recipe, replay
from shiftlens.training.machine import tuned
from shiftlens.training.optimiser import Optimiser, initialise
from shiftlens.training.replay import WARM_UPS, ReplayedStep


def played(work):
    """What `cuda_graph` does, as far as a CPU can: rounds to warm up, then the same work each time."""
    for _ in range(WARM_UPS):
        work()
    return work


def trained_net(recipe):
    torch.manual_seed(0)
    net = VGG("vgg6", n_classes=3, size=8, width=4)
    initialise(net, recipe)
    return net, Optimiser(net, recipe)


def one_step(net, optimiser, x, y, factor):
    net.train()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimiser.step(factor)
    return loss.detach()


def batches():
    draw = torch.Generator().manual_seed(0)
    for size in (8, 8, 16, 8):
        yield torch.randn(6, 3, size, size, generator=draw), torch.randint(0, 3, (6,), generator=draw)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(optimiser="sgd", weight_decay=0.1)])
def test_replayed_steps_are_the_steps(recipe):
    net, optimiser = trained_net(recipe)
    twin, other = trained_net(recipe)
    recorded = []
    replayed = ReplayedStep(one_step, net, optimiser, lambda work: recorded.append(1) or played(work))
    for (x, y), factor in zip(batches(), (0.2, 0.9, 0.5, 0.1), strict=True):
        loss = float(replayed(x, y, factor))
        assert loss == pytest.approx(float(one_step(twin, other, x, y, factor)), rel=1e-4)
    assert len(recorded) == 2  # one for each size
    for (name, a), b in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)


def test_recording_leaves_net_and_momenta_as_they_were():
    net, optimiser = trained_net(Recipe())
    x, y = next(batches())
    one_step(net, optimiser, x, y, 1.0)
    before = [t.clone() for t in (*net.state_dict().values(), *optimiser.state().values())]

    def recorded_only(work):
        played(work)
        return lambda: None

    ReplayedStep(one_step, net, optimiser, recorded_only)(x, y, 1.0)
    after = [*net.state_dict().values(), *optimiser.state().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_cannot_be_recorded_is_done_step_by_step_and_said_once(caplog):
    net, optimiser = trained_net(Recipe())
    twin, other = trained_net(Recipe())

    def breaks(work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    replayed = ReplayedStep(one_step, net, optimiser, breaks)
    for x, y in batches():
        assert torch.equal(replayed(x, y, 0.5), one_step(twin, other, x, y, 0.5))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))
    assert caplog.text.count("steps are not recorded") == 1


def test_recorder_is_cuda_graphs_by_default():
    assert ReplayedStep.__init__.__defaults__ == (replay.cuda_graph,)


def test_on_a_gpu_sums_repeat_and_float32_is_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.allow_tf32
    with tuned(torch.device("cuda")):
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, False, False)
    assert (cudnn.deterministic, cudnn.allow_tf32) == before
