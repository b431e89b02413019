"""`train`: images in, a run directory out; stopped anywhere, it goes on from the last epoch to the same weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.data.images import ImageSet, as_images
from shiftlens.data.surveying import Progress
from shiftlens.devices import machine_kind, resolve_device
from shiftlens.errors import DivergedError, InputError
from shiftlens.models.probing import scores_of
from shiftlens.models.runs import check_run_target, save_run
from shiftlens.naming import count_of
from shiftlens.progress_bar import shows_progress
from shiftlens.storage.locking import output_lock
from shiftlens.training.checkpoint import (
    CHECKPOINT,
    KIND,
    SCHEMA_VERSION,
    Checkpoint,
    believed,
    check_same_run,
    load_checkpoint,
    load_finished,
    save_checkpoint,
    save_record,
)
from shiftlens.training.curve import save_curve
from shiftlens.training.data import Batches, check_images, epoch_plan, pixels, preprocessing_of
from shiftlens.training.learning_rate import Schedule, Size, batch_size, plan, stage_sizes, steps_within
from shiftlens.training.looking import AT_ONCE, Validation
from shiftlens.training.machine import compute_dtype, tuned
from shiftlens.training.optimiser import Optimiser
from shiftlens.training.recipe import TrainSettings
from shiftlens.training.replay import ReplayedStep
from shiftlens.training.starting_net import OwnNet, check_scores, fitting, fresh_vgg, own_net_of
from shiftlens.training.training_result import TrainResult

_TIMED_STEPS = 3
_CHECKPOINT_PAUSE = {"cpu": 0.0, "cuda": 5.0}
"""Seconds between two checkpoints, at least: writing one takes as long as a fair part of an epoch on a GPU."""
_BATCH_NORM_MOMENTUM = 0.1  # PyTorch's own, which a net that is built again has


@shows_progress("training", "steps")
def train(
    images: ImageSet | str,
    validation: ImageSet | str | None = None,
    *,
    out: str | Path,
    seed: int = 0,
    device: str = "auto",
    settings: TrainSettings | None = None,
    module: nn.Module | str | Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a VGG, or a net of your own, and write it as a run directory; the same call resumes an unfinished one.

    After every epoch (on a GPU: at most every 5 s) a checkpoint is written whole. A run that was stopped and resumed
    ends in the same weights, bit for bit, as one that was not, on the same device, with the same number of threads and
    the same library versions.
    The shifted crops teach the net translations of up to `recipe.crop` pixels, and mirrored pictures hide what left
    and right do differently: say so beside every result about shifts.

    Parameters
    ----------
    images
        What is learnt from, an `ImageSet` or a spec: images of one size, at least one for each of at least two classes.
    validation
        What the accuracy is measured on. Nothing is chosen by it.
    out
        The run directory: new, empty, or one of the same settings, images and seed.
    seed
        Decides start, order, shifts and mirrors; at least 0.
    device
        `auto`, `cpu` or `cuda`.
    settings
        The net, the length, the recipe; `TrainSettings()` if not given.
    module
        A net of your own in place of the VGG: an `nn.Module`, which is not changed, or `file.py:factory`,
        `package.module:factory`, `torchvision:NAME` or `timm:NAME` (with random weights). It gives one score a class,
        and begins with the weights that it has. `load_model(out, code="file.py")` opens the run of a factory,
        `load_model(out, module=NET)` that of a module. Without `settings` it is trained at the images' own size.
    progress
        Called with (steps done, steps in all).

    Returns
    -------
    TrainResult
        With the learning curve, which is also in `training.json` and `learning-curve.png` of the run.

    Raises
    ------
    InputError
        Images that nothing can be learnt from; a run directory of other settings (it says which); a time budget too
        short for one epoch; a loss that is not finite any more (the last good checkpoint stays).
    StoreError
        `out` holds something else, is in use, or cannot be written.

    Examples
    --------
    >>> images = sl.load_images("digits", split="train", limit=40)
    >>> made = train(images, out="runs/digits", settings=TrainSettings(arch="vgg6", width=2, epochs=1))
    >>> len(made.epochs), sl.load_model("runs/digits").n_classes
    (1, 10)
    """
    started = time.perf_counter()
    out, target = Path(out), resolve_device(device)
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    images = as_images(images, split="train")
    validation = None if validation is None else as_images(validation, split="test")
    check_images(images)
    if validation is not None and validation.class_names != images.class_names:
        raise InputError(
            f"validation images have classes {list(validation.class_names)}, training images {list(images.class_names)}"
        )
    own = None if module is None else own_net_of(module, len(images.class_names))
    if own is not None:
        settings = fitting(settings, images)
    settings = settings or TrainSettings()
    asked = {
        "settings": settings.to_dict(),
        "seed": seed,
        "images": images.digest,
        "validation": None if validation is None else validation.digest,
    }
    if own is not None:
        asked |= own.asked(settings)
    with output_lock(out):
        finished = load_finished(out)
        if finished is not None:
            check_same_run(out, finished["asked"], asked)
            with believed(out):
                return TrainResult.from_record(out, finished, len(finished["epochs"]))
        stored = load_checkpoint(out)
        if stored is None:
            check_run_target(out)
        else:
            check_same_run(out, stored.record["asked"], asked)
        with tuned(target):
            return _Run(images, validation, settings, target, asked, out, progress, own).go(stored, started)


