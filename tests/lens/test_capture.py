"""Every site's map, the right one, before and after its activation, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.arithmetic import graph_of
from shiftlens.errors import InputError
from shiftlens.lens.capture import capture, maps_of, step
from shiftlens.nn.vgg import VGG


def test_stepping_through_a_chain_gives_each_layers_output() -> None:
    torch.manual_seed(0)
    net = VGG("vgg6", width=2).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        steps = list(step(net, x))
        y = x
        for (path, layer, output), (name, part) in zip(
            steps, [(n, p) for n, p in net.named_modules() if not list(p.children())], strict=True
        ):
            y = part(y.clone())
            assert path == name
            assert layer is part
            assert torch.equal(output, y)
        assert torch.equal(steps[-1][2], net(x))


def test_maps_are_those_of_stepping_also_behind_activations_in_place() -> None:
    torch.manual_seed(1)
    net = VGG("vgg6", width=2).eval()
    x = torch.randn(2, 3, 16, 16)
    graph = graph_of(net, (16, 16))
    with torch.no_grad():
        by_path = {path: output for path, _, output in step(net, x)}
    before, after = maps_of(net, graph, x, after=False), maps_of(net, graph, x)
    assert torch.equal(before["0.0"], by_path["0.0"])
    assert torch.equal(after["0.0"], by_path["0.2"])  # conv 0, batch norm 1, ReLU 2
    assert torch.equal(after["1.6"], by_path["1.6"])  # a pool has no activation
    assert (before["0.0"] < 0).any()
    assert (after["0.0"] >= 0).all()
    assert list(after) == [site.name for site in graph]


class Reused(nn.Module):
    """One convolution and one activation in place, each used twice; a plain function; a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> dict[str, Any]:
        first = self.act(self.conv(x))
        second = self.act(self.conv(first.clone()))
        return {"logits": F.avg_pool2d(second, 2), "first": (first,)}


def test_a_layer_used_twice_gives_two_maps() -> None:
    torch.manual_seed(0)
    net, x = Reused().eval(), torch.randn(3, 2, 6, 6)
    found = maps_of(net, graph_of(net, (6, 6)), x)
    with torch.no_grad():
        first = F.relu(net.conv(x))
        second = F.relu(net.conv(first))
    assert torch.equal(found["conv"], first)
    assert torch.equal(found["conv#2"], second)
    assert torch.equal(found["avg_pool2d()"], F.avg_pool2d(second, 2))


def test_channels_last_maps_are_turned() -> None:
    class Next(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(self.norm(self.conv(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    torch.manual_seed(0)
    net, x = Next().eval(), torch.randn(2, 2, 5, 7)
    found = maps_of(net, graph_of(net, (5, 7)), x)["conv"]
    with torch.no_grad():
        assert torch.equal(found, net(x))


def test_sums_of_branches_are_sites() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += x
            return self.act(y)

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(2, 2, 1), Residual()).eval(), torch.randn(1, 2, 5, 5)
    graph = graph_of(net, (5, 5))
    before, after = maps_of(net, graph, x, after=False), maps_of(net, graph, x)
    with torch.no_grad():
        inner = net[0](x)
        assert torch.equal(before["1.conv"], net[1].conv(inner))
        assert torch.equal(before["1.add()"], net[1].conv(inner) + inner)
        assert torch.equal(after["1.add()"], net(x))


def test_the_net_computes_the_same_and_nothing_is_left_behind() -> None:
    torch.manual_seed(0)
    net = Reused().train()
    x = torch.randn(1, 2, 6, 6)
    expected = net(x)["logits"]
    graph = graph_of(net, (6, 6))
    seen: list[str] = []
    with capture(net, graph, lambda site, values: seen.append(site.name)):
        assert torch.equal(net(x)["logits"], expected)
        assert torch.equal(net(x)["logits"], expected)
    assert seen == ["conv", "conv#2", "avg_pool2d()"] * 2
    assert net.training
    net(x)
    assert len(seen) == 6
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_hooks_are_off_and_modes_back_after_an_exception() -> None:
    net = Reused().train()
    graph = graph_of(net, (6, 6))

    def fails(site: object, values: Tensor) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), capture(net, graph, fails):
        net(torch.zeros(1, 2, 6, 6))
    with pytest.raises(RuntimeError):
        maps_of(net, graph, torch.zeros(1, 5, 6, 6))
    assert net.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert len(maps_of(net, graph, torch.zeros(1, 2, 6, 6))) == 3


def test_a_way_that_was_not_taken_is_named() -> None:
    class Chooses(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if float(x.sum()) == 0 else self.b(x)  # type: ignore[no-any-return]

    net = Chooses().eval()
    graph = graph_of(net, (5, 5))
    assert [site.name for site in graph] == ["a"]
    with pytest.raises(InputError, match="did not come by a in this forward pass"):
        maps_of(net, graph, torch.ones(1, 1, 5, 5))


def test_an_empty_batch_is_refused() -> None:
    net = Reused().eval()
    with pytest.raises(InputError, match="empty batch"):
        maps_of(net, graph_of(net, (6, 6)), torch.zeros(0, 2, 6, 6))
