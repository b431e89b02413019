"""One run of a study: train, sweep, look at features, probe; all numbers in one small file at the end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shiftlens.analysis.arm_scores import QUANTITIES, Quantity, score
from shiftlens.analysis.arms import align
from shiftlens.analysis.comparable import source_of
from shiftlens.analysis.consistency import consistency as sweep_consistency
from shiftlens.data.images import ImageSet, load_images
from shiftlens.data.selection import stratified_order
from shiftlens.errors import DivergedError, InputError, ModelOutputError, StoreError
from shiftlens.lens.feature_maps import features
from shiftlens.lens.neurons import neurons
from shiftlens.lens.position_probe import position_probe
from shiftlens.models.loading import Model, load_model
from shiftlens.naming import one_line
from shiftlens.protocols import consistency
from shiftlens.shifts import ShiftGrid
from shiftlens.stats import Estimate, Skipped
from shiftlens.studies.crop_views import of_crops
from shiftlens.studies.study_arms import Arm
from shiftlens.studies.study_file import Study, SweepTable
from shiftlens.sweeping import sweep
from shiftlens.sweeps.sweep_result import Sweep
from shiftlens.training import train
from shiftlens.training.checkpoint import write_whole
from shiftlens.training.starting_net import fresh_vgg

RESULT = "result.json"
KIND = "study run"
SCHEMA_VERSION = 1

_QUANTITIES: dict[Quantity, str] = {
    "at-rest": "unshifted",
    "near": "near",
    "everywhere": "everywhere",
    "worst": "worst",
    "side-x": "side_x",
    "side-y": "side_y",
    "agreement": "agreement",
}
"""Quantities of a comparison, and what a study calls them."""


@dataclass(frozen=True)
class RunResult:
    """What one run gave.

    Attributes
    ----------
    arm, seed
        Which.
    values
        Measures by name; what could not be measured is missing.
    layers
        By measure and layer.
    failed
        Why there is no net, or none that could be measured; None for a run that went well.
    seconds
        Of training and measuring.
    """

    arm: str
    seed: int
    values: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failed: str | None = None
    seconds: float = 0.0

    def save(self, folder: Path) -> None:
        """Write it whole, as the last thing of a run: where it lies, the run is finished."""
        plain = {"kind": KIND, "schema_version": SCHEMA_VERSION} | vars(self)
        write_whole(folder / RESULT, (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> RunResult | None:
        """The result in a run's folder; None where the run is not finished."""
        file = folder / RESULT
        if not file.is_file():
            return None
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            if (plain.pop("kind"), plain.pop("schema_version")) != (KIND, SCHEMA_VERSION):
                raise ValueError("another kind or version")
            found = cls(**plain)
            numbers = [*found.values.values(), *(v for row in found.layers.values() for v in row.values())]
            if not all(isinstance(each, int | float) and math.isfinite(each) for each in (*numbers, found.seconds)):
                raise ValueError("a value is no finite number")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{file} is no result of a run ({one_line(error)}); delete it to run it again") from None
        return found


@dataclass(frozen=True)
class StudyImages:
    """What nets learn from, and what they are measured on."""

    train: ImageSet
    test: ImageSet

    @classmethod
    def of(cls, study: Study, data_root: str | Path | None = None) -> StudyImages:
        """Open the images of a study."""
        data = study.data
        learnt = load_images(data.images, split="train", data_root=data_root, limit=data.train_limit)
        if not data.held_out:
            return cls(learnt, load_images(data.images, split="test", data_root=data_root, limit=data.test_limit))
        if data.held_out >= len(learnt):
            raise InputError(f"held_out leaves nothing to learn from: {data.held_out:,} of {len(learnt):,} images")
        order = stratified_order(learnt.labels, learnt.index)
        held = learnt.subset(order[-data.held_out :])
        return cls(learnt.subset(order[: -data.held_out]), held.limit(data.test_limit))

    def of_arm(self, arm: Arm) -> StudyImages:
        """The images as this arm sees them: the same, or what is cut out of them."""
        if not arm.cut:
            return self
        return StudyImages(*(each.fitted(arm.size, resize=_side(each, arm.size)) for each in (self.train, self.test)))


def _side(images: ImageSet, size: tuple[int, int]) -> int:
    """The shorter side of images that are to be cut and not resized."""
    if images.size is None or any(have < asked for have, asked in zip(images.size, size, strict=True)):
        raise InputError(f"cut needs images of one size, at least {size[0]}x{size[1]}, got {images.size or 'several'}")
    return min(images.size)


