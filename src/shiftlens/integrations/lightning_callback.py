"""`ShiftlensCallback`: a coarse sweep every few epochs of a Lightning training."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from shiftlens.data.images import load_images
from shiftlens.data.imageset import ImageSet
from shiftlens.errors import InputError
from shiftlens.integrations.sweep_logging import log_sweep, picture_of, scalars_of
from shiftlens.models.loading import wrap
from shiftlens.shifts import ShiftGrid
from shiftlens.sweeping import run_sweep


class ShiftlensCallback(Callback):  # type: ignore[misc]
    """Sweep the net that is trained, and log its numbers and its map to every logger of the trainer.

    Parameters
    ----------
    images
        What it is measured on: an `ImageSet`, or anything that `load_images` takes. 8-bit images before normalisation.
    mean, std
        With which the net's input is normalised: pixels from 0 to 1.
    size
        (h, w) of the input; the images' own by default.
    every_n_epochs
        Epochs between sweeps; the first is after so many.
    max_shift, step
        Of the grid, px: 25 shifts by default.
    half_width
        Points: the sweep stops at as many images as that takes (at least 200); None takes all.
    net
        Name of the net within the `LightningModule`; the module itself by default.
    options
        Further options of `sweep`: `task`, `fill`, `batch_size`, ...

    Attributes
    ----------
    history
        (epoch, scalars) of every sweep; see `integrations.sweep_logging.scalars_of`.

    Examples
    --------
    ``Trainer(callbacks=[ShiftlensCallback("cifar10", mean=MEAN, std=STD)])``
    """

    def __init__(
        self,
        images: Any,
        *,
        mean: Any,
        std: Any,
        size: int | tuple[int, int] | None = None,
        every_n_epochs: int = 5,
        max_shift: int = 4,
        step: int = 2,
        half_width: float | None = 5.0,
        net: str = "",
        **options: Any,
    ) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise InputError(f"expected a sweep every 1 epoch or more, got {every_n_epochs}")
        self.images = images if isinstance(images, ImageSet) else load_images(images)
        self.grid = ShiftGrid(max_shift, step)
        self.every_n_epochs = every_n_epochs
        self.half_width = half_width
        self.net = net
        self.options = options
        self.how = {"mean": mean, "std": std, "size": size or self.images.size}
        self.history: list[tuple[int, dict[str, float]]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Sweep and log; the net is left as it was."""
        epoch = trainer.current_epoch
        if not trainer.is_global_zero or (epoch + 1) % self.every_n_epochs:
            return
        net: nn.Module = pl_module.get_submodule(self.net)
        before = [(each, each.training) for each in net.modules()]
        net.eval()
        try:
            with TemporaryDirectory(prefix="shiftlens-epoch-") as folder:
                sweep, _ = run_sweep(
                    wrap(net, **self.how),
                    self.images,
                    self.grid,
                    out=Path(folder) / "epoch.zarr",
                    half_width=self.half_width,
                    device=next(net.parameters()).device.type,
                    announce=lambda text: None,
                    **self.options,
                )
                scalars = scalars_of(sweep)
                self.history.append((epoch, scalars))
                for logger in trainer.loggers:
                    logger.log_metrics(scalars, step=trainer.global_step)
                    self._log_map(logger, sweep, trainer.global_step)
        finally:
            for each, training in before:
                each.training = training

    @staticmethod
    def _log_map(logger: Any, sweep: Any, step: int) -> None:
        to = logger.experiment
        if hasattr(to, "add_image"):
            to.add_image("shift/map", picture_of(sweep), step, dataformats="HWC")
        elif type(to).__module__.partition(".")[0] == "wandb":
            log_sweep(to, sweep, step)
        elif hasattr(to, "log_image"):  # MLflow's client
            to.log_image(logger.run_id, picture_of(sweep), key="shift_map", step=step)
