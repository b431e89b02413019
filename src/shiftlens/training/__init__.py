"""The recipe: from images to a run directory. `train` is the door; each file beside is one idea."""

from shiftlens.training.loop import train
from shiftlens.training.recipe import Recipe, Stage, TrainSettings
from shiftlens.training.scene_nets import SceneResult, train_on_scenes
from shiftlens.training.starting_net import NET_SETTINGS
from shiftlens.training.training_result import TrainResult

__all__ = [
    "NET_SETTINGS",
    "Recipe",
    "SceneResult",
    "Stage",
    "TrainResult",
    "TrainSettings",
    "train",
    "train_on_scenes",
]
