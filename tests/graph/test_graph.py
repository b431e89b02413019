"""The list of sites: what a real forward pass does, seen whole, in order, whatever the net is made of."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.graph import PICTURE, Graph, Sides, Site, trace
from shiftlens.nn import Pad2d, conv2d, pad


class Functional(nn.Module):
    """Everything called as a plain function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.ones(6, 4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv(x), 3, stride=2, padding=1))
        x = F.conv2d(F.pad(x, (0, 1, 2, 3)), self.weight, stride=2)
        x = F.avg_pool2d(F.conv2d(x, torch.ones(6, 6, 1, 1, device=x.device)), 2, ceil_mode=True)
        return x.mean((2, 3))


def only(graph: Graph, path: str) -> Site:
    found = [site for site in graph if site.path == path]
    assert len(found) == 1, [site.name for site in graph]
    return found[0]


def test_plain_functions_are_seen_with_the_module_that_calls_them() -> None:
    graph = trace(nn.Sequential(Functional()), (32, 30))
    names = [site.name for site in graph]
    assert names == [
        "0.conv",
        "0.max_pool2d()",
        "0.pad()",
        "0.conv2d()",
        "0.conv2d()#2",
        "0.avg_pool2d()",
        "0.mean()",
    ]
    pool, pad, conv = only(graph, "0.max_pool2d()"), only(graph, "0.pad()"), graph.find("0.conv2d()")
    assert (pool.kernel, pool.stride, pool.padding, pool.mode) == ((3, 3), (2, 2), Sides(1, 1, 1, 1), "-inf")
    assert pad.merged
    assert pad.out_size == (16 + 5, 15 + 1)
    # The window counts the explicit padding as its own, and reads the map before it.
    assert (conv.in_size, conv.padding, conv.stride) == ((16, 15), Sides(0, 1, 2, 3), (2, 2))
    assert [graph.sites[s.index].name for s in conv.sources] == ["0.max_pool2d()"]
    average = only(graph, "0.avg_pool2d()")
    assert average.ceil_mode
    assert average.in_size == (10, 7)
    assert average.out_size == (5, 4)


def test_a_layer_used_twice_is_two_records() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.conv(self.act(self.conv(x))))

    graph = trace(Twice(), (8, 8))
    assert [(site.path, site.call, site.name) for site in graph] == [
        ("conv", 0, "conv"),
        ("conv", 1, "conv#2"),
    ]
    assert [(site.activation, site.after.path, site.after.number) for site in graph] == [
        ("relu", "act", 0),
        ("relu", "act", 1),
    ]
    assert graph.sites[1].sources[0].index == 0


def test_shared_weights_are_two_sites_of_their_own_paths() -> None:
    a, b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    b.weight = a.weight
    assert [site.name for site in trace(nn.Sequential(a, b), (8, 8))] == ["0", "1"]


@pytest.mark.parametrize("mode", ["symmetric", "circular", "distribution", "partial", "reflect", "zeros"])
def test_our_own_convolutions_say_their_mode(mode: str) -> None:
    layer = conv2d(3, 4, 5, padding=(2, 1), padding_mode=mode)
    graph = trace(nn.Sequential(layer), (9, 8))
    assert [(s.path, s.kind, s.mode, s.padding, s.in_size, s.out_size) for s in graph] == [
        ("0", "conv", mode, Sides(1, 1, 2, 2), (9, 8), (9, 6))
    ]
    assert not graph.notes


def test_our_pads_are_seen_in_layers_and_as_a_function() -> None:
    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pad(x, (9, 0, 1, 2), "circular")

    graph = trace(nn.Sequential(Pad2d((1, 2, 3, 4), "symmetric"), nn.MaxPool2d(3), ByHand()), (9, 8))
    assert [(s.name, s.kind, s.mode, s.padding) for s in graph] == [
        ("0", "pad", "symmetric", Sides(1, 2, 3, 4)),
        ("1", "max pool", "symmetric", Sides(1, 2, 3, 4)),
        ("2.pad()", "pad", "circular", Sides(9, 0, 1, 2)),
    ]


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_inside_a_convolution_is_its_own(mode: str) -> None:
    graph = trace(nn.Conv2d(3, 4, (3, 5), padding=(1, 2), padding_mode=mode), (9, 8))
    assert [(s.path, s.kind, s.mode, s.padding, s.in_size, s.out_size) for s in graph] == [
        ("Conv2d", "conv", mode, Sides(2, 2, 1, 1), (9, 8), (9, 8))
    ]


