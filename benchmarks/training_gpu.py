"""The shipped net's training on one GPU, within a fixed time: choose a recipe on held-out training images, then train.

    python benchmarks/training_gpu.py --data-root data --out runs/gpu --minutes 5

1. Recipes are compared, one seed each and equally long, by their accuracy on the 4,000 training images that
   `benchmarks/training.py --holdout` holds out too; they learn from the others. First what is shown (whole pictures,
   cutout, cutmix), then, on the best of these, other numbers one after the other: what is better is kept. Crops of
   more than 2 px teach the net more shifts, which changes what a sweep finds: they must be better by half a point.
2. The chosen recipe is trained on all training images for the time that is left, with seed 0 and then seed 1, and looks
   at the test images once, after its last epoch. Fixed beforehand: seed 0 is the one that is shipped.

`OUT/training_gpu.json` is written after each stage, `OUT/seed0` and `OUT/seed1` are run directories (float16), ready
for `benchmarks/ship.py`. `--cpu-rehearsal` goes the same way with a tiny net on few images.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shiftlens.data.example_images import Fact
from shiftlens.data.images import ImageSet, load_images
from shiftlens.data.selection import stratified_order
from shiftlens.devices import machine_kind, resolve_device
from shiftlens.models.loading import load_model
from shiftlens.models.runs import save_run
from shiftlens.training import Recipe, Stage, TrainResult, TrainSettings, loop, train

N_HELD_OUT = 4000
FULL_SIZE = (Stage(1.0, 1.0),)
LONGER: dict[str, Any] = {"norm_momentum": 0.1}
"""Of all runs here: with more steps, batch norm's statistics are averaged over more of them."""
SHOWN: dict[str, dict[str, Any]] = {
    "cutmix": {"cutmix": 0.5},
    "cutout": {"cutout": 10},
    "whole pictures": {},
}
FURTHER: dict[str, dict[str, Any]] = {
    "full size throughout": {"stages": FULL_SIZE},
    "crops of 4 px": {"crop": 4},
}
WIDER_CROPS_MUST_GAIN = 0.005
SEARCH_SHARE = 0.5
SEARCH_EPOCHS = (16, 60)
FINAL_EPOCHS = (20, 240)
SEEDS = (0, 1)
RESERVE = 0.12
"""Share of the time for the last runs that is kept back."""
SAME_LOSS = 0.02
"""Most that the mean loss of the first epoch may differ between recorded steps and steps one by one."""
LAST_LOOK_SECONDS = 3.0
"""Of a run beside its epochs: pictures to the device, records, files, the picture of the curve."""


class TimeUpError(Exception):
    """The time is over in the middle of a run."""


class Decoded:
    """A source's pictures, decoded once for all runs; checksums stay those of the stored files."""

    def __init__(self, pictures: Any) -> None:
        self._source = pictures
        self.n_channels, self.size, self.notes = pictures.n_channels, pictures.size, pictures.notes
        self._pixels = list(pictures.read(range(len(pictures))))
        self._facts: list[Fact] = list(pictures.facts(range(len(pictures))))

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, positions: Iterable[int]) -> Iterator[Any]:
        return (self._pixels[k] for k in positions)

    def facts(self, positions: Iterable[int]) -> Iterator[Fact]:
        return (self._facts[k] for k in positions)

    def where(self, position: int) -> str:
        return str(self._source.where(position))


def decoded(images: ImageSet) -> ImageSet:
    """The same pictures in memory."""
    images._pictures = Decoded(images._pictures)
    return images


