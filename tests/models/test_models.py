"""`load_model` and `wrap`: every spec, the preprocessing rule, the facts, the digest."""

from __future__ import annotations

import contextlib
import copy
import inspect
import subprocess
import sys
import textwrap
import time
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens.models.loading as models
from shiftlens.arithmetic import inspect as inspect_net
from shiftlens.arithmetic.nets import graph_of
from shiftlens.data.imageset import ImageSet
from shiftlens.data.preprocessing import Preprocessing, parse_numbers, parse_size
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.models.loading import load_model, scores_of, wrap
from shiftlens.models.matching import on_input_grid
from shiftlens.models.runs import save_run
from shiftlens.nn import VGG

pytestmark = pytest.mark.filterwarnings("ignore:.* declares no preprocessing")


def net(seed: int = 0, **arguments: object) -> VGG:
    torch.manual_seed(seed)
    return VGG(**{"arch": "vgg6", "n_classes": 3, "width": 2, **arguments})


def one_line(caught: pytest.ExceptionInfo) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


# ---- facts


def test_cost_of_the_named_nets() -> None:
    eight, six = wrap(VGG("vgg8"), size=32), wrap(VGG("vgg6"), size=32)
    assert round(eight.n_macs / 1e6) == 209
    assert round(six.n_macs / 1e6) == 153
    assert eight.n_parameters == sum(p.numel() for p in eight.module.parameters())
    assert (eight.n_classes, eight.strides, six.strides) == (10, (2, 4, 8, 16), (2, 4, 8))


def test_macs_by_hand() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, groups=1),  # 8 x 8 cells, 4 filters, 27 taps
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),  # 4 x 4 cells, 4 filters, 9 taps
        nn.ConvTranspose2d(4, 2, 2, stride=2),  # 4 x 4 cells, 4 channels, each to 2 x 4 places
        nn.Flatten(),
        nn.Linear(128, 5),
    )
    assert wrap(module, size=8).n_macs == 64 * 4 * 27 + 16 * 4 * 9 + 16 * 4 * 8 + 128 * 5


@pytest.mark.parametrize("size", [32, 33, 31])
def test_strides_are_exact_at_odd_sizes(size: int) -> None:
    assert wrap(VGG(width=2, downsample="stride"), size=size).strides == (2, 4, 8, 16)


def test_strides_where_a_pool_is_a_plain_function() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.max_pool2d(self.conv(x), 4)
            return self.down(x).mean((2, 3))

    assert wrap(Net(), size=32).strides == (8,)


def test_probing_restores_every_layers_mode_and_changes_nothing() -> None:
    module = net().train()
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    random_state = torch.random.get_rng_state()
    model = wrap(module, size=32)
    assert model.n_classes == 3
    assert model.module is module
    assert [part.training for part in module.modules()] == modes
    assert any(modes)
    assert not all(modes)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_scores_are_those_of_evaluation_mode() -> None:
    module = net().train()
    x = torch.randn(4, 3, 32, 32)
    scores = wrap(module, size=32).scores(x)
    assert module.training
    assert not scores.requires_grad
    torch.testing.assert_close(scores, copy.deepcopy(module).eval()(x))


def test_a_bare_callable() -> None:
    def brightness(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], dim=1)

    model = wrap(brightness, size=8)
    assert (model.name, model.is_module, model.n_classes, model.n_macs, model.strides) == (
        "brightness",
        False,
        2,
        None,
        (),
    )
    assert any("digest covers its name only" in note for note in model.notes)
    assert model.digest == wrap(brightness, size=8).digest != wrap(brightness, size=9).digest


def test_parallel_and_compiled_wrappings_are_looked_through() -> None:
    module = net()
    compiled = torch.compile(module, backend="eager")
    assert wrap(nn.DataParallel(module)).module is module
    assert wrap(compiled).module is module
    assert wrap(compiled).digest == wrap(module).digest


def test_size_may_come_later() -> None:
    model = wrap(net())
    with pytest.raises(InputError, match="declares no input size"):
        _ = model.n_classes
    assert model.at((32, 32)).n_classes == 3


# ---- outputs


class Output:
    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


