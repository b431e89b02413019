"""Help that is grouped by subject, names choices instead of types, and shows whole summaries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

PANELS: Mapping[str, tuple[str, ...]] = {
    "Model": (
        "model",
        "weights",
        "weights_key",
        "code",
        "mean",
        "std",
        "resize",
        "crop",
        "interpolation",
        "input_size",
    ),
    "Images": ("data", "split", "limit", "data_root", "label_map", "average", "input"),
    "Shifts": ("shift", "max_shift", "step", "fill", "half_width", "control", "reuse", "protocol", "passes"),
    "Compute": ("device", "engine", "dtype", "batch_size", "cluster", "seed"),
    "Output": (
        *("out", "overwrite", "partial", "format", "plots", "picture", "pictures", "names", "evidence", "small_map"),
        *("thresholds", "junit", "summary", "annotations", "quiet", "json", "version", "help"),
    ),
}
"""By subject, the options under it. What stands nowhere here is the command's own subject, and comes first."""

PLACEHOLDERS: Mapping[str, str] = {
    "model": "SPEC",
    "weights": "FILE",
    "weights_key": "KEY",
    "mean": "R,G,B",
    "std": "R,G,B",
    "input_size": "H|HxW",
    "size": "H|HxW",
    "data": "SPEC",
    "average": "SPEC",
    "split": "train|test|all",
    "resize": "H|HxW",
    "crop": "H|HxW",
    "interpolation": "NAME",
    "label_map": "FILE",
    "shift": "DX DY",
    "max_shift": "N|YxX",
    "step": "PIXELS",
    "task": "NAME",
    "net": "unet|detector",
    "steps": "N",
    "fill": "FILL",
    "half_width": "POINTS",
    "control": "NAME,...",
    "protocol": "roll|zero-pad|crop",
    "engine": "auto|direct|dedup",
    "dtype": "auto|float32|bfloat16",
    "device": "auto|cpu|cuda",
    "cluster": "WHERE",
    "format": "png|svg",
    "arch": "vgg8|vgg6",
    "head": "gap|max|flatten",
    "padding": "MODE",
    "downsample": "MODE",
    "names": "A,B,...",
    "only": "LAYERS",
    "exclude": "LAYERS",
    "layers": "LAYERS",
    "metric": "NAME",
    "background": "FILE|black|grey|white",
    "box": "L,T,R,B",
    "label": "CLASS",
    "thresholds": "UNIT=SIZE,...",
    "allow": "NAME=AMOUNT,...",
    "max_drop": "POINTS@PX",
    "max_confidence_swing": "SHARE@PX",
}
"""What an option takes, where its type says less."""

TYPES: Mapping[str, str] = {"int": " N", "int range": " N", "float": " NUMBER", "path": " PATH", "str": " TEXT"}


class Command(TyperCommand):
    """A command whose options stand under their subjects."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each subject that has options here."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", "Options", *PANELS)}
        for param in self.get_params(ctx):
            argument = param.param_type_name == "argument"
            if param.metavar is None and not argument and not getattr(param, "is_flag", False):
                param.metavar = PLACEHOLDERS.get(param.name or "")
            record = param.get_help_record(ctx)
            if record is not None:
                names = re.sub(" <([^>]+)>", lambda found: TYPES.get(found[1], ""), record[0])
                sections["Arguments" if argument else panel_of(param.name or "")].append((names, record[1]))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """The list of commands, with whole summaries."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list; the first sentence of a command's text is never cut."""
        rows = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def panel_of(option: str) -> str:
    """The subject that an option stands under."""
    return next((panel for panel, names in PANELS.items() if option in names), "Options")
