"""`repair`: a copy of a model with other padding, down-sampling or input size, as a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell, remarks

if TYPE_CHECKING:
    from shiftlens.data.images import ImageSet
    from shiftlens.evaluation import Evaluation
    from shiftlens.models.loading import Model
    from shiftlens.nn.edits import Edit
    from shiftlens.surgery import FineTuning, Healing


def register(app: typer.Typer) -> None:
    """Add this file's command."""
    app.command()(repair)


def repair(
    model: o.ModelSpec,
    out: Annotated[Path, typer.Option("--out", help="The run directory of the repaired model.")],
    padding: Annotated[
        str | None,
        typer.Option(
            "--padding",
            help="zeros, replicate, reflect, symmetric, circular, partial, distribution, random or full.",
        ),
    ] = None,
    downsample: Annotated[str | None, typer.Option("--downsample", help="blur, polyphase or balanced.")] = None,
    only: Annotated[
        str | None, typer.Option("--only", help="Layers by path (layer1, *.conv2) or class, with commas between them.")
    ] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", help="The same: layers to leave as they are.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Another input: H or HxW pixels, or 'even' for the nearest size without uneven padding."
        ),
    ] = None,
    size_by: Annotated[
        str, typer.Option("--size-by", help="resize, or a padding mode: pictures keep their size and are padded.")
    ] = "resize",
    reestimate: Annotated[
        bool, typer.Option("--reestimate", help="Measure the batch-norm statistics again on --data (cheap).")
    ] = False,
    finetune_epochs: Annotated[
        int, typer.Option("--finetune-epochs", help="Passes over the training images of --data at a low rate.")
    ] = 0,
    finetune_shift: Annotated[
        int | None,
        typer.Option("--finetune-shift", help="Largest shift that fine-tuning shows, in pixels (as in training)."),
    ] = None,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate at the start of fine-tuning.")] = 0.01,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="digits, cifar10, folder:PATH, parquet:PATH or torchvision:NAME; with it, accuracy "
            "before and after is told.",
        ),
    ] = None,
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    weights: o.Weights = None,
    mean: o.Mean = None,
    std: o.Std = None,
    input_size: o.InputSize = None,
    device: o.Device = "auto",
    seed: o.Seed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Another padding, down-sampling or input size in a copy of a model; the weights stay, or are adapted.

    Example: shiftlens repair --model runs/vgg --padding symmetric --reestimate --data cifar10 --out runs/vgg-symmetric
    """
    shell = Shell(quiet, json)
    with remarks(shell):
        import torch

        from shiftlens import surgery
        from shiftlens.data.images import load_images
        from shiftlens.errors import InputError
        from shiftlens.models.loading import load_model
        from shiftlens.models.runs import check_run_target

        torch.manual_seed(seed)
        settings = _checked(
            padding, downsample, size, size_by, reestimate, finetune_epochs, finetune_shift, lr, data, limit
        )
        check_run_target(out)
        test = None if data is None else load_images(data, split="test", data_root=data_root, limit=limit)
        loaded = load_model(
            model,
            weights=weights,
            mean=o.numbers(mean, "--mean"),
            std=o.numbers(std, "--std"),
            input_size=o.size(input_size, "--input-size"),
            picture_size=None if test is None else test.size,
            picture_channels=None if test is None else test.n_channels,
            device=device,
        )
        for note in loaded.notes:
            shell.warn(note)
        origin = surgery.origin_of(model, loaded)
        train = None
        if data is not None and (reestimate or settings is not None):
            train = load_images(data, split="train", data_root=data_root, limit=limit)
        if train is not None and settings is not None:
            surgery.check_classes(loaded, train)
        before = None if test is None else _accuracy(shell, loaded, test, "evaluating as it is", device)
        edits: list[Edit] = []
        changed: Model = loaded
        if padding is not None or downsample is not None:
            changed, edits = surgery.repair(loaded, padding, downsample, only=only, exclude=exclude)
        if size is not None:
            wanted = None if size == "even" else o.size(size, "--size")
            changed, more = surgery.with_input_size(changed, wanted, pad=None if size_by == "resize" else size_by)
            edits = [*edits, *more]
        healed: list[Healing] = []
        if train is not None:
            changed, healed = _heal(shell, changed, train, reestimate, settings, seed, device)
        if not edits and not healed:
            raise InputError(f"nothing was changed, so {out} is not written")
        after = None if test is None else _accuracy(shell, changed, test, "evaluating the repaired", device)
        metrics = {} if after is None else {"accuracy": after.accuracy, "accuracy_interval": after.accuracy_interval}
        surgery.save_repaired(out, changed, origin, edits, healed=healed, metrics=metrics)
    values: dict[str, Any] = {"edits": [edit.to_dict() for edit in edits], "out": str(out)}
    values["healed"] = [each.to_dict() for each in healed]
    for name, found in (("before", before), ("after", after)):
        values[name] = None if found is None else found.to_dict()
    shell.result(values, _lines(edits, healed, before, after, out))


def _checked(
    padding: str | None,
    downsample: str | None,
    size: str | None,
    size_by: str,
    reestimate: bool,
    finetune_epochs: int,
    finetune_shift: int | None,
    lr: float,
    data: str | None,
    limit: int | None,
) -> FineTuning | None:
    """Everything that can be wrong before a model is loaded; the settings of a fine-tuning that is asked for."""
    from shiftlens.errors import InputError
    from shiftlens.naming import unknown_name
    from shiftlens.nn.edits import DOWNSAMPLING_REPAIRS
    from shiftlens.nn.padding import check_mode, pad_mode
    from shiftlens.surgery import FineTuning

    o.positive(limit, "--limit")
    if padding is not None:
        check_mode(padding)
    if downsample is not None and downsample not in DOWNSAMPLING_REPAIRS:
        raise unknown_name("down-sampling", downsample, DOWNSAMPLING_REPAIRS)
    if size is not None and size != "even":
        o.size(size, "--size")
    if size_by != "resize":
        pad_mode(size_by)
    if finetune_epochs < 0:
        raise InputError(f"--finetune-epochs must be at least 0, got {finetune_epochs}")
    if padding is None and downsample is None and size is None and not reestimate and not finetune_epochs:
        raise InputError("nothing to repair: give --padding, --downsample, --size, --reestimate or --finetune-epochs")
    if (reestimate or finetune_epochs) and data is None:
        raise InputError("--reestimate and --finetune-epochs need images: give --data")
    if finetune_shift is not None and finetune_shift < 0:
        raise InputError(f"--finetune-shift must be at least 0 pixels, got {finetune_shift}")
    if finetune_shift is not None and not finetune_epochs:
        raise InputError("--finetune-shift needs --finetune-epochs: without them nothing is shown")
    return FineTuning(epochs=finetune_epochs, lr=lr, shift=finetune_shift) if finetune_epochs else None


def _accuracy(shell: Shell, model: Model, images: ImageSet, what: str, device: str) -> Evaluation:
    from shiftlens.evaluation import evaluate

    with shell.progress(what, "images") as report:
        return evaluate(model, images, device=device, progress=report)


def _heal(
    shell: Shell,
    model: Model,
    images: ImageSet,
    reestimate: bool,
    settings: FineTuning | None,
    seed: int,
    device: str,
) -> tuple[Model, list[Healing]]:
    from shiftlens import surgery

    healed = []
    if reestimate:
        with shell.progress("measuring batch norm", "images") as report:
            model, facts = surgery.reestimate(model, images, seed=seed, device=device, progress=report)
        healed += [facts] if facts.n_images else []
    if settings is not None:
        with shell.progress("fine-tuning", "steps") as report:
            model, facts = surgery.finetune(model, images, settings, seed=seed, device=device, progress=report)
        healed.append(facts)
    return model, healed


def _lines(
    edits: list[Edit], healed: list[Healing], before: Evaluation | None, after: Evaluation | None, out: Path
) -> list[str]:
    lines = [str(edit) for edit in edits]
    for each in healed:
        loss = f", loss {each.losses[0]:.3f} -> {each.losses[-1]:.3f}" if each.losses else ""
        lines.append(f"{each.kind}: {each.n_images:,} images of {each.images}{loss}, {each.seconds:.1f} s")
    if before is not None and after is not None:
        low, high = after.accuracy_interval
        lines.append(
            f"accuracy at (0, 0): {100 * before.accuracy:.2f} % before, {100 * after.accuracy:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}] after ({after.n:,} images; compare sweeps for a paired difference)"
        )
    return [*lines, f"wrote {out}"]
