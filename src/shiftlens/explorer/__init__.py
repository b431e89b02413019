"""The live page: a model answers while its input is dragged, on this machine only."""

from shiftlens.explorer.live_model import LiveModel
from shiftlens.explorer.serving import Explorer, explore, refuse_without_server

__all__ = ["Explorer", "LiveModel", "explore", "refuse_without_server"]