TABLE = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "output",
    [
        TABLE,
        Output(TABLE),
        {"logits": TABLE, "features": torch.ones(2, 5)},
        {"name": "x", "out": TABLE},
        (TABLE, torch.ones(2, 5)),
        [None, TABLE],
    ],
)
def test_scores_are_found(output: object) -> None:
    assert scores_of(output) is TABLE


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "got NoneType"),
        ({}, "got dict"),
        ("x", "got str"),
        (torch.zeros(2, 3, 1, 1), r"\[2, 3, 1, 1\]"),
        (torch.zeros(2, 1), "at least 2 classes"),
        (torch.zeros(2, 3, dtype=torch.int64), "int64"),
    ],
)
def test_what_is_no_table_of_scores(output: object, message: str) -> None:
    with pytest.raises(ModelOutputError, match=message):
        scores_of(output)
    with pytest.raises(InputError, match=f"is no classifier for two pictures.*{message}"):
        _ = wrap(lambda x: output, size=8).n_classes


def test_one_row_for_two_pictures() -> None:
    with pytest.raises(InputError, match="gave 1 rows of scores for 2 pictures"):
        wrap(lambda x: torch.zeros(1, 3), size=8)


# ---- another size, another number of channels, broken weights


def test_another_input_size_names_layer_and_sizes(tmp_path: Path) -> None:
    module = net(head="flatten")
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": module.config}
    save_run(tmp_path / "r", module, build=build, preprocessing=Preprocessing(size=(32, 32), declared=True))
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "r", input_size="64")
    text = one_line(caught)
    assert "64x64" in text
    assert "layer 3.2 (Linear) is made for 128 values and got 512" in text
    assert "it declares 32x32" in text


def test_another_number_of_channels() -> None:
    with pytest.raises(InputError, match="mean and std have 3 numbers, the model's input has 1 channels"):
        wrap(net(in_channels=1), mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.3))
    grey = wrap(net(in_channels=1), size=32)
    assert (grey.n_channels, grey.preprocessing.mean, grey.n_classes) == (1, (0.0,), 3)


class Gate(nn.Module):
    """Its first convolution, as it is defined, weighs places by a single channel; the image has `n`."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.gate, self.stem = nn.Conv2d(1, 1, 7, padding=3), nn.Conv2d(n, 4, 3)
        self.n_seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_seen.append(x.shape[1])
        return (self.stem(x) * self.gate(x.mean(1, keepdim=True))[..., 1:-1, 1:-1]).mean((2, 3))


class Coordinates(nn.Module):
    """Its convolution sees the image's channels and two coordinates."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n + 2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([x, torch.ones_like(x[:, :1]), torch.ones_like(x[:, :1])], 1)).mean((2, 3))


