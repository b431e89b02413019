"""`onnx:FILE`: a graph as a torch module or as a callable, and files that are none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import shiftlens as sl
from shiftlens.errors import InputError

onnx: Any = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def graph(shape: list[Any], *, constants: bool = False, channels: int = 3, kind: int = 1) -> Any:
    """A convolution, a ReLU and the mean over the image: a classifier of 4 classes."""
    helper = onnx.helper
    kernel = onnx.numpy_helper.from_array(KERNEL[:, :channels], "kernel")
    nodes = [helper.make_node("Constant", [], ["kernel"], value=kernel)] if constants else []
    nodes += [
        helper.make_node("Conv", ["x", "kernel"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["logits"]),
    ]
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, [shape[0], 4])],
        [] if constants else [kernel],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path: Path, shape: list[Any], **options: Any) -> str:
    onnx.save(graph(shape, **options), path)
    return f"onnx:{path}"


def expected(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(torch.nn.functional.conv2d(x, torch.from_numpy(KERNEL), padding=1)).mean((2, 3))


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("shape", [["n", 3, "h", "w"], [1, 3, 16, 16]])
def test_a_graph_answers_as_the_net_it_was_made_of(tmp_path: Path, shape: list[Any], constants: bool) -> None:
    pytest.importorskip("onnx2torch")
    model = sl.load_model(saved(tmp_path / "net.onnx", shape, constants=constants), mean=0.5, std=0.5, input_size=16)
    assert model.is_module
    assert any("onnx2torch turned it into a torch module" in note for note in model.notes)
    x = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(model.scores(x), expected(x))
    assert (model.n_classes, model.n_macs) == (4, 16 * 16 * 4 * 27)
    assert model.digest == sl.load_model(f"onnx:{tmp_path}/net.onnx", mean=0.5, std=0.5, input_size=16).digest


@pytest.mark.parametrize("shape", [["n", 3, "h", "w"], [1, 3, 16, 16]])
def test_without_onnx2torch_it_runs_in_onnxruntime(
    tmp_path: Path, shape: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    spec = saved(tmp_path / "net.onnx", shape)
    model = sl.load_model(spec, mean=0.5, std=0.5, input_size=16)
    assert not model.is_module
    assert [note for note in model.notes if "onnxruntime: onnx2torch is not installed" in note] == [model.notes[0]]
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(model.scores(x), expected(x))
    saved(tmp_path / "other.onnx", shape, constants=True)
    other = sl.load_model(f"onnx:{tmp_path}/other.onnx", mean=0.5, std=0.5, input_size=16)
    assert model.digest != other.digest  # of the file, not of its name


def test_a_sweep_of_a_graph_equals_that_of_the_net(tmp_path: Path) -> None:
    pytest.importorskip("onnx2torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, bias=False),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    net[0].weight.data = torch.from_numpy(KERNEL)
    images = sl.load_images("digits", limit=12)
    spec = saved(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    model = sl.load_model(spec, mean=0.5, std=0.5, picture_size=images.size)
    grid = sl.ShiftGrid(2)
    found = sl.sweep(model, images.relabelled(images.labels % 4, "0123"), grid, out=tmp_path / "a.zarr")
    own = sl.wrap(net, mean=0.5, std=0.5)
    wanted = sl.sweep(own, images.relabelled(images.labels % 4, "0123"), grid, out=tmp_path / "b.zarr")
    np.testing.assert_allclose(found.dataset["loss"].values, wanted.dataset["loss"].values, atol=1e-5)


def no_file(path: Path) -> None:
    path.unlink()


def not_a_graph(path: Path) -> None:
    path.write_bytes(b"no graph" * 50)


def channels_last(path: Path) -> None:
    saved(path, ["n", 16, 16, 3])


def half_precision(path: Path) -> None:
    saved(path, ["n", 3, 16, 16], kind=10)


def weights_elsewhere(path: Path) -> None:
    model = graph(["n", 3, 16, 16])
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    read = onnx.load(path, load_external_data=False)
    for entry in read.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../../etc/passwd"
    path.write_bytes(read.SerializeToString())


def unknown_operator(path: Path) -> None:
    model = graph(["n", 3, 16, 16])
    model.graph.node[1].op_type = "Steal"
    path.write_bytes(model.SerializeToString())


def custom_operator(path: Path) -> None:
    model = graph(["n", 3, 16, 16])
    model.graph.node[1].domain = "com.mine"
    model.opset_import.append(onnx.helper.make_opsetid("com.mine", 1))
    path.write_bytes(model.SerializeToString())


def fixed_by_its_weights(path: Path) -> None:
    """Any size by its declaration, 8 x 8 pixels by its weights."""
    helper = onnx.helper
    weights = onnx.numpy_helper.from_array(np.ones((3 * 8 * 8, 4), np.float32), "w")
    made = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["logits"])],
        "net",
        [helper.make_tensor_value_info("x", 1, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", 1, ["n", 4])],
        [weights],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_file, "cannot be read"),
        (not_a_graph, "is no ONNX graph of one input"),
        (channels_last, r"takes FLOAT \[None, 16, 16, 3\], expected FLOAT \[n, c, h, w\]"),
        (half_precision, "takes FLOAT16"),
        (weights_elsewhere, "keeps weights in '../../etc/passwd', expected a file in its own folder"),
        (unknown_operator, "onnxruntime does not take"),
        (custom_operator, r"onnxruntime does not take .*com\.mine:Relu"),
        (fixed_by_its_weights, "fails on 2 pictures of 3 channels and 16x16 pixels"),
    ],
)
def test_files_that_are_none_are_refused_in_a_line(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    saved(path, ["n", 3, "h", "w"])
    spoil(path)
    with pytest.raises(InputError, match=message) as caught:
        sl.load_model(f"onnx:{path}", mean=0.5, std=0.5, input_size=16)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # onnxruntime is asked for no lines of its own


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(graph(["n", 3, "h", "w"]), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(sl.load_model(f"onnx:{path}", mean=0.5, std=0.5, input_size=16).scores(x), expected(x))


def test_it_takes_no_weights(tmp_path: Path) -> None:
    spec = saved(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    with pytest.raises(InputError, match="holds its own weights; omit --weights"):
        sl.load_model(spec, weights="random")


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = saved(tmp_path / "net.onnx", ["n", 3, "h", "w"])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'shiftlens\[onnx\]'"):
        sl.load_model(spec)
