"""Forty kinds of edits to a model between the start of a sweep and its resume, forty caught; and what is no edit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from shiftlens.data.imageset import ImageSet
from shiftlens.errors import StoreError
from shiftlens.models import factories
from shiftlens.models.behaviour import Behaviour, behaviour_of, pictures
from shiftlens.models.digests import model_digest, state_digest, structure
from shiftlens.models.loading import Model, load_model, wrap
from shiftlens.models.own_code import own_parts
from shiftlens.nn import VGG
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import sweep
from shiftlens.sweeps import request
from shiftlens.sweeps.sweep_result import open_sweep

HELPERS = '''
"""Helpers."""
GAIN = 2.0

def squash(x):
    """What is done to everything."""
    return inner(x) * GAIN  # a gain

def inner(x):
    return x.clamp(-3, 3)

class Scaled:
    FACTOR = 1.5
    def lift(self, x):
        return x * self.FACTOR
'''

NET = '''
"""A net that uses whatever a net may use."""
import dataclasses
import enum
import functools
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edited_helpers as helpers
from edited_helpers import Scaled, squash

HERE = Path(__file__).resolve().parent
FOLDER = os.path.dirname(os.path.abspath(__file__))
EPSILON = 0.01
TABLE = {"b": [1, 2], "a": {3.5, 1.25}}
WINDOW = np.hanning(8) + 0.5
CACHE = {}
CALLS = 0

Stage = namedtuple("Stage", "width gain")

class Mode(enum.Enum):
    SOFT = 0.5
    HARD = 2.0

@dataclasses.dataclass
class Config:
    width: int = 3
    gain: float = 1.0

def act(x, slope=0.1):
    return torch.where(x > 0, x, slope * x)

def twice(function):
    @functools.wraps(function)
    def wrapped(x):
        return function(function(x))
    return wrapped

@twice
def soften(x):
    return x * 0.9

def biased(by):
    return lambda x: x + by

class Mixin:
    def mix(self, x):
        return x + EPSILON

class Base(Mixin, nn.Module):
    power = 1.0
    def finish(self, x):
        return self.head(x) * self.power

class Meter:
    def __init__(self):
        self.limit = 4.0
        self.seen = 0
    def cut(self, x):
        self.seen += 1
        return x.clamp(max=self.limit)

class Net(Base, Scaled):
    classes = 3
    def __init__(self, mask, **given):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.head = nn.Linear(4, self.classes)
        self.last = None
        self.history = []
        self.home = str(HERE / "data.pt")
        self.register_buffer("mask", mask, persistent=False)
        for name, value in given.items():
            setattr(self, name, value)
    @property
    def gain(self):
        return self.config.gain
    def forward(self, x):
        global CALLS
        CALLS += 1
        x = self.conv(x) * float(self.root) + self.offset
        x = self.act(self.inner(x)) + self.bias(x) + self.lifted(x)
        self.last = x
        self.history.append(float(x.mean()))
        x = soften(self.lift(squash(x))) * helpers.GAIN * self.options["slope"] * self.gain
        x = (x * self.mask[:, None, None]).mean((2, 3)) * self.mode.value * self.stage.gain * self.steps[1]
        x = x * float(self.kernel[1]) * WINDOW[1] * TABLE["b"][0] + sum(TABLE["a"])
        return self.finish(self.meter.cut(self.mix(x)))

def watch(module, inputs, output):
    module.sight = output
    CACHE["last"] = output
    return output * 1.0625

def make():
    torch.manual_seed(0)
    net = Net(
        torch.tensor([1.0, 0.5, 0.25, 1.0]),
        offset=torch.tensor([0.5]),
        root=np.float32(1.25),
        kernel=np.array([1.0, 2.0]),
        config=Config(gain=1.5),
        stage=Stage(4, 0.5),
        options={"slope": 0.2, "name": "a"},
        steps=[1, 2, 3],
        mode=Mode.SOFT,
        act=act,
        bias=biased(0.25),
        lifted=functools.partial(act, slope=0.3),
        meter=Meter(),
    )
    net.conv.register_forward_hook(watch)
    net.conv.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.125,))
    return net.eval()
'''

IN_NET = {
    "forward": ("float(self.root) + self", "float(self.root) - self"),
    "a method that forward calls": ("self.head(x) * self.power", "self.head(x) / self.power"),
    "a base class's method": ("return self.head(x)", "return -self.head(x)"),
    "a mixin's method": ("return x + EPSILON", "return x - EPSILON"),
    "a mixin less": ("class Net(Base, Scaled):", "class Net(Base):\n    def lift(self, x): return x\n"),
    "a module constant": ("EPSILON = 0.01", "EPSILON = 0.02"),
    "a constant of lists": ('"b": [1, 2]', '"b": [5, 2]'),
    "a constant set": ("{3.5, 1.25}", "{3.5, 1.5}"),
    "a constant array": ("np.hanning(8) + 0.5", "np.hamming(8) + 0.5"),
    "a function that is called": ("torch.where(x > 0", "torch.where(x > 1"),
    "a function's default": ("slope=0.1):", "slope=0.15):"),
    "a decorator": ("function(function(x))", "function(x)"),
    "a decorated function": ("return x * 0.9", "return x * 0.8"),
    "a class attribute": ("power = 1.0", "power = 1.5"),
    "a plain tensor": ("torch.tensor([0.5])", "torch.tensor([0.75])"),
    "a NumPy number": ("np.float32(1.25)", "np.float32(1.5)"),
    "a NumPy array": ("np.array([1.0, 2.0])", "np.array([1.0, 4.0])"),
    "a buffer that is not saved": ("0.25, 1.0])", "0.75, 1.0])"),
    "a dataclass setting": ("Config(gain=1.5)", "Config(gain=1.25)"),
    "a dataclass's default": ("width: int = 3", "width: int = 4"),
    "a named tuple": ("Stage(4, 0.5)", "Stage(4, 0.25)"),
    "a dictionary setting": ('"slope": 0.2', '"slope": 0.4'),
    "a list setting": ("[1, 2, 3]", "[1, 3, 3]"),
    "an enumeration's member": ("mode=Mode.SOFT", "mode=Mode.HARD"),
    "an enumeration's value": ("SOFT = 0.5", "SOFT = 0.25"),
    "a closure": ("biased(0.25)", "biased(0.5)"),
    "a lambda": ("lambda x: x + by", "lambda x: x - by"),
    "a partial": ("partial(act, slope=0.3)", "partial(act, slope=0.2)"),
    "an attribute that is another function": ("act=act,", "act=torch.relu,"),
    "an object's setting": ("self.limit = 4.0", "self.limit = 1.0"),
    "an object's method": ("x.clamp(max=self.limit)", "x.clamp(min=-self.limit)"),
    "a property": ("return self.config.gain", "return self.config.gain + 1"),
    "a hook": ("output * 1.0625", "output * 1.125"),
    "a pre-hook": ("inputs[0] + 0.125", "inputs[0] + 0.25"),
    "a layer's setting": ("nn.Conv2d(4, 4, 1)", "nn.Conv2d(4, 4, 1, dilation=2)"),
    "weights": ("torch.manual_seed(0)", "torch.manual_seed(1)"),
}

IN_HELPERS = {
    "a function of another file": ("inner(x) * GAIN", "inner(x) / GAIN"),
    "a function that this one calls": ("clamp(-3, 3)", "clamp(-2, 2)"),
    "a constant of another file": ("GAIN = 2.0", "GAIN = 3.0"),
    "a mixin of another file": ("return x * self.FACTOR", "return x - self.FACTOR"),
    "a mixin's class attribute": ("FACTOR = 1.5", "FACTOR = 1.25"),
}


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # its caches go by whole seconds
    yield
    for name in [name for name in sys.modules if name == "edited_helpers" or name.startswith("shiftlens_user_net")]:
        del sys.modules[name]
        factories._helpers.pop(name, None)


def written(folder: Path, net: str = NET, helpers: str = HELPERS) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "edited_helpers.py").write_text(helpers)
    (folder / "net.py").write_text(net)
    return f"{folder / 'net.py'}:make"


def loaded(folder: Path, net: str = NET, helpers: str = HELPERS, **options: Any) -> Model:
    sys.modules.pop("edited_helpers", None)
    return load_model(written(folder, net, helpers), mean=0.5, std=0.25, input_size=8, device="cpu", **options)


def edited(source: str, edit: tuple[str, str]) -> str:
    assert source.count(edit[0]) >= 1
    return source.replace(*edit, 1)


@pytest.fixture
def digest(tmp_path: Path) -> str:
    return loaded(tmp_path / "before").digest


@pytest.mark.parametrize("edit", IN_NET.values(), ids=IN_NET)
def test_an_edit_of_the_file_makes_another_digest(tmp_path: Path, digest: str, edit: tuple[str, str]) -> None:
    assert loaded(tmp_path / "after", edited(NET, edit)).digest != digest


@pytest.mark.parametrize("edit", IN_HELPERS.values(), ids=IN_HELPERS)
def test_an_edit_of_what_it_imports_makes_another_digest(tmp_path: Path, digest: str, edit: tuple[str, str]) -> None:
    assert loaded(tmp_path / "after", NET, edited(HELPERS, edit)).digest != digest


HARMLESS = {
    "nothing, in another folder": (NET, HELPERS),
    "a comment": (NET.replace("EPSILON = 0.01", "EPSILON = 0.01  # small\n\n"), HELPERS),
    "docstrings": (NET.replace("A net that uses", "Uses"), HELPERS.replace("What is done", "Done")),
    "layout": (NET.replace("slope * x)", "slope\n        * x)"), HELPERS),
    "what is not used": (NET + "\nUNUSED = 3\ndef unused():\n    return UNUSED\n", HELPERS),
}


@pytest.mark.parametrize("sources", HARMLESS.values(), ids=HARMLESS)
def test_what_is_no_edit_makes_no_other_digest(tmp_path: Path, digest: str, sources: tuple[str, str]) -> None:
    assert loaded(tmp_path / "a" / "moved", *sources).digest == digest


def test_forward_passes_modes_and_copies_do_not_count(tmp_path: Path, digest: str) -> None:
    module = loaded(tmp_path / "again").module
    assert isinstance(module, nn.Module)
    preprocessing = "same"
    before = model_digest(module, preprocessing)
    with torch.no_grad():
        module(torch.rand(3, 3, 8, 8))  # it keeps what it saw in attributes, in a global and in an object
    assert module.history[-1] == float(module.last.mean())
    module.options = dict(reversed(module.options.items()))
    assert model_digest(module.train(), preprocessing) == before
    assert model_digest(module.eval().to("cpu"), preprocessing) == before
    assert loaded(tmp_path / "other").digest == digest


PROGRAM = """
import sys
from shiftlens.models.loading import load_model
print(load_model(sys.argv[1], mean=0.5, std=0.25, input_size=8, device="cpu").digest)
"""


def test_another_process_finds_the_same_digest(tmp_path: Path, digest: str) -> None:
    command = [sys.executable, "-c", PROGRAM, written(tmp_path / "elsewhere")]
    environment = os.environ | {"PYTHONHASHSEED": "3"}  # of the order of sets
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    assert ran.stdout.strip() == digest


# ---- nets made in Python


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


def halved(x: Tensor) -> Tensor:
    return x / 2


def doubled(x: Tensor) -> Tensor:
    return x * 2


def known() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _patched(net: nn.Module) -> None:
    net[0].forward = halved


def _hooked(net: nn.Module) -> None:
    net[0].register_forward_hook(lambda module, inputs, output: output + 1)


def _pre_hooked(net: nn.Module) -> None:
    net[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))


@pytest.mark.parametrize("hang", [_patched, _hooked, _pre_hooked])
def test_what_is_hung_on_a_net_of_known_layers_counts(hang: Callable[[nn.Module], None]) -> None:
    net = known()
    before = model_digest(net, "")
    hang(net)
    assert model_digest(net, "") != before
    assert structure(net) == structure(known())


def test_a_class_that_is_patched_from_outside_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_digest(Plain(), "")
    monkeypatch.setattr(Plain, "forward", lambda self, x: self.conv(x).amax((2, 3)))
    assert model_digest(Plain(), "") != before


def test_generated_code_counts() -> None:
    class Two(nn.Module):
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x) + 1

    class Three(Two):
        def forward(self, x: Tensor) -> Tensor:
            return self.function(x) + 2

    traced = [fx.symbolic_trace(net) for net in (Two(torch.relu), Two(torch.sigmoid), Three(torch.relu))]
    assert len({model_digest(net, "") for net in traced}) == 3
    assert model_digest(traced[0], "") == model_digest(fx.symbolic_trace(Two(torch.relu)), "")


SCRIPTED = """
import torch
class Net(torch.nn.Module):
    def __init__(self, by: float):
        super().__init__()
        self.by = by
    def forward(self, x):
        return x.mean((2, 3)) OPERATION self.by
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_code_counts(tmp_path: Path) -> None:
    digests = []
    for k, (operation, by) in enumerate([("+", 1.0), ("-", 1.0), ("+", 2.0), ("+", 1.0)]):
        file = tmp_path / str(k) / "net.py"
        file.parent.mkdir()
        file.write_text(SCRIPTED.replace("OPERATION", operation))
        namespace: dict[str, Any] = {"__name__": f"scripted_{k}"}
        sys.modules[f"scripted_{k}"] = type(sys)(f"scripted_{k}")
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        digests.append(model_digest(torch.jit.script(namespace["Net"](by)), ""))
        del sys.modules[f"scripted_{k}"]
    assert digests[3] == digests[0]
    assert len(set(digests)) == 3


