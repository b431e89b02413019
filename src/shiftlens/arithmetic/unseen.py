"""What the list of sites does not show: how a net joins places of the image other than by windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from shiftlens.graph.flow import flow_of, tensors_in
from shiftlens.graph.operators import OPERATORS
from shiftlens.graph.rules import ATTENTION, PRODUCTS
from shiftlens.graph.sites import OpKey
from shiftlens.graph.watching import Watch

_MOVES = ("gather", "take_along_dim", "scatter")


class Unseen(Watch):
    """Listens while a net is traced, and says what of it layer arithmetic does not judge.

    Enter it around `graph_of` of the same net.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._attention: dict[str, None] = {}
        self._positions: dict[str, None] = {}
        self._calls: dict[str, None] = {}
        self._tokens: dict[str, None] = {}

    def saw(self, key: OpKey, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Sort one function call that reads what comes from the image."""
        tensors = [*tensors_in((*args, *kwargs.values()))]
        of_image = [tensor for tensor in tensors if flow_of(tensor) is not None]
        if not of_image:
            return
        name, kind = key.name, OPERATORS[key.name].kind if key.name in OPERATORS else ""
        if name in ATTENTION or (name in PRODUCTS and len(of_image) > 1):
            self._attention[key.path or type(part).__name__] = None
        elif name == "add":
            self._positions |= {
                self._name_of(key, part, t): None for t in tensors if flow_of(t) is None and _by_place(t)
            }
        elif name not in PRODUCTS and (kind == "mixing" or name in _MOVES or name.startswith("fft_")):
            self._calls[f"{name}()"] = None

    def left(self, path: str, part: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Count layers with weights that read a sequence instead of a map."""
        if isinstance(part, nn.MultiheadAttention):
            self._attention[path] = None
            return
        read = next(iter(tensors_in(inputs)), None)
        weighs = not any(part.children()) and any(True for _ in part.parameters())
        if weighs and read is not None and read.ndim == 3 and flow_of(read) is not None:
            self._tokens[path] = None

    def _name_of(self, key: OpKey, part: nn.Module, tensor: Tensor) -> str:
        """The parameter's name; while a net is traced, a module's parameters are other tensors than before."""
        own = next((name for name, each in part.named_parameters(recurse=False) if each is tensor), "add()")
        return f"{key.path}.{own}".lstrip(".")

    def sentences(self) -> tuple[str, ...]:
        """What was not looked at, a clause each; none for a net whose every layer can be judged."""
        found = (
            ("attention", self._attention, "it joins all places of the image"),
            ("position embeddings", self._positions, "they give each place of the image numbers of its own"),
            ("layers on sequences of tokens", self._tokens, "rows and columns are not followed there"),
            ("function calls", self._calls, "they move or join places"),
        )
        return tuple(f"not looked at: {what} in {_listed([*where])}: {why}" for what, where, why in found if where)


def _by_place(tensor: Tensor) -> bool:
    """Whether a tensor that is added differs from place to place, unlike a bias a channel."""
    return sum(side > 1 for side in tensor.shape) > 1


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