class Session:
    """What all stages share: images, device, clock, and the record that is written after each of them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.started = time.perf_counter()
        self.seconds = args.minutes * 60
        self.out: Path = args.out
        self.device = "cpu" if args.cpu_rehearsal else args.device
        self.work = Path(tempfile.mkdtemp(prefix="training-gpu-"))
        self.small = args.cpu_rehearsal
        self.record: dict[str, Any] = {
            "machine": machine_kind(resolve_device(self.device)),
            "torch": torch.__version__,
            "rehearsal": args.cpu_rehearsal,
            "minutes": args.minutes,
            "notes": [],
            "speed": {},
            "search": [],
            "final": [],
        }
        limit = 200 if args.cpu_rehearsal else None
        self.images = decoded(load_images("cifar10", split="train", data_root=args.data_root)).limit(limit)
        self.test = decoded(load_images("cifar10", split="test", data_root=args.data_root)).limit(limit)
        order = stratified_order(self.images.labels, self.images.index)
        n_held_out = min(N_HELD_OUT, len(order) // 4)
        self.learnt, self.held_out = self.images.subset(order[:-n_held_out]), self.images.subset(order[-n_held_out:])
        self.say(f"{self.record['machine']}, torch {torch.__version__}; {len(self.images):,} training images")

    def left(self) -> float:
        """Seconds until the time is over."""
        return self.seconds - (time.perf_counter() - self.started)

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.started:6.1f} s] {text}", flush=True)

    def write(self) -> None:
        """Replace the record by what is known now."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.record["seconds"] = round(time.perf_counter() - self.started, 1)
        text = json.dumps(self.record, indent=1, allow_nan=False) + "\n"
        (self.out / "training_gpu.json").write_text(text)

    def failed(self, what: str) -> None:
        """Note what a stage died of, and go on."""
        self.record["notes"].append({"stage": what, "error": traceback.format_exc()[-3000:]})
        self.say(f"{what} FAILED: {traceback.format_exc()[-1500:]}")
        self.write()

    def settings(self, changes: Mapping[str, Any], epochs: int) -> TrainSettings:
        more: dict[str, Any] = {"width": 4} if self.small else {}
        recipe = dataclasses.replace(Recipe(), **(LONGER | dict(changes)))
        return TrainSettings(epochs=epochs, glance=0, recipe=recipe, **more)

    def run(
        self, name: str, changes: Mapping[str, Any], epochs: int, *, seed: int = 0, final: bool = False
    ) -> tuple[TrainResult, dict[str, Any]]:
        """One training run, cut when the time is over; the result and a row for the record."""

        def watch(done: int, total: int) -> None:
            if self.left() < 0:
                raise TimeUpError(f"{name}: {done} of {total} steps were done")

        images, validation = (self.images, self.test) if final else (self.learnt, self.held_out)
        begin = time.perf_counter()
        where = self.work / f"{name.replace(' ', '-')}-{seed}"
        result = train(
            images,
            validation,
            out=where,
            seed=seed,
            device=self.device,
            settings=self.settings(changes, epochs),
            progress=watch,
        )
        wall = time.perf_counter() - begin
        row = {
            "name": name,
            "changes": plain(changes),
            "epochs": epochs,
            "seed": seed,
            "accuracy": result.accuracy,
            "interval": result.accuracy_interval,
            "n": result.n_validation,
            "train_loss": [round(e["train_loss"], 5) for e in result.epochs],
            "seconds_per_epoch": float(np.median([e["seconds"] for e in result.epochs])),
            "seconds_of_epochs": result.seconds,
            "wall_seconds": wall,
        }
        self.say(
            f"{name:24s} seed {seed}  {epochs:3d} epochs  {100 * (result.accuracy or 0):6.2f} %  loss "
            f"{row['train_loss'][-1]:.3f}  {row['seconds_per_epoch']:.3f} s/epoch (median)  {wall:.1f} s"
        )
        return result, row


def plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of the recipe as JSON."""
    stages = {"stages": [[s.share, s.scale] for s in changes["stages"]]} if "stages" in changes else {}
    return LONGER | dict(changes) | stages


def speed(session: Session) -> float:
    """Seconds an epoch at full size, and whether recorded steps do what steps one by one do; the quicker is used."""
    seconds: dict[str, float] = {}
    recorded = loop.ReplayedStep
    ways: dict[str, Any] = {"recorded": recorded, "one by one": lambda step, *parts: partial(step, *parts)}
    for name, way in ways.items():
        loop.ReplayedStep = way
        try:
            _, row = session.run(name, {"stages": FULL_SIZE}, 4)
            seconds[name] = row["seconds_per_epoch"]
            session.record["speed"][name] = row
        except Exception:
            session.failed(name)
        session.write()
    quicker = min(seconds, key=lambda name: seconds[name])
    firsts = [row["train_loss"][0] for row in session.record["speed"].values()]
    if len(firsts) == 2 and abs(firsts[0] - firsts[1]) > SAME_LOSS * firsts[0]:
        session.say(f"recorded steps go another way: loss {firsts[0]} of the first epoch, one by one {firsts[1]}")
        quicker = "one by one"
    session.record["speed"]["used"] = quicker
    loop.ReplayedStep = ways[quicker]
    return seconds[quicker]


def search(session: Session) -> tuple[dict[str, Any], float]:
    """The recipe's changes that were best on the held-out training images, and seconds an epoch with them."""
    budget = session.left() * SEARCH_SHARE
    until = session.left() - budget
    per_epoch = speed(session)
    n_runs = len(SHOWN) + len(FURTHER)
    # Small pictures first take three quarters of the computing; one run is at full size.
    affordable = (session.left() - until - n_runs * LAST_LOOK_SECONDS) / (n_runs * 0.85 * per_epoch)
    epochs = int(np.clip(2 * (affordable // 2), *SEARCH_EPOCHS)) if not session.small else 4
    session.say(f"{per_epoch:.3f} s an epoch at full size: {n_runs} recipes of {epochs} epochs")
    best: dict[str, Any] = {}
    best_row: dict[str, Any] | None = None
    for name, changes in (SHOWN | FURTHER).items():
        further = name in FURTHER
        longest = max([per_epoch, *(r["seconds_of_epochs"] / r["epochs"] for r in session.record["search"])]) * epochs
        if best_row is not None and session.left() - longest < until - 15:
            session.say(f"{name}: no time")
            continue
        try:
            tried = best | changes if further else changes
            _, row = session.run(name, tried, epochs)
        except Exception:
            session.failed(name)
            continue
        needed = WIDER_CROPS_MUST_GAIN if "crop" in changes else 0.0
        row["kept"] = best_row is None or row["accuracy"] > best_row["accuracy"] + needed
        session.record["search"].append(row)
        session.write()
        if row["kept"]:
            best, best_row = tried, row
    if best_row is None:
        return {"cutout": 10}, per_epoch
    # Steps on all images, not on what was learnt from here.
    seconds = best_row["seconds_of_epochs"] / best_row["epochs"] * len(session.images) / len(session.learnt)
    return best, seconds


def final(session: Session, changes: dict[str, Any], seconds_per_epoch: float) -> None:
    """Train with the chosen recipe on everything, and keep the runs as float16."""
    usable = session.left() * (1 - RESERVE) / len(SEEDS) - LAST_LOOK_SECONDS - 2
    epochs = int(np.clip(2 * (usable // (2 * seconds_per_epoch)), *FINAL_EPOCHS)) if not session.small else 4
    session.record["chosen"] = plain(changes)
    session.say(f"chosen: {plain(changes)}; {epochs} epochs on all {len(session.images):,} images")
    for seed in SEEDS:
        if seed and session.left() < epochs * seconds_per_epoch:
            session.say(f"seed {seed}: no time")
            continue
        try:
            result, row = session.run("final", changes, epochs, seed=seed, final=True)
            session.record["final"].append(row)
            row["bytes"] = as_float16(result.out, session.out / f"seed{seed}")
        except Exception:
            session.failed(f"final, seed {seed}")
        session.write()


def as_float16(run: Path, target: Path) -> int:
    """Copy a run, its weights as float16; its metrics stay those of float32. Bytes of the weights."""
    stored = json.loads((run / "model.json").read_text())
    trained = load_model(str(run), device="cpu")
    save_run(
        target,
        trained.module.half(),  # type: ignore[union-attr]
        build=stored["build"],
        preprocessing=trained.preprocessing,
        class_names=trained.class_names,
        training=stored["training"],
        metrics=stored["metrics"],
    )
    for name in ("training.json", "learning-curve.png"):
        shutil.copy(run / name, target / name)
    return (target / "model.safetensors").stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cpu-rehearsal", action="store_true", help="a tiny net on few images, for the script itself")
    args = parser.parse_args()
    session = Session(args)
    changes: dict[str, Any] = {"cutout": 10}
    seconds_per_epoch = 1.0
    try:
        changes, seconds_per_epoch = search(session)
    except Exception:
        session.failed("search")
    try:
        final(session, changes, seconds_per_epoch)
    except Exception:
        session.failed("final")
    session.write()
    shutil.rmtree(session.work, ignore_errors=True)
    session.say("done")


if __name__ == "__main__":
    main()