def test_explicit_layers_same_padding_and_cuts_enter_as_they_are() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pad = nn.ReflectionPad2d((1, 2, 0, 1))
            self.even = nn.Conv2d(3, 4, 4, padding="same")
            self.valid = nn.Conv2d(4, 4, 3, padding="valid", dilation=2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.valid(self.even(x))
            return self.pad(x)[:, :, 1:, ::2]

    graph = trace(Net(), (16, 16))
    even, valid, pad, cut = graph
    assert even.padding == Sides(1, 2, 1, 2)
    assert even.out_size == (16, 16)
    assert not valid.padding
    assert valid.out_size == (12, 12)
    assert (pad.kind, pad.mode, pad.out_size, pad.merged) == ("pad", "reflect", (13, 15), True)
    # A slice is a window of one cell: one row less above, every second column.
    assert (cut.kind, cut.stride, cut.padding, cut.in_size, cut.out_size) == (
        "slice",
        (1, 2),
        Sides(1, 2, -1, 1),
        (12, 12),
        (12, 8),
    )


def test_an_index_that_pads_is_recognised() -> None:
    class ByIndex(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for axis, index in ((3, [2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 6]), (2, [1, 0, 1, 2, 3, 4, 5, 6, 7])):
                x = x.index_select(axis, torch.as_tensor(np.array(index), device=x.device))
            return x

    graph = trace(nn.Sequential(ByIndex(), nn.Conv2d(3, 1, 3)), (8, 8))
    assert [(s.name, s.kind, s.mode, s.padding) for s in graph] == [
        ("0.index_select()", "pad", "reflect", Sides(2, 1, 1, 0)),
        ("1", "conv", "reflect", Sides(2, 1, 1, 0)),
    ]


def test_branches_concatenations_and_gates() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 12, 1)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
            self.last = nn.Conv2d(16, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            y = y * self.gate(y) + x
            return self.last(torch.cat([y, self.b(x)], 1))

    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), Block()), (10, 10))
    joined, last = only(graph, "1.add()"), only(graph, "1.last")
    by_name = {site.index: site.name for site in graph} | {PICTURE: "picture"}
    # The gate is one cell: it steers, and is no source of rows and columns.
    assert [(by_name[s.index], s.share) for s in joined.sources] == [("0", 1.0), ("1.a", 1.0)]
    assert {by_name[s.index]: s.share for s in last.sources} == {"1.add()": 0.25, "1.b": 0.75}
    assert last.in_channels == 16
    assert only(graph, "1.gate.0").kind == "global pool"


def test_channel_shuffles_and_layouts_are_followed() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner, self.conv = nn.LayerNorm(8), nn.Linear(8, 8), nn.Conv2d(8, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, right.relu()), 1)
            x = self.inner(F.gelu(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
            return self.conv(x)

    graph = trace(nn.Sequential(nn.Conv2d(3, 8, 1), Shuffled()), (6, 7))
    assert not graph.notes
    assert [(site.name, [s.index for s in site.sources]) for site in graph] == [("0", [-1]), ("1.conv", [0])]
    assert sum(s.share for s in graph.sites[1].sources) == pytest.approx(1)


def test_what_comes_after_normalisation_and_activation() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2)
    )
    first, second, pool = trace(net, (12, 12))
    assert (first.after.path, first.activation) == ("2", "gelu")
    assert (second.after.path, second.activation) == ("4", None)
    assert (pool.after.path, pool.activation) == ("5", None)


def test_what_cannot_be_followed_is_named() -> None:
    class Tokens(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            tokens = x.flatten(2).transpose(1, 2)
            return (tokens @ tokens.transpose(1, 2) @ tokens).transpose(1, 2).reshape(n, c, h, w)

    class Hidden(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.sort(x.numpy(), axis=2))

    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3), Tokens(), nn.Conv2d(4, 4, 3)), (10, 10))
    assert any("cannot be followed past" in note and "at 1" in note for note in graph.notes)
    assert graph.sites[-1].sources == ()
    assert graph.sites[-1].out_size == (6, 6)  # its own sizes are still right
    hidden = trace(nn.Sequential(nn.Conv2d(3, 4, 3), Hidden(), nn.Conv2d(4, 4, 3)), (10, 10))
    assert any(note.startswith("1 (Hidden)") for note in hidden.notes)
    assert [site.name for site in hidden] == ["0", "2"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch is about to drop it; users' files are not
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert any("TorchScript" in note for note in trace(nn.Sequential(scripted, nn.Conv2d(4, 4, 3)), (9, 9)).notes)


def test_transposed_resized_and_shuffled_maps() -> None:
    net = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        nn.PixelUnshuffle(2),
        nn.Upsample(scale_factor=2),
        nn.AdaptiveAvgPool2d(5),
        nn.PixelShuffle(2),
    )
    graph = trace(net, (8, 6))
    assert [(s.kind, s.out_size) for s in graph] == [
        ("transposed conv", (16, 12)),
        ("shuffle", (8, 6)),
        ("resize", (16, 12)),
        ("adaptive pool", (5, 5)),
        ("shuffle", (10, 10)),
    ]
    assert graph.sites[0].output_padding == (1, 1)


