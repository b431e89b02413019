"""Batch renormalisation: a norm that is trained with each batch's own statistics and is a fixed scale in inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shiftlens.errors import InputError
from shiftlens.naming import unknown_name

NORM_REPAIRS = ("batch-renorm",)
"""What can take the place of a norm that reads the whole map."""


class BatchRenorm2d(nn.BatchNorm2d):
    """Batch norm whose output in training is that of inference, but for a limit: arXiv 1702.03275.

    In training the batch's statistics are corrected to the running ones by a scale and a shift that pass no gradient.
    In inference it is `nn.BatchNorm2d` with running statistics: the same in a tile as in the whole image.

    Parameters
    ----------
    num_features, eps, momentum, affine
        As `nn.BatchNorm2d` has them. With momentum None, which averages batches evenly to measure statistics anew, it
        is plain batch norm.
    most_scale, most_shift
        Limits of the correction: the scale lies between `1 / most_scale` and `most_scale`.

    Examples
    --------
    >>> norm = BatchRenorm2d(4)
    >>> norm(torch.rand(2, 4, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        most_scale: float = 3.0,
        most_shift: float = 5.0,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine)
        self.most_scale, self.most_shift = most_scale, most_shift

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise a map [n, c, h, w]."""
        if not self.training or self.momentum is None:
            return super().forward(input)
        with torch.no_grad():
            variance, mean = torch.var_mean(input, (0, 2, 3), correction=0)
            spread = (self.running_var + self.eps).sqrt()
            scale = ((variance + self.eps).sqrt() / spread).clamp(1 / self.most_scale, self.most_scale)
            shift = ((mean - self.running_mean) / spread).clamp(-self.most_shift, self.most_shift)
        # Also moves the running statistics on.
        plain = F.batch_norm(input, self.running_mean, self.running_var, None, None, True, self.momentum, self.eps)
        corrected = plain * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        if not self.affine:
            return corrected
        return corrected * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def reads_whole_map(layer: nn.Module) -> bool:
    """Whether a layer is a norm whose statistics are those of the map at hand, and that batch renorm can replace."""
    if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d):
        return not layer.track_running_stats or layer.running_mean is None
    return isinstance(layer, nn.GroupNorm)


def with_norm(layer: nn.Module, name: str) -> BatchRenorm2d:
    """What takes the place of such a layer: the same scale and offset, and statistics that are not measured yet.

    Raises
    ------
    InputError
        Another kind of layer, or an unknown name.
    """
    if name not in NORM_REPAIRS:
        raise unknown_name("norm", name, NORM_REPAIRS)
    if not reads_whole_map(layer):
        raise InputError(f"a {type(layer).__name__} is no norm with the statistics of the map at hand")
    assert isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.GroupNorm)
    n_channels = layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features
    made = BatchRenorm2d(n_channels, layer.eps, affine=layer.affine)
    if layer.affine:
        made.weight, made.bias = layer.weight, layer.bias
        made.to(layer.weight)
    return made
