"""Real nets with random weights: every site is seen, and without borders an empty picture is flat everywhere."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from shiftlens.arithmetic import graph_of
from shiftlens.lens.capture import maps_of
from shiftlens.lens.feature_maps import features
from shiftlens.lens.repadding import Repadded

NETS = [
    ("resnet18", (64, 70)),
    pytest.param("vgg16_bn", (64, 64), marks=pytest.mark.slow),
    ("mobilenet_v3_small", (65, 64)),
    pytest.param("densenet121", (64, 96), marks=pytest.mark.slow),
    pytest.param("googlenet", (75, 64), marks=pytest.mark.slow),
    pytest.param("efficientnet_b0", (64, 65), marks=pytest.mark.slow),
    ("convnext_tiny", (64, 72)),
    pytest.param("timm:resnetblur18", (64, 65), marks=pytest.mark.slow),
    pytest.param("timm:tf_mobilenetv3_small_minimal_100", (64, 65), marks=pytest.mark.slow),
]


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm:"):
        import timm

        return timm.create_model(name.removeprefix("timm:")).eval()  # type: ignore[no-any-return]
    import torchvision.models as zoo

    options = {"init_weights": False} if name == "googlenet" else {}
    return zoo.get_model(name, weights=None, **options).eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "size"), NETS)
def test_an_empty_picture_without_borders_is_flat_at_every_site(name: str, size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = made(name)
    for parameter in net.parameters():
        if parameter.ndim == 1:  # untrained biases are 0: nothing at all would come of an empty picture
            parameter.data += 0.1 * torch.randn_like(parameter)
    graph = graph_of(net, size)
    x = torch.zeros(1, 3, *size)
    with Repadded(net, "circular"):
        flat = maps_of(net, graph, x)
    real = maps_of(net, graph, x)
    convs = {p for p, part in net.named_modules() if isinstance(part, nn.Conv2d) and not p.startswith("aux")}
    assert convs <= {site.path for site in graph}
    n_marked = 0
    for site in graph:
        if max(site.out_size) == 1:
            continue
        assert tuple(real[site.name].shape[1:]) == (site.out_channels, *site.out_size), site.name
        values = flat[site.name][0]
        spread = float((values.amax((1, 2)) - values.amin((1, 2))).max())
        assert spread <= 1e-4 * max(float(values.abs().max()), 1e-6), site.name
        n_marked += not torch.allclose(real[site.name][0], values, rtol=1e-3, atol=1e-6)
    assert n_marked > 0
    run = features(net, size=size)
    assert run.start is not None
    assert not run.notes
    assert np.isfinite([layer.maps.sum() for layer in run]).all()