def random_chain(seed: int) -> nn.Sequential:
    rng = random.Random(seed)
    layers: list[nn.Module] = []
    for _ in range(rng.randint(2, 6)):
        kernel, stride, dilation = rng.randint(1, 4), rng.randint(1, 3), rng.randint(1, 2)
        padding = rng.randint(0, kernel // 2)
        made: list[nn.Module] = [
            nn.Conv2d(2, 2, kernel, stride, padding, dilation),
            nn.MaxPool2d(kernel, stride, padding, ceil_mode=rng.random() < 0.5),
            nn.AvgPool2d(kernel, stride, padding, ceil_mode=rng.random() < 0.5),
            nn.ZeroPad2d(tuple(rng.randint(0, 2) for _ in range(4))),
            nn.ReLU(inplace=True),
        ]
        layers.append(rng.choice(made))
    return nn.Sequential(*layers, nn.Conv2d(2, 2, 1))


@pytest.mark.parametrize("seed", range(60))
def test_sizes_and_order_are_those_of_a_real_pass(seed: int) -> None:
    net = random_chain(seed)
    seen: list[tuple[str, tuple[int, int]]] = []
    for name, part in net.named_modules():
        if name and not isinstance(part, nn.ReLU):
            part.register_forward_hook(lambda _, __, out, name=name: seen.append((name, tuple(out.shape[2:]))))
    try:
        net(torch.zeros(1, 2, 40, 37))
    except RuntimeError:
        with pytest.raises(InputError, match="40x37"):
            trace(net, (40, 37), n_channels=2)
        return
    real = list(seen)  # the hooks see the look at the net too
    assert [(site.name, site.out_size) for site in trace(net, (40, 37), n_channels=2)] == real


# ---- bad input


def test_too_small_an_input_names_layer_and_size() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.Conv2d(4, 4, 3))
    with pytest.raises(InputError, match=r"Sequential does not take .* 3 channels and 9x9 pixels: layer 2 \(Conv2d\)"):
        trace(net, (9, 9))
    with pytest.raises(InputError, match=r"layer 0 \(Conv2d\) is made for 3 channels and got 1"):
        trace(net, (32, 32), n_channels=1)


def test_a_head_that_wants_another_size_is_noted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))
    assert trace(net, (32, 32)).notes == ()
    graph = trace(net, (33, 33))
    assert [site.out_size for site in graph] == [(31, 31)]
    assert graph.notes == ("the net ends at layer 2, which does not take a picture of 33x33",)


def test_a_net_that_raises_says_its_own_reason() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("licence expired")

    with pytest.raises(InputError, match="ValueError: licence expired"):
        trace(nn.Sequential(Broken()), (8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).to(dtype).eval()
    assert [site.out_size for site in trace(net, (8, 8))] == [(6, 6)]


def test_nets_that_look_at_their_numbers_run_where_they_are() -> None:
    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.offset = [torch.ones(1)]  # no buffer: stays on the CPU

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x) + self.offset[0]
            return x if float(x.sum()) > 1e9 else F.max_pool2d(x, 2)

    assert [site.name for site in trace(Looks(), (8, 8))] == ["conv", "max_pool2d()"]


def test_outputs_of_any_form_and_no_trace_left_behind() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> dict[str, Any]:
            y = self.a(x)
            return {"out": (y, [self.b(y)])}

    net = Several().eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert len(trace(net, (8, 8))) == 2
    for part in net.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(tensor.is_meta for tensor in net.parameters())


def test_hooks_are_off_after_an_exception() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3))
    with pytest.raises(InputError):
        trace(net, (8, 8))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert net[0](torch.zeros(1, 3, 8, 8)).shape == (1, 4, 6, 6)


def test_an_unknown_layer_suggests_the_nearest() -> None:
    graph = trace(nn.Sequential(nn.Conv2d(3, 4, 3)), (8, 8), name="small")
    assert graph.find("0") is graph.sites[0]
    with pytest.raises(InputError, match=r"small has no spatial layer 'features\.1'; it has 0"):
        graph.find("features.1")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, (3, 5), (2, 3), (1, 2), (2, 1)),
        nn.ConvTranspose2d(3, 4, (3, 5), (2, 3), (1, 2), output_padding=(1, 0)),
        nn.MaxPool2d((3, 5), (2, 3), (1, 2)),
        nn.AvgPool2d((3, 5), (2, 3), (1, 2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_rows_come_before_columns(layer: nn.Module) -> None:
    """Kernel, stride, dilation and padding that differ between the axes."""
    (site,) = trace(layer, (24, 31))
    assert (site.kernel, site.stride) == ((3, 5), (2, 3))
    assert site.dilation == ((2, 1) if isinstance(layer, nn.Conv2d) else (1, 1))
    assert site.padding == Sides(2, 2, 1, 1)
    assert site.out_size == tuple(layer(torch.zeros(1, 3, 24, 31)).shape[-2:])


def test_a_layer_in_two_places_and_a_weight_of_two_layers_keep_their_numbers() -> None:
    shared, first, second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    net = nn.Sequential(shared, nn.BatchNorm2d(3), shared, first, second)
    assert len(trace(net, (8, 8))) == 4
    assert {tensor.device.type for tensor in net.state_dict().values()} == {"cpu"}
    assert net[0] is net[2]
    assert net[3].weight is net[4].weight
