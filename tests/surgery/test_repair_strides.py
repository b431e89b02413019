"""Repair of strides: blur and polyphase in nets of every shape, and branches that must keep one grid."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from repairable import OwnForward, OwnName, OwnStride
from torch import Tensor, nn

from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.models.digests import structure
from shiftlens.nn import VGG, BlurPool2d, PaddedPool2d, Polyphase2d, ReducedLayer2d
from shiftlens.nn.edits import carry_out
from shiftlens.nn.repair_mark import without_mark
from shiftlens.surgery import repair


def resnet(name: str = "resnet18") -> nn.Module:
    import torchvision.models as zoo

    torch.manual_seed(0)
    return zoo.get_model(name, weights=None).eval()  # type: ignore[no-any-return]


def largest_change(net: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        rest = net(x)
        moved = [net(x.roll(shift, (2, 3))) for shift in ((1, 0), (0, 1), (3, 5), (17, 31), (32, 7))]
    return max(float((scores - rest).abs().max() / rest.abs().max()) for scores in moved)


@pytest.mark.parametrize("kind", ["blur", "polyphase"])
@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("downsample", ["max", "stride"])
def test_a_repaired_vgg_is_the_vgg_of_that_down_sampling(downsample: str, padding: str, kind: str) -> None:
    net = VGG("vgg6", width=2, downsample=downsample, padding=padding).eval()
    fixed, edits = repair(net, downsample=kind)
    built = VGG("vgg6", width=2, downsample=kind if downsample == "max" else f"stride-{kind}", padding=padding).eval()
    assert structure(built) == structure(fixed)
    x = torch.randn(2, 3, 31, 32)
    built.load_state_dict(without_mark(fixed.state_dict()))
    assert torch.equal(fixed(x), built(x))
    assert [edit.path for edit in edits] == ["0.6", "1.6", "2.6"]
    assert {(edit.before, edit.after) for edit in edits} == {("stride 2", kind)}
    with pytest.warns(NoEffectWarning, match="changed nothing"):
        repair(fixed, downsample=kind)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_residual_net_is_exactly_invariant_untrained(name: str) -> None:
    net = resnet(name).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    wrapped, _ = repair(net, padding="circular")
    exact, edits = repair(net, padding="circular", downsample="polyphase")
    assert largest_change(wrapped, x) > 1e-3
    assert largest_change(exact, x) < 1e-10
    leaders = {edit.path: edit.options["leader"] for edit in edits if "leader" in edit.options}
    strided = "conv1" if name == "resnet18" else "conv2"
    assert leaders == {f"layer{k}.0.downsample.0": f"layer{k}.0.{strided}" for k in (2, 3, 4)}
    told = json.loads(json.dumps([edit.to_dict() for edit in edits]))
    again = carry_out(resnet(name).double(), told)
    again.load_state_dict(exact.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), exact(x))


def test_blur_makes_a_residual_net_steadier() -> None:
    net = resnet().double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    wrapped, _ = repair(net, padding="circular")
    blurred, edits = repair(net, padding="circular", downsample="blur")
    assert sum(edit.what == "downsample" for edit in edits) == 8
    assert largest_change(blurred, x) < 0.5 * largest_change(wrapped, x)
    with torch.no_grad():
        assert blurred(x[..., :57, :43]).shape == (1, 1000)


def test_the_blur_stands_behind_the_activation_where_a_chain_shows_it() -> None:
    conv, norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
    nn.init.normal_(norm.bias)
    net = nn.Sequential(nn.Sequential(conv, norm, nn.ReLU6()), nn.Conv2d(4, 4, 3, 2, 1), nn.Flatten()).eval()
    fixed, edits = repair(net, downsample="blur", filter_size=5)
    assert edits[0].options == {"padding_mode": "symmetric", "filter_size": 5, "activation": "0.2"}
    assert "activation" not in edits[1].options
    x = torch.randn(1, 3, 16, 16)
    blur = BlurPool2d(None, 5, 2, "symmetric")
    inner = blur(F.relu6(norm(F.conv2d(x, conv.weight, conv.bias, padding=1))))
    expected = blur(F.conv2d(inner, net[1].weight, net[1].bias, padding=1)).flatten(1)
    torch.testing.assert_close(fixed(x), expected)
    again = carry_out(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU6()),
            nn.Conv2d(4, 4, 3, 2, 1),
            nn.Flatten(),
        ),
        [edit.to_dict() for edit in edits],
    ).eval()
    again.load_state_dict(fixed.state_dict())
    assert torch.equal(again(x), fixed(x))


def test_an_activation_that_others_use_stays_where_it_is() -> None:
    relu = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), relu, nn.Conv2d(4, 4, 3, 1, 1), relu)
    fixed, edits = repair(net, downsample="blur")
    assert "activation" not in edits[0].options
    assert isinstance(fixed[0], ReducedLayer2d)
    assert fixed[1] is fixed[3]
    assert isinstance(fixed[1], nn.ReLU)


def test_padding_and_stride_of_one_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=True)).eval()
    x = torch.randn(2, 3, 36, 34)
    for kind in ("blur", "polyphase"):
        fixed, edits = repair(net, padding="symmetric", downsample=kind)
        assert [(edit.path, edit.what) for edit in edits] == [(p, w) for w in ("padding", "downsample") for p in "012"]
        assert fixed(x).shape == net(x).shape
        assert isinstance(fixed[1].layer, PaddedPool2d)
        constant = fixed(torch.ones(1, 3, 33, 30))
        torch.testing.assert_close(constant, constant[..., :1, :1].expand_as(constant))


def test_a_wrapped_subclass_is_reduced_inside() -> None:
    net = nn.Sequential(OwnForward(3, 4, 3, 2, 1), OwnName(4, 4, 3, 2, 1))
    x = torch.randn(2, 3, 16, 16)
    for kind in ("blur", "polyphase"):
        fixed, edits = repair(net, padding="circular", downsample=kind)
        assert [edit.path for edit in edits] == ["0", "1", "0.layer", "1"]
        assert fixed(x).shape == net(x).shape
    with pytest.warns(NoEffectWarning, match=r"1 \(OwnStride\): its own code strides"):
        repair(nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), OwnStride(3, 3, 3, 2, 1)), downsample="blur")


def test_large_strides_are_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.MaxPool2d(2))
    with pytest.warns(NoEffectWarning, match=r"0 \(Conv2d\): stride 16, only up to 4"):
        fixed, _ = repair(net, downsample="blur")
    assert type(fixed[0]) is nn.Conv2d


class Uneven(nn.Module):
    """Two branches that meet: one stride of 4, two strides of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.once = nn.Conv2d(3, 4, 3, 4, 1)
        self.twice = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.once(x) + self.twice(x)


