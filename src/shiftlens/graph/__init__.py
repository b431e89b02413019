"""The model as a list of spatial sites in call order, from one look at a real forward pass."""

from shiftlens.graph.shape_pass import trace
from shiftlens.graph.sites import GEOMETRIC, PICTURE, WINDOWED, Graph, OpKey, Sides, Site, Source

__all__ = ["GEOMETRIC", "PICTURE", "WINDOWED", "Graph", "OpKey", "Sides", "Site", "Source", "trace"]