class AnyNumber(nn.Module):
    """Sums whatever channels there are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.sum(1, keepdim=True)).mean((2, 3))


@pytest.mark.parametrize(
    ("build", "n_channels"),
    [
        (Gate, 3),
        (lambda: Gate(1), 1),
        (lambda: Coordinates(3), 3),
        (lambda: Coordinates(1), 1),  # its convolution sees 3 channels
        (AnyNumber, 3),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 3)), 1),
        (lambda: net(in_channels=1), 1),
    ],
)
def test_channels_are_those_that_the_net_takes(build: Callable[[], nn.Module], n_channels: int) -> None:
    sized = wrap(build(), size=16)
    assert (sized.n_channels, sized.probed.n_channels) == (n_channels, n_channels)
    unsized = wrap(build())
    if not isinstance(unsized.module, nn.Sequential) or n_channels == 3:  # a linear layer says so only at its size
        assert len(unsized.preprocessing.mean) == n_channels
    assert unsized.at((16, 16)).n_channels == n_channels


def test_images_count_where_a_net_takes_any_number_of_channels(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"import torch\nfrom torch import nn\n\n\n{inspect.getsource(AnyNumber)}")
    spec = f"{tmp_path / 'own.py'}:AnyNumber"
    grey, colour = (load_model(spec, picture_size=16, picture_channels=n) for n in (1, 3))
    assert (grey.n_channels, colour.n_channels) == (1, 3)
    assert load_model(spec, mean=(0.1, 0.2, 0.3), picture_size=16, picture_channels=1).n_channels == 3


def test_a_gate_on_one_channel_does_not_turn_images_grey() -> None:
    module = Gate()
    model = wrap(module, mean=0.5, std=0.5)
    images = ImageSet(torch.rand(4, 16, 16, 3).mul(255).byte().numpy(), [0, 1, 2, 3])
    shown, size = on_input_grid(model, images)
    assert shown.n_channels == 3
    assert shown.digest == images.digest
    assert model.at(size).n_channels == 3


def test_images_in_colour_that_are_turned_grey_are_announced() -> None:
    grey = np.full((40, 16, 16, 3), 7, np.uint8)  # as a grey file is decoded
    shown, _ = on_input_grid(wrap(net(in_channels=1), size=16, name="mnist"), ImageSet(grey, [0] * 40))
    assert shown.n_channels == 1
    grey[-1, 3, 3, 2] = 8
    images = ImageSet(grey, [0] * 40, name="street")
    with pytest.warns(
        UserWarning, match="images of street are in colour, the model takes one channel: they are turned"
    ):
        shown, _ = on_input_grid(wrap(net(in_channels=1), size=16, name="mnist"), images)
    assert shown.n_channels == 1
    on_input_grid(wrap(net(in_channels=1), size=16), ImageSet(np.zeros((2, 16, 16), np.uint8), [0, 1]))


def test_a_net_that_computes_partly_in_double_is_taken() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3)).double() * self.scale

    model = wrap(Partly(), size=16)
    assert model.n_classes == 4
    assert [site.path for site in graph_of(model, 16)] == ["conv", "mean()"]


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.zeros(2, 3, 16, 16))])
@pytest.mark.parametrize("inside", [False, True])
def test_torchscript_is_refused(make: Callable[[nn.Module], nn.Module], inside: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of torch.jit
        made = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    module = nn.Sequential(made) if inside else made
    told = "holds a TorchScript module .0." if inside else "is a TorchScript module"
    for look in (lambda: wrap(module), lambda: wrap(module, size=16), lambda: graph_of(module, 16)):
        with pytest.raises(InputError, match=f"{told}.*pass the Python module it was made from") as caught:
            look()
        one_line(caught)


def test_a_layer_that_fails_is_named() -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("only 7 pixels\nand a long story")

    with pytest.raises(InputError) as caught:
        wrap(nn.Sequential(nn.Conv2d(3, 3, 1), Picky()), size=(8, 9))
    assert "does not take 2 pictures of 3 channels and 8x9 pixels" in one_line(caught)
    assert "layer 1 (Picky) got [2, 3, 8, 9]: only 7 pixels" in one_line(caught)


def test_nan_weights_are_refused_with_their_name() -> None:
    module = net()
    with torch.no_grad():
        module[2][3].weight[0] = float("nan")
    with pytest.raises(InputError, match=r"VGG: 72 of 576 numbers in 2\.3\.weight are NaN"):
        wrap(module)


def test_class_names_must_be_as_many_as_scores() -> None:
    assert wrap(net(), size=32, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(InputError, match="gives 3 scores, and has 2 class names"):
        wrap(net(), size=32, class_names=["a", "b"])


def test_layers_without_a_shape_are_refused() -> None:
    with pytest.raises(InputError, match="shape is not set yet"):
        wrap(nn.Sequential(nn.LazyLinear(3)))


def test_not_a_model() -> None:
    with pytest.raises(InputError, match=r"expected an nn\.Module or a callable, got int"):
        wrap(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("change", "dtype"), [("half", "float16"), ("bfloat16", "bfloat16"), ("double", "float64")])
def test_another_precision_is_refused_with_the_remedy(change: str, dtype: str) -> None:
    with pytest.raises(InputError) as caught:
        wrap(getattr(net(), change)(), size=32)
    assert one_line(caught).endswith(f"its weights are {dtype} and pictures float32: call .float() first")
    assert wrap(getattr(net(), change)().float(), size=32).n_classes == 3


def test_a_size_that_does_not_fit_says_nothing_of_precision() -> None:
    with pytest.raises(InputError) as caught:
        wrap(net(head="flatten"), size=64)
    assert ".float()" not in one_line(caught)


# ---- digest


DIGEST = """
import torch
from shiftlens.nn import VGG
from shiftlens.models.loading import wrap
torch.manual_seed(0)
print(wrap(VGG("vgg6", n_classes=3, width=2), size=32).digest)
"""


def test_digest_is_the_same_in_another_process() -> None:
    ran = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.strip() == wrap(net(), size=32).digest


def test_digest_does_not_depend_on_mode_order_or_copies() -> None:
    digest = wrap(net(), size=32).digest
    assert digest.startswith("sha256:")
    assert len(digest) == 71
    assert wrap(net().eval(), size=32).digest == digest
    assert wrap(copy.deepcopy(net()).requires_grad_(False), size=32).digest == digest
    assert wrap(net().to(memory_format=torch.channels_last), size=32).digest == digest


def test_digest_depends_on_weights_structure_and_preprocessing() -> None:
    changed = net()
    with torch.no_grad():
        changed[0][0].weight[0, 0, 0, 0] += 1e-6
    statistics = net()
    statistics[1][1].running_mean[0] += 1
    variants = [
        wrap(net(), size=32),
        wrap(net(seed=1), size=32),
        wrap(changed, size=32),
        wrap(statistics, size=32),
        wrap(net(padding="reflect"), size=32),
        wrap(net(downsample="avg"), size=32),
        wrap(net(), size=33),
        wrap(net(), size=32, mean=0.5),
        wrap(net(), size=32, std=0.5),
        wrap(net().half(), size=None),
    ]
    assert len({model.digest for model in variants}) == len(variants)


def test_digest_sees_training_after_wrapping() -> None:
    model = wrap(net(), size=32)
    before = model.digest
    with torch.no_grad():
        model.module[0][0].bias += 1
    assert model.digest != before


def test_digest_sees_another_forward_but_not_a_comment(tmp_path: Path) -> None:
    source = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x).{reduce}((2, 3)){comment}
    """
    digests = {}
    for name, reduce, comment in (("a", "amax", ""), ("b", "amin", ""), ("c", "amax", "  # the largest")):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source.format(reduce=reduce, comment=comment)))
        digests[name] = load_model(f"{tmp_path}/{name}.py:Net", input_size=8).digest
    assert digests["a"] == digests["c"]
    assert digests["a"] != digests["b"]


