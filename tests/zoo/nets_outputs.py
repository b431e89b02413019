"""What comes out, and what nets are wrapped in."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from harness import N_CLASSES, Small, equal, refused
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Output = namedtuple("Output", ["scores", "features"])


@dataclass
class Classified:
    logits: Tensor
    loss: Tensor | None = None


@dataclass
class Unnamed:
    values: Tensor


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As the hub's nets return it: a mapping with attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Returns(Small):
    """Gives its scores in some wrapping."""

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x).relu().mean((2, 3))
        return self.give(self.head(features), features)

    def give(self, scores: Tensor, features: Tensor) -> Any:
        raise NotImplementedError


@equal(fast=True)
class ReturnsDict(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return {"features": features, "logits": scores}


@equal()
class ReturnsDictFirst(Returns):
    """No `logits`: the first tensor counts."""

    def give(self, scores: Tensor, features: Tensor) -> Any:
        return {"step": 3, "out": scores, "aux": features}


@equal()
class ReturnsTuple(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores, features


@equal()
class ReturnsList(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return [None, scores, features]


@equal()
class ReturnsNamedTuple(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return Output(scores, features)


@equal()
class ReturnsDataclass(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return Classified(scores)


@equal()
class ReturnsModelOutput(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return ModelOutput(hidden=features, logits=scores)


@equal()
class ReturnsProbabilities(Returns):
    """Logarithms of probabilities are logits too."""

    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores.log_softmax(1)


@equal()
class ReturnsDouble(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores.double()


@equal()
class ReturnsTransposedView(Returns):
    """Scores that are a view with odd strides."""

    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores.T.contiguous().T


@equal()
class ReturnsMoreThanItHas(Returns):
    """Scores of all classes and of pairs of them, cut to what counts."""

    def give(self, scores: Tensor, features: Tensor) -> Any:
        return torch.cat([scores, scores * features[:, :4]], 1)[:, :N_CLASSES]


@refused("without one")
class ReturnsUnnamed(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return Unnamed(scores)


@refused("without one")
class ReturnsNumpy(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores.numpy()


@refused("at least 2 classes")
class ReturnsOneNumber(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores[:, :1]


@refused("[n, classes]")
class ReturnsMaps(Small):
    """A segmentation net."""

    def forward(self, x: Tensor) -> Any:
        return self.conv(x)


@refused("floating-point")
class ReturnsLabels(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return nn.functional.one_hot(scores.argmax(1), N_CLASSES)


@refused("rows of scores")
class ReturnsMeanOfBatch(Returns):
    def give(self, scores: Tensor, features: Tensor) -> Any:
        return scores.mean(0, keepdim=True)


class Divides(Small):
    """Divides by the contrast of each image: an empty one has none."""

    def forward(self, x: Tensor) -> Any:
        x = x - x.amin((1, 2, 3), keepdim=True)
        return super().forward(x / x.amax((1, 2, 3), keepdim=True))


@refused("not finite", views=("black",))
def nan_where_blank() -> nn.Module:
    return Divides()


@equal(views=("ordinary",))
def nan_where_blank_but_none_is() -> nn.Module:
    return Divides()


@refused("not finite")
class InfiniteSometimes(Small):
    """A logarithm of what may be zero, with the sign lost."""

    def middle(self, x: Tensor) -> Tensor:
        return (x.relu().amin((2, 3)) * 0).log()


@refused("NaN or infinite")
def nan_in_weights() -> nn.Module:
    net = Small()
    net.conv.weight.data[0, 0, 0, 0] = torch.nan
    return net


@refused("cannot be copied")
class HoldsComputedTensor(Small):
    """Keeps a tensor that belongs to a gradient, which cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = self.head.weight * 2


@equal()
def plain_function() -> Callable[[Tensor], Tensor]:
    """A function over a net: no module is seen."""
    net = Small().eval()
    return lambda x: net(x.flip(3)) + net(x)


@equal()
def partial_function() -> Callable[[Tensor], Tensor]:
    def scores(x: Tensor, net: nn.Module, scale: float) -> Tensor:
        return net(x) * scale

    return partial(scores, net=Small().eval(), scale=1.5)


class _Predictor:
    """A class of one's own around a net."""

    def __init__(self) -> None:
        self.net = Small().eval()

    def __call__(self, x: Tensor) -> Any:
        return {"logits": self.net(x)}


@equal()
def callable_object() -> Callable[[Tensor], Any]:
    return _Predictor()


@equal()
def bound_method() -> Callable[[Tensor], Any]:
    return Small().eval().forward


@equal(shares=True)
def compiled_wrapper() -> Any:
    """Looked through: nothing is compiled."""
    return torch.compile(Small())


@equal(shares=True)
def data_parallel() -> nn.Module:
    return nn.DataParallel(Small())


@equal()
class DataParallelInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.DataParallel(Small())

    def forward(self, x: Tensor) -> Any:
        return self.net(x * 1.2)


@equal()
class Checkpointed(Small):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(6, 6, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return checkpoint(self.second, x, use_reentrant=False).relu().mean((2, 3))


@equal()
class KeywordsWithDefaults(Small):
    """Arguments that are no tensors."""

    def forward(self, x: Tensor, *, temperature: float = 0.5, mode: str = "mean", mask: Tensor | None = None) -> Any:
        x = self.conv(x).relu()
        x = x.mean((2, 3)) if mode == "mean" else x.amax((2, 3))
        return self.head(x if mask is None else x * mask) / temperature


@equal()
class StarArguments(Small):
    def forward(self, *inputs: Tensor, **options: Any) -> Any:
        return super().forward(inputs[0]) * options.get("scale", 2.0)


@equal()
class Ensemble(nn.Module):
    """The mean of three nets' probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Small() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x).softmax(1) for net in self.nets]).mean(0).log()


@equal()
class TestTimeFlips(Small):
    """Averages over mirrored copies, which it puts behind each other in the batch."""

    __test__ = False

    def forward(self, x: Tensor) -> Any:
        a, b = super().forward(torch.cat([x, x.flip(3)])).chunk(2)
        return (a + b) / 2