def test_nets_of_known_classes_have_the_digest_they_had() -> None:
    net = known()
    assert own_parts(net) == own_parts(VGG("vgg6", width=2)) == []
    assert own_parts(nn.Sequential(nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2))) == []


class Odd:
    """Raises at every touch."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Odd
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


def test_odd_attributes_neither_raise_nor_change_a_digest() -> None:
    def odd() -> nn.Module:
        net = Plain()
        round_and_round: list[Any] = []
        round_and_round.append(round_and_round)
        deep: list[Any] = []
        for _ in range(5000):
            deep = [deep]
        items = [object(), round_and_round, deep, (n for n in [1]), iter([1]), memoryview(b"a"), type, len]
        items += [torch.eye(3).to_sparse(), torch.ones(2, dtype=torch.complex64).conj(), torch.empty(2, device="meta")]
        items += [np.array([1, "a", None], dtype=object), float("nan"), torch.Generator(), sys, lambda: 1, Odd]
        for k, item in enumerate(items):
            setattr(net, f"item{k}", item)
        object.__setattr__(net, "odd", Odd())
        return net

    first = model_digest(odd(), "")
    assert model_digest(odd(), "") == first
    assert "not looked into" not in str(own_parts(odd()))


def test_a_long_list_and_many_objects_end_in_time() -> None:
    net = Plain()
    net.long = list(range(1_000_000))
    net.many = [{"a": k} for k in range(100_000)]
    first = own_parts(net)
    net.long[-1] = 0
    assert own_parts(net) != first


def test_all_numbers_of_quantised_weights_count() -> None:
    one = torch.zeros(40, 40)
    other = one.clone()
    other[20, 20] = 1
    assert state_digest({"packed": (one, None)}) != state_digest({"packed": (other, None)})


# ---- behaviour


def test_the_pictures_are_these() -> None:
    made = pictures(3, 16, 24)
    assert [each.shape for each in made] == [(3, 16, 24)] * 7
    assert {each.dtype for each in made} == {np.dtype(np.uint8)}
    # They must be the same for ever: stored sweeps are compared by what a model answers to them.
    assert [int(each.astype(np.int64).sum()) for each in made] == PICTURE_SUMS
    np.testing.assert_array_equal(made[1][:, 1:, 2:], made[0][:, :-1, :-2])
    assert not made[1][:, 0].any()
    assert not made[5].any()
    for size in ((1, 1), (1, 300), (3, 2)):
        assert all(each.shape == (1, *size) for each in pictures(1, *size))


PICTURE_SUMS = [144774, 120556, 143499, 71613, 66683, 0, 146880]


def answers(function: Callable[[Tensor], Tensor]) -> Behaviour:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return behaviour_of(wrap(Net(), mean=0.5, std=0.25, size=8), (3, 8, 8))


def test_another_answer_is_told_and_rounding_is_not() -> None:
    def base(x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3)) * 3, x.std((1, 2, 3))], 1)

    stored = answers(base)
    span = max(map(max, stored.answers)) - min(map(min, stored.answers))
    assert stored.unrest < 1e-5
    assert stored.difference(answers(base)) is None
    assert stored.difference(answers(lambda x: base(x) * (1 + 1e-6))) is None
    assert stored.difference(answers(lambda x: base(x) + 0.9e-4 * span)) is None
    found = stored.difference(answers(lambda x: base(x) + 2e-4 * span))
    assert found is not None
    assert "differ by up to" in found.text
    assert "0.0002 of their range" in found.text
    # One class, and one kind of picture only.
    assert stored.difference(answers(lambda x: base(x) + torch.tensor([0, 0, 3e-4 * span]))) is not None
    assert stored.difference(answers(lambda x: base(x) + (x.std() < 1e-3) * 0.1)) is not None
    assert stored.difference(answers(lambda x: base(x)[:, :2])) is not None


def test_a_common_offset_leaves_room_for_rounding() -> None:
    def far(x: Tensor) -> Tensor:
        return 1000 + 1e-3 * torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)

    assert answers(far).difference(answers(lambda x: far(x) + 2e-4)) is None


def test_every_class_of_many_counts() -> None:
    torch.manual_seed(0)
    weight = torch.randn(1000, 3)

    def many(x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ weight.T

    stored = answers(many)
    assert {len(answer) for answer in stored.answers} == {64}
    for k in (0, 17, 500, 999):
        changed = weight.clone()
        changed[k] += 0.1
        assert stored.difference(answers(lambda x, w=changed: x.mean((2, 3)) @ w.T)) is not None
    assert stored.difference(answers(lambda x: many(x)[:, torch.randperm(1000)])) is not None
    assert len(str(stored.to_json())) < 10_000


def test_a_model_that_cannot_answer_has_a_reason_instead() -> None:
    def picky(x: Tensor) -> Tensor:
        if x.std() > 1.5:
            raise ValueError("too wild")
        return x.mean((2, 3)) / (x.std() < 1.1)

    stored = answers(picky)
    assert stored.answers[2] == "gives scores that are not finite"
    assert stored.answers[6] == "raises ValueError: too wild"
    assert sum(isinstance(answer, tuple) for answer in stored.answers) >= 4
    assert stored.difference(answers(picky)) is None
    found = stored.difference(answers(lambda x: x.mean((2, 3))))
    assert found is not None
    assert found.text == "gives scores that are not finite then, gives scores now"


def test_a_net_that_is_never_at_rest_is_not_refused() -> None:
    random = np.random.default_rng(0)

    def restless(x: Tensor) -> Tensor:
        return x.mean((2, 3)) + float(random.normal())

    def rounding(x: Tensor) -> Tensor:  # as a quantised net does
        return (x.mean((2, 3)) * 1e7).round() % 7

    for function in (restless, rounding):
        stored = answers(function)
        assert stored.unrest > 0.1
        assert stored.difference(answers(function)) is None
    assert answers(lambda x: x.mean((2, 3))).difference(answers(restless)) is not None


def test_asking_a_net_leaves_it_and_its_surroundings_alone() -> None:
    class Counting(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(1))
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.n += 1
            self.calls += 1
            return super().forward(x) + torch.rand(1)

    net = Counting().train()
    model = wrap(net, mean=0.5, std=0.25, size=8)
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    one, two = (behaviour_of(model, (3, 8, 8)) for _ in range(2))
    assert one.difference(two) is None
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert net.training
    assert net.n.item() == net.calls == 0


def test_expensive_nets_are_asked_less(monkeypatch: pytest.MonkeyPatch) -> None:
    for n_macs, n in ((None, 4), (1, 7), (1_000_000_000, 7), (2_000_000_000, 4), (10**12, 2)):
        monkeypatch.setattr(Model, "n_macs", n_macs)
        assert len(answers(lambda x: x.mean((2, 3))).answers) == n


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_not_seen(threads: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.GroupNorm(4, 32), nn.GELU(), nn.Flatten(), nn.Linear(32 * 36, 10))
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = behaviour_of(wrap(net, mean=0.5, std=0.25, size=8), (3, 8, 8))
        torch.set_num_threads(3 - threads)
        assert behaviour_of(wrap(net, mean=0.5, std=0.25, size=8), (3, 8, 8)) == found
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize(
    "table",
    [
        *([], {}, {"scores": 3}, {"scores": [[1.0]], "unrest": None}, {"scores": [[True]], "unrest": 0}),
        *({"scores": [3], "unrest": 0}, {"scores": [["a"]], "unrest": 0}, {"scores": [[0.0] * 65], "unrest": 0}),
        *({"scores": [[]] * 65, "unrest": 0}, {"scores": [[float("inf")]], "unrest": 0}),
    ],
)
def test_a_strangers_behaviour_is_refused(table: Any) -> None:
    with pytest.raises(ValueError, match="behaviour must hold"):
        Behaviour.from_json(table)


def test_a_behaviour_survives_the_way_to_json() -> None:
    stored = Behaviour(((1.0, -2.5), "raises ValueError: no\x1b"), 1e-7)
    assert Behaviour.from_json(stored.to_json()).answers == ((1.0, -2.5), "raises ValueError: no\\x1b")
    assert Behaviour.from_json(stored.to_json()).unrest == 1e-7


# ---- from the start of a sweep to its resume


GRID = ShiftGrid(1)
IMAGES = ImageSet(np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8), np.arange(4) % 3)
HOW: dict[str, Any] = {"engine": "direct", "dtype": "float32", "device": "cpu"}


def interrupted(model: Model, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of which one image of four is there."""

    def stop(done: int, total: int) -> None:
        if done >= GRID.n_shifts:
            raise KeyboardInterrupt

    monkeypatch.setattr(request, "CHUNK_EVALUATIONS", GRID.n_shifts)
    with pytest.raises(KeyboardInterrupt):
        sweep(model, IMAGES, GRID, out=out, progress=stop, **HOW)
    assert open_sweep(out, partial=True).n_written in (1, 2)