# ---- preprocessing


def test_normalise_by_hand() -> None:
    p = Preprocessing((0.5, 0.25, 0.0), (0.5, 1.0, 0.25))
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    assert p.normalise(images).flatten().tolist() == pytest.approx([-1, 0.75, 0.8])
    assert p.normalise(images).dtype == torch.float32
    assert images.flatten().tolist() == [0, 255, 51]
    assert Preprocessing((0.5,), (0.5,)).normalise(images).flatten().tolist() == pytest.approx([-1, 1, -0.6])


def test_what_cannot_be_normalised() -> None:
    with pytest.raises(InputError, match="expected uint8 pictures"):
        Preprocessing().normalise(torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="pictures have 1 channels, mean and std have 3 numbers"):
        Preprocessing((0.1, 0.2, 0.3)).normalise(torch.zeros(1, 1, 2, 2, dtype=torch.uint8))


def test_rule_none_given() -> None:
    model = wrap(net())
    assert model.preprocessing == Preprocessing((0.0,) * 3, (1.0,) * 3, None, None, "bilinear", False)
    assert [note for note in model.notes if "declares no preprocessing" in note]
    assert load_model_size(model) is None


def load_model_size(model: models.Model) -> tuple[int, int] | None:
    return model.preprocessing.size


def test_rule_override_beats_declaration() -> None:
    declared = Preprocessing((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), (224, 224), 256, "bicubic", True)
    assert declared.overridden() is declared
    changed = declared.overridden(mean="0.1", size="112x112")
    assert changed.mean == (0.1,) * 3
    assert changed.std == (0.1, 0.2, 0.3)
    assert (changed.size, changed.resize, changed.interpolation, changed.declared) == ((112, 112), 128, "bicubic", True)
    guessed = Preprocessing().overridden(size=33)
    assert (guessed.size, guessed.resize, guessed.declared) == ((33, 33), None, False)
    assert Preprocessing().overridden(std=0.5).declared
    assert not wrap(net(), mean=0, std=1).notes


@pytest.mark.parametrize(
    ("text", "size"), [("32", (32, 32)), ("32x48", (32, 48)), (7, (7, 7)), ((3, 4), (3, 4)), ([5], (5, 5))]
)
def test_sizes(text: object, size: tuple[int, int]) -> None:
    assert parse_size(text) == size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "x", "32x", "-1", "0", "1.5", "32x32x3", (1, 2, 3), (0, 3), (1.5, 2), 10**9, True]
)
def test_bad_sizes(text: object) -> None:
    with pytest.raises(InputError):
        parse_size(text)  # type: ignore[arg-type]