def run_once(
    study: Study,
    arm: str,
    seed: int,
    folder: Path,
    images: StudyImages,
    *,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> RunResult:
    """Train and measure one net; killed anywhere, the same call goes on from what is finished.

    A training that diverges, or a net whose scores are not finite, is a result too: one that failed.
    """
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    settings, whole = study.variants[arm].settings(study.training), images.test
    images = images.of_arm(study.variants[arm])
    values: dict[str, float] = {}
    layers: dict[str, dict[str, float]] = {}
    failed = None
    try:
        say(f"training {arm}, seed {seed}")
        train(images.train, out=folder / "net", seed=seed, device=device, settings=settings, progress=_silent)
        model = load_model(folder / "net", device=device)
        untrained = replace(
            model, module=fresh_vgg(settings, seed, len(images.train.class_names), images.train.n_channels).eval()
        )
        say(f"measuring {arm}, seed {seed}")
        for name, table in study.sweeps.items():
            made = _swept(model, images.test, table, folder / f"{name}.zarr", device)
            values |= {f"{name}.{key}": value for key, value in of_sweep(made).items()}
        for part in (_features, _probe, _neurons, _consistency):
            numbers, by_layer = part(study, model, untrained, images.test, device)
            values |= numbers
            layers |= by_layer
        if study.crops is not None and study.variants[arm].cut:
            seen = of_crops(model, whole.limit(study.crops.images), device)
            values |= {f"crops.{key}": value for key, value in seen.items()}
    except (DivergedError, ModelOutputError) as error:
        failed = one_line(error)
        # What was measured of a net that fails is not to be averaged with the others.
        values, layers = {}, {}
    result = RunResult(arm, seed, values, layers, failed, time.perf_counter() - begin)
    result.save(folder)
    return result


def _silent(done: int, total: int) -> None:
    """No bar of its own: the study has one."""


def _swept(model: Model, images: ImageSet, table: SweepTable, out: Path, device: str) -> Sweep:
    grid = ShiftGrid(table.max_shift, table.step)
    chosen = images.limit(table.limit)
    return sweep(model, chosen, grid, out=out, fill=table.fill, device=device, progress=_silent)


def of_sweep(made: Sweep) -> dict[str, float]:
    """The measures of a sweep, without its name; what the grid cannot give is missing."""
    source = source_of("sweep", made)
    found: dict[str, float] = {}
    scores = score(align([source]), 0, n_resamples=0)
    for quantity in QUANTITIES:
        if quantity in _QUANTITIES:
            _put(found, _QUANTITIES[quantity], scores.estimate(quantity))
    found["retained_area"] = scores.area
    if found.get("unshifted") and "worst" in found:
        found["fooled"] = 100 * (1 - found["worst"] / found["unshifted"])
    same = sweep_consistency(source.arrays)
    _put(found, "consistency", same if isinstance(same, Skipped) else same.pairwise)
    losses = score(align([source], metric="loss"), 0, n_resamples=0)
    _put(found, "loss_unshifted", losses.estimate("at-rest"))
    _put(found, "loss_near", losses.estimate("near"))
    return found


def _put(found: dict[str, float], name: str, value: Estimate | Skipped | float) -> None:
    if isinstance(value, Estimate):
        value = 100 * value.value if value.unit == "share" else value.value
    if not isinstance(value, Skipped) and math.isfinite(value):
        found[name] = value


_Part = tuple[dict[str, float], dict[str, dict[str, float]]]


def _features(study: Study, model: Model, untrained: Model, images: ImageSet, device: str) -> _Part:
    if study.features is None:
        return {}, {}
    chosen = images.limit(study.features.images)
    by_layer: dict[str, dict[str, float]] = {}
    for prefix, net in (("", model), ("untrained_", untrained)):
        run = features(net, "zeros", average=chosen, controls=("rolled",), device=device, progress=_silent)
        for layer in run:
            if layer.kind != "conv" or layer.average is None:
                continue
            seen = {f"{prefix}pattern": layer.average.scores.artefact_energy}
            if not prefix:
                blank = layer.scores
                seen |= {
                    "energy": blank.artefact_energy,
                    "contrast_lr": blank.contrast_lr,
                    "contrast_ud": blank.contrast_ud,
                }
            for name, value in seen.items():
                _put(by_layer.setdefault(f"features.{name}", {}), layer.name, value)
    return _means(by_layer), by_layer


def _probe(study: Study, model: Model, untrained: Model, images: ImageSet, device: str) -> _Part:
    if study.probe is None:
        return {}, {}
    chosen = images.limit(study.probe.images)
    by_layer = {}
    for name, net in (("r2", model), ("untrained_r2", untrained)):
        found = position_probe(net, chosen, device=device, progress=_silent)
        by_layer[f"probe.{name}"] = {each.layer: each.r2.value for each in found.layers}
    return _means(by_layer), by_layer


def _neurons(study: Study, model: Model, untrained: Model, images: ImageSet, device: str) -> _Part:
    if study.neurons is None:
        return {}, {}
    found = neurons(model, images.limit(study.neurons.images), impact=False, progress=_silent)
    counts = {each.path: float(len(each.neurons)) for each in found.layers}
    total, channels = sum(counts.values()), sum(each.n_channels for each in found.layers)
    return {"neurons.count": total, "neurons.share": 100 * total / channels}, {"neurons.count": counts}


def _consistency(study: Study, model: Model, untrained: Model, images: ImageSet, device: str) -> _Part:
    if study.consistency is None:
        return {}, {}
    found: dict[str, float] = {}
    chosen = images.limit(study.consistency.images)
    for name in study.consistency.protocols:
        seen = consistency(model, chosen, name, device=device, progress=_silent)
        _put(found, f"consistency.{name}", seen.consistency)
    return found, {}


def _means(by_layer: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([*row.values()])) for name, row in by_layer.items() if row}
