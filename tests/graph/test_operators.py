"""The operator table: each entry computes what torch does, and only torch's own functions are taken for torch's."""

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shiftlens.engine.shared.tracing import trace
from shiftlens.graph.operators import OPERATORS, kind_of, operator_of_call, operator_of_layer

SHARED_LAYERS = [
    (entry.name, layer)
    for entry in OPERATORS.values()
    if entry.share is not None
    for layer in entry.layers
    if layer.__module__.startswith("torch.")
]
ARGUMENTS = {
    "conv2d": (2, 2, 3),
    "max_pool2d": (2,),
    "avg_pool2d": (2,),
    "adaptive_avg_pool2d": (1,),
    "adaptive_max_pool2d": (1,),
    "batch_norm": (2,),
    "ConstantPad2d": (1, 0.5),
    "pad": (1,),
}
POINTWISE = [name for name, entry in OPERATORS.items() if entry.kind == "activation" and entry.share is not None]


class Net(nn.Module):
    """A convolution, something in the middle, and a head that reads the convolution's map too."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.middle = middle
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(("name", "layer"), SHARED_LAYERS, ids=lambda value: getattr(value, "__name__", value))
def test_a_listed_layer_is_shared_and_known_by_its_class(name: str, layer: type[nn.Module]) -> None:
    arguments = ARGUMENTS.get(layer.__name__, ARGUMENTS.get(name, ()))
    made = layer(*arguments).eval()
    assert operator_of_layer(made, exact=True) is OPERATORS[name]
    found = trace(Net(made).eval(), (1, 8, 8))
    assert "middle" in [step.name for step in found.steps], found.refused


def test_a_subclass_has_the_kind_of_its_class_but_is_not_taken_for_it() -> None:
    class Mine(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return super().forward(input) + 1

    made = Mine(1, 1, 3)
    assert kind_of(made) == "conv"
    assert operator_of_layer(made, exact=True) is None


@pytest.mark.parametrize("name", POINTWISE)
def test_an_activation_is_the_same_as_layer_function_and_method(name: str) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    given = {"min": -0.5} if name == "clamp" else {}
    function = getattr(F, name, None) or getattr(torch, name)
    ways: list[Callable[[Tensor], Tensor]] = [lambda x: function(x, **given)]
    if hasattr(torch.Tensor, name):
        ways.append(lambda x: getattr(x, name)(**given))
    ways += [kind() for kind in OPERATORS[name].layers]
    for way in ways:
        found = trace(Net(way).double().eval(), (1, 8, 8))
        step = found.steps[1]
        assert torch.equal(step.operation.function(x), function(x, **given))  # type: ignore[union-attr]


def in_place_by_place(x: Tensor) -> Tensor:
    return F.relu(x, True)


def in_place_by_name(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.3, inplace=True)


def in_place_function(x: Tensor) -> Tensor:
    return torch.relu_(x)


def in_place_builtin(x: Tensor) -> Tensor:
    return F.elu_(x)


def in_place_method(x: Tensor) -> Tensor:
    return x.sigmoid_()


def in_place_operator(x: Tensor) -> Tensor:
    x /= 2.0
    return x


IN_PLACE = [
    in_place_by_place,
    in_place_by_name,
    in_place_function,
    in_place_builtin,
    in_place_method,
    in_place_operator,
]


@pytest.mark.parametrize("middle", IN_PLACE)
def test_work_in_place_leaves_the_cells_as_they_were(middle: Callable[[Tensor], Tensor]) -> None:
    step = trace(Net(middle).eval(), (1, 8, 8)).steps[1]
    x = torch.randn(1, 2, 4, 4)
    before = x.clone()
    made = step.operation.function(x)  # type: ignore[union-attr]
    assert torch.equal(x, before)
    assert torch.equal(made, middle(before.clone()))


@pytest.mark.parametrize("middle", IN_PLACE)
def test_work_in_place_on_what_others_read_is_refused(middle: Callable[[Tensor], Tensor]) -> None:
    def both(x: Tensor) -> Tensor:
        y = middle(x)
        return y + x.exp()

    found = trace(Net(both).eval(), (1, 8, 8))
    assert [step.name for step in found.steps] == ["conv"]
    assert "in place" in found.refused


@pytest.mark.parametrize("middle", IN_PLACE)
def test_a_traced_net_sees_work_in_place_under_another_name(middle: Callable[[Tensor], Tensor]) -> None:
    def aliased(x: Tensor) -> Tensor:
        before = x
        return middle(x) + before

    net = Net(aliased).eval()
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(trace(net, (1, 8, 8)).module(x), net(x))


def test_a_function_of_that_name_that_is_not_torchs_is_unknown() -> None:
    def relu(x: Tensor) -> Tensor:
        return x + 1

    assert operator_of_call(F.relu) is operator_of_call(torch.relu) is operator_of_call("relu_") is OPERATORS["relu"]
    assert operator_of_call(operator.iadd) is OPERATORS["add"]
    assert operator_of_call(relu) is None
    assert operator_of_call(operator.concat) is None
