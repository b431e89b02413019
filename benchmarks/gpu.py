"""A GPU's sweep: agreement with the CPU, rates of every way, and one sweep from the command line, in one run.

    python benchmarks/gpu.py --out docs/benchmarks/gpu.json --data parquet:test.parquet

Each stage runs in a process of its own with a time limit and hands over what it has after each measurement, so that
neither a crash nor a hang loses what was measured before. Without a GPU there is no table: `--cpu-rehearsal` runs
everything tiny on the CPU, to see that nothing dies on the way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

import shiftlens as sl
from header import header
from shiftlens.devices import machine_kind, number_format
from shiftlens.engine import cutting, on_device
from shiftlens.engine.direct import DirectEvaluator, prepare_module
from shiftlens.engine.fusing import can_fuse
from shiftlens.engine.on_device import DeviceEvaluator, net_on_device
from shiftlens.engine.outcomes import Chunk
from shiftlens.engine.passes import with_passes
from shiftlens.engine.plan import ChunkResult, Plan
from shiftlens.engine.shared.program import Layout
from shiftlens.engine.shared.tracing import Trace, trace
from shiftlens.engine.window_evaluator import WindowEvaluator
from shiftlens.models.loading import Model

LIMITS = {
    "machine": 60,
    "agreement": 100,
    "tasks": 60,
    "rates": 150,
    "shared": 90,
    "levels": 60,
    "sweep": 200,
    "compiled": 100,
    "large": 60,
}
"""Seconds that each stage may take, in the order in which they run."""
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
N_ALL = 10_000 * 4_225

Record = Callable[[str, Any], None]


class Setting:
    """What a stage knows of the run it belongs to."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.tiny: bool = args.cpu_rehearsal
        self.device = "cpu" if self.tiny else "cuda"
        self.data: str | None = args.data
        self.work = Path(args.work)
        self.repeats = 2 if self.tiny else 5
        self.known: dict[str, Any] = json.loads(args.known.read_text()) if args.known and args.known.exists() else {}

    def plan(self, dtype: str = "float32", **changes: Any) -> Plan:
        if self.tiny and dtype == "tf32":
            dtype = "float32"
        values: dict[str, Any] = {
            "engine": "direct",
            "dtype": dtype,
            "batch_size": 64 if self.tiny else 1024,
            "channels_last": True,
            "fold_batch_norm": True,
            "compiled": False,
            "device": self.device,
            "machine": machine_kind(torch.device(self.device)),
        }
        return Plan(**(values | changes))

    def on_cpu(self, **changes: Any) -> Plan:
        return replace(self.plan(**changes), device="cpu", machine=machine_kind(torch.device("cpu")), batch_size=64)

    def pictures(self, n: int, size: int = 32, n_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Real pictures where there are any of that size, else noise."""
        if self.data and size == 32:
            images = sl.load_images(self.data, limit=n)
            return images.batch(np.arange(n)), images.labels[:n]
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8), rng.integers(0, n_classes, n)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def tried(record: Record, name: str, work: Callable[[], Any]) -> Any:
    """Record what `work` gives, or in one line why it gives nothing."""
    start = time.perf_counter()
    try:
        found = work()
    except Exception as error:
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    if isinstance(found, dict):
        found["seconds_spent"] = round(time.perf_counter() - start, 2)
    record(name, found)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The machine


def stage_machine(on: Setting, record: Record) -> None:
    def card() -> dict[str, Any]:
        if on.tiny:
            return {"name": "none"}
        about = torch.cuda.get_device_properties(0)
        return {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "multiprocessors": about.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": subprocess.run(
                ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True
            ).stdout.strip(),
        }

    tried(record, "card", card)

    def product(dtype: torch.dtype, name: str) -> dict[str, Any]:
        n = 256 if on.tiny else 8192
        a, b = (torch.randn(n, n, device=on.device).to(dtype) for _ in range(2))
        with number_format(name, torch.device(on.device)):
            a @ b
            times = [seconds_of(lambda: a @ b, on.device) for _ in range(on.repeats)]
        return {"tflops": spread([2 * n**3 / t / 1e12 for t in times])}

    tried(record, "product bfloat16", lambda: product(torch.bfloat16, "bfloat16"))
    tried(record, "product tf32", lambda: product(torch.float32, "tf32"))
    tried(record, "product float32", lambda: product(torch.float32, "float32"))

    def copying() -> dict[str, Any]:
        a = torch.randn(2**16 if on.tiny else 2**29, device=on.device)
        b = torch.empty_like(a)
        b.copy_(a)
        times = [seconds_of(lambda: b.copy_(a), on.device) for _ in range(on.repeats)]
        return {"terabytes_per_second": spread([8 * a.numel() / t / 1e12 for t in times])}

    tried(record, "copy", copying)
    tried(
        record,
        "fused convolutions",
        lambda: {
            name: can_fuse(torch.device(on.device), dtype)
            for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32))
        },
    )


# ---------------------------------------------------------------------------------------------------------------------
# Agreement


def nets(on: Setting) -> dict[str, tuple[Model, int, sl.ShiftGrid]]:
    torch.manual_seed(0)
    small = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 64, 10),
    ).eval()
    resnet = torchvision.models.resnet18(num_classes=10).eval()
    found = {
        "small": (sl.wrap(small, mean=MEAN, std=STD, size=16), 16, sl.ShiftGrid(16, 4)),
        "vgg-cifar10": (sl.load_model("pretrained:vgg-cifar10"), 32, sl.ShiftGrid(32, 16 if on.tiny else 4)),
        "resnet18": (sl.wrap(resnet, mean=MEAN, std=STD, size=64), 64, sl.ShiftGrid(16, 16 if on.tiny else 8)),
    }
    torch.manual_seed(1)
    vgg8 = sl.nn.VGG("vgg8", width=8 if on.tiny else 64).eval()
    found["vgg8"] = (sl.wrap(vgg8, mean=MEAN, std=STD, size=32), 32, sl.ShiftGrid(32, 16 if on.tiny else 8))
    return found


def compared(found: ChunkResult, exact: ChunkResult) -> dict[str, Any]:
    differ = found["prediction"] != exact["prediction"]
    return {
        "windows": int(differ.size),
        "other_predictions": int(differ.sum()),
        "largest_difference_of_loss": float(np.abs(found["loss"] - exact["loss"]).max()),
        "largest_difference_of_confidence": float(
            np.abs(found["confidence"].astype(np.float64) - exact["confidence"].astype(np.float64)).max()
        ),
    }


def on_device_of(model: Model, plan: Plan, grid: sl.ShiftGrid, fill: sl.Fill, **options: Any) -> WindowEvaluator:
    return with_passes(DeviceEvaluator(model, plan, grid, fill, **options), model)


def stage_agreement(on: Setting, record: Record) -> None:
    for name, (model, size, grid) in nets(on).items():
        images, labels = on.pictures(2 if on.tiny else 4, size)
        black = sl.Fill.parse("black")
        exact = with_passes(DirectEvaluator(model, on.on_cpu(), grid, black), model)(images, labels)
        for dtype, settle in (("float32", 0.0), ("tf32", 0.0), ("bfloat16", 0.0), ("bfloat16", 0.1)):
            title = f"{name}, {dtype}" + (", near ties settled" if settle else "")

            plan = on.plan(dtype, settle=settle, batch_size=64 if on.tiny else 256)
            tried(record, title, partial(path_agreement, model, plan, grid, images, labels, exact))
        tried(record, f"{name}, dedup in float32", partial(dedup_agreement, on, model, grid, images, labels, exact))
    model, size, _ = nets(on)["small"]
    images, labels = on.pictures(3, size)
    for fill in ("black", "mean", "0.25", "edge", "reflect", "symmetric", "wrap"):
        for control in (None, "occlusion", "flip"):
            parsed = sl.Fill.parse(fill)
            if control == "occlusion" and not parsed.is_constant:
                continue

            def one(parsed: sl.Fill = parsed, control: str | None = control) -> dict[str, Any]:
                grid = sl.ShiftGrid((20, 18), 2)
                exact = with_passes(DirectEvaluator(model, on.on_cpu(), grid, parsed), model)(images, labels, control)
                plan = on.plan(batch_size=50)
                found = compared(on_device_of(model, plan, grid, parsed)(images, labels, control), exact)
                found["plain"] = compared(
                    on_device_of(model, plan, grid, parsed, record=False)(images, labels, control), exact
                )["largest_difference_of_loss"]
                return found

            tried(record, f"small, fill {fill}, control {control}", one)


def path_agreement(
    model: Model, plan: Plan, grid: sl.ShiftGrid, images: np.ndarray, labels: np.ndarray, exact: ChunkResult
) -> dict[str, Any]:
    return compared(on_device_of(model, plan, grid, sl.Fill.parse("black"))(images, labels), exact)


def dedup_agreement(
    on: Setting, model: Model, grid: sl.ShiftGrid, images: np.ndarray, labels: np.ndarray, exact: ChunkResult
) -> dict[str, Any]:
    plan = on.plan(engine="dedup", cut=2, batch_size=64)
    run = on_device_of(model, plan, grid, sl.Fill.parse("black"))
    found = compared(run(images, labels), exact)
    taken = seconds_of(lambda: run(images, labels), on.device)
    return found | {"windows_per_second": exact["loss"].size / taken}


def stage_tasks(on: Setting, record: Record) -> None:
    """The tasks beside classification, swept as a user does, on this device and on the CPU."""
    scenes = sl.load_images("digits-scenes", limit=2)
    pictures = sl.ImageSet(on.pictures(2)[0])
    torch.manual_seed(2)
    dense = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3, padding=1)
    )
    embedding = torch.nn.Sequential(*dense, torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    small = {"mean": MEAN, "std": STD, "size": 32}
    cases: dict[str, tuple[Model | str, sl.ImageSet]] = {
        "segmentation": ("pretrained:unet-digits", scenes),
        "detection": ("pretrained:detector-digits", scenes),
        "dense": (sl.wrap(dense.eval(), **small), pictures),
        "embedding": (sl.wrap(embedding.eval(), **small), pictures),
    }
    grid = sl.ShiftGrid(8, 8 if on.tiny else 2)
    for name, (model, images) in cases.items():

        def one(model: Model | str = model, images: sl.ImageSet = images, name: str = name) -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as folder:
                found, exact = (
                    sl.sweep(
                        model, images, grid, out=f"{folder}/{k}", task=name, dtype="float32", device=device
                    ).dataset
                    for k, device in enumerate((on.device, "cpu"))
                )
                return {
                    str(key): float(np.nanmax(np.abs(found[key].values - exact[key].values.astype(np.float64))))
                    for key in found.data_vars
                    if {"image", "dy"} <= set(found[key].dims)
                }

        tried(record, name, one)


# ---------------------------------------------------------------------------------------------------------------------
# Rates


def naive(net: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, shifts: list[tuple[int, int]]) -> None:
    """Translate with torchvision, evaluate in eager float32: what a user writes without this tool."""
    with torch.inference_mode():
        for dx, dy in shifts:
            moved = tv.affine(
                images,
                angle=0.0,
                translate=[dx, dy],
                scale=1.0,
                shear=[0.0, 0.0],
                interpolation=InterpolationMode.NEAREST,
            )
            scores = net(moved)
            scores.argmax(1).cpu()
            torch.nn.functional.cross_entropy(scores, labels, reduction="none").cpu()


def vgg8(on: Setting) -> Model:
    torch.manual_seed(0)
    return sl.wrap(sl.nn.VGG("vgg8", width=8 if on.tiny else 64).eval(), mean=MEAN, std=STD, size=32)


def stage_rates(on: Setting, record: Record) -> None:
    model = vgg8(on)
    grid, black = (sl.ShiftGrid(32, 8) if on.tiny else sl.ShiftGrid(32)), sl.Fill.parse("black")
    images, labels = on.pictures(2 if on.tiny else 16)
    rng = np.random.default_rng(1)

    def naive_rate(batch: int, n_shifts: int) -> dict[str, Any]:
        assert isinstance(model.module, torch.nn.Module)
        net = prepare_module(model, on.plan(channels_last=False, fold_batch_norm=False))
        x = torch.from_numpy(rng.standard_normal((batch, 3, 32, 32), dtype=np.float32)).to(on.device)
        y = torch.from_numpy(rng.integers(0, 10, batch)).to(on.device)
        shifts = [(int(a), int(b)) for a, b in rng.integers(-32, 33, (n_shifts, 2))]
        naive(net, x, y, shifts[:2])
        times = [seconds_of(lambda: naive(net, x, y, shifts), on.device) for _ in range(on.repeats)]
        return {"windows_per_second": spread([batch * n_shifts / t for t in times])}

    for batch in (16,) if on.tiny else (250, 1000, 4000):
        tried(record, f"naive, batch {batch}", lambda b=batch: naive_rate(b, 2 if on.tiny else 16000 // b))

    def path_rate(make: Callable[[], Any], n: int) -> dict[str, Any]:
        """Of whole chunks; the blank windows count, as they do for who waits for the sweep."""
        if not on.tiny:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        run = make()
        first = seconds_of(lambda: run(images[:n], labels[:n]), on.device)
        times = [seconds_of(lambda: run(images[:n], labels[:n]), on.device) for _ in range(on.repeats)]
        found: dict[str, Any] = {
            "windows_per_second": spread([n * grid.n_shifts / t for t in times]),
            "first_seconds": first,
            "images": n,
        }
        if isinstance(run, DeviceEvaluator):

            def flowing() -> None:
                pending = None
                for _ in range(4):
                    begun = run.begin_chunk(Chunk(images[:n], labels[:n]))
                    if pending is not None:
                        pending()
                    pending = begun
                assert pending is not None
                pending()

            times = [seconds_of(flowing, on.device) for _ in range(max(2, on.repeats - 2))]
            found["flowing_windows_per_second"] = spread([4 * n * grid.n_shifts / t for t in times])
            found["recorded"] = any(track.next.recorded for track in run._tracks.values())
        if not on.tiny:
            found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        return found

    def of(dtype: str, batch: int, *, recorded: bool = True, fuse: bool = True, last: bool = True) -> DeviceEvaluator:
        plan = on.plan(dtype, batch_size=batch, channels_last=last)
        with number_format(dtype, torch.device(on.device)):
            net = net_on_device(model, plan, fuse=fuse)
        return DeviceEvaluator(model, plan, grid, black, record=recorded, net=net)

    batches = (32,) if on.tiny else (1024, 256, 4096, 512, 2048, 128)
    n = len(images)
    for batch in batches:
        tried(record, f"bfloat16, batch {batch}", lambda b=batch: path_rate(lambda: of("bfloat16", b), n))
    b = batches[0]
    rest: dict[str, tuple[Callable[[], Any], int]] = {
        "bfloat16, eager": (lambda: of("bfloat16", b, recorded=False), n),
        "bfloat16, not fused": (lambda: of("bfloat16", b, fuse=False), n),
        "bfloat16, eager, not fused": (lambda: of("bfloat16", b, recorded=False, fuse=False), n),
        "tf32": (lambda: of("tf32", b), max(2, n // 2)),
        "tf32, not fused": (lambda: of("tf32", b, fuse=False), max(2, n // 2)),
        "float32": (lambda: of("float32", b), 2),
        "float32, batch 256": (lambda: of("float32", 256), 2),
        "float32, not fused": (lambda: of("float32", b, fuse=False), 2),
        "float32, not channels last": (lambda: of("float32", b, last=False), 2),
        "the old path, bfloat16": (
            lambda: DirectEvaluator(model, on.plan("bfloat16", batch_size=min(b, 256)), grid, black),
            2,
        ),
        "the old path, bfloat16, large batch": (
            lambda: DirectEvaluator(model, on.plan("bfloat16", batch_size=b), grid, black),
            2,
        ),
        "the old path, float32 as torch has it": (
            lambda: DirectEvaluator(model, on.plan(batch_size=min(b, 256)), grid, black),
            2,
        ),
    }
    for title, (make, some) in rest.items():
        tried(record, title, lambda make=make, some=some: path_rate(make, some))

    def chosen_by_cudnn() -> dict[str, Any]:
        torch.backends.cudnn.benchmark = True
        try:
            return path_rate(lambda: of("bfloat16", b, fuse=False), n)
        finally:
            torch.backends.cudnn.benchmark = False

    tried(record, "bfloat16, not fused, cuDNN timing its ways", chosen_by_cudnn)


def stage_levels(on: Setting, record: Record) -> None:
    """Where the time of a window goes, level by level."""
    model = vgg8(on)
    batch = 8 if on.tiny else 1024
    for fuse in (True, False):
        plan = on.plan("bfloat16")
        net = net_on_device(model, plan, fuse=fuse)
        calls: list[tuple[str, float]] = []

        def measured(net: Any = net, calls: list[tuple[str, float]] = calls) -> dict[str, Any]:
            x = torch.randn(batch, 3, 32, 32, device=on.device).to(torch.bfloat16)
            x = x.contiguous(memory_format=torch.channels_last)

            class Timed(torch.fx.Interpreter):
                def run_node(self, node: torch.fx.Node) -> Any:
                    found = super().run_node(node)
                    if node.op not in ("placeholder", "output", "get_attr"):
                        args, kwargs = self.fetch_args_kwargs_from_env(node)
                        work = lambda: getattr(self, node.op)(node.target, args, kwargs)  # noqa: E731
                        times = [repeated(work, on.device, 3 if on.tiny else 20) for _ in range(3)]
                        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else None
                        calls.append((f"{node.name} {shape}", 1e9 * statistics.median(times) / batch))
                    return found

            with torch.no_grad():
                Timed(net).run(x)
            total = sum(t for _, t in calls)
            return {
                "refused": [n for n, part in net.named_modules() if getattr(part, "refused", False)],
                "nanoseconds_a_window": {k: round(v, 1) for k, v in calls},
                "total": round(total, 1),
                "windows_per_second": 1e9 / total,
            }

        tried(record, f"bfloat16, {'fused' if fuse else 'not fused'}, batch {batch}", measured)

    def first_convolution() -> dict[str, Any]:
        found = {}
        for channels in (3, 4, 8):
            layer = torch.nn.Conv2d(channels, 64, 3, padding=1).to(on.device, torch.bfloat16)
            layer = layer.to(memory_format=torch.channels_last)
            x = torch.randn(batch, channels, 32, 32, device=on.device).to(torch.bfloat16)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                layer(x)
                times = [repeated(lambda layer=layer, x=x: layer(x), on.device, 20) for _ in range(3)]
            found[str(channels)] = round(1e9 * statistics.median(times) / batch, 1)
        return {"nanoseconds_a_window_by_input_channels": found}

    tried(record, "first convolution", first_convolution)


def stage_shared(on: Setting, record: Record) -> None:
    """The first layers once for all shifts of an image: every cut that promises something, against none."""
    model = vgg8(on)
    grid, black = (sl.ShiftGrid(32, 8) if on.tiny else sl.ShiftGrid(32)), sl.Fill.parse("black")
    images, labels = on.pictures(2 if on.tiny else 16)
    shape = images.shape[1:]
    found = trace(prepare_module(model, on.plan("bfloat16")), shape)
    layout = Layout.of(grid, shape[1:], None, black.normalised(MEAN, STD))
    plans = [on.plan("bfloat16")]
    plans += [cut.plan(replace(plans[0], engine="dedup")) for cut in promising(found, layout, plans[0], model, grid)]
    direct: dict[str, ChunkResult] = {}

    def measured(plan: Plan) -> dict[str, Any]:
        """Of whole chunks with all passes, as a sweep has them, but for settling."""
        if not on.tiny:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        path = DeviceEvaluator(model, plan, grid, black)
        run = with_passes(path, model)
        first = seconds_of(lambda: run(images, labels), on.device)
        times = [seconds_of(lambda: run(images, labels), on.device) for _ in range(on.repeats)]
        about: dict[str, Any] = {
            "windows_per_second": spread([len(images) * grid.n_shifts / t for t in times]),
            "first_seconds": first,
            "fewer_multiply_adds": plan.fewer,
            "recorded": any(track.next.recorded for track in path._tracks.values()),
        }
        if not on.tiny:
            about["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
        result = run(images, labels)
        about["against_direct"] = compared(result, direct.setdefault(plan.dtype, result))
        source = next(iter(path._tracks.values())).source
        pictures = path.normalised(images)[: source.most]
        with number_format(plan.dtype, path.device), torch.no_grad():
            taken = repeated(lambda: source.hold(pictures), on.device, 3)
        about["nanoseconds_a_window_for_what_is_shared"] = round(1e9 * taken / len(pictures) / grid.n_shifts, 2)
        return about

    def titled(plan: Plan) -> str:
        where = f"shared up to {found.steps[plan.cut - 1].name} ({plan.cut})" if plan.cut else "nothing shared"
        return f"{plan.dtype}, {where}, batch {plan.batch_size}"

    rates: dict[Plan, float] = {}
    for plan in plans:
        row = tried(record, titled(plan), partial(measured, plan))
        rates[plan] = row.get("windows_per_second", {}).get("median", 0.0)
    best = max(plans[1:], key=lambda plan: rates[plan])
    others = [replace(best, batch_size=size) for size in ((32,) if on.tiny else (4096, 256))]
    exact = [replace(plan, dtype=kind) for kind in ("tf32", "float32") for plan in (plans[0], best)]
    for plan in (*others, *([] if on.tiny else exact)):
        tried(record, titled(plan), partial(measured, plan))


def promising(found: Trace, layout: Layout, plan: Plan, model: Model, grid: sl.ShiftGrid) -> list[Any]:
    """The cuts that the choice of a plan would time."""
    return cutting._promising(found, layout, plan, model.n_macs or 0, grid.n_shifts)[1]


def repeated(work: Callable[[], object], device: str, times: int) -> float:
    """Seconds of one of several calls without waiting in between."""
    work()
    return seconds_of(lambda: [work() for _ in range(times)], device) / times


def stage_compiled(on: Setting, record: Record) -> None:
    model = vgg8(on)
    grid, black = (sl.ShiftGrid(32, 8) if on.tiny else sl.ShiftGrid(32)), sl.Fill.parse("black")
    images, labels = on.pictures(2 if on.tiny else 16)
    batch = 32 if on.tiny else 1024

    def measured(dtype: str, **options: Any) -> dict[str, Any]:
        plan = on.plan(dtype, batch_size=batch)
        with number_format(dtype, torch.device(on.device)):
            net = torch.compile(net_on_device(model, plan, fuse=False), dynamic=False, **options)
        run = DeviceEvaluator(model, plan, grid, black, net=net)
        first = seconds_of(lambda: run(images, labels), on.device)
        times = [seconds_of(lambda: run(images, labels), on.device) for _ in range(on.repeats)]
        rates = [len(images) * grid.n_shifts / t for t in times]
        return {
            "windows_per_second": spread(rates),
            "first_seconds": first,
            "recorded": any(track.next.recorded for track in run._tracks.values()),
        }

    # freezing lays the weights out for the kernels once.
    tried(record, "bfloat16", lambda: measured("bfloat16", options={"freezing": True}))
    if not on.tiny:
        tried(record, "bfloat16, max-autotune", lambda: measured("bfloat16", mode="max-autotune-no-cudagraphs"))
        tried(record, "tf32", lambda: measured("tf32"))


def stage_large(on: Setting, record: Record) -> None:
    """A common net at its own size: resnet50, 224 px, shifts of up to 16 px."""
    torch.manual_seed(0)
    net = (torchvision.models.resnet18 if on.tiny else torchvision.models.resnet50)(num_classes=10).eval()
    size = 64 if on.tiny else 224
    model = sl.wrap(net, mean=MEAN, std=STD, size=size)
    images, labels = on.pictures(1 if on.tiny else 2, size)
    grid, black = (sl.ShiftGrid(16, 16) if on.tiny else sl.ShiftGrid(16)), sl.Fill.parse("black")

    def naive_rate(batch: int) -> dict[str, Any]:
        plain = prepare_module(model, on.plan(channels_last=False, fold_batch_norm=False))
        x = torch.randn(batch, 3, size, size, device=on.device)
        y = torch.zeros(batch, dtype=torch.int64, device=on.device)
        naive(plain, x, y, [(1, 1)] * 2)
        times = [seconds_of(lambda: naive(plain, x, y, [(3, -5)] * 4), on.device) for _ in range(on.repeats)]
        return {"windows_per_second": spread([4 * batch / t for t in times])}

    for batch in (4,) if on.tiny else (64, 256):
        tried(record, f"naive, batch {batch}", lambda b=batch: naive_rate(b))

    def path(dtype: str, batch: int, fuse: bool = True) -> dict[str, Any]:
        plan = on.plan(dtype, batch_size=batch)
        with number_format(dtype, torch.device(on.device)):
            prepared = net_on_device(model, plan, fuse=fuse)
        run = DeviceEvaluator(model, plan, grid, black, net=prepared)
        run(images[:1], labels[:1])
        times = [seconds_of(lambda: run(images, labels), on.device) for _ in range(2)]
        return {"windows_per_second": spread([len(images) * grid.n_shifts / t for t in times])}

    for batch in (8,) if on.tiny else (64, 256):
        tried(record, f"bfloat16, batch {batch}", lambda b=batch: path("bfloat16", b))
    tried(record, "bfloat16, not fused", lambda: path("bfloat16", 8 if on.tiny else 64, fuse=False))
    tried(record, "tf32", lambda: path("tf32", 8 if on.tiny else 64))


# ---------------------------------------------------------------------------------------------------------------------
# From the command line to the finished file


def stage_sweep(on: Setting, record: Record) -> None:
    measured = [
        row["windows_per_second"]["median"]
        for name, row in on.known.get("rates", {}).items()
        if name.startswith("bfloat16") and isinstance(row, dict) and "windows_per_second" in row
    ]
    rate = max(measured, default=300_000.0)
    # Half as fast as the rates promise is allowed for; the plan and the start come on top.
    n = 12 if on.tiny else int(max(500, min(10_000, 0.5 * rate * 150 / 4_225)))
    out = on.work / "sweep.zarr"
    command = [sys.executable, "-m", "shiftlens", "sweep", "--model", "pretrained:vgg-cifar10", "--out", str(out)]
    command += ["--data", on.data or "digits", "--device", on.device, "--limit", str(n), "--json"]
    command += ["--max-shift", "32", "--step", "16"] if on.tiny else ["--max-shift", "32"]

    def swept() -> dict[str, Any]:
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=190)
        seconds = time.perf_counter() - start
        (on.work / "sweep.log").write_text(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        if done.returncode:
            return {"failed": (done.stderr or done.stdout)[-400:]}
        said = json.loads(done.stdout[done.stdout.index("{") :])
        return {"images": n, "shifts": said.get("n_shifts"), "wall_seconds": seconds, "said": said}

    found = tried(record, "command line", swept)
    if "failed" not in found:
        tried(record, "result", lambda: kept(on, out))

    def profiled() -> dict[str, Any]:
        """Where the time of one chunk goes on the host, at the plan that the sweep chose."""
        import cProfile
        import io
        import pstats

        model, black = sl.load_model("pretrained:vgg-cifar10"), sl.Fill.parse("black")
        plan = json.loads(sl.open_sweep(out).dataset.attrs["plan"])
        grid = sl.ShiftGrid(32, 16) if on.tiny else sl.ShiftGrid(32)
        images, labels = on.pictures(12 if on.tiny else 64)
        run = DeviceEvaluator(model, Plan(**plan), grid, black)
        run(images[:4], labels[:4])
        with cProfile.Profile() as profile:
            for first in range(0, len(images), 16):
                run(images[first : first + 16], labels[first : first + 16])
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(18)
        (on.work / "profile.txt").write_text(text.getvalue())
        margins = [settled_share(model, Plan(**plan), grid, images[:8], labels[:8])] if plan.get("settle") else []
        return {"plan": plan, "share_settled": margins}

    if "failed" not in found:
        tried(record, "one chunk", profiled)


def settled_share(
    model: Model, plan: Plan, grid: sl.ShiftGrid, images: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Share of the windows that are evaluated again, and what that costs in time."""
    counted: list[int] = []
    plain = DeviceEvaluator.begin

    def begin(self: DeviceEvaluator, *args: Any) -> Any:
        if self.plan.dtype != plan.dtype:
            counted.append(int(args[3].sum()))
        return plain(self, *args)

    on_device.DeviceEvaluator.begin = begin  # type: ignore[method-assign]
    seconds = {}
    for name, which in (("settled", plan), ("left", replace(plan, settle=0.0))):
        run = on_device_of(model, which, grid, sl.Fill.parse("black"))
        run(images, labels)
        counted.clear()
        seconds[name] = seconds_of(lambda run=run: run(images, labels), plan.device)
        if name == "settled":
            share = sum(counted) / (len(images) * grid.n_shifts)
    on_device.DeviceEvaluator.begin = plain  # type: ignore[method-assign]
    return {"share": share, "seconds": seconds["settled"], "seconds_without": seconds["left"]}


def kept(on: Setting, out: Path) -> dict[str, Any]:
    """Check the file, and keep of it what is small: the maps, and each image's share of right answers."""
    from shiftlens.sweeps.integrity import verify_sweep

    start = time.perf_counter()
    sweep = sl.open_sweep(out)
    data = sweep.dataset
    accuracy, loss = data["accuracy"].values, data["mean_loss"].values
    labels = data["label"].values
    right = (data["prediction"].values == labels[:, None, None]).mean(axis=(1, 2))
    np.savez_compressed(
        on.work / "sweep-maps.npz",
        accuracy=accuracy,
        mean_loss=loss,
        dy=data["dy"].values,
        dx=data["dx"].values,
        right_by_image=right.astype(np.float32),
        label=labels,
    )
    centre = tuple(n // 2 for n in accuracy.shape)
    about = {
        "accuracy_unshifted": float(accuracy[centre]),
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_least": float(accuracy.min()),
        "bytes": sum(f.stat().st_size for f in out.rglob("*") if f.is_file()),
        "plan": data.attrs["plan"],
        "read_seconds": time.perf_counter() - start,
    }
    start = time.perf_counter()
    about["verified"] = str(verify_sweep(out))[:200]
    about["verify_seconds"] = time.perf_counter() - start
    return about


# ---------------------------------------------------------------------------------------------------------------------
# The run


STAGES: dict[str, Callable[[Setting, Record], None]] = {
    "machine": stage_machine,
    "agreement": stage_agreement,
    "tasks": stage_tasks,
    "rates": stage_rates,
    "shared": stage_shared,
    "levels": stage_levels,
    "sweep": stage_sweep,
    "compiled": stage_compiled,
    "large": stage_large,
}


def run_stage(args: argparse.Namespace) -> None:
    """One stage, in this process: what it has found so far is in its file after each measurement."""
    found: dict[str, Any] = {}

    def record(name: str, value: Any) -> None:
        found[name] = value
        args.stage_out.write_text(json.dumps(found, indent=1, default=str) + "\n")
        print(f"{args.stage}: {name}: {shown(value)}", flush=True)

    STAGES[args.stage](Setting(args), record)


def shown(value: Any) -> str:
    """A measurement in one short line."""
    if not isinstance(value, dict):
        return str(value)
    if "failed" in value:
        return f"FAILED {value['failed']}"
    short = {k: (f"{v['median']:,.4g}" if isinstance(v, dict) and "median" in v else v) for k, v in value.items()}
    return json.dumps(short, default=str)[:600]


def table(result: dict[str, Any]) -> str:
    stages = result["stages"]
    card = stages.get("machine", {}).get("card", {})
    naive_rates = [
        (row["windows_per_second"]["median"], name)
        for name, row in stages.get("rates", {}).items()
        if name.startswith("naive") and "windows_per_second" in row
    ]
    best = max(naive_rates, default=(float("nan"), "none"))
    lines = [
        "# A sweep on a GPU",
        "",
        f"`{result['command']}` on one {card.get('name')} (driver {card.get('driver')}, CUDA {card.get('cuda')}, cuDNN "
        f"{card.get('cudnn')}), torch {result['machine']['torch']}, Python {result['machine']['python']}; median "
        "(least to most). `vgg8`, random weights, 16 images x 4,225 shifts of 32 x 32 pixels.",
        "",
        "| way | images x shifts per second | against the naive loop at its best batch | memory of the device |",
        "|---|---|---|---|",
    ]
    rows = [(n, r) for stage in ("rates", "shared", "compiled") for n, r in stages.get(stage, {}).items()]
    for name, row in rows:
        if "windows_per_second" not in row:
            lines.append(f"| {name} | {row.get('failed', '')} | | |")
            continue
        rate = row["windows_per_second"]
        memory = f"{row['peak_memory_bytes'] / 1e9:.2f} GB" if "peak_memory_bytes" in row else ""
        lines.append(
            f"| {name} | {rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f}) | "
            f"{rate['median'] / best[0]:.2f} | {memory} |"
        )
    swept = stages.get("sweep", {}).get("command line", {})
    if "wall_seconds" in swept:
        lines += [
            "",
            f"From the command line to the finished file: {swept['images']:,} images x {swept['shifts']:,} shifts in "
            f"{swept['wall_seconds']:.1f} s.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/gpu.json"))
    parser.add_argument("--data", help="real pictures of 32 x 32 pixels, such as parquet:test.parquet")
    parser.add_argument("--cpu-rehearsal", action="store_true", help="everything tiny, on the CPU, without a table")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--seconds", type=float, default=400, help="no stage begins or goes on after so long")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--stage-out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--known", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", default=tempfile.gettempdir(), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        run_stage(args)
        return
    if not args.cpu_rehearsal and not torch.cuda.is_available():
        sys.exit("torch sees no GPU: nothing is measured and no table is written; --cpu-rehearsal runs it on the CPU")
    started = time.perf_counter()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    stages: dict[str, Any] = {}
    result = header(stages=stages, stage_seconds={})
    slow = 4 if args.cpu_rehearsal else 1
    kept_here = ("sweep-maps.npz", "sweep.log", "profile.txt")
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        known = work / "known.json"
        for name in args.stages:
            left = args.seconds - (time.perf_counter() - started)
            if left < 15:
                stages[name] = {"not begun": "no time was left"}
                continue
            found = work / f"{name}.json"
            command = [sys.executable, __file__, "--stage", name, "--stage-out", str(found), "--known", str(known)]
            command += ["--work", str(work), *(["--data", args.data] if args.data else [])]
            command += ["--cpu-rehearsal"] if args.cpu_rehearsal else []
            begin = time.perf_counter()
            try:
                code: int | str = subprocess.run(command, timeout=min(slow * LIMITS[name], left)).returncode
            except subprocess.TimeoutExpired:
                code = "out of time"
            stages[name] = json.loads(found.read_text()) if found.exists() else {}
            if code:
                stages[name]["ended"] = {"failed": f"the stage ended with {code}"}
            result["stage_seconds"][name] = round(time.perf_counter() - begin, 1)
            print(f"== {name}: {result['stage_seconds'][name]} s, ended with {code}", flush=True)
            args.out.write_text(json.dumps(result, indent=1, default=str) + "\n")
            known.write_text(json.dumps(stages, default=str))
            for file in kept_here:
                if (work / file).exists():
                    (args.out.parent / file).write_bytes((work / file).read_bytes())
    if args.cpu_rehearsal:
        print("a rehearsal on the CPU: no table")
        return
    args.out.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
