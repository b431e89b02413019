"""Repair with another padding mode: what is changed, what stays, what cannot be reached."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from repairable import Functional, MeanPools, OwnForward, OwnName, OwnPadding, Twice
from torch import Tensor, nn

from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.models.digests import structure
from shiftlens.models.loading import wrap
from shiftlens.nn import PADDING_MODES, VGG, PaddedConv2d, PaddedPool2d, pad
from shiftlens.nn.convolution import PaddedLayer2d
from shiftlens.nn.edits import Edit, carry_out
from shiftlens.nn.padding import CONSTANT_KEEPING, INDEX_MODES, PAD_MODES
from shiftlens.nn.repair_mark import without_mark
from shiftlens.surgery import repair


def changes(edits: list[Edit]) -> list[tuple[str, str, str]]:
    return [(edit.path, edit.before, edit.after) for edit in edits]


@pytest.mark.parametrize("downsample", ["max", "stride"])
@pytest.mark.parametrize("mode", [mode for mode in PADDING_MODES if mode != "zeros"])
def test_a_repaired_vgg_is_the_vgg_of_that_mode(mode: str, downsample: str) -> None:
    net = VGG("vgg6", width=2, downsample=downsample).eval()
    before = structure(net)
    fixed, edits = repair(net, padding=mode)
    built = VGG("vgg6", width=2, downsample=downsample, padding=mode).eval()
    built.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(fixed(x), built(x))
    assert structure(fixed) == structure(built)
    assert len(edits) == (6 if downsample == "max" else 9)
    assert {edit.before for edit in edits} == {"zeros"}
    assert structure(net) == before
    assert not {id(p) for p in net.parameters()} & {id(p) for p in fixed.parameters()}
    if mode != "full":
        back, _ = repair(fixed, padding="zeros")
        assert torch.equal(back(x), net(x))


@pytest.mark.parametrize("mode", PAD_MODES)
def test_edits_do_the_same_again_on_a_fresh_net(mode: str) -> None:
    torch.manual_seed(0)
    net = MeanPools().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        fixed, edits = repair(net, padding=mode)
    told = json.loads(json.dumps([edit.to_dict() for edit in edits]))
    assert [Edit.from_dict(facts) for facts in told] == edits
    again = carry_out(MeanPools(), told).eval()
    assert structure(again) == structure(fixed)
    again.load_state_dict(fixed.state_dict())
    x = torch.randn(2, 3, 14, 15)
    assert torch.equal(again(x), fixed(x))


def test_every_kind_of_layer_that_pads_is_edited_once() -> None:
    net = MeanPools()
    fixed, edits = repair(net, padding="circular")
    assert changes(edits) == [
        ("body.0", "zeros", "circular"),
        ("body.2", "zeros", "circular"),
        ("body.3", "zeros", "circular"),
        ("body.5", "zeros", "circular"),
        ("body.6", "-inf", "circular"),
        ("body.7", "reflect", "circular"),
    ]
    assert str(edits[0]) == "body.0: padding zeros -> circular"
    x = torch.randn(1, 3, 8, 8)

    def around(t: Tensor, n: int) -> Tensor:
        return F.pad(t, (n,) * 4, mode="circular")

    a = F.relu(F.conv2d(around(x, 1), net.body[0].weight, net.body[0].bias))
    a = F.avg_pool2d(around(a, 1), 3, 2)
    a = F.relu(F.conv2d(around(a, 2), net.body[3].weight, net.body[3].bias))
    a = F.max_pool2d(around(F.avg_pool2d(around(a, 1), 3, 1), 1), 3, 2)
    a = F.conv2d(around(a, 1), net.body[8].weight, net.body[8].bias)
    torch.testing.assert_close(fixed(x), a)
    assert [*without_mark(fixed.state_dict())] == [*net.state_dict()]
    with pytest.warns(NoEffectWarning, match="changed nothing"):
        assert repair(fixed, padding="circular")[1] == []
    _, edits = repair(fixed, padding="reflect")
    assert {edit.after for edit in edits} == {"reflect"}
    assert [edit.path for edit in edits] == ["body.0", "body.2.pad", "body.3", "body.5.pad", "body.6.pad", "body.7"]


def artefact_energies(net: nn.Module, size: int) -> list[float]:
    """Of every convolution's and pool's output on the empty input: variance over space over mean square."""
    found: list[float] = []

    def watch(layer: nn.Module, inputs: object, out: Tensor) -> None:
        if out.ndim == 4 and out.shape[-1] > 1:
            square = out.square().mean((2, 3)).sum()
            found.append(float(out.var((2, 3), correction=0).sum() / square) if square else 0.0)

    hooks = [
        part.register_forward_hook(watch)
        for part in net.modules()
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.BatchNorm2d)
    ]
    with torch.no_grad():
        net(torch.zeros(1, 3, size, size, dtype=torch.float64))
    for hook in hooks:
        hook.remove()
    return found


def shaken(net: nn.Module) -> nn.Module:
    """Batch norm that does something, so that an empty picture gives maps that are not zero."""
    torch.manual_seed(1)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)
            nn.init.uniform_(part.weight, 0.5, 2)
    return net.double().eval()


def resnet18() -> nn.Module:
    import torchvision.models as zoo

    torch.manual_seed(0)
    return zoo.resnet18()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("build", "size", "n_maps"),
    [
        (lambda: VGG("vgg8", width=4), 32, 19),
        (resnet18, 64, 37),
        (lambda: VGG("vgg6", width=4, downsample="max3"), 33, 14),
        (MeanPools, 17, 6),
    ],
)
def test_no_artefact_on_the_empty_input_whatever_keeps_a_constant(build: Callable, size: int, n_maps: int) -> None:
    net = shaken(build())
    before = artefact_energies(net, size)
    assert len(before) >= n_maps
    assert sum(energy > 1e-6 for energy in before) >= len(before) // 3
    for mode in CONSTANT_KEEPING:
        fixed, _ = repair(net, padding=mode)
        after = artefact_energies(fixed, size)
        assert len(after) == len(before)
        assert max(after) < 1e-20, mode
        assert min(1 for _ in after)


def test_only_what_is_asked_for_and_not_what_is_excluded() -> None:
    net = VGG("vgg6", width=2)

    def paths(**which: object) -> list[str]:
        return [edit.path for edit in repair(net, padding="reflect", **which)[1]]  # type: ignore[call-overload]

    assert paths(only="1") == ["1.0", "1.3"]
    assert paths(only="*.3") == ["0.3", "1.3", "2.3"]
    assert paths(only=["0.0", "2"], exclude="2.3") == ["0.0", "2.0"]
    assert paths(only="Conv2d", exclude="0,1") == ["2.0", "2.3"]
    with pytest.raises(InputError, match=r"unknown layer '1\.33'; did you mean '1\.3'"):
        paths(only="1.33")
    with pytest.raises(InputError, match=r"unknown layer 'Conv3d'; did you mean 'Conv2d'"):
        paths(exclude="Conv3d")
    with pytest.warns(NoEffectWarning, match="changed nothing: no layer that was asked for"):
        assert paths(only="3") == []


def test_the_net_itself_may_be_the_layer() -> None:
    conv = nn.Conv2d(3, 2, 5, padding=2)
    fixed, edits = repair(conv, padding="symmetric")
    assert type(conv) is nn.Conv2d
    assert isinstance(fixed, PaddedConv2d)
    assert [edit.path for edit in edits] == [""]
    pool, _ = repair(nn.AvgPool2d(3, 1, 1), padding="reflect")
    assert isinstance(pool, PaddedPool2d)
    assert torch.equal(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_a_layer_used_twice_is_still_one_layer() -> None:
    net = Twice()
    fixed, edits = repair(net, padding="circular")
    assert [edit.path for edit in edits] == ["first"]
    assert fixed.first is fixed.second
    assert len(repair(net, padding="circular", only="second")[1]) == 1
    pools = nn.Sequential(*[nn.AvgPool2d(3, 1, 1)] * 2)
    fixed, edits = repair(pools, padding="circular")
    assert len(edits) == 1
    assert isinstance(fixed[0], PaddedPool2d)
    assert fixed[0] is fixed[1]


def test_everything_else_stays() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64),
        nn.AvgPool2d(3, 1, 1),
        nn.ZeroPad2d((1, 0, 2, 0)),
        nn.Conv2d(4, 4, (2, 3), padding="same", bias=False, dtype=torch.float64),
    )
    seen: list[str] = []
    for number, layer in enumerate(net):
        layer.register_forward_hook(lambda m, i, o, n=number: seen.append(f"{n} {tuple(i[0].shape)[2:]}"))
        layer.register_forward_pre_hook(lambda m, i, n=number: seen.append(f"before {n}"))
    net[0].weight.requires_grad = False
    net[1].eval()
    net[3].tied = net[3].weight
    fixed, edits = repair(net, padding="reflect")
    assert len(edits) == 4
    assert not fixed[0].weight.requires_grad
    assert fixed[3].weight.requires_grad
    assert fixed[3].tied is fixed[3].weight
    assert {tensor.dtype for tensor in fixed.parameters()} == {torch.float64}
    assert [part.training for part in fixed] == [True, False, True, True]
    assert isinstance(fixed[1], PaddedPool2d)
    assert [part.training for part in fixed[1].modules()] == [False] * 3
    x = torch.randn(1, 3, 6, 7, dtype=torch.float64)
    seen.clear()  # to find plain function calls, the net is run once on nothing
    fixed(x)
    assert seen == ["before 0", "0 (6, 7)", "before 1", "1 (6, 7)", "before 2", "2 (6, 7)", "before 3", "3 (8, 8)"]
    assert fixed[3].padding == "same" or fixed[3].sides == (1, 1, 0, 1)


def test_ties_stay_tied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
    net[2].weight = net[0].weight
    fixed, _ = repair(net, padding="circular", only="2")
    assert fixed[2].weight is fixed[0].weight
    assert fixed[2].weight is not net[0].weight


@pytest.mark.parametrize("mode", [mode for mode in INDEX_MODES if mode != "zeros"])
def test_subclasses_by_the_way_that_their_code_takes(mode: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 8)
    for kind, padding in ((OwnName, 1), (OwnForward, 1), (OwnName, 2), (OwnForward, 2)):
        layer = kind(3, 4, 5, padding=padding)
        bare = copy.deepcopy(layer)
        bare.padding = (0, 0)
        fixed, edits = repair(nn.Sequential(layer), padding=mode)
        torch.testing.assert_close(fixed(x), bare(pad(x, (padding,) * 4, mode)))
        wrapped = kind is OwnForward or (mode == "symmetric" and padding == 2)
        assert edits[0].options == {"way": "wrapped" if wrapped else "attribute"}
        assert isinstance(fixed[0], PaddedLayer2d if wrapped else kind)
        assert fixed[0].weight.shape == (4, 3, 5, 5)
        again = carry_out(nn.Sequential(kind(3, 4, 5, padding=padding)), [edit.to_dict() for edit in edits])
        again.load_state_dict(fixed.state_dict())
        assert torch.equal(again(x), fixed(x))


def test_a_subclass_that_pads_by_itself_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), OwnPadding(3, 3, 3, padding=1))
    with pytest.warns(NoEffectWarning, match=r"left as it is: 1 \(OwnPadding\): its own code pads"):
        _, edits = repair(net, padding="reflect")
    assert [edit.path for edit in edits] == ["0"]
    with pytest.warns(NoEffectWarning, match=r"1 \(OwnForward\)"):
        repair(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), OwnForward(3, 3, 3, padding=1)), padding="partial")


def test_a_parametrised_convolution_keeps_its_parametrisation() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 5, padding=2))
    x = torch.randn(1, 2, 8, 8)
    for mode in ("reflect", "symmetric"):
        fixed, edits = repair(nn.Sequential(layer), padding=mode)
        assert len(edits) == 1
        torch.testing.assert_close(fixed(x), F.conv2d(pad(x, (2,) * 4, mode), layer.weight, layer.bias))
        assert any("original0" in name for name, _ in fixed.named_parameters())


def test_function_calls_are_named_and_left() -> None:
    with pytest.warns(NoEffectWarning, match=r"left as it is: conv2d\(\) pads, called as a function") as caught:
        _, edits = repair(Functional(), padding="reflect")
    assert [edit.path for edit in edits] == ["conv"]
    assert len(caught) == 1
    with pytest.warns(NoEffectWarning, match=r"max_pool2d\(\) strides, called as a function"):
        repair(Functional(), downsample="blur")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        repair(Functional(), padding="reflect", only="conv")


def test_what_has_no_mode_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ConstantPad2d(1, 5.0), nn.ZeroPad2d((1, -1, 0, 0)))
    with pytest.warns(NoEffectWarning, match=r"1 \(ConstantPad2d\): it pads by a number other than 0; 2 .* cuts"):
        repair(net, padding="reflect")
    with pytest.warns(NoEffectWarning, match=r"1 \(ZeroPad2d\): partial is defined for a convolution only"):
        repair(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ZeroPad2d(1)), padding="partial")


def test_a_model_gives_a_model() -> None:
    model = wrap(VGG("vgg6", width=2), mean=0.5, std=0.25, size=32)
    fixed, edits = repair(model, padding="reflect")
    assert fixed.preprocessing == model.preprocessing
    assert fixed.n_classes == model.n_classes
    assert fixed.digest != model.digest
    assert fixed.name == "VGG (padding reflect)"
    assert len(edits) == 6


def test_a_net_without_a_size_that_fits_is_repaired_all_the_same() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 57:
                raise ValueError("57 pixels")
            return self.conv(x)

    with pytest.warns(NoEffectWarning, match=r"could not be looked for: give an input size"):
        _, edits = repair(Picky(), padding="reflect")
    assert len(edits) == 1
    assert len(repair(Picky(), padding="reflect", size=57)[1]) == 1


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.ReLU(), torch.jit.trace(nn.Conv2d(3, 3, 3, padding=1), torch.zeros(1, 3, 4, 4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: repair(VGG(width=2)), "needs a padding mode, a down-sampling or a norm"),
        (lambda: repair(VGG(width=2), padding="mirror"), "unknown padding mode 'mirror'"),
        (lambda: repair(VGG(width=2), padding="edge"), "did you mean 'replicate'"),
        (lambda: repair(VGG(width=2), downsample="blurr"), "did you mean 'blur'"),
        (lambda: repair("vgg", padding="reflect"), "'vgg' does not exist and is no spec"),
        (lambda: repair(3, padding="reflect"), "expects an nn.Module, got int"),  # type: ignore[call-overload]
        (lambda: repair(scripted(), padding="reflect"), "1 is TorchScript"),
        (lambda: repair(nn.Sequential(nn.LazyConv2d(3, 3)), padding="reflect"), "0 has no shape yet"),
        (
            lambda: repair(nn.Sequential(torch.ao.nn.quantized.ReLU6()), padding="reflect"),
            r"0 is quantised \(ReLU6\)",
        ),
        (
            lambda: repair(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ConvTranspose2d(3, 3, 3)), "reflect"),
            r"transposed .*: 1 \(ConvTranspose2d\); leave out with exclude",
        ),
        (
            lambda: repair(nn.Sequential(nn.MaxPool2d(8), nn.Conv2d(3, 3, 3, padding=1)), "reflect", size=8),
            r"layer 1 \(Conv2d\) got \[1, 3, 1, 1\]: .*Padding size should be less than",
        ),
        (
            lambda: repair(nn.Sequential(nn.MaxPool2d(8), nn.Conv2d(3, 3, 5, padding=2)), "reflect", size=(8, 16)),
            r"layer 1 .* got \[1, 3, 1, 2\]: reflect needs at least 2 positions along an axis, got 1",
        ),
    ],
)
def test_bad_use_is_one_line(call: Callable, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_excluded_transposed_convolution_is_no_hindrance() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ConvTranspose2d(3, 3, 3))
    assert [edit.path for edit in repair(net, padding="reflect", exclude="ConvTranspose2d")[1]] == ["0"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"path": "0.0", "what": "weights", "after": "x"}, "unknown edit 'weights'"),
        ({"what": "padding", "after": "reflect"}, "needs a path"),
        ({"path": "9.9", "what": "padding", "after": "reflect"}, "has no layer '9.9'"),
        ({"path": "0.0", "what": "padding", "after": "mirror"}, "0.0: unknown padding mode"),
        ({"path": "0.1", "what": "padding", "after": "reflect"}, "a BatchNorm2d has no padding mode"),
        ({"path": "0.6", "what": "downsample", "after": "max"}, "unknown down-sampling"),
        ({"path": "0.1", "what": "downsample", "after": "blur"}, "no stride that could be replaced"),
        ({"path": "0.6", "what": "downsample", "after": "blur", "filter_size": 10**9}, "between 1 and 31"),
        ({"path": "0.6", "what": "downsample", "after": "polyphase", "leader": "1.6"}, "chooses no grid"),
        ({"path": "", "what": "input padding", "after": "zeros", "sides": [1, 2]}, "needs .left, right"),
        ({"path": "", "what": "input padding", "after": "zeros", "sides": [10**9] * 4}, "up to 1024"),
        ({"path": ["0"], "what": "padding", "after": "reflect"}, "needs a path"),
        ({"path": "0.0", "what": "padding", "after": ["reflect"]}, "padding mode"),
    ],
)
def test_edits_from_a_stranger_are_checked(facts: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        carry_out(VGG("vgg6", width=2), [facts])
    assert "\n" not in str(caught.value)
