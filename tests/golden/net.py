"""A small net with uneven layers whose head is fitted in closed form: good enough to be worth auditing."""

import numpy as np
import torch
from torch import nn

import shiftlens as sl


def ridge() -> nn.Module:
    """Random convolutions, and a linear head by ridge regression on the training part of `digits`."""
    torch.manual_seed(3)
    body = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    )
    images = sl.load_images("digits", split="train")
    pixels = torch.tensor(images.batch(np.arange(len(images)))).float() / 255
    with torch.no_grad():
        maps = body(pixels).double()
        wanted = nn.functional.one_hot(torch.tensor(images.labels), 10).double()
        gram = maps.T @ maps + 0.1 * torch.eye(maps.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(gram, maps.T @ wanted) * 10
    head = nn.Linear(maps.shape[1], 10)
    with torch.no_grad():
        head.weight.copy_(weights.T)
        head.bias.zero_()
    return nn.Sequential(body, head).eval()


def mirrored() -> nn.Module:
    """The same with mirror padding."""
    net = ridge()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = "reflect"
            layer._reversed_padding_repeated_twice = [1, 1, 1, 1]
    return net
