"""A repair while it is being made: the copy, what was done to it, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from shiftlens.nn.edits import Edit, carry_out


@dataclass
class Plan:
    """What has been done to the copy so far, and what could not be."""

    module: nn.Module
    chosen: set[str]
    """Paths that the user's patterns allow."""
    edits: list[Edit] = field(default_factory=list)
    unreached: list[str] = field(default_factory=list)

    def do(self, edit: Edit) -> None:
        """Carry an edit out on the copy."""
        self.module = carry_out(self.module, [edit])
        self.edits.append(edit)


def within(path: str, outer: str) -> bool:
    """Whether a path is a layer or something in it."""
    return path == outer or path.startswith(f"{outer}.")


def where(path: str, layer: nn.Module) -> str:
    """A layer, for people."""
    return f"{path or 'the net'} ({type(layer).__name__})"