def test_numbers() -> None:
    assert parse_numbers("mean", "0.1, 0.2,0.3") == (0.1, 0.2, 0.3)
    assert parse_numbers("mean", 0.5) == (0.5,)
    for bad in ("", "a", "0.1,,2", [], [None]):
        with pytest.raises(InputError, match="mean must be one number"):
            parse_numbers("mean", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": 123.7}, "mean must lie from 0 to 1, got 123.7; divide"),
        ({"std": 0}, "std must lie above 0"),
        ({"std": "nan"}, "std must lie"),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2, 0.3)}, "one number each, or one a channel"),
    ],
)
def test_bad_numbers(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrap(net(), **arguments)


# ---- libraries


def test_torchvision_random_is_seeded_and_declares() -> None:
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    model = load_model("torchvision:squeezenet1_1", weights="random", input_size=64)
    assert torch.equal(state, torch.random.get_rng_state())
    again = load_model("torchvision:squeezenet1_1", weights="random", input_size=64)
    assert model.digest == again.digest
    p = model.preprocessing
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (p.size, p.resize, p.interpolation, p.declared) == ((64, 64), 73, "bilinear", True)
    assert (model.n_classes, model.class_names, model.module.training) == (1000, None, False)


def test_torchvision_net_takes_a_file_with_other_classes(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    own = squeezenet1_1(num_classes=7)
    torch.save({"state_dict": own.state_dict()}, tmp_path / "own.pt")
    model = load_model("torchvision:squeezenet1_1", weights=tmp_path / "own.pt", input_size=64)
    assert model.n_classes == 7
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), model.module.parameters(), strict=True))
    assert any("preprocessing is that of its default weights" in note for note in model.notes)


def test_torchvision_default_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", no_network)
    with pytest.raises(
        InputError, match=r"could not be downloaded from https://.*no route to host.*--weights"
    ) as caught:
        load_model("torchvision:squeezenet1_1")
    one_line(caught)


def test_timm_random_declares() -> None:
    pytest.importorskip("timm")
    model = load_model("timm:test_resnet", weights="random", input_size=64)
    p = model.preprocessing
    assert p.declared
    assert (p.mean, p.size) == ((0.5, 0.5, 0.5), (64, 64))
    assert model.native_size == (160, 160)
    assert model.digest == load_model("timm:test_resnet", weights="random", input_size=64).digest


def test_timm_default_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("offline\nand more")

    monkeypatch.setattr("socket.create_connection", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"could not be downloaded \(OSError: offline\)") as caught:
        load_model("timm:test_resnet")
    one_line(caught)


@pytest.mark.parametrize(
    ("spec", "host"),
    [("timm:test_resnet", "huggingface.co"), ("torchvision:squeezenet1_1", "download.pytorch.org")],
)
def test_offline_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], spec: str, host: str
) -> None:
    pytest.importorskip("timm")
    tried = []

    def no_network(address: tuple[str, int], *arguments: object, **options: object) -> None:
        tried.append(address)
        raise OSError(101, "Network is unreachable")

    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.create_connection", no_network)
    begun = time.monotonic()
    with pytest.raises(InputError, match=rf"no connection to {host}: Network is unreachable") as caught:
        load_model(spec)
    one_line(caught)
    assert time.monotonic() - begun < 10
    assert tried == [(host, 443)]
    assert capfd.readouterr().err == ""


def test_timm_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install 'shiftlens\[models\]'"):
        load_model("timm:resnet18", weights="random")


# ---- run directories, shipped weights, unknown specs


