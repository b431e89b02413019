"""Run directories: round trip, hostile files, and a kill at every moment."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shiftlens.data.preprocessing import Preprocessing
from shiftlens.errors import InputError, StoreError
from shiftlens.models.runs import check_run_target, load_run, save_run
from shiftlens.models.wrapping import build_model
from shiftlens.nn import VGG, CenterPoints, UNet

PREPROCESSING = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 32), None, "bilinear", True)


def net(seed: int = 0, **arguments: object) -> VGG:
    torch.manual_seed(seed)
    return VGG(**{"arch": "vgg6", "n_classes": 3, "width": 2, **arguments})


def save(path: Path, module: VGG, **facts: object) -> None:
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": module.config}
    save_run(path, module, **{"build": build, "preprocessing": PREPROCESSING, **facts})


def edit(path: Path, change) -> None:
    spec = json.loads((path / "model.json").read_text())
    change(spec)
    (path / "model.json").write_text(json.dumps(spec))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save(tmp_path / "run", net())
    return tmp_path / "run"


def test_round_trip_keeps_digest_and_facts(tmp_path: Path) -> None:
    module = net(padding="reflect", downsample="stride", head="flatten")
    names = ["a", "b", "ü"]
    save(tmp_path / "r", module, class_names=names, training={"epochs": 3, "flip": True}, metrics={"accuracy": 0.5})
    model = load_run(tmp_path / "r")
    expected = build_model(module, PREPROCESSING, "net")
    assert model.digest == expected.digest
    assert model.preprocessing == PREPROCESSING
    assert model.class_names == tuple(names)
    assert model.training == {"epochs": 3, "flip": True}
    assert not model.module.training
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.scores(x), expected.scores(x))
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["model.json", "model.safetensors"]


def test_same_run_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name, net(), training={"z": 1, "a": 2})
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_torchvision_nets_can_be_kept_too(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    module = squeezenet1_1(num_classes=4)
    build = {"factory": "torchvision:squeezenet1_1", "kwargs": {"num_classes": 4}}
    preprocessing = Preprocessing(size=(64, 64), declared=True)
    save_run(tmp_path / "r", module, build=build, preprocessing=preprocessing)
    assert load_run(tmp_path / "r").digest == build_model(module, preprocessing, "x").digest


@pytest.mark.parametrize(
    ("factory", "make"), [("shiftlens.nn.unet:UNet", UNet), ("shiftlens.nn.center_points:CenterPoints", CenterPoints)]
)
def test_nets_of_maps_can_be_kept_too(tmp_path: Path, factory: str, make: type[UNet | CenterPoints]) -> None:
    torch.manual_seed(0)
    module = make(n_classes=3, in_channels=2, width=2, padding="reflect").eval()
    build = {"factory": factory, "kwargs": module.config}
    preprocessing = Preprocessing((0.1, 0.2), (0.4, 0.5), (32, 40), None, "bilinear", True)
    save_run(tmp_path / "r", module, build=build, preprocessing=preprocessing)
    model = load_run(tmp_path / "r")
    assert model.digest == build_model(module, preprocessing, "x").digest
    assert (model.n_channels, model.preprocessing.size) == (2, (32, 40))
    x = torch.rand(2, 2, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(model.module(x), module(x), rtol=0, atol=0)


@pytest.mark.parametrize("factory", ["shiftlens.nn.unet:UNet", "shiftlens.nn.center_points:CenterPoints"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evil": 1}, "evil: Extra inputs"),
        ({"n_classes": 10**12}, "n_classes: Input should be less than or equal"),
        ({"n_classes": 0}, "n_classes: Input should be greater"),
        ({"in_channels": 65}, "in_channels: Input should be less than or equal"),
        ({"width": 4097}, "width: Input should be less than or equal"),
        ({"width": 4096}, "of another shape"),
        ({"width": "2"}, "width: Input should be a valid integer"),
        ({"padding": "full"}, "full padding makes larger maps"),
        ({"padding": "os.system"}, "os.system"),
        ({"padding": ["zeros"]}, "padding: Input should be a valid string"),
    ],
)
def test_nets_of_maps_have_their_arguments_checked(
    tmp_path: Path, factory: str, change: dict[str, object], message: str
) -> None:
    module = (UNet if factory.endswith("UNet") else CenterPoints)(n_classes=3, width=2)
    save_run(tmp_path, module, build={"factory": factory, "kwargs": module.config}, preprocessing=Preprocessing())
    edit(tmp_path, lambda spec: spec["build"]["kwargs"].update(change))
    with pytest.raises(InputError, match=message) as caught:
        load_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_loading_leaves_random_numbers_alone(run: Path) -> None:
    state = torch.random.get_rng_state()
    load_run(run)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_build_that_gives_another_net_is_refused(tmp_path: Path) -> None:
    build = {"factory": "shiftlens.nn.vgg:VGG", "kwargs": net(padding="reflect").config}
    with pytest.raises(InputError, match="gives another net"):
        save_run(tmp_path / "r", net(), build=build, preprocessing=PREPROCESSING)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": object()}, {"x": torch.zeros(1)}])
def test_facts_that_json_cannot_hold_are_refused(tmp_path: Path, facts: dict) -> None:
    with pytest.raises(InputError, match="plain JSON"):
        save(tmp_path / "r", net(), training=facts)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("factory", "kwargs", "message"),
    [
        ("os:system", {"command": "true"}, "unknown factory 'os:system'"),
        ("subprocess:run", {}, "unknown factory"),
        ("evil.py:make", {}, "unknown factory"),
        ("shiftlens.nn.vgg:VGG.__init__", {}, "did you mean 'shiftlens.nn.vgg:VGG'"),
        ("torchvision:", {}, "unknown factory"),
        ("torchvision:../../x", {}, "unknown torchvision model"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "weights: Extra inputs"),
        ("timm:hf-hub:someone/net", {}, "unknown timm model"),
        ("timm:local-dir:/tmp", {}, "unknown timm model"),
        ("shiftlens.nn.vgg:VGG", {"arch": "vgg6", "evil": 1}, "evil: Extra inputs"),
        ("shiftlens.nn.vgg:VGG", {"n_classes": "3"}, "n_classes: Input should be a valid integer"),
        ("shiftlens.nn.vgg:VGG", {"n_classes": True}, "n_classes: Input should be a valid integer"),
        ("shiftlens.nn.vgg:VGG", {"n_classes": 10**12}, "less than or equal"),
        ("shiftlens.nn.vgg:VGG", {"width": 4096}, "of another shape"),
        ("shiftlens.nn.vgg:VGG", {"head": "flatten", "size": [16384, 16384]}, "of another shape|missing"),
        ("shiftlens.nn.vgg:VGG", {"arch": "os.system"}, "unknown architecture"),
        ("shiftlens.nn.vgg:VGG", {"padding": ["zeros"]}, "padding: Input should be a valid string"),
    ],
)
def test_a_run_cannot_name_code_or_ask_for_too_much(run: Path, factory: str, kwargs: dict, message: str) -> None:
    edit(run, lambda spec: spec["build"].update(factory=factory, kwargs=kwargs))
    with pytest.raises(InputError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(schema_version=2), "schema_version 2, this shiftlens reads 1"),
        (lambda s: s.pop("schema_version"), "schema_version None"),
        (lambda s: s.update(kind="sweep"), "of kind 'sweep', expected 'run'"),
        (lambda s: s.pop("build"), "build: Field required"),
        (lambda s: s.update(build={"factory": 3}), "build.factory: Input should be a valid string"),
        (lambda s: s["preprocessing"].update(mean=["0.1"]), "preprocessing.mean.0"),
        (lambda s: s["preprocessing"].update(mean=[]), "preprocessing.mean"),
        (lambda s: s["preprocessing"].update(size=[32]), "preprocessing.size"),
        (lambda s: s["preprocessing"].update(size=[0, 10**9]), "preprocessing.size"),
        (lambda s: s.update(class_names="abc"), "class_names"),
    ],
)
def test_a_json_that_is_not_as_written(run: Path, change, message: str) -> None:
    edit(run, change)
    with pytest.raises(StoreError, match=message) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["preprocessing"].update(mean=[123.0] * 3), "mean must lie.*divide"),
        (lambda s: s["preprocessing"].update(std=[0.0] * 3), "std must lie above 0"),
        (lambda s: s["preprocessing"].update(mean=[float("nan")] * 3), "mean must lie"),
        (lambda s: s["preprocessing"].update(mean=[0.1] * 2, std=[0.2] * 2), "3 channels"),
        (lambda s: s["preprocessing"].update(interpolation="magic"), "unknown interpolation"),
        (lambda s: s.update(class_names=["a", "b"]), "gives 3 scores, and has 2 class names"),
    ],
)
def test_numbers_out_of_range(run: Path, change, message: str) -> None:
    edit(run, change)
    with pytest.raises(InputError, match=message):
        load_run(run)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"run"', "[" * 100_000, '{"kind": "run"', "\x00\xff"])
def test_a_json_that_is_no_run(run: Path, content: str) -> None:
    (run / "model.json").write_text(content)
    with pytest.raises(StoreError) as caught:
        load_run(run)
    assert "\n" not in str(caught.value)


def test_a_huge_json_is_not_read(run: Path) -> None:
    with (run / "model.json").open("r+b") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(StoreError, match="more than a run's"):
        load_run(run)


def test_unknown_keys_of_a_later_version_are_ignored(run: Path) -> None:
    digest = load_run(run).digest
    edit(run, lambda spec: spec.update(from_the_future={"x": 1}))
    assert load_run(run).digest == digest


def test_what_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load_run(tmp_path / "none")
    (run / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_run(run)
    (run / "model.json").unlink()
    with pytest.raises(InputError, match=r"no model\.json in it"):
        load_run(run)


def test_weights_of_another_run_are_told_apart(run: Path, tmp_path: Path) -> None:
    save_file(net(5).state_dict(), run / "model.safetensors")
    with pytest.raises(StoreError, match="another digest"):
        load_run(run)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    module = net()
    with torch.no_grad():
        module[0][0].weight[0, 0, 0, 0] = float("nan")
    save(tmp_path / "r", module)
    with pytest.raises(InputError, match=r"in 0\.0\.weight are NaN"):
        load_run(tmp_path / "r")


def test_a_kill_at_any_moment_leaves_one_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill is a system call that is never reached: stop before each rename and each flush in turn."""

    class Killed(BaseException):
        pass

    old, new = net(1), net(2, padding="reflect")
    digests = {build_model(m, PREPROCESSING, "x").digest for m in (old, new)}
    seen = []
    for moment in range(20):
        path = tmp_path / f"r{moment}"
        save(path, old, training={"which": "old"})
        calls = 0

        def step(original, moment: int = moment):
            def stopped(*arguments: object) -> object:
                nonlocal calls
                calls += 1
                if calls > moment:
                    raise Killed
                return original(*arguments)

            return stopped

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", step(os.fsync))
            patch.setattr(Path, "replace", step(Path.replace))
            try:
                save(path, new, training={"which": "new"})
            except Killed:
                pass
            else:
                assert calls <= moment
        model = load_run(path)
        assert model.digest in digests
        assert model.training["which"] == (
            "old" if model.digest == build_model(old, PREPROCESSING, "x").digest else "new"
        )
        seen.append(model.training["which"])
        if calls <= moment:
            break
    assert seen[0] == "old"
    assert seen[-1] == "new"
    assert len(seen) == 7  # flush, rename, flush the folder; for the weights and for the JSON


