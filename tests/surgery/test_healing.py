"""Batch norm measured again, fine-tuning, and input sizes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from shiftlens.arithmetic import inspect
from shiftlens.data.images import ImageSet
from shiftlens.errors import InputError, NoEffectWarning
from shiftlens.models.loading import Model, wrap
from shiftlens.nn import VGG
from shiftlens.nn.convolution import PaddedLayer2d
from shiftlens.surgery import FineTuning, even_size, finetune, reestimate, repair, with_input_size
from shiftlens.surgery.finetuning import batch_for
from shiftlens.training.data import epoch_plan
from shiftlens.training.recipe import Recipe


def bars(n: int = 60, size: int = 16) -> ImageSet:
    """Bright bars, upright or lying, anywhere: two classes that a net learns in a few steps."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 60, (n, 3, size, size), dtype=np.uint8)
    labels = np.arange(n) % 2
    for picture, label in zip(pictures, labels, strict=True):
        at = rng.integers(2, size - 2)
        picture[:, at if label else slice(None), slice(None) if label else at] = 250
    return ImageSet(pictures, labels, class_names=["upright", "lying"])


def model(**how: object) -> Model:
    torch.manual_seed(0)
    net = VGG(**{"arch": "vgg6", "n_classes": 2, "width": 4, "size": 16, **how})
    return replace(wrap(net, mean=0.3, std=0.2, size=16), class_names=("upright", "lying"))


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)]


def test_batch_norm_is_measured_as_it_is_defined() -> None:
    images, before = bars(), model(padding="reflect")
    parts = norms(before.module)
    parts[0].momentum = 0.3
    before.module.train()
    parts[1].eval()
    old = copy.deepcopy(before.module.state_dict())
    healed, facts = reestimate(before, images)
    assert facts.n_images == 60
    assert facts.kind == "batch norm"
    # One batch holds all: the statistics of the first norm are those of its input over all pictures.
    x = before.preprocessing.normalise(torch.from_numpy(images.batch(slice(None))))
    seen = before.module[0][0](x).detach()
    torch.testing.assert_close(norms(healed.module)[0].running_mean, seen.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norms(healed.module)[0].running_var, seen.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    # Batch norm in training mode over the same batch is what evaluation mode now gives.
    twin = copy.deepcopy(healed.module).train()
    torch.testing.assert_close(healed.module.eval()(x), twin(x), atol=2e-2, rtol=2e-2)
    assert all(torch.equal(old[name], value) for name, value in before.module.state_dict().items())
    new = healed.module.state_dict()
    assert all(torch.equal(old[name], new[name]) for name in old if "running" not in name and "tracked" not in name)
    assert norms(healed.module)[0].momentum == 0.3


def test_flags_stay_and_progress_is_told() -> None:
    before = model()
    before.module.train()
    norms(before.module)[1].eval()
    told: list[tuple[int, int]] = []
    healed, _ = reestimate(before, bars(), progress=lambda done, total: told.append((done, total)))
    assert [part.training for part in healed.module.modules()] == [part.training for part in before.module.modules()]
    assert told[-1] == (60, 60)


def test_a_net_without_batch_norm_says_so() -> None:
    plain = wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), mean=0.5, std=0.5, size=16)
    with pytest.warns(NoEffectWarning, match="no batch norm"):
        _, facts = reestimate(plain, bars())
    assert facts.n_images == 0
    with pytest.raises(InputError, match="at least 2 images"):
        reestimate(model(), bars(1))


def accuracy(found: Model, images: ImageSet) -> float:
    x = found.preprocessing.normalise(torch.from_numpy(images.batch(slice(None))))
    return float((found.scores(x).argmax(1).numpy() == images.labels).mean())


def test_fine_tuning_learns_and_repeats() -> None:
    images, before = bars(), model()
    fixed, _ = repair(before, padding="circular")
    settings = FineTuning(epochs=8, lr=0.05, batch=20, dtype="float32")
    told: list[tuple[int, int]] = []
    healed, facts = finetune(fixed, images, settings, seed=3, progress=lambda done, total: told.append((done, total)))
    assert accuracy(fixed, images) < 0.8
    assert accuracy(healed, images) > 0.95
    assert facts.losses[-1] < 0.5 * facts.losses[0]
    assert len(facts.losses) == 8
    assert facts.settings["shift"] == 2
    assert told[-1] == (24, 24)
    assert not any(part.training for part in healed.module.modules())
    again, _ = finetune(fixed, images, settings, seed=3)
    assert again.digest == healed.digest
    other, _ = finetune(fixed, images, settings, seed=4)
    assert other.digest != healed.digest
    assert healed.module[0][0].padding_mode == "circular"
    assert wrap(fixed.module, mean=0, std=1).module is fixed.module


