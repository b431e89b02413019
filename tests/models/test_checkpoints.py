"""Weights from files: every wrapping understood, no code run, and a clear line for what does not fit."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shiftlens.errors import InputError
from shiftlens.models.checkpoints import fit_weights, read_weights, refuse_non_finite
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