@pytest.mark.parametrize("what", ["a mixin's method", "a constant array", "a closure", "a buffer that is not saved"])
def test_a_resume_with_edited_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    out = tmp_path / "s.zarr"
    interrupted(loaded(tmp_path), out, monkeypatch)
    there = open_sweep(out, partial=True).n_written
    with pytest.raises(
        StoreError, match=r"s\.zarr holds a sweep of another model: .*, this run has .*net\.py:make"
    ) as e:
        sweep(loaded(tmp_path, edited(NET, IN_NET[what])), IMAGES, GRID, out=out, **HOW)
    assert str(e.value).isprintable()
    assert open_sweep(out, partial=True).n_written == there
    assert sweep(loaded(tmp_path / "moved"), IMAGES, GRID, out=out, **HOW).complete


HIDDEN = """
import ctypes, os, sys
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 3, 1)
        self._gain = float(os.environ.get("HIDDEN_GAIN", "1"))
        self._table = [float(n) for n in (Path(__file__).parent / "table.txt").read_text().split()]
        self._library = ctypes.c_double(getattr(sys, "hidden_number", 1.0))

    def forward(self, x):
        x = nn.functional.relu(self.conv(x)).mean((2, 3))
        return x * self._gain * self._table[1] * self._library.value
"""


def _hidden(folder: Path) -> Model:
    (folder / "net.py").write_text(HIDDEN)
    if not (folder / "table.txt").exists():
        (folder / "table.txt").write_text("1 2 3")
    return load_model(f"{folder / 'net.py'}:Net", mean=0.5, std=0.25, input_size=8, device="cpu")


