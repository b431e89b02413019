"""A user's own Python as the source of a model: what runs, from where, and the one line when it fails."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
import torch

from shiftlens.errors import InputError
from shiftlens.models.loading import load_model

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, n_classes, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))

def make():
    return Net()

instance = Net()
number = 3

def needs(width, depth, /, *more, extra=1):
    return Net()

def gives_int():
    return 3

def gives_callable():
    return lambda x: torch.zeros(len(x), 2)

def fails():
    raise KeyError("deep\\nstory")

def leaves():
    raise SystemExit(0)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


@pytest.fixture(autouse=True)
def _leaves_sys_path_alone():
    before = list(sys.path)
    yield
    assert sys.path == before


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


@pytest.mark.parametrize("name", ["make", "Net", "instance"])
def test_functions_classes_and_modules(file: Path, name: str) -> None:
    model = load_model(f"{file}:{name}", input_size=8)
    assert (model.n_classes, model.is_module, model.strides, model.module.training) == (4, True, (2,), False)
    assert any("declares no preprocessing" in note for note in model.notes)


def test_a_factory_may_return_a_callable(file: Path) -> None:
    model = load_model(f"{file}:gives_callable", input_size=8)
    assert (model.n_classes, model.is_module) == (2, False)
    with pytest.raises(InputError, match="which takes no weights"):
        load_model(f"{file}:gives_callable", weights=file)


def test_picture_size_serves_where_nothing_is_declared(file: Path) -> None:
    model = load_model(f"{file}:make", picture_size=(16, 24))
    assert model.input_size == (16, 24)
    assert model.preprocessing.size is None
    assert model.n_macs == 8 * 12 * 4 * 27


def test_random_weights_are_the_same_every_time(file: Path) -> None:
    torch.manual_seed(1)
    first = load_model(f"{file}:make").digest
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    assert load_model(f"{file}:make", weights="random").digest == first
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_checkpoint_of_data_parallel_goes_in(file: Path, tmp_path: Path) -> None:
    state = load_model(f"{file}:make").module.state_dict()
    changed = {f"module.{name}": value + 1 for name, value in state.items()}
    torch.save({"state_dict": changed}, tmp_path / "c.pth")
    model = load_model(f"{file}:make", weights=tmp_path / "c.pth", input_size=8)
    assert torch.equal(model.module.conv.weight, state["conv.weight"] + 1)


def test_weights_that_do_not_fit(file: Path, tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "c.pth")
    with pytest.raises(InputError) as caught:
        load_model(f"{file}:make", weights=tmp_path / "c.pth")
    assert str(caught.value) == (
        f"weights do not fit {file}:make (from {tmp_path / 'c.pth'}): 2 missing (first: conv.weight),"
        " 1 unexpected (first: fc.weight)"
    )


def test_relative_paths_start_at_the_current_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = load_model(f"{file}:make").digest
    monkeypatch.chdir(file.parent)
    assert load_model("net.py:make").digest == digest
    assert load_model("./net.py:make").digest == digest
    monkeypatch.chdir(file.parent.parent)
    assert load_model(f"{file.parent.name}/net.py:make").digest == digest


def test_a_module_of_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own_package_a1" / "nets.py", NET)
    write(tmp_path / "own_package_a1" / "__init__.py", "")
    monkeypatch.chdir(tmp_path)
    assert load_model("own_package_a1.nets:make", input_size=8).n_classes == 4
    with pytest.raises(InputError, match=r"no module 'own_package_a1\.net' is installed"):
        load_model("own_package_a1.net:make")


def test_helpers_beside_the_file_are_found_and_never_mixed_up(tmp_path: Path) -> None:
    main = """
    from helper_b2 import n
    from torch import nn

    def make():
        import helper_c3
        return nn.Conv2d(3, n, 1)
    """
    counts = {}
    for folder, n in (("one", 2), ("two", 5)):
        write(tmp_path / folder / "helper_b2.py", f"n = {n}\n")
        write(tmp_path / folder / "helper_c3.py", "")
        write(tmp_path / folder / "net.py", main)
        counts[folder] = load_model(f"{tmp_path}/{folder}/net.py:make").module.out_channels
    assert counts == {"one": 2, "two": 5}


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    for n in (2, 11):
        path.write_text(f"from torch import nn\ndef make():\n    return nn.Conv2d(3, {n}, 1)\n")
        assert load_model(f"{path}:make").module.out_channels == n


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mak", r"net\.py has no 'mak'; did you mean 'make'\? \(it has Net, make, instance, needs"),
        ("zzzzzz", r"has no 'zzzzzz' \(it has"),
        ("number", "number in .* is int, expected a function"),
        ("needs", r"needs arguments \(width, depth\)"),
        ("gives_int", "returned int, expected an nn.Module or a callable"),
        ("fails", r"raised KeyError: 'deep\\nstory' \(net\.py:29\)"),
        ("leaves", r"raised SystemExit: 0 \(net\.py:32\)"),
    ],
)
def test_factories_that_do_not_serve(file: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(f"{file}:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('one\\ntwo')\n", r"raised ValueError: one \(net\.py:2\)"),
        ("x = 1\ny = (\n", r"raised SyntaxError: '\(' was never closed \(net\.py:2\)"),
        (
            "import no_such_module_d4\n",
            r"raised ModuleNotFoundError: No module named 'no_such_module_d4' \(net\.py:1\)",
        ),
        ("from helper_e5 import f\nf()\n", r"raised ZeroDivisionError: division by zero \(helper_e5\.py:2\)"),
        ("import sys\nsys.exit('bye')\n", r"raised SystemExit: bye \(net\.py:2\)"),
        ("", r"has no 'make' \(it has nothing that can be called\)"),
    ],
)
def test_files_that_raise(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "net.py").write_text(text)
    (tmp_path / "helper_e5.py").write_text("def f():\n    1 / 0\n")
    with pytest.raises(InputError, match=message) as caught:
        load_model(f"{tmp_path}/net.py:make")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"file no/net\.py does not exist"):
        load_model("no/net.py:make")
