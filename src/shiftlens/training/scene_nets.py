"""`train_on_scenes`: a small U-Net or detector for `digits-scenes`, from a seed to a run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shiftlens.data.images import ImageSet, load_images
from shiftlens.data.preprocessing import Preprocessing
from shiftlens.data.surveying import Progress
from shiftlens.data.targets import Targets
from shiftlens.devices import machine_kind, resolve_device
from shiftlens.errors import InputError
from shiftlens.models.runs import check_run_target, save_run
from shiftlens.models.runspec import MODEL_JSON, read_spec
from shiftlens.naming import Printed, count_of, unknown_name
from shiftlens.nn.center_points import CenterPoints
from shiftlens.nn.unet import UNet
from shiftlens.paths import kind_of
from shiftlens.progress_bar import shows_progress
from shiftlens.storage.locking import output_lock
from shiftlens.tasks.outputs import detection_table
from shiftlens.training.data import pixels, preprocessing_of
from shiftlens.training.machine import compute_dtype, tuned
from shiftlens.training.scene_lessons import N_DIGITS, center_lessons, center_loss, mask_lessons, mask_loss
from shiftlens.training.scene_scores import detection_scores, scores_text, segmentation_scores, with_intervals

_AT_ONCE = 20


@dataclass(frozen=True)
class SceneRecipe:
    """How long and how fast to learn: AdamW, a learning rate that rises linearly and falls by a half cosine."""

    n_steps: int
    batch: int = 16
    lr: float = 3e-3
    weight_decay: float = 1e-2
    warmup: float = 0.1

    def factor(self, step: int) -> float:
        """Share of `lr` at a step from 0."""
        done = (step + 0.5) / self.n_steps
        return min(1.0, done / self.warmup) * (0.5 + 0.5 * math.cos(math.pi * done))


@dataclass(frozen=True, repr=False)
class SceneResult(Printed):
    """Where the run is and how good it is.

    Attributes
    ----------
    out
        The run directory, for `load_model`.
    net
        "unet" or "detector".
    metrics
        On the unshifted test scenes, with 95 % bootstrap intervals over scenes (`NAME_interval`): `mean_iou` and
        `pixel_accuracy` of a U-Net, `ap50` of a detector; and `n_validation`, the number of scenes.
    n_steps, seconds
        Steps taken, and how long they took.
    """

    out: Path
    net: str
    metrics: dict[str, Any]
    n_steps: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The keys of `shiftlens train-scenes --json`."""
        return {"out": str(self.out), "net": self.net, "n_steps": self.n_steps, "seconds": self.seconds, **self.metrics}

    def lines(self) -> list[str]:
        """The same for people."""
        return [
            f"trained {count_of(self.n_steps, 'step')}, {self.seconds:.0f} s: {self.out}",
            f"{scores_text(self.metrics, NETS[self.net].scores)} on {self.metrics['n_validation']:,} scenes",
        ]


@dataclass(frozen=True)
class SceneNet:
    """A kind of net: how it is built, what it learns, and how it is measured.

    Attributes
    ----------
    factory, n_classes, build
        For the run directory, and the class that `factory` names.
    n_steps
        Of the recipe.
    lessons
        What each image teaches, tensors [n, ...], of the targets and (h, w).
    loss
        Of the net's output, and the lessons of a batch.
    measured
        Makes a net's scores of (net, images as it sees them, targets).
    scores
        Keys of the metrics and their names.
    """

    factory: str
    n_classes: int
    build: type[UNet | CenterPoints]
    n_steps: int
    lessons: Callable[[Targets, tuple[int, int]], tuple[Tensor, ...]]
    loss: Callable[..., Tensor]
    measured: Callable[[nn.Module, Callable[[slice], Tensor], Targets], dict[str, Any]]
    scores: tuple[tuple[str, str], ...]


