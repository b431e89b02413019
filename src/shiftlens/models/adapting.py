"""A model as the engine takes it for any task: one row of numbers for each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn import functional as F

from shiftlens.data.imageset import ImageSet
from shiftlens.data.targets import padded
from shiftlens.errors import InputError, ModelOutputError
from shiftlens.graph import Graph, trace
from shiftlens.graph.geometry import TileGeometry, geometry_of
from shiftlens.models.matching import MAX_PIXELS, scores_for
from shiftlens.models.probing import Classifier, Probe
from shiftlens.models.wrapping import Model
from shiftlens.tasks.dense import Dense
from shiftlens.tasks.detection import Detection, DetectionConsistency
from shiftlens.tasks.embedding import Embedding
from shiftlens.tasks.moving import FROM_NET
from shiftlens.tasks.outputs import OutputForm, detection_table, form_of, numbers_of
from shiftlens.tasks.segmentation import Segmentation
from shiftlens.tasks.task import Task

fx.wrap("detection_table")  # it reads lists: one node of a traced graph


class RowOutputs(nn.Module):
    """A net whose output is one row of numbers for each image; maps smaller than the image are brought to its size.

    Parameters
    ----------
    net
        Gives outputs of `form`.
    form
        Where the numbers are in them.
    size
        (h, w) of a map in the row; None where the numbers are no map, or have that size already.
    """

    def __init__(self, net: Classifier, form: OutputForm, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.net = net
        self.form = form
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to [n, k]."""
        return self.sized(x, self.size).flatten(1)

    def sized(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        """Outputs as the net gives them, or maps brought to a size."""
        return _sized(self.net, self.form, size, x)


def _rows(net: Classifier, form: OutputForm, size: tuple[int, int] | None, x: Tensor) -> Tensor:
    return _sized(net, form, size, x).flatten(1)


def _sized(net: Classifier, form: OutputForm, size: tuple[int, int] | None, x: Tensor) -> Tensor:
    raw = net(x)
    found = detection_table(raw) if form.is_detections else numbers_of(raw, form)
    if size is None:
        return found
    maps = found if len(form.shape) == 3 else found.unsqueeze(1)
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


class _Maps(RowOutputs):
    """The same before it is made a row: a map, of which the graph tells what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return self.sized(x, self.size)


def map_geometry(model: Model, form: OutputForm, size: tuple[int, int]) -> TileGeometry:
    """What the layers of a model of maps say about parts of an image of (h, w) pixels.

    Raises
    ------
    InputError
        A net that cannot be looked into, or that gives no map.
    """
    if not isinstance(model.module, nn.Module) or form.is_detections:
        raise InputError(f"{model.name} is no torch module that gives a map")
    maps = _Maps(model.module, form, None if form.shape[-2:] == size else size)

    def graph(at: tuple[int, int]) -> Graph:
        return trace(maps, at, n_channels=model.n_channels, name=model.name)

    with model.evaluating():
        return geometry_of(graph(size), graph)


def _sight(model: Model, form: OutputForm, size: tuple[int, int]) -> int:
    """Pixels of the image that a place of the model's map sees to a side; `FROM_NET` where that is not known."""
    try:
        found = map_geometry(model, form, size)
    except InputError:
        return FROM_NET
    reach = found.reach
    return max(reach.left, reach.right, reach.top, reach.bottom) if found.is_local else FROM_NET


@dataclass(frozen=True, eq=False, repr=False)
class TaskModel(Model):
    """A model whose module gives rows of numbers for a task; its digest and facts are those of the `original`."""

    original: Model | None = None
    n_numbers: int = 2
    compared: Callable[[Tensor], Tensor] | None = None
    """Of numbers that rounding may put in another order, what is compared in their place: see `Task.compared`."""

    @cached_property
    def probed(self) -> Probe:
        """What a look at the original told, with as many scores as there are numbers in a row."""
        assert self.original is not None
        return replace(self.original.probed, n_classes=self.n_numbers)

    @property
    def digest(self) -> str:
        """Of the original."""
        assert self.original is not None
        return self.original.digest


def adapted(model: Model, task: Task, size: tuple[int, int]) -> tuple[Model, Task]:
    """The model with one row of numbers for each image of (h, w) pixels, and the task that understands them.

    Raises
    ------
    InputError
        The model returns nothing that the task has a use for.
    """
    with model.evaluating(), torch.no_grad():
        x = torch.zeros(2, model.n_channels, *size, device=model.device)
        try:
            form = form_of(model.module(x), 2)
        except ModelOutputError as error:
            raise InputError(f"{model.name} cannot be measured as {task.name}: {error}") from None
    if isinstance(task, Segmentation | Dense) and task.margin == FROM_NET:
        task = replace(task, margin=_sight(model, form, size))
    try:
        task = task.fitted(form, size)
    except InputError as error:
        raise InputError(f"{model.name}: {error}") from None
    if form.access == "" and len(form.shape) == 1:
        return model, task
    shape: tuple[int, ...] = getattr(task, "shape", ()) or form.shape
    of_size = size if len(shape) == 3 and form.shape[-2:] != size else None
    net: Classifier = RowOutputs(model.module, form, of_size)
    if not isinstance(model.module, nn.Module):
        net = partial(_rows, model.module, form, of_size)  # it stays a plain callable
    known: dict[str, Any] = {each.name: getattr(model, each.name) for each in fields(Model)}
    known |= {"module": net, "class_names": None}
    n_numbers = max(2, int(torch.Size(shape).numel()))
    compared = task.compared if form.is_detections else None
    return TaskModel(**known, original=model, n_numbers=n_numbers, compared=compared), task


def with_gallery(model: Model, task: Task, images: ImageSet, size: tuple[int, int]) -> Task:
    """The task with the outputs on the first images, where it asks for them; images are of (h, w) pixels."""
    n = min(task.n_gallery, len(images))
    if not n:
        return task
    found, at_once = [], max(1, MAX_PIXELS // (size[0] * size[1]))
    with model.evaluating(), torch.no_grad():
        for start in range(0, n, at_once):
            places = np.arange(start, min(start + at_once, n))
            x = model.preprocessing.normalise(torch.from_numpy(images.batch(places)).to(model.device))
            found.append(scores_for(model, x, images.index[places]).cpu())
    made = task.with_gallery(torch.cat(found))
    return replace(made, gallery_digest=images.subset(np.arange(n)).digest) if isinstance(made, Embedding) else made


def targets_of(images: ImageSet, task: Task, positions: slice = slice(None)) -> NDArray[Any]:
    """What the task measures some images against."""
    if task.needs_places:
        return task.targets(images.labels[positions], np.arange(len(images))[positions])
    values = None if images.targets is None or task.uses is None else getattr(images.targets, task.uses)
    return task.targets(images.labels[positions], None if values is None else values[positions])


def refuse_unfit_targets(task: Task, images: ImageSet) -> None:
    """Refuse masks or boxes that are none of these images, or of no use for the fitted task.

    Raises
    ------
    InputError
        Names what does not fit.
    """
    if isinstance(task, DetectionConsistency):
        return  # it takes none
    if task.uses is not None:
        images.refuse_unfit_targets(task.uses)
        used = None if images.targets is None else images.targets.only(task.uses)
        if used is not None:
            task.refuse_unfit(used.highest_classes()[task.uses], images.name)
    targets_of(images, task, slice(1))


def task_for(task: Task, images: ImageSet) -> Task:
    """The task; of detection where images have no boxes, that of the model's own detections."""
    boxed = images.targets is not None and images.targets.boxes is not None
    if type(task) is Detection and not boxed:
        return DetectionConsistency(score_threshold=task.score_threshold, iou_threshold=task.iou_threshold)
    return task


def with_own_detections(model: Model, images: ImageSet, task: Task) -> ImageSet:
    """The images with the detections in them that `DetectionConsistency` follows; as they are for any other task.

    Raises
    ------
    InputError
        The adapted model detects nothing in any of the images.
    """
    if not isinstance(task, DetectionConsistency):
        return images
    tables: list[NDArray[np.float64]] = []
    with model.evaluating(), torch.no_grad():
        # Each image by itself, so that the others change nothing.
        for k in range(len(images)):
            x = model.preprocessing.normalise(torch.from_numpy(images.batch([k])).to(model.device))
            tables += task.followed(scores_for(model, x, images.index[[k]]))
    if not any(map(len, tables)):
        raise InputError(
            f"{images.name} has no boxes, and {model.name} detects nothing of a score of at least "
            f"{task.score_threshold:g} in it: nothing can be followed"
        )
    return images.with_detections(padded(tables))
