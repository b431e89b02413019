"""Weights from files: every wrapping understood, no code run, and a clear line for what does not fit."""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import types
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shiftlens.errors import InputError
from shiftlens.models.checkpoints import fit_weights, read_weights, refuse_non_finite
from shiftlens.models.loading import load_model
from shiftlens.models.programs import FACTORIES
from shiftlens.models.zoo import torchvision_net
from shiftlens.nn import VGG


def net(seed: int = 0) -> VGG:
    torch.manual_seed(seed)
    return VGG("vgg6", n_classes=3, width=2)


def as_if_saved_on_a_gpu(path: Path) -> None:
    """Rewrite the device tag of every storage, which is all that a GPU leaves in a file."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith("/data.pkl"))
    tagged = entries[name].replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert tagged != entries[name]
    entries[name] = tagged
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)


def assert_same(first: nn.Module, second: nn.Module) -> None:
    for (name, a), (other, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "wrapping",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"lr": 0.1}},
        lambda s: {"model_state_dict": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{name}": value for name, value in s.items()},
        lambda s: {"state_dict": {f"module.module.{name}": value for name, value in s.items()}},
        lambda s: {f"_orig_mod.{name}": value for name, value in s.items()},
        lambda s: {f"_orig_mod.module.{name}": value for name, value in s.items()},
        lambda s: {f"module._orig_mod.{name}": value for name, value in s.items()},
        lambda s: {"n_averaged": torch.tensor(5), **{f"module.{name}": value for name, value in s.items()}},
    ],
)
def test_wrappings_are_understood(tmp_path: Path, wrapping) -> None:
    torch.save(wrapping(net(1).state_dict()), tmp_path / "weights.pt")
    target = net(2)
    fit_weights(target, read_weights(tmp_path / "weights.pt"), "net")
    assert_same(target, net(1))


def test_checkpoint_saved_on_a_gpu_by_data_parallel(tmp_path: Path) -> None:
    path = tmp_path / "gpu.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in net(1).state_dict().items()}}, path)
    as_if_saved_on_a_gpu(path)
    target = net(2)
    fit_weights(target, read_weights(path), "net")
    assert_same(target, net(1))


def test_safetensors_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    save_file(net(1).state_dict(), tmp_path / "weights.bin")
    target = net(2)
    fit_weights(target, read_weights(tmp_path / "weights.bin"), "net")
    assert_same(target, net(1))


def test_a_prefix_that_is_the_nets_own_stays() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    target = Outer()
    fit_weights(target, Outer().state_dict(), "net")
    state = {f"module.{name}": torch.ones_like(value) for name, value in target.state_dict().items()}
    fit_weights(target, state, "net")
    assert torch.equal(target.module.weight, torch.ones(2, 2))


def test_a_compiled_part_of_the_net_gets_its_weights() -> None:
    class Compiled(nn.Module):  # the names that torch.compile gives, without the seconds that it takes
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = nn.Linear(2, 2)

    target = nn.Sequential(Compiled())
    fit_weights(target, {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}, "net")
    assert torch.equal(target.state_dict()["0._orig_mod.weight"], torch.ones(2, 2))


def test_tied_weights_need_one_name_and_counters_none() -> None:
    target = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    target[1].weight = target[0].weight
    state = {name: value.clone() for name, value in target.state_dict().items()}
    del state["1.weight"], state["2.num_batches_tracked"]
    state["0.weight"].fill_(3)
    fit_weights(target, state, "net")
    assert target[1].weight.tolist() == [[3, 3], [3, 3]]


def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(witness),))

    for content in (Evil(), {"state_dict": Evil()}, {"weight": torch.zeros(1), "x": Evil()}):
        torch.save(content, tmp_path / "evil.pt")
        with pytest.raises(
            InputError, match=r"refused: reading it would run code \(\w+\.mkdir\); expected tensors only"
        ) as caught:
            read_weights(tmp_path / "evil.pt")
        assert "\n" not in str(caught.value)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"plain\.pkl is a plain pickle, which can run code when it is read; expected"):
        read_weights(tmp_path / "plain.pkl")
    assert not witness.exists()
    # The proof that the trap would have sprung.
    pickle.loads((tmp_path / "plain.pkl").read_bytes())
    assert witness.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_is_refused_with_the_reason_and_the_remedy(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps({"weight": [1.0, 2.0]}, protocol=protocol))
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value) == (
        f"weights: {path} is a plain pickle, which can run code when it is read; expected a safetensors file or"
        " torch.save(model.state_dict(), path)"
    )


def test_a_file_of_pytorch_that_cannot_be_read_safely_says_what_torch_says(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "new.pt", pickle_protocol=4)
    with pytest.raises(InputError, match=r"new\.pt is no readable PyTorch file: Unsupported operand 149$"):
        read_weights(tmp_path / "new.pt")


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    torch.save({"a\x1b[2J\nb": 1}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"it has a\\x1b\[2J\\nb; expected"):
        read_weights(tmp_path / "x.pt")
    with pytest.raises(InputError) as caught:
        fit_weights(net(), {"\x1b]0;owned\x07": torch.zeros(1)}, "net")
    assert str(caught.value).isprintable()
    assert r"1 unexpected (first: \x1b]0;owned\x07)" in str(caught.value)


def test_a_whole_pickled_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(
        InputError, match=r"would run code \(torch\.nn\.modules\.linear\.Linear\).*model\.state_dict\(\)"
    ):
        read_weights(tmp_path / "whole.pt")


def test_weights_that_do_not_fit_name_the_first_of_each_kind() -> None:
    state = net().state_dict()
    del state["0.0.weight"], state["0.1.weight"]
    state["head.weight"] = torch.zeros(1)
    state["3.2.weight"] = torch.zeros(5, 8)
    before = net(3)
    target = net(3)
    with pytest.raises(InputError) as caught:
        fit_weights(target, state, "net.py:make")
    assert str(caught.value) == (
        "weights do not fit net.py:make: 2 missing (first: 0.0.weight), 1 unexpected (first: head.weight),"
        " 1 of another shape (first: 3.2.weight, [3, 8] in the net, [5, 8] in the file)"
    )
    assert_same(target, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no tensors; it has epoch, lr"),
        ({}, "holds no tensors; it has nothing"),
        ([1, 2], "holds list, expected a table of tensors"),
        (torch.zeros(3), "holds Tensor, expected a table"),
    ],
)
def test_a_file_without_weights(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        read_weights(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04 torn", b"\x10\x00\x00\x00\x00\x00\x00\x00{torn", b"\x80\x02."]
)
def test_a_torn_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "torn.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"torn\.pt is no readable") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_a_cut_file(tmp_path: Path) -> None:
    for name, save in (("a.pt", torch.save), ("a.safetensors", save_file)):
        path = tmp_path / name
        save(net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="is no readable"):
            read_weights(path)


def test_torchscript_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    with pytest.raises(InputError, match="is a TorchScript program, expected weights"):
        read_weights(tmp_path / "script.pt")


def test_missing_path_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(InputError, match="is a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["1.0.bias", "1.1.running_var"])
def test_broken_numbers_are_named(name: str, value: float) -> None:
    broken = net()
    broken.state_dict()[name][1] = value
    with pytest.raises(InputError, match=rf"1 of 4 numbers in {name} are NaN or infinite"):
        refuse_non_finite(broken, "net")


def test_a_mask_may_hold_minus_infinity() -> None:
    masked = nn.Linear(2, 2)
    masked.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    refuse_non_finite(masked, "net")
    masked.mask[0] = float("nan")
    with pytest.raises(InputError, match="in mask are NaN"):
        refuse_non_finite(masked, "net")


def fitted(path: Path, key: str | None = None) -> tuple[nn.Module, list[str]]:
    """A net with the weights of a file, and what is said of them."""
    target, notes = net(2), []
    fit_weights(target, read_weights(path, key, notes), "net", notes)
    return target, notes


OPTIMISER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize("key", ["net", "ema", "ema.shadow"])
def test_a_lone_table_of_tensors_is_found_under_any_key(tmp_path: Path, key: str) -> None:
    content = net(1).state_dict()
    for name in reversed(key.split(".")):
        content = {name: content, "decay": 0.99}
    torch.save({**content, "optimizer": OPTIMISER, "epoch": 3}, tmp_path / "w.pt")
    target, notes = fitted(tmp_path / "w.pt")
    assert_same(target, net(1))
    assert notes == [f"weights: {tmp_path / 'w.pt'}: taken from the key {key}"]


def test_of_several_tables_the_user_names_one(tmp_path: Path) -> None:
    torch.save({"net": net(3).state_dict(), "ema": {"shadow": net(1).state_dict()}}, tmp_path / "w.pt")
    with pytest.raises(
        InputError, match=r"several tables of tensors \(net, ema.shadow\): name one \(--weights-key KEY"
    ):
        read_weights(tmp_path / "w.pt")
    target, notes = fitted(tmp_path / "w.pt", "ema.shadow")
    assert_same(target, net(1))
    assert notes == []
    with pytest.raises(InputError, match=r"unknown weights key in .* 'ema.shade'; did you mean 'ema.shadow'\?"):
        read_weights(tmp_path / "w.pt", "ema.shade")
    # A key is also how to take other weights than those under a usual key.
    torch.save({"state_dict": net(3).state_dict(), "ema": net(1).state_dict()}, tmp_path / "w.pt")
    assert_same(fitted(tmp_path / "w.pt")[0], net(3))
    assert_same(fitted(tmp_path / "w.pt", "ema")[0], net(1))


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "model.net.", "module.model.", "model.module."])
def test_a_common_prefix_is_taken_off_where_all_names_then_match(tmp_path: Path, prefix: str) -> None:
    torch.save({f"{prefix}{name}": value for name, value in net(1).state_dict().items()}, tmp_path / "w.pt")
    target, notes = fitted(tmp_path / "w.pt")
    assert_same(target, net(1))
    assert notes == [f"weights: {prefix.removeprefix('module.')} is taken off every name"]


def test_a_prefix_stays_where_the_names_do_not_match_without_it(tmp_path: Path) -> None:
    state = {f"model.{name}": value for name, value in net(1).state_dict().items()}
    state.pop("model.0.0.weight")
    with pytest.raises(InputError, match=r"unexpected \(first: model\.0"):
        fit_weights(net(2), state, "net")


def lightning(path: Path, settings: object) -> None:
    """A checkpoint as Lightning writes it: the weights under the module's attribute, and whatever it was made with."""
    state = {f"model.{name}": value for name, value in net(1).state_dict().items()}
    content = {"epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": state, "hyper_parameters": settings}
    torch.save(content, path)