def test_two_steps_by_hand() -> None:
    images = bars()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = wrap(net, mean=0.3, std=0.2, size=16)
    settings = FineTuning(lr=0.5, momentum=0.0, weight_decay=0.1, batch=30, shift=0, flip="none", dtype="float32")
    healed, facts = finetune(before, images, settings, seed=5)
    order = epoch_plan(60, 5, 0, Recipe(crop=0), "none").order
    x = before.preprocessing.normalise(torch.from_numpy(images.batch(slice(None))))
    y = torch.from_numpy(np.array(images.labels))
    weight, bias = net[0].weight.detach().clone(), net[0].bias.detach().clone()
    losses = []
    for k, rate in ((0, 0.5), (1, 0.25)):
        chosen = order[30 * k : 30 * (k + 1)]
        w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        scores = nn.functional.conv2d(x[chosen], w, b).mean((2, 3))
        loss = nn.functional.cross_entropy(scores, y[chosen])
        losses.append(float(loss.detach()))
        of_weight, of_bias = torch.autograd.grad(loss, (w, b))
        weight, bias = weight - rate * (of_weight + 0.1 * weight), bias - rate * of_bias
    torch.testing.assert_close(healed.module[0].weight.detach(), weight)
    torch.testing.assert_close(healed.module[0].bias.detach(), bias)
    assert facts.losses == pytest.approx([np.mean(losses)])


def test_what_must_not_be_trained_stays() -> None:
    before = model()
    before.module[0][0].weight.requires_grad = False
    frozen = before.module[0][0].weight.clone()
    rate = FineTuning(lr=1e-3, batch=30, dtype="float32")
    healed, _ = finetune(before, bars(), rate)
    assert torch.equal(healed.module[0][0].weight, frozen)
    assert not torch.equal(healed.module[0][3].weight, before.module[0][3].weight)
    for parameter in before.module.parameters():
        parameter.requires_grad = False
    with pytest.raises(InputError, match="no parameter that may be trained"):
        finetune(before, bars())


def test_augmentation_is_that_of_the_model_s_own_training() -> None:
    told = {
        "augmentation": {"shift": 1, "mirror": "random"},
        "asked": {"settings": {"recipe": {"label_smoothing": 0.1}}},
    }
    _, facts = finetune(replace(model(), training=told), bars(), FineTuning(batch=60, dtype="float32"))
    assert {key: facts.settings[key] for key in ("shift", "flip", "label_smoothing")} == {
        "shift": 1,
        "flip": "random",
        "label_smoothing": 0.1,
    }
    _, facts = finetune(model(), bars(), FineTuning(batch=60, shift=0, flip="none", dtype="float32"))
    assert (facts.settings["shift"], facts.settings["flip"], facts.settings["label_smoothing"]) == (0, "none", 0.0)