def test_strays_of_a_killed_writer_are_cleaned(run: Path) -> None:
    stray = run / ".model.safetensors.12345.partial"
    stray.write_bytes(b"torn")
    save(run, net(1))
    assert not stray.exists()


def test_where_a_run_may_be_written(run: Path, tmp_path: Path) -> None:
    check_run_target(run)
    check_run_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_run_target(tmp_path / "empty")
    (tmp_path / "empty" / ".checkpoint.safetensors.12345.partial").touch()  # its first writer was killed
    check_run_target(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        check_run_target(tmp_path / "file")
    with pytest.raises(StoreError, match="is a file"):
        save(tmp_path / "file", net())
    with pytest.raises(StoreError, match="holds something else"):
        check_run_target(tmp_path)
    edit(run, lambda spec: spec.update(kind="sweep"))
    before = (run / "model.json").read_bytes()
    with pytest.raises(StoreError, match="of kind 'sweep'"):
        save(run, net())
    assert (run / "model.json").read_bytes() == before


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        save(tmp_path / "file" / "run", net())


def test_a_moved_run_is_the_same_model(run: Path, tmp_path: Path) -> None:
    digest = load_run(run).digest
    shutil.move(run, tmp_path / "elsewhere")
    assert load_run(tmp_path / "elsewhere").digest == digest


def test_tied_tensors_are_saved(tmp_path: Path) -> None:
    module = net()
    module[0][3].bias = module[0][0].bias
    assert isinstance(module[0][3].bias, nn.Parameter)
    save(tmp_path / "r", module)
    state = load_run(tmp_path / "r").module.state_dict()
    assert torch.equal(state["0.3.bias"], state["0.0.bias"])
