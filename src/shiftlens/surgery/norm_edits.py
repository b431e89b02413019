"""Which norms of a net read the whole map, so that tiles of an image differ, and what takes their place."""

from __future__ import annotations

from shiftlens.graph import Graph
from shiftlens.nn.batch_renorm import reads_whole_map
from shiftlens.nn.edits import Edit
from shiftlens.surgery.choosing import Choice
from shiftlens.surgery.repair_plan import Plan


def edit_norms(plan: Plan, name: str, graph: Graph | None, choice: Choice) -> None:
    """Replace every chosen norm that reads the whole map, on the plan's copy."""
    replaced = set()
    for path, layer in [*plan.module.named_modules()]:
        if path in plan.chosen and reads_whole_map(layer):
            plan.do(Edit(path, "norm", type(layer).__name__, name))
            replaced.add(path)
    for each in () if graph is None else graph.global_layers:
        if each.kind == "norm" and each.op.path not in replaced and choice.has_path(each.path):
            plan.unreached.append(f"{each.path} ({each.layer}) reads the whole map")