class Settings:
    """What a user's own hyper-parameters are; reading it would run `__setstate__`."""

    def __init__(self) -> None:
        self.width = 2

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("foreign code was run")


def test_a_lightning_checkpoint_is_read_without_its_settings(tmp_path: Path) -> None:
    lightning(tmp_path / "last.ckpt", {"args": argparse.Namespace(lr=0.1), "own": Settings(), "root": tmp_path})
    target, notes = fitted(tmp_path / "last.ckpt")
    assert_same(target, net(1))
    assert "holds settings of Lightning (argparse.Namespace" in notes[0]
    assert notes[1:] == ["weights: model. is taken off every name"]
    # The same settings in a file that is not Lightning's are refused as ever.
    torch.save({"state_dict": net(1).state_dict(), "own": Settings()}, tmp_path / "own.pt")
    with pytest.raises(InputError, match="would run code"):
        read_weights(tmp_path / "own.pt")


def test_code_in_a_lightning_checkpoint_is_never_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Evil:
        def __init__(self, function: object, *arguments: object) -> None:
            self.call = (function, arguments)

        def __reduce__(self) -> tuple:
            return self.call

    lightning(tmp_path / "mkdir.ckpt", Evil(os.mkdir, str(witness)))
    with pytest.raises(InputError, match="would run code"):
        read_weights(tmp_path / "mkdir.ckpt")
    lightning(tmp_path / "touch.ckpt", Evil(shutil.copyfile, __file__, str(witness)))
    assert_same(fitted(tmp_path / "touch.ckpt")[0], net(1))
    assert not witness.exists()