class _Run:
    """A run's net, data and optimiser; `go` takes them from the last checkpoint, or the start, to the end."""

    own: OwnNet | None = None

    def __init__(
        self,
        images: ImageSet,
        validation: ImageSet | None,
        settings: TrainSettings,
        device: torch.device,
        asked: dict[str, Any],
        out: Path,
        progress: Progress | None,
        own: OwnNet | None = None,
    ) -> None:
        self.own = own
        self.images, self.settings, self.recipe = images, settings, settings.recipe
        self.seed, self.device, self.out, self.progress = asked["seed"], device, out, progress
        self.dtype = compute_dtype(settings.dtype, device)
        pictures = pixels(_fitted(images, settings.size))
        self.preprocessing = preprocessing_of(pictures, settings.size)
        labels = torch.from_numpy(np.array(images.labels))
        self.batches = Batches(pictures, labels, self.preprocessing, self.recipe, device)
        self.validation = None
        if validation is not None:
            shown = _fitted(validation, settings.size)
            self.validation = Validation(shown, self.preprocessing, device, self.dtype)
        self.net: nn.Module
        if own is None:
            vgg = fresh_vgg(settings, asked["seed"], len(images.class_names), images.n_channels)
            self.net, self.build = vgg, {"factory": "shiftlens.nn.vgg:VGG", "kwargs": vgg.config}
        else:
            self.net, self.build = own.module, dict(own.build)
            check_scores(self.net, own.name, settings.size, images.n_channels, len(images.class_names))
        # Channels last is the layout that convolutions are fastest in, on both kinds of device.
        self.net.to(device).to(memory_format=torch.channels_last)
        self.optimiser = Optimiser(self.net, self.recipe, self.dtype, own=own is not None)
        self.saved, self.kept = time.perf_counter(), 0
        may_flip = images.natural_flip if settings.flip is None else settings.flip
        self.flip = self.recipe.flip if may_flip else "none"
        self.record: dict[str, Any] = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "complete": False,
            "asked": asked,
            "dtype": str(self.dtype).removeprefix("torch."),
            # What the net is shown besides the pictures as they are: a reader of shift results must know.
            "augmentation": {"shift": self.recipe.crop, "shift_fill": "reflect", "mirror": self.flip}
            | {name: getattr(self.recipe, name) for name in ("cutout", "cutmix") if getattr(self.recipe, name)},
            "machines": [],
            "epochs": [],
        }

    def go(self, stored: Checkpoint | None, started: float) -> TrainResult:
        if stored is None:
            schedule = self._schedule(started)
            self.record["schedule"] = schedule.to_dict()
        else:
            with believed(self.out):
                self.record = stored.record
                schedule = Schedule.from_dict(stored.record["schedule"])
                self.net.load_state_dict(stored.part("net"))
                if len(stored.record["epochs"]) < schedule.n_epochs:
                    self.optimiser.load(stored.part("momentum"))
        resumed = self.kept = len(self.record["epochs"])
        threads = torch.get_num_threads() if self.device.type == "cpu" else None
        here = {"machine": machine_kind(self.device), "threads": threads, "torch": torch.__version__}
        if here not in self.record["machines"]:
            self.record["machines"].append(here)
        take_step = self._stepper(self.net, self.optimiser)
        for epoch in range(resumed, schedule.n_epochs):
            self._epoch(epoch, schedule, take_step)
        return self._finish(resumed)

    def _schedule(self, started: float) -> Schedule:
        n = len(self.batches)
        if self.settings.minutes is None:
            return plan(self.settings, n)
        step_seconds, look_seconds = self._measure()
        n_validation = 0 if self.validation is None else len(self.validation)
        last_look = 3 * look_seconds * n_validation  # at all pictures, in float32
        epoch_seconds = look_seconds * min(n_validation, self.settings.glance) + 0.2
        left = self.settings.minutes * 60 - (time.perf_counter() - started) - last_look
        return plan(self.settings, n, steps_within(left, step_seconds, epoch_seconds, self.settings, n))

    def _measure(self) -> tuple[dict[Size, float], float]:
        """Seconds of a step at each size, and of a glance at one picture; on a copy of the net: nothing is learnt."""
        net = copy.deepcopy(self.net)
        optimiser = Optimiser(net, self.recipe, self.dtype, own=self.own is not None)
        take_step = self._stepper(net, optimiser)
        batch = batch_size(self.recipe, len(self.batches))
        drawn = epoch_plan(len(self.batches), self.seed, 0, self.recipe, self.flip)
        step_seconds: dict[Size, float] = {}
        for size in dict.fromkeys(size for _, size in stage_sizes(self.settings)):
            times = []
            for _ in range(1 + _TIMED_STEPS):  # the first one also sets up the kernels
                begin = time.perf_counter()
                x, y = next(self.batches.epoch(drawn, batch, [size]))
                float(take_step(x, y, 0.0))  # waits for a GPU
                times.append(time.perf_counter() - begin)
            step_seconds[size] = float(np.median(times[1:]))
        if self.validation is None:
            return step_seconds, 0.0
        begin = time.perf_counter()
        shown = self.validation.pictures[:AT_ONCE]
        self.validation.scores(net, shown, self.dtype)
        return step_seconds, (time.perf_counter() - begin) / len(shown)

    def _stepper(self, net: nn.Module, optimiser: Optimiser) -> Callable[[Tensor, Tensor, float], Tensor]:
        """What takes a step: one by one, or, on a GPU, recorded, unless layers draw: a record repeats them."""
        # A net of the user's own may do what cannot be recorded.
        if self.device.type == "cuda" and self.own is None and self.settings.padding != "random":
            return ReplayedStep(self._step, net, optimiser)
        return lambda x, y, factor: self._step(net, optimiser, x, y, factor)

    def _step(self, net: nn.Module, optimiser: Optimiser, x: Tensor, y: Tensor, factor: float | Tensor) -> Tensor:
        net.train()
        # No weight is used twice, and a recorded step must not find another one's cast.
        use = self.dtype == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use, cache_enabled=False):
            scores = scores_of(net(x))
        loss = F.cross_entropy(scores.float(), y, label_smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step(factor)
        return loss.detach()

    def _epoch(self, epoch: int, schedule: Schedule, take_step: Callable[[Tensor, Tensor, float], Tensor]) -> None:
        begin = time.perf_counter()
        steps = schedule.steps_of(epoch)
        drawn = epoch_plan(len(self.batches), self.seed, epoch, self.recipe, self.flip)
        batches = self.batches.epoch(drawn, schedule.batch, [schedule.size(step) for step in steps])
        losses = torch.zeros(len(steps), device=self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            # Layers that draw while they train (random padding) draw the same after a resume.
            torch.manual_seed(((self.seed << 20) + epoch) % 2**63)
            for step, (x, y) in zip(steps, batches, strict=True):
                losses[step - steps.start] = take_step(x, y, schedule.factor(step))
                if self.progress is not None:
                    self.progress(step + 1, schedule.n_steps)
        # Asked for once an epoch: a GPU that is asked after each step waits for the question.
        for k, loss in enumerate(losses.tolist()):
            if not math.isfinite(loss):
                raise self._diverged(f"the loss is {loss}", epoch, k)
        # The last step's weights have not met a loss yet, and a checkpoint must be one that can be gone on from.
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.net.state_dict().values()):
            raise self._diverged("a weight is not finite", epoch, len(steps) - 1)
        is_last = epoch == schedule.n_epochs - 1
        n, accuracy = 0, None
        if self.validation is not None:
            n, accuracy = self.validation.look(self.net, None if is_last else self.settings.glance)
        row = {"epoch": epoch + 1, "train_loss": sum(losses.tolist()) / len(steps), "accuracy": accuracy, "n": n}
        self.record["epochs"].append(row | {"seconds": time.perf_counter() - begin})
        if not is_last and time.perf_counter() - self.saved < _CHECKPOINT_PAUSE[self.device.type]:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.out, self.net.state_dict(), {} if is_last else self.optimiser.state(), self.record)
        save_record(self.out, self.record)
        self.saved, self.kept = time.perf_counter(), epoch + 1

    def _finish(self, resumed: int) -> TrainResult:
        for part in self.net.modules():
            if self.own is None and isinstance(part, nn.BatchNorm2d):
                part.momentum = _BATCH_NORM_MOMENTUM
        self.record["complete"] = True
        result = TrainResult.from_record(self.out, self.record, resumed)
        facts = ("asked", "schedule", "dtype", "augmentation", "machines", "epochs")
        save_run(
            self.out,
            self.net.eval(),
            build=self.build,
            code=None if self.own is None else self.own.code,
            preprocessing=self.preprocessing,
            class_names=self.images.class_names,
            training={name: self.record[name] for name in facts},
            metrics={name: getattr(result, name) for name in ("accuracy", "accuracy_interval", "n_validation")},
        )
        name = self.settings.arch if self.own is None else self.own.name
        title = f"{name} on {self.images.name}, {count_of(len(self.images), 'image')}"
        save_curve(self.out, self.record["epochs"], title)
        save_record(self.out, self.record)
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        return result

    def _diverged(self, what: str, epoch: int, batch: int) -> DivergedError:
        nothing = "no checkpoint was written yet" if epoch else "no epoch was finished"
        kept = f"the checkpoint of epoch {self.kept} is kept in {self.out}" if self.kept else nothing
        return DivergedError(f"training diverged: {what} at epoch {epoch + 1}, batch {batch + 1}; {kept}")


def _fitted(images: ImageSet, size: Size) -> ImageSet:
    return images if images.size == size else images.fitted(size)
