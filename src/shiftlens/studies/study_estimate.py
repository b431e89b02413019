"""How long the missing runs of a study take: from finished runs of the same arm, else from a few measured steps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from shiftlens.devices import resolve_device
from shiftlens.shifts import ShiftGrid
from shiftlens.studies.study_file import Study
from shiftlens.studies.study_runs import RunResult, StudyImages
from shiftlens.training import TrainSettings
from shiftlens.training.learning_rate import plan, stage_sizes
from shiftlens.training.machine import compute_dtype
from shiftlens.training.starting_net import fresh_vgg

_BATCH = 64


def estimated_seconds(
    study: Study,
    done: Mapping[tuple[str, int], RunResult],
    missing: Sequence[tuple[str, int]],
    images: StudyImages,
    device: str = "auto",
) -> float:
    """Return about how many seconds the missing runs take, one after the other."""
    of_arm: dict[str, float] = {}
    for arm in dict.fromkeys(arm for arm, _ in missing):
        known = [run.seconds for (name, _), run in done.items() if name == arm and run.failed is None]
        of_arm[arm] = float(np.median(known)) if known else _measured(study, arm, images, device)
    return sum(of_arm[arm] for arm, _ in missing)


def _measured(study: Study, arm: str, images: StudyImages, device: str) -> float:
    settings = study.variants[arm].settings(study.training)
    step, forward = _seconds_an_image(settings, images, device)
    # Smaller stages of the recipe cost in proportion to their area.
    full = settings.size[0] * settings.size[1]
    area = sum(share * size[0] * size[1] / full for share, size in stage_sizes(settings))
    if settings.minutes is not None:
        training = 60 * settings.minutes
    else:
        schedule = plan(settings, len(images.train))
        training = schedule.n_steps * schedule.batch * step * area
    windows = sum(
        min(table.limit or len(images.test), len(images.test)) * ShiftGrid(table.max_shift, table.step).n_shifts
        for table in study.sweeps.values()
    )
    return training + windows * forward


def _seconds_an_image(settings: TrainSettings, images: StudyImages, device: str) -> tuple[float, float]:
    """Of a training step and of a forward pass, at full size."""
    target = resolve_device(device)
    net = fresh_vgg(settings, 0, len(images.train.class_names), images.train.n_channels)
    net.to(target).to(memory_format=torch.channels_last)
    x = torch.zeros(_BATCH, images.train.n_channels, *settings.size, device=target)
    x = x.contiguous(memory_format=torch.channels_last)
    dtype = compute_dtype(settings.dtype, target)
    cast = torch.autocast(target.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
    y = torch.zeros(_BATCH, dtype=torch.int64, device=target)
    steps, forwards = [], []
    for _ in range(3):  # the first one also sets up the kernels
        begin = time.perf_counter()
        with cast:
            loss = nn.functional.cross_entropy(net.train()(x), y)
        torch.autograd.backward(loss)
        float(loss.detach())
        steps.append((time.perf_counter() - begin) / _BATCH)
        begin = time.perf_counter()
        with torch.no_grad(), cast:
            float(net.eval()(x).sum())
        forwards.append((time.perf_counter() - begin) / _BATCH)
    return float(np.median(steps[1:])), float(np.median(forwards[1:]))