@shows_progress("training", "steps")
def train_on_scenes(
    net: str,
    *,
    out: str | Path,
    seed: int = 0,
    n_steps: int | None = None,
    padding: str = "zeros",
    device: str = "auto",
    limit: int | None = None,
    progress: Progress | None = None,
) -> SceneResult:
    """Train a small net on the train scenes of `digits-scenes`, measure it on the test scenes, write a run directory.

    Nothing is mirrored or shifted beside: every digit is at every place already. There are no checkpoints; a run that
    is finished is read again by the same call.

    Parameters
    ----------
    net
        "unet" (segmentation) or "detector".
    out
        The run directory: new, empty, or the finished run of the same call.
    seed
        Decides start and order; at least 0.
    n_steps
        Steps of 16 scenes; by default as many as take about two minutes on two cores.
    padding
        Of every convolution: a name of `shiftlens.nn.PADDING_MODES`, but `full`.
    device
        `auto`, `cpu` or `cuda`.
    limit
        Scenes to learn from and to be measured on, at most.
    progress
        Called with (steps done, steps in all).

    Raises
    ------
    InputError
        An unknown net or padding, a number below its least, a loss that is not finite, or a run of another call.
    StoreError
        `out` holds something else, is in use, or cannot be written.

    Examples
    --------
    >>> train_on_scenes("unet", out="runs/unet")  # two minutes  # doctest: +SKIP
    """
    if net not in NETS:
        raise unknown_name("net", net, tuple(NETS))
    kind, target, out = NETS[net], resolve_device(device), Path(out)
    recipe = SceneRecipe(kind.n_steps if n_steps is None else n_steps)
    if recipe.n_steps < 1 or seed < 0:
        raise InputError(f"training takes at least 1 step and a seed of at least 0, got {recipe.n_steps} and {seed}")
    learnt, shown = (load_images("digits-scenes", split=split, limit=limit) for split in ("train", "test"))
    asked = {"net": net, "seed": seed, "padding": padding, "images": learnt.digest, "validation": shown.digest}
    asked |= {"recipe": asdict(recipe)}
    with output_lock(out):
        if kind_of(out / MODEL_JSON) != "nothing":
            spec = read_spec(out)
            if spec.training.get("asked") != asked:
                raise InputError(f"{out} holds another run; choose a new name")
            seconds: Any = spec.training["seconds"]
            return SceneResult(out, net, dict(spec.metrics), recipe.n_steps, float(seconds))
        check_run_target(out)
        with tuned(target), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = kind.build(n_classes=kind.n_classes, padding=padding)
            module = module.to(target).to(memory_format=torch.channels_last)  # what convolutions are fastest in
            started = time.perf_counter()
            preprocessing = _learn(module, kind, learnt, recipe, seed, progress)
            seconds = time.perf_counter() - started
        module = module.to(memory_format=torch.contiguous_format)
        metrics = measure_on_scenes(net, module, preprocessing, shown)
        training = {
            "asked": asked,
            "dtype": str(compute_dtype("auto", target)).removeprefix("torch."),
            "seconds": seconds,
            "machines": [
                {"machine": machine_kind(target), "threads": torch.get_num_threads(), "torch": torch.__version__}
            ],
        }
        build = {"factory": kind.factory, "kwargs": module.config}
        save_run(out, module.cpu(), build=build, preprocessing=preprocessing, training=training, metrics=metrics)
    return SceneResult(out, net, metrics, recipe.n_steps, seconds)


def measure_on_scenes(net: str, module: nn.Module, preprocessing: Preprocessing, scenes: ImageSet) -> dict[str, Any]:
    """Scores of a net of kind `net` on unshifted scenes, with intervals; see `SceneResult.metrics`."""
    assert scenes.targets is not None
    x, device = pixels(scenes), next(module.parameters()).device
    with torch.no_grad():
        measured = NETS[net].measured(
            module.eval(), lambda some: _normalised(x[some].to(device), preprocessing), scenes.targets
        )
    return measured | {"n_validation": len(scenes)}


def _learn(
    module: UNet | CenterPoints,
    kind: SceneNet,
    images: ImageSet,
    recipe: SceneRecipe,
    seed: int,
    progress: Progress | None,
) -> Preprocessing:
    assert images.targets is not None
    assert images.size is not None
    x = pixels(images)
    preprocessing = preprocessing_of(x, images.size)
    lessons = kind.lessons(images.targets, images.size)
    device = next(module.parameters()).device
    dtype = compute_dtype("auto", device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    module.train()
    order = np.zeros(0, np.int64)
    draw = np.random.default_rng(seed)
    for step in range(recipe.n_steps):
        while len(order) < recipe.batch:
            order = np.concatenate([order, draw.permutation(len(x))])
        chosen, order = torch.from_numpy(order[: recipe.batch]), order[recipe.batch :]
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * recipe.factor(step)
        seen = _normalised(x[chosen].to(device), preprocessing).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype == torch.bfloat16):
            given = module(seen)
        loss = kind.loss(given, *(lesson[chosen].to(device) for lesson in lessons))
        if not math.isfinite(float(loss.detach())):
            raise InputError(f"training diverged: the loss is {float(loss.detach())} at step {step + 1}")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if progress is not None:
            progress(step + 1, recipe.n_steps)
    return preprocessing


def _normalised(x: Tensor, preprocessing: Preprocessing) -> Tensor:
    (mean,), (std,) = preprocessing.mean, preprocessing.std
    return (x.float() / 255 - mean) / std


def _segmented(module: nn.Module, batch: Callable[[slice], Tensor], targets: Targets) -> dict[str, Any]:
    assert targets.masks is not None
    predicted = [module(batch(some)).argmax(1).cpu() for some in _slices(len(targets.masks))]
    masks = np.asarray(targets.masks)
    return with_intervals(segmentation_scores(torch.cat(predicted).numpy(), masks, N_DIGITS + 1), len(masks))


def _detected(module: nn.Module, batch: Callable[[slice], Tensor], targets: Targets) -> dict[str, Any]:
    assert targets.boxes is not None
    tables, size = [], (0, 0)
    for some in _slices(len(targets.boxes)):
        x = batch(some)
        size = int(x.shape[2]), int(x.shape[3])
        tables.append(detection_table(module(x)).cpu())
    return with_intervals(detection_scores(torch.cat(tables).double().numpy(), targets, size), len(targets.boxes))


def _slices(n: int) -> list[slice]:
    return [slice(start, start + _AT_ONCE) for start in range(0, n, _AT_ONCE)]


NETS: dict[str, SceneNet] = {
    "unet": SceneNet(
        "shiftlens.nn.unet:UNet",
        N_DIGITS + 1,
        UNet,
        1_000,
        mask_lessons,
        mask_loss,
        _segmented,
        (("mean_iou", "mean IoU"), ("pixel_accuracy", "pixel accuracy")),
    ),
    "detector": SceneNet(
        "shiftlens.nn.center_points:CenterPoints",
        N_DIGITS,
        CenterPoints,
        1_500,
        center_lessons,
        center_loss,
        _detected,
        (("ap50", "AP at IoU 0.5"),),
    ),
}
"""What can be trained on scenes."""