def _environment(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("HIDDEN_GAIN", "1.001")


def _data_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "table.txt").write_text("1 2.5 3")


def _foreign_memory(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "hidden_number", 1.5, raising=False)


def _patched_library(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.functional, "relu", nn.functional.gelu)


@pytest.mark.parametrize("change", [_environment, _data_file, _foreign_memory, _patched_library])
def test_what_no_digest_sees_the_behaviour_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    out = tmp_path / "s.zarr"
    first = _hidden(tmp_path)
    interrupted(first, out, monkeypatch)
    with monkeypatch.context() as patch:
        change(tmp_path, patch)
        other = _hidden(tmp_path)
        assert other.digest == first.digest
        with pytest.raises(
            StoreError, match=r"s\.zarr .*same digest.*differ by up to .* of their range.*undo"
        ) as error:
            sweep(other, IMAGES, GRID, out=out, **HOW)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 500


def test_controls_and_reuse_compare_the_behaviour_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "s.zarr"
    sweep(_hidden(tmp_path), IMAGES, GRID, out=out, **HOW)
    before = sorted(str(path) for path in out.rglob("*"))
    (tmp_path / "table.txt").write_text("1 2.001 3")
    with pytest.raises(StoreError, match="answers otherwise"):
        sweep(_hidden(tmp_path), IMAGES, GRID, out=out, controls=("flip",), **HOW)
    assert sorted(str(path) for path in out.rglob("*")) == before
    with pytest.raises(StoreError, match="answers otherwise"):
        sweep(_hidden(tmp_path), IMAGES, GRID, out=tmp_path / "t.zarr", reuse=out, **HOW)
    assert not (tmp_path / "t.zarr").exists()
    (tmp_path / "table.txt").write_text("1 2 3")
    assert sweep(_hidden(tmp_path), IMAGES, GRID, out=out, controls=("flip",), **HOW).controls == ("flip",)