def test_branches_that_cannot_keep_one_grid_are_refused_and_can_be_left_out() -> None:
    with pytest.raises(InputError, match=r"sampled by once on one side and twice\.0 and twice\.1 on the other"):
        repair(Uneven(), downsample="polyphase")
    assert len(repair(Uneven(), downsample="blur")[1]) == 3
    with pytest.raises(InputError, match=r"sampled by nothing on one side and twice\.0 and twice\.1 on the other"):
        repair(Uneven(), downsample="polyphase", exclude="once")
    net = nn.Sequential(Uneven(), nn.Conv2d(4, 4, 3, 2, 1))
    assert [edit.path for edit in repair(net, downsample="polyphase", exclude="0")[1]] == ["1"]


def test_a_squeeze_and_excite_gate_has_no_grid() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.gate = nn.Conv2d(4, 4, 1)
            self.next = nn.Conv2d(4, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            x = x * torch.sigmoid(self.gate(self.pool(x)))
            return self.next(x)

    _, edits = repair(Gated(), downsample="polyphase")
    assert [edit.options for edit in edits] == [{"padding_mode": "symmetric"}] * 2


def test_three_branches_follow_the_first_that_is_called() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.a, self.b = nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 1, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.a(x), self.b(x), self.c(x)], 1)

    net = nn.Sequential(Three(), nn.Conv2d(9, 4, 3, padding=1), nn.ReLU())
    fixed, edits = repair(net, downsample="polyphase")
    assert [(edit.path, edit.options.get("leader")) for edit in edits] == [
        ("0.a", None),
        ("0.b", "0.a"),
        ("0.c", "0.a"),
    ]
    assert isinstance(fixed[0].a.reduce, Polyphase2d)
    assert fixed[0].a.reduce.leads
    assert fixed(torch.randn(2, 3, 9, 9)).shape == (2, 4, 5, 5)


def test_a_padded_pool_that_is_there_already_is_one_layer() -> None:
    net = VGG("vgg6", width=2, downsample="max3", padding="reflect").eval()
    for kind in ("blur", "polyphase"):
        fixed, edits = repair(net, downsample=kind)
        assert [edit.path for edit in edits] == ["0.6", "1.6", "2.6"]
        assert fixed(torch.randn(1, 3, 33, 32)).shape == (1, 10)


def test_no_warning_where_everything_was_reached() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repair(resnet(), padding="reflect", downsample="blur", size=64)
