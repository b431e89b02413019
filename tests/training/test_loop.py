"""Whole runs on a few dozen pictures: learning, resuming, refusing."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from shiftlens.data.images import ImageSet, load_images
from shiftlens.errors import InputError, StoreError
from shiftlens.evaluation import evaluate
from shiftlens.models.loading import load_model
from shiftlens.nn.padding import PADDING_MODES
from shiftlens.nn.vgg import DOWNSAMPLINGS, HEADS
from shiftlens.storage.locking import output_lock
from shiftlens.training import Recipe, Stage, TrainSettings, loop, train
from shiftlens.training.checkpoint import CHECKPOINT, RECORD, load_checkpoint
from shiftlens.training.replay import ReplayedStep

STAGES = (Stage(0.5, 0.5), Stage(0.5, 1.0))
QUICK = TrainSettings(
    arch="vgg6",
    size=(16, 16),
    width=4,
    epochs=3,
    dtype="float32",
    recipe=Recipe(batch=8, min_steps_per_epoch=1, stages=STAGES, crop=1),
)


def bars(n=48, size=16, seed=0, **more):
    """Two classes that an eye tells apart: a bright bar lies or stands somewhere."""
    draw = np.random.default_rng(seed)
    shown = draw.integers(0, 60, (n, 3, size, size), dtype=np.uint8)
    labels = np.arange(n) % 2
    for picture, label in zip(shown, labels, strict=True):
        at = draw.integers(2, size - 4)
        if label:
            picture[:, :, at : at + 2] = 220
        else:
            picture[:, at : at + 2, :] = 220
    return ImageSet(shown, labels, class_names=["lying", "standing"], name="bars", **more)


def settings(**changes):
    return dataclasses.replace(QUICK, **changes)


def with_recipe(**changes):
    return settings(recipe=dataclasses.replace(QUICK.recipe, **changes))


def weights(out):
    return load_file(out / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


class KilledError(Exception):
    """Raised in the middle of a run, as a kill would."""


def stop_at(step):
    def progress(done, total):
        if done == step:
            raise KilledError

    return progress


def test_learns_and_the_run_directory_says_the_same(tmp_path):
    seen = []
    result = train(
        bars(96),
        bars(40, seed=1),
        out=tmp_path / "run",
        settings=settings(epochs=8),
        progress=lambda *a: seen.append(a),
    )
    assert result.accuracy is not None
    assert result.accuracy >= 0.95
    assert result.accuracy_interval[0] < result.accuracy <= result.accuracy_interval[1]
    assert [row["epoch"] for row in result.epochs] == list(range(1, 9))
    assert result.epochs[-1]["train_loss"] < result.epochs[0]["train_loss"]
    assert result.n_steps == 8 * 12
    assert seen == [(k, 96) for k in range(1, 97)]

    model = load_model(str(tmp_path / "run"))
    assert evaluate(model, bars(40, seed=1)).accuracy == result.accuracy
    record = json.loads((tmp_path / "run" / RECORD).read_text())
    assert record["complete"]
    assert record["epochs"] == list(result.epochs)
    assert model.training["augmentation"] == {"shift": 1, "shift_fill": "reflect", "mirror": "alternating"}
    assert (tmp_path / "run" / "learning-curve.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    assert set(result.to_dict()) >= {"epochs", "accuracy", "accuracy_interval", "out"}
    assert "40 images" in result.lines()[1]


@pytest.mark.parametrize("step", [1, 6, 7, 13, 18])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, step):
    whole = train(bars(), bars(20, seed=1), out=tmp_path / "whole", settings=QUICK)
    with pytest.raises(KilledError):
        train(bars(), bars(20, seed=1), out=tmp_path / "cut", settings=QUICK, progress=stop_at(step))
    assert not (tmp_path / "cut" / "model.json").exists()
    resumed = train(bars(), bars(20, seed=1), out=tmp_path / "cut", settings=QUICK)
    assert resumed.resumed_epochs == (step - 1) // 6
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))
    told = [(row["train_loss"], row["accuracy"]) for row in resumed.epochs]
    assert told == [(row["train_loss"], row["accuracy"]) for row in whole.epochs]


def test_layers_that_draw_while_they_train_draw_the_same_after_a_resume(tmp_path):
    drawing = settings(padding="random")
    train(bars(), out=tmp_path / "whole", settings=drawing)
    torch.manual_seed(12345)  # what the caller drew before does not matter
    with pytest.raises(KilledError):
        train(bars(), out=tmp_path / "cut", settings=drawing, progress=stop_at(8))
    train(bars(), out=tmp_path / "cut", settings=drawing)
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_killed_between_the_last_epoch_and_the_end(tmp_path, monkeypatch):
    def killed(*args, **kwargs):
        raise KilledError

    train(bars(), out=tmp_path / "whole", settings=QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_run", killed)
        with pytest.raises(KilledError):
            train(bars(), out=tmp_path / "cut", settings=QUICK)
    assert train(bars(), out=tmp_path / "cut", settings=QUICK).resumed_epochs == 3
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_seeds_repeat_and_differ(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(bars(), out=tmp_path / name, seed=seed, settings=settings(epochs=1))
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(weights(tmp_path / "a")["0.0.weight"], weights(tmp_path / "c")["0.0.weight"])


def test_training_leaves_torchs_own_random_numbers_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(bars(), out=tmp_path / "run", settings=settings(epochs=1))
    assert torch.equal(torch.rand(2), expected)


def test_finished_run_is_told_again_without_training(tmp_path):
    first = train(bars(), out=tmp_path / "run", settings=QUICK)
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    again = train(bars(), out=tmp_path / "run", settings=QUICK, progress=stop_at(1))
    assert again.epochs == first.epochs
    assert again.resumed_epochs == 3
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused_and_named(tmp_path, finished):
    out = tmp_path / "run"
    if finished:
        train(bars(), out=out, settings=QUICK)
    else:
        with pytest.raises(KilledError):
            train(bars(), out=out, settings=QUICK, progress=stop_at(8))
    with pytest.raises(
        InputError, match=r"settings\.padding was zeros, now reflect; settings\.recipe\.lr was 0\.24, now 0\.1"
    ):
        train(bars(), out=out, settings=dataclasses.replace(with_recipe(lr=0.1), padding="reflect"))
    with pytest.raises(InputError, match="seed was 0, now 1"):
        train(bars(), out=out, seed=1, settings=QUICK)
    with pytest.raises(InputError, match="images was sha256"):
        train(bars(seed=5), out=out, settings=QUICK)


def test_foreign_directory_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(StoreError, match="something else"):
        train(bars(), out=tmp_path, settings=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_second_writer_is_refused(tmp_path):
    with output_lock(tmp_path / "run"), pytest.raises(StoreError, match="busy"):
        train(bars(), out=tmp_path / "run", settings=QUICK)


def test_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(StoreError, match="cannot be read"):
        train(bars(), out=tmp_path / "run", settings=QUICK)


def poison(patch, step):
    """The loss of that step is no number; steps are counted from now on."""
    right, steps = F.cross_entropy, []

    def poisoned(scores, *args, **options):
        loss = right(scores, *args, **options)
        steps.extend([1] * scores.requires_grad)
        return loss * math.nan if scores.requires_grad and len(steps) == step else loss

    patch.setattr(F, "cross_entropy", poisoned)


def test_divergence_names_epoch_and_batch_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, 9)
        with pytest.raises(InputError, match="the loss is nan at epoch 2, batch 3; the checkpoint of epoch 1 is kept"):
            train(bars(), out=tmp_path / "run", settings=QUICK)
    kept = load_checkpoint(tmp_path / "run")
    assert kept is not None
    assert len(kept.record["epochs"]) == 1
    assert train(bars(), out=tmp_path / "run", settings=QUICK).resumed_epochs == 1


def test_absurd_rate_diverges_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"training diverged: .* at epoch 1, batch \d+; no epoch was finished"):
        train(bars(), out=tmp_path / "run", settings=with_recipe(lr_head=1e38, lr_first=1e38))
    assert not (tmp_path / "run" / CHECKPOINT).exists()


@pytest.mark.parametrize("padding", PADDING_MODES)
def test_every_padding_trains(tmp_path, padding):
    result = train(bars(), bars(8), out=tmp_path / "run", settings=settings(padding=padding, epochs=1))
    assert np.isfinite(result.epochs[0]["train_loss"])
    stored = json.loads((tmp_path / "run" / "model.json").read_text())
    assert stored["build"]["kwargs"]["padding"] == padding


@pytest.mark.parametrize("downsample", DOWNSAMPLINGS)
@pytest.mark.parametrize("head", HEADS)
def test_every_downsampling_and_head_trains(tmp_path, downsample, head):
    chosen = settings(downsample=downsample, head=head, epochs=1, size=(17, 17), arch="vgg8")
    result = train(bars(16), bars(8), out=tmp_path / "run", settings=chosen)
    assert np.isfinite(result.epochs[0]["train_loss"])
    assert load_model(str(tmp_path / "run")).input_size == (17, 17)


def test_grey_pictures_train(tmp_path):
    grey = ImageSet(bars().batch(slice(None))[:, 0], bars().labels)
    train(grey, out=tmp_path / "run", settings=settings(epochs=1))
    assert weights(tmp_path / "run")["0.0.weight"].shape == (4, 1, 3, 3)


@pytest.mark.parametrize(
    ("natural", "asked", "expected"), [(False, None, "none"), (True, None, "alternating"), (True, False, "none")]
)
def test_mirrors_are_for_pictures_that_keep_their_class(tmp_path, natural, asked, expected):
    train(bars(natural_flip=natural), out=tmp_path / "run", settings=settings(epochs=1, flip=asked))
    assert load_model(str(tmp_path / "run")).training["augmentation"]["mirror"] == expected


def test_budget_decides_the_steps_and_a_resumed_run_keeps_them(tmp_path):
    budget = settings(epochs=None, minutes=0.05)
    with pytest.raises(KilledError):
        train(bars(), bars(8), out=tmp_path / "run", settings=budget, progress=stop_at(13))
    planned = load_checkpoint(tmp_path / "run").record["schedule"]["n_steps"]
    result = train(bars(), bars(8), out=tmp_path / "run", settings=budget)
    assert result.n_steps == planned
    assert result.seconds < 2 * 0.05 * 60


def test_budget_too_short_for_an_epoch(tmp_path):
    with pytest.raises(InputError, match=r"a budget of 1e-05 minutes is too short for one epoch"):
        train(bars(), out=tmp_path / "run", settings=settings(epochs=None, minutes=1e-5))
    assert not (tmp_path / "run").exists()


def test_validation_of_other_classes_is_refused(tmp_path):
    other = ImageSet(np.zeros((2, 16, 16), np.uint8), [0, 1], class_names=["cat", "dog"])
    with pytest.raises(InputError, match="validation images have classes"):
        train(bars(), other, out=tmp_path / "run", settings=QUICK)


def test_bfloat16_learns_too(tmp_path):
    result = train(bars(), bars(20, seed=1), out=tmp_path / "run", settings=settings(dtype="bfloat16", epochs=8))
    assert result.accuracy >= 0.9
    assert weights(tmp_path / "run")["0.0.weight"].dtype == torch.float32


@pytest.mark.parametrize(("glance", "looked"), [(0, [0, 0, 20]), (7, [7, 7, 20]), (1000, [20, 20, 20])])
def test_last_epoch_is_measured_on_everything(tmp_path, glance, looked):
    result = train(bars(), bars(20, seed=1), out=tmp_path / "run", settings=settings(glance=glance))
    assert [row["n"] for row in result.epochs] == looked
    assert [row["accuracy"] is None for row in result.epochs] == [n == 0 for n in looked]
    assert result.n_validation == 20


def test_run_without_validation_has_no_accuracy(tmp_path):
    result = train(bars(), out=tmp_path / "run", settings=settings(epochs=1))
    assert (result.accuracy, result.accuracy_interval, result.n_validation) == (None, None, 0)
    assert len(result.lines()) == 1


def test_a_run_of_recorded_steps_learns_and_resumes_to_the_same_weights(tmp_path, monkeypatch):
    def stepper(self, net, optimiser):
        return ReplayedStep(self._step, net, optimiser, lambda work: work)

    monkeypatch.setattr(loop._Run, "_stepper", stepper)
    longer = dataclasses.replace(QUICK, epochs=8)
    assert train(bars(96), bars(40, seed=1), out=tmp_path / "whole", settings=longer).accuracy >= 0.95
    with pytest.raises(KilledError):
        train(bars(96), bars(40, seed=1), out=tmp_path / "cut", settings=longer, progress=stop_at(30))
    train(bars(96), bars(40, seed=1), out=tmp_path / "cut", settings=longer)
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_on_a_fast_device_checkpoints_are_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setitem(loop._CHECKPOINT_PAUSE, "cpu", math.inf)
    with pytest.raises(KilledError):
        train(bars(), out=tmp_path / "run", settings=QUICK, progress=stop_at(13))
    assert not (tmp_path / "run" / CHECKPOINT).exists()
    monkeypatch.setitem(loop._CHECKPOINT_PAUSE, "cpu", 0.0)
    with pytest.raises(KilledError):
        train(bars(), out=tmp_path / "run", settings=QUICK, progress=stop_at(8))
    monkeypatch.setitem(loop._CHECKPOINT_PAUSE, "cpu", math.inf)
    poison(monkeypatch, 9)
    # Epochs 2 and 3 follow; the checkpoint is that of epoch 1.
    with pytest.raises(InputError, match="at epoch 3, batch 3; the checkpoint of epoch 1 is kept"):
        train(bars(), out=tmp_path / "run", settings=QUICK)
    assert len(load_checkpoint(tmp_path / "run").record["epochs"]) == 1


def test_only_a_gpu_records_and_not_where_layers_draw(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(loop, "ReplayedStep", lambda *args: made.append(args))
    train(bars(), out=tmp_path / "run", settings=dataclasses.replace(QUICK, epochs=1))
    assert not made
    run = loop._Run.__new__(loop._Run)
    run.device = torch.device("cuda")
    for padding in ("zeros", "random"):
        run.settings = dataclasses.replace(QUICK, padding=padding)
        run._stepper(None, None)
    assert len(made) == 1


def test_cutout_and_cutmix_train_and_are_told(tmp_path):
    train(bars(), out=tmp_path / "run", settings=with_recipe(cutout=4, cutmix=0.5))
    told = load_model(str(tmp_path / "run")).training
    assert told["augmentation"]["cutout"] == 4
    assert told["augmentation"]["cutmix"] == 0.5
    with pytest.raises(InputError, match=r"settings\.recipe\.cutout was 4, now None"):
        train(bars(), out=tmp_path / "run", settings=with_recipe(cutmix=0.5))


def test_runs_that_do_not_know_of_cutout_are_gone_on_with(tmp_path):
    with pytest.raises(KilledError):
        train(bars(), out=tmp_path / "run", settings=QUICK, progress=stop_at(8))
    assert not {"cutout", "cutmix"} & load_checkpoint(tmp_path / "run").record["asked"]["settings"]["recipe"].keys()
    assert train(bars(), out=tmp_path / "run", settings=QUICK).resumed_epochs == 1


def test_of_a_source_without_splits_a_part_is_learnt_and_the_other_validates(tmp_path):
    whole = load_images("digits", limit=40)
    train(whole, "digits", out=tmp_path / "run", settings=settings(epochs=1))
    asked = json.loads((tmp_path / "run" / RECORD).read_text())["asked"]
    assert asked["images"] == load_images("digits", split="train", limit=40).digest
    assert asked["validation"] == load_images("digits", split="test").digest
    run = load_model(tmp_path / "run")
    assert evaluate(run, whole) == evaluate(run, load_images("digits", split="test", limit=40))
    assert evaluate(run, "digits").n == 359
    assert evaluate(run, load_images("digits", split="all")).n == 1797