@pytest.mark.parametrize(("n", "batch", "seen"), [(60, 16, 48), (360, 18, 360), (7, 7, 7)])
def test_a_small_set_gets_enough_steps_and_is_not_mirrored_unasked(n: int, batch: int, seen: int) -> None:
    tiny = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    _, facts = finetune(wrap(tiny, mean=0.3, std=0.2, size=16), bars(n), FineTuning(epochs=2, dtype="float32"))
    assert (facts.settings["batch"], facts.n_images, facts.steps) == (batch, seen, 2 * (seen // batch))
    assert facts.settings["flip"] == "none"
    epochs = f"2 epochs of {seen // batch} step{'s' * (seen > batch)}"
    assert f"{seen} images of images, {epochs}, no mirror images, loss" in str(facts)
    assert "0.100 -> 0.200 (it rose" in str(replace(facts, losses=(0.1, 0.2)))
    assert "it rose" not in str(replace(facts, losses=(0.2, 0.1)))


@pytest.mark.parametrize(("n", "batch"), [(3_000, 150), (5_000, 250), (50_000, 250)])
def test_a_large_set_keeps_its_batch(n: int, batch: int) -> None:
    assert batch_for(n) == batch


def test_every_padding_and_down_sampling_can_be_fine_tuned() -> None:
    for how in ({"padding": "random"}, {"padding": "distribution", "downsample": "polyphase"}, {"downsample": "blur"}):
        fixed, _ = repair(model(), **how)  # type: ignore[call-overload]
        healed, facts = finetune(fixed, bars(), FineTuning(batch=30, dtype="bfloat16"))
        assert np.isfinite(facts.losses).all()
        assert healed.digest != fixed.digest


def other_classes() -> ImageSet:
    images = bars()
    return ImageSet(images.batch(slice(None)), images.labels, class_names=["lying", "upright"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finetune(model(), other_classes()), r"class 0 is 'lying' in .* and 'upright' in VGG"),
        (lambda: finetune(model(n_classes=3), bars()), "has 2 class names|3"),
        (lambda: finetune(replace(model(n_classes=3), class_names=None), bars()), "2 classes, VGG has 3: not the same"),
        (
            lambda: finetune(model(), bars(), FineTuning(lr=1e9, batch=20, epochs=3, flip="random")),
            "diverged at epoch .*lower lr",
        ),
        (lambda: finetune(model(), bars(), seed=-1), "seed must be at least 0"),
        (lambda: finetune(model(), bars(), FineTuning(shift=1000)), "below the pictures' .* px, got 1000"),
        (lambda: FineTuning(epochs=0), "epochs must be at least 1"),
        (lambda: FineTuning(lr=float("nan")), "lr must be above 0"),
        (lambda: FineTuning(dtype="float16"), "unknown dtype"),
        (lambda: finetune(model(), bars(), FineTuning(flip="sometimes")), "unknown flip"),
        (lambda: finetune(model(), bars(), FineTuning(shift=-1)), "shift must be at least 0 pixels, got -1"),
        (lambda: finetune(wrap(lambda x: x.mean((2, 3)), size=16, mean=0.5), bars()), "plain callable"),
    ],
)
def test_bad_use_is_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def check_evened(net: nn.Module, size: tuple[int, int], even: tuple[int, int]) -> None:
    before = wrap(net.eval(), mean=0.5, std=0.2, size=size)
    assert inspect(net, size).uneven
    assert even_size(net, size) == even
    resized, edits = with_input_size(before)
    assert resized.input_size == even
    assert inspect(resized.module, even).is_even  # type: ignore[arg-type]
    assert edits[0].to_dict() == {"path": "", "what": "input size", "before": [*size], "after": [*even]}
    assert with_input_size(resized) == (resized, [])


@pytest.mark.parametrize(
    ("downsample", "size", "even"),
    [("stride", (32, 40), (33, 41)), ("max3", (32, 32), (33, 33)), ("max", (33, 32), (32, 32))],
)
def test_no_uneven_layer_is_left_after_an_input_size_repair(
    downsample: str, size: tuple[int, int], even: tuple[int, int]
) -> None:
    check_evened(VGG("vgg6", width=2, downsample=downsample), size, even)


@pytest.mark.slow
def test_nor_in_a_residual_net() -> None:
    import torchvision.models as zoo

    check_evened(zoo.resnet18(), (224, 64), (225, 65))


def test_padding_the_picture_instead() -> None:
    net = VGG("vgg6", width=2, downsample="stride").eval()
    seen: list[object] = []
    net.register_forward_hook(lambda *_: seen.append(1))
    before = wrap(net, mean=0.5, std=0.2, size=32)
    padded, edits = with_input_size(before, pad="replicate")
    assert isinstance(padded.module, PaddedLayer2d)
    assert padded.input_size == (32, 32)
    assert edits[0].options == {"sides": [0, 1, 0, 1]}
    assert net._forward_hooks  # the original is as it was
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(padded.module(x), net(nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")))
    same, edits = with_input_size(before, (40, 33), pad="zeros")
    assert edits[0].options == {"sides": [0, 1, 4, 4]}
    assert same.module(x).shape == (2, 10)
    assert even_size(VGG("vgg6", width=2), (33, 33), at_least=True) == (40, 40)
    with pytest.raises(InputError, match="cannot be padded to 16x33"):
        with_input_size(before, (16, 33), pad="zeros")


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(InputError, match="declares no input size"):
        with_input_size(wrap(VGG("vgg6", width=2), mean=0.5))
    tied = wrap(VGG("vgg6", width=2, downsample="stride", head="flatten"), mean=0.5, size=32)
    with pytest.raises(InputError):
        with_input_size(tied, (48, 48))
