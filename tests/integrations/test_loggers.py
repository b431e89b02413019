"""Loggers and the Lightning callback, each with the package it is for, offline."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shiftlens as sl
from shiftlens.errors import InputError
from shiftlens.integrations.sweep_logging import log_sweep, picture_of, scalars_of


def test_scalars_are_those_of_the_map(small_sweep: Path) -> None:
    sweep = sl.open_sweep(small_sweep)
    found = scalars_of(sweep)
    values = np.asarray(sweep.accuracy)
    dys, dxs = sweep.grid.dys, sweep.grid.dxs
    unshifted = float(sweep.accuracy.sel(dy=0, dx=0))
    assert found["shift/accuracy_unshifted"] == unshifted
    assert found["shift/accuracy_worst"] == values.min()
    assert found["shift/accuracy_near"] == pytest.approx(values.mean())
    assert found["shift/accuracy_drop"] == pytest.approx(100 * (unshifted - values.min()))
    left_right = values[:, dxs > 0].mean() - values[:, dxs < 0].mean()
    up_down = values[dys > 0].mean() - values[dys < 0].mean()
    assert found["shift/accuracy_side_difference"] == pytest.approx(100 * max(abs(left_right), abs(up_down)))
    loss = scalars_of(sweep, "loss", "x")
    assert loss["x/loss_worst"] == pytest.approx(float(sweep.mean_loss.max()))
    with pytest.raises(InputError, match="did you mean 'loss'"):
        scalars_of(sweep, "los")
    picture = picture_of(sweep)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3


class Writer:
    """What a `SummaryWriter` has."""

    def __init__(self) -> None:
        self.scalars: dict[str, float] = {}
        self.images: dict[str, tuple[int, ...]] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name] = value

    def add_image(self, name: str, picture: np.ndarray, step: int, dataformats: str) -> None:
        self.images[name] = picture.shape


def test_a_sweep_is_logged_and_another_logger_refused(small_sweep: Path) -> None:
    sweep, writer = sl.open_sweep(small_sweep), Writer()
    log_sweep(writer, sweep, 3)
    assert writer.scalars == scalars_of(sweep)
    assert list(writer.images) == ["shift/map"]
    with pytest.raises(InputError, match=r"TensorBoard SummaryWriter.*got builtins\.list"):
        log_sweep([], sweep)


def test_tensorboard_reads_back_what_was_logged(small_sweep: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(tmp_path))
        sweep = sl.open_sweep(small_sweep)
        log_sweep(writer, sweep, 7)
        writer.close()
        events = EventAccumulator(str(tmp_path))
        events.Reload()
    [event] = events.Scalars("shift/accuracy_unshifted")
    assert (event.step, event.value) == (7, pytest.approx(scalars_of(sweep)["shift/accuracy_unshifted"]))
    assert events.Tags()["images"] == ["shift/map"]


@pytest.mark.slow
def test_wandb_takes_it_offline(small_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with wandb.init(mode="offline", dir=str(tmp_path), project="shifts") as run:
            log_sweep(run, sl.open_sweep(small_sweep), 2)
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 1
    [picture] = tmp_path.rglob("*.png")
    assert "shift" in str(picture)


@pytest.mark.slow
def test_mlflow_keeps_it_in_a_folder(small_sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
        with mlflow.start_run() as run:
            log_sweep(mlflow, sl.open_sweep(small_sweep), 2)
        stored = mlflow.get_run(run.info.run_id).data.metrics
    assert stored["shift/accuracy_unshifted"] == scalars_of(sl.open_sweep(small_sweep))["shift/accuracy_unshifted"]


def test_the_callback_sweeps_every_few_epochs_and_leaves_the_net_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning.pytorch import LightningModule, Trainer
        from lightning.pytorch.loggers import CSVLogger

        from shiftlens.integrations.lightning_callback import ShiftlensCallback

        class Lesson(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = nn.Sequential(
                    nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2)
                )

            def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
                assert all(each.training for each in self.net.modules())
                return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), lr=0.01)

        rng = np.random.default_rng(0)
        pixels, labels = rng.integers(0, 256, (30, 3, 8, 8), dtype=np.uint8), np.arange(30) % 2
        data = torch.utils.data.TensorDataset(torch.from_numpy(pixels) / 255, torch.from_numpy(labels))
        callback = ShiftlensCallback(
            (pixels, labels), mean=[0.0] * 3, std=[1.0] * 3, every_n_epochs=2, max_shift=2, net="net", half_width=None
        )
        logger = CSVLogger(str(tmp_path))
        trainer = Trainer(
            max_epochs=4, logger=logger, callbacks=[callback], accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(Lesson(), torch.utils.data.DataLoader(data, batch_size=10))
        assert [epoch for epoch, _ in callback.history] == [1, 3]
        logger.save()
        text = (Path(logger.log_dir) / "metrics.csv").read_text()
        assert "shift/accuracy_unshifted" in text
        with pytest.raises(InputError, match="every 1 epoch"):
            ShiftlensCallback((pixels, labels), mean=0, std=1, every_n_epochs=0)