def test_run_directory_by_path_and_as_shipped_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = net()
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": module.config}
    declared = Preprocessing((0.5,) * 3, (0.25,) * 3, (32, 32), None, "bilinear", True)
    save_run(tmp_path / "digits-vgg6", module, build=build, preprocessing=declared, training={"flip": False})
    model = load_model(str(tmp_path / "digits-vgg6"), device="cpu")
    assert (model.name, model.n_classes, model.training) == (str(tmp_path / "digits-vgg6"), 3, {"flip": False})
    assert load_model(tmp_path / "digits-vgg6", std=0.5).preprocessing.std == (0.5,) * 3
    with pytest.raises(InputError, match=r"unknown pretrained weights 'digits-vgg6'.*vgg-cifar10"):
        load_model("pretrained:digits-vgg6")
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "empty")
    with pytest.raises(InputError, match="no weights are shipped with this version"):
        load_model("pretrained:digits-vgg6")
    monkeypatch.setattr(models, "SHIPPED", tmp_path)
    assert load_model("pretrained:digits-vgg6").digest == model.digest
    with pytest.raises(InputError, match="did you mean 'digits-vgg6'"):
        load_model("pretrained:digit-vgg6")
    with pytest.raises(InputError, match="holds its own weights"):
        load_model(tmp_path / "digits-vgg6", weights="random")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet81", "unknown torchvision model 'resnet81'; did you mean 'resnet18'"),
        ("torchvision:raft_small", "unknown torchvision model"),
        ("torchvison:resnet18", "did you mean 'torchvision'"),
        ("timm:resnt18", "did you mean 'resnet18'"),
        ("timm:hf-hub:a/b", "unknown timm model"),
        ("runs/none", "does not exist and is no spec; expected a run directory"),
        ("", "is no spec"),
        ("net.py", "needs a factory: net.py:NAME"),
        ("some/path:make", "neither a .py file nor a module name"),
    ],
)
def test_unknown_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(spec, weights="random")
    one_line(caught)


def test_weights_given_as_the_model(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"w\.pt is a file; name what builds the net"):
        load_model(tmp_path / "w.pt")


def test_unknown_device() -> None:
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        load_model("torchvision:resnet18", weights="random", device="gpu")


def test_a_look_at_a_net_leaves_what_its_first_call_sets_to_the_first_image() -> None:
    class ScaledByItsFirstBatch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 4)
            self.scale: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.scale is None:
                self.scale = x.std() + 1
            return self.last(x.mean((2, 3)) / self.scale)

    net = ScaledByItsFirstBatch().eval()
    model = wrap(net, mean=0.5, std=0.5, size=8)
    assert (model.n_classes, model.n_channels) == (4, 3)
    assert net.scale is None


# ---- a model is used like its module


def test_a_model_is_called_indexed_and_iterated_like_its_module() -> None:
    module = VGG("vgg6", width=2, n_classes=3).eval()
    model = wrap(module, mean=0.5, std=0.25, size=32)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), module(x))
    assert model[0][3] is module[0][3]
    assert isinstance(model[:2], nn.Sequential)
    assert len(model) == len(module) == 4
    assert [*model] == [*module]
    module.train()
    assert model(x).requires_grad  # in the module's own mode


def test_a_model_without_a_length_raises_what_its_module_does() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    model = wrap(Net(), mean=0, std=1)
    assert model
    for use in (lambda it: it[0], len, iter):
        with pytest.raises(TypeError) as theirs:
            use(model.module)
        with pytest.raises(TypeError) as ours:
            use(model)
        assert str(ours.value) == str(theirs.value)


def test_a_model_is_no_module() -> None:
    with pytest.raises(InputError, match=r"expected an nn\.Module or a callable, got Model"):
        wrap(wrap(net()))  # type: ignore[arg-type]


def test_a_model_shows_itself_in_a_notebook() -> None:
    names = ["<b>cat</b>", "dog", "emu"]
    model = wrap(VGG("vgg6", width=2, n_classes=3), mean=0.5, std=0.25, size=32, class_names=names, name="<script>")
    shown = model._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    for text in ("&lt;script&gt;", "<th>network</th><td>VGG</td>", "32x32", "3 (&lt;b&gt;cat&lt;/b&gt;, dog, emu"):
        assert text in shown
    assert len(repr(model)) < 100
    assert "\n" not in repr(model)


@pytest.mark.parametrize(
    ("name", "mean"),
    [("lraspp_mobilenet_v3_large", (0.485, 0.456, 0.406)), ("ssdlite320_mobilenet_v3_large", (0.0, 0.0, 0.0))],
)
def test_segmenters_and_detectors_of_torchvision_have_a_name(name: str, mean: tuple[float, ...]) -> None:
    model = load_model(f"torchvision:{name}", weights="random")
    assert model.preprocessing.mean == mean
    assert inspect_net(f"torchvision:{name}", size=64).layers
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        load_model(f"torchvision:{name}r", weights="random")