def written_program(kind: str, folder: Path) -> tuple[Path, nn.Module]:
    """A program of this kind, and the net that it was made of."""
    source = net(1).eval()
    path = folder / {"TorchScript program": "a.pt", "torch.export program": "a.pt2", "ONNX model": "a.onnx"}[kind]
    if kind == "TorchScript program":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(source, torch.zeros(1, 3, 32, 32)).save(str(path))
    elif kind == "torch.export program":
        torch.export.save(torch.export.export(source, (torch.zeros(1, 3, 32, 32),)), path)
    else:
        path.write_bytes(b"\x08\x08\x12\x07pytorch")
    return path, source


class Session:
    """What `onnxruntime.InferenceSession` is to its user, around the net itself."""

    def __init__(self, path: str) -> None:
        assert path.endswith("a.onnx")

    def get_inputs(self) -> list:
        return [types.SimpleNamespace(name="input")]

    def run(self, outputs: None, feed: dict) -> list:
        with torch.no_grad():
            return [net(1).eval()(torch.from_numpy(feed["input"])).numpy()]


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_program_is_refused_with_a_factory_that_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path, source = written_program(kind, tmp_path)
    for refuse in (lambda: read_weights(path), lambda: load_model(str(path))):
        with pytest.raises(InputError, match=rf"a\.\w+ is a {kind}, expected weights .* --model net.py:make") as caught:
            refuse()
        assert "\n" not in str(caught.value)
    if kind == "ONNX model":
        monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    (factory,) = caught.value.__notes__
    assert sum(bool(line.strip()) for line in factory.splitlines()) <= 6
    (tmp_path / "net.py").write_text(factory)
    model = load_model(f"{tmp_path / 'net.py'}:make", mean=0.5, std=0.25, input_size=32)
    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.scores(x), source(x), atol=1e-5)


def test_a_key_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --weights FILE beside --weights-key ema"):
        load_model("torchvision:resnet18", weights="random", weights_key="ema")


def test_a_prefix_is_found_before_the_number_of_classes(tmp_path: Path) -> None:
    state = torchvision_net("squeezenet1_1", 3).state_dict()
    torch.save({"net": {f"model.{name}": value for name, value in state.items()}}, tmp_path / "w.pt")
    model = load_model("torchvision:squeezenet1_1", weights=tmp_path / "w.pt", input_size=64)
    assert model.n_classes == 3
    assert model.notes[:2] == (
        f"weights: {tmp_path / 'w.pt'}: taken from the key net",
        "weights: model. is taken off every name",
    )