def test_an_edited_callable_is_told_by_its_behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(by: float) -> Model:
        return wrap(lambda x: x.mean((2, 3)) + by * x.amax((2, 3)), mean=0.5, std=0.25, size=8, name="f")

    interrupted(model(1.0), tmp_path / "s.zarr", monkeypatch)
    with pytest.raises(StoreError, match="answers otherwise"):
        sweep(model(1.01), IMAGES, GRID, out=tmp_path / "s.zarr", **HOW)
    assert sweep(model(1.0), IMAGES, GRID, out=tmp_path / "s.zarr", **HOW).complete


def test_the_behaviour_is_under_the_seal(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    swept = sweep(wrap(Plain(), mean=0.5, std=0.25), IMAGES, GRID, out=out, **HOW)
    assert swept.header.behaviour == behaviour_of(wrap(Plain(), mean=0.5, std=0.25, size=8), (3, 8, 8))
    file = out / "zarr.json"
    document = json.loads(file.read_text())
    del document["attributes"]["behaviour"]
    file.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="not those it was made with"):
        open_sweep(out)


def test_a_net_that_does_not_answer_some_pictures_is_swept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wild(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if x.std() > 1.5:
                raise ValueError("too wild")
            return super().forward(x)

    model, out = wrap(Wild(), mean=0.5, std=0.25, size=8), tmp_path / "s.zarr"
    interrupted(model, out, monkeypatch)
    done = sweep(wrap(Wild(), mean=0.5, std=0.25, size=8), IMAGES, GRID, out=out, **HOW)
    assert done.complete
    assert done.header.behaviour is not None
    assert "raises ValueError: too wild" in done.header.behaviour.answers
