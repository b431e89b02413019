"""Repair: a copy of a net with other padding or down-sampling, and what makes it whole again."""

from shiftlens.nn.edits import Edit, carry_out
from shiftlens.surgery.distilling import distill
from shiftlens.surgery.finetuning import FineTuning, check_classes, finetune
from shiftlens.surgery.healing import Healing, reestimate
from shiftlens.surgery.planning import repair
from shiftlens.surgery.saving import Origin, origin_of, save_repaired
from shiftlens.surgery.sizing import even_size, with_input_size

__all__ = [
    "Edit",
    "FineTuning",
    "Healing",
    "Origin",
    "carry_out",
    "check_classes",
    "distill",
    "even_size",
    "finetune",
    "origin_of",
    "reestimate",
    "repair",
    "save_repaired",
    "with_input_size",
]
