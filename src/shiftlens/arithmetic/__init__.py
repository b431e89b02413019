"""Layer arithmetic: what each layer does with its padding at one input size, and which sizes treat all sides alike."""

from shiftlens.arithmetic.inspection import Inspection, inspect
from shiftlens.arithmetic.layers import Layer
from shiftlens.arithmetic.nets import Net, graph_of, net_of, pixels, tile_geometry
from shiftlens.arithmetic.unseen import Unseen
from shiftlens.graph.axis import Step, plan, step_of

__all__ = [
    "Inspection",
    "Layer",
    "Net",
    "Step",
    "Unseen",
    "graph_of",
    "inspect",
    "net_of",
    "pixels",
    "plan",
    "step_of",
    "tile_geometry",
]
