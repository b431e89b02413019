"""`repair`: a copy of a model with other padding, down-sampling or input size, as a run directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.given import MODEL_OPTIONS
from shiftlens.naming import count_of

if TYPE_CHECKING:
    from shiftlens.data.images import ImageSet
    from shiftlens.evaluation import Evaluation
    from shiftlens.models.loading import Model
    from shiftlens.nn.edits import Edit
    from shiftlens.surgery import Healing

FEW_STEPS = 20
"""Of fine-tuning; fewer change a net little at its low rate."""


def repair(
    shell: Shell,
    model: o.ModelOptions,
    out: Annotated[Path, typer.Option("--out", help="The run directory of the repaired model.")],
    padding: Annotated[
        str | None,
        typer.Option(
            "--padding",
            help="zeros, replicate, reflect, symmetric, circular, partial, distribution, random or full.",
        ),
    ] = None,
    downsample: Annotated[str | None, typer.Option("--downsample", help="blur, polyphase or balanced.")] = None,
    norm: Annotated[
        str | None,
        typer.Option(
            "--norm", help="batch-renorm: norms over the whole map become the same in every tile; measured on --data."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Change these layers: paths (layer1, *.conv2) or classes, separated by commas."),
    ] = None,
    exclude: Annotated[str | None, typer.Option("--exclude", help="Leave these layers, named as for --only.")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size", help="Another input: H or HxW pixels, or 'even' for the nearest size without uneven padding."
        ),
    ] = None,
    size_by: Annotated[
        str, typer.Option("--size-by", help="resize, or a padding mode: images keep their size and are padded.")
    ] = "resize",
    reestimate: Annotated[
        bool, typer.Option("--reestimate", help="Measure the batch-norm statistics again on --data (cheap).")
    ] = False,
    finetune_epochs: Annotated[
        int, typer.Option("--finetune-epochs", help="Passes over the training images of --data at a low rate.")
    ] = 0,
    finetune_shift: Annotated[
        int | None,
        typer.Option("--finetune-shift", help="Largest shift in fine-tuning, in pixels (default: as trained)."),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirrored images in fine-tuning (default: if the model's run says it saw them)."
        ),
    ] = None,
    distill_epochs: Annotated[
        int,
        typer.Option(
            "--distill-epochs", help="Passes over --data in which it learns the original's output; needs no labels."
        ),
    ] = 0,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate at the start of fine-tuning.")] = 0.01,
    data: Annotated[
        str | None, typer.Option("--data", help=f"{o.DATA}: also measure accuracy before and after.")
    ] = None,
    limit: o.Limit = None,
    data_root: o.DataRoot = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="train, test or all: what the net is adapted to (default: train, and test measures it); of a net that "
            "is not adapted, what measures it (default: test, or all where a source has no splits).",
        ),
    ] = None,
    seed: o.Seed = 0,
) -> o.Answer:
    """Change padding, down-sampling, norms or input size in a copy of a model; its weights stay, or are adapted.

    Example: shiftlens repair --model runs/vgg --downsample blur --finetune-epochs 2 --data cifar10 --out runs/vgg-blur
    """
    import torch

    from shiftlens import surgery
    from shiftlens.errors import InputError
    from shiftlens.models.runs import check_run_target
    from shiftlens.training.recipe import Recipe

    torch.manual_seed(seed)
    reestimate = reestimate or norm is not None  # new norms have no statistics yet
    adapts = reestimate or finetune_epochs != 0 or distill_epochs != 0
    if not (padding or downsample or size or adapts):
        raise InputError(
            "nothing to repair: give --padding, --downsample, --norm, --size, --reestimate, --finetune-epochs or "
            "--distill-epochs"
        )
    _check_names(padding, downsample, norm, size, size_by)
    settings = None
    if finetune_epochs:
        mirror = None if flip is None else Recipe().flip if flip else "none"
        settings = surgery.FineTuning(epochs=finetune_epochs, lr=lr, shift=finetune_shift, flip=mirror)
    if adapts and data is None:
        raise InputError("--reestimate, --norm, --finetune-epochs and --distill-epochs need images: give --data")
    if distill_epochs < 0:
        raise InputError(f"--distill-epochs must be at least 0, got {distill_epochs}")
    for name, given in (("--finetune-shift", finetune_shift), ("--flip", flip)):
        if given is not None and not finetune_epochs:
            raise InputError(f"{name} needs --finetune-epochs: without them nothing is shown")
    check_run_target(out)
    # As for train: with --reestimate and --finetune-epochs the split is what is learnt from, which measures nothing.
    learns = (split or "train") if adapts else None
    measured = ("test" if learns == "train" else None) if adapts else split
    shown = None if data is None else o.images_of(data, data_root, limit, measured or learns)
    # What only learns the original's output may be any net, also one whose images have no classes.
    without_labels = (norm is not None or distill_epochs) and not finetune_epochs
    test = None if without_labels or (adapts and measured is None) else shown
    loaded = model.load(shell, shown)
    edited = {"padding": padding, "downsample": downsample, "norm": norm, "only": only, "exclude": exclude}
    resized = None if size is None else (None if size == "even" else o.size(size, "--size"), size_by)
    origin = surgery.origin_of(model.model, loaded, _in_python(loaded, edited, resized, data if reestimate else None))
    train = o.images_of(data, data_root, limit, learns) if data is not None and adapts else None
    if train is not None and settings is not None:
        surgery.check_classes(loaded, train)
    before = None if test is None else _accuracy(shell, loaded, test, "evaluating the original", model.device)
    edits: list[Edit] = []
    changed: Model = loaded
    if padding is not None or downsample is not None or norm is not None:
        changed, edits = surgery.repair(loaded, padding, downsample, only=only, exclude=exclude, norm=norm)
    if size is not None:
        wanted = None if size == "even" else o.size(size, "--size")
        changed, more = surgery.with_input_size(changed, wanted, pad=None if size_by == "resize" else size_by)
        edits = [*edits, *more]
    healed: list[Healing] = []
    if train is not None and reestimate:
        with shell.progress("measuring batch norm", "images") as report:
            changed, facts = surgery.reestimate(changed, train, seed=seed, device=model.device, progress=report)
        healed += [facts] if facts.n_images else []
    if train is not None and distill_epochs:
        with shell.progress("distilling", "steps") as report:
            changed, facts = surgery.distill(
                changed, loaded, train, epochs=distill_epochs, seed=seed, device=model.device, progress=report
            )
        healed.append(facts)
    if train is not None and settings is not None:
        with shell.progress("fine-tuning", "steps") as report:
            changed, facts = surgery.finetune(changed, train, settings, seed=seed, device=model.device, progress=report)
        healed.append(facts)
    if not edits and not healed:
        raise InputError(f"nothing was changed, so {out} is not written")
    after = None if test is None else _accuracy(shell, changed, test, "evaluating the repaired model", model.device)
    metrics = {} if after is None else {"accuracy": after.accuracy, "accuracy_interval": after.accuracy_interval}
    surgery.save_repaired(out, changed, origin, edits, healed=healed, metrics=metrics)
    values = {
        "edits": [edit.to_dict() for edit in edits],
        "out": str(out),
        "healed": [each.to_dict() for each in healed],
        "before": None if before is None else before.to_dict(),
        "after": None if after is None else after.to_dict(),
    }
    lines = _lines(edits, healed, before, after, out)
    if changed.preprocessing.size is None and changed.input_size is not None:
        h, w = changed.input_size
        lines.append(
            f"{out} names no input size, since none was given: --input-size {h}x{w} where one is needed (export)"
        )
    return values, lines


def _check_names(padding: str | None, downsample: str | None, norm: str | None, size: str | None, size_by: str) -> None:
    """Refuse an unknown name before the model is loaded."""
    from shiftlens.nn.padding import pad_mode
    from shiftlens.surgery.planning import check_names

    if padding is not None or downsample is not None or norm is not None:
        check_names(padding, downsample, norm)
    if size != "even":
        o.size(size, "--size")
    if size_by != "resize":
        pad_mode(size_by)


def _in_python(
    model: Model, edited: dict[str, str | None], resized: tuple[tuple[int, int] | None, str] | None, data: str | None
) -> str:
    """The same edits as one line of Python, which ends with the repaired model under the name `fixed`."""

    def arguments(named: Mapping[str, object]) -> str:
        return "".join(f", {name}={value!r}" for name, value in named.items() if value is not None)

    given = {name: model.options[name] for name in MODEL_OPTIONS if name in model.options}
    steps = ["import shiftlens as sl", f"fixed = sl.load_model({model.name!r}{arguments(given)})"]
    if any(edited[name] for name in ("padding", "downsample", "norm")):
        steps.append(f"fixed, edits = sl.repair(fixed{arguments(edited)})")
    if resized is not None:
        size, by = resized
        pad = "" if by == "resize" else f", pad={by!r}"
        steps += ["from shiftlens import surgery", f"fixed, _ = surgery.with_input_size(fixed, {size!r}{pad})"]
    if data is not None:
        steps += ["from shiftlens import surgery", f"fixed, _ = surgery.reestimate(fixed, {data!r})"]
    return "; ".join(dict.fromkeys(steps))


def _accuracy(shell: Shell, model: Model, images: ImageSet, what: str, device: str) -> Evaluation:
    from shiftlens.evaluation import evaluate

    with shell.progress(what, "images") as report:
        return evaluate(model, images, device=device, progress=report)


def _lines(
    edits: list[Edit], healed: list[Healing], before: Evaluation | None, after: Evaluation | None, out: Path
) -> list[str]:
    lines = [*map(str, edits), *map(str, healed)]
    if any(each.kind == "fine-tune" and each.steps < FEW_STEPS for each in healed):
        lines.append(f"expect little of fewer than {FEW_STEPS} steps: more images or --finetune-epochs learn more")
    if before is not None and after is not None:
        low, high = after.accuracy_interval
        lines.append(
            f"accuracy at (0, 0): {100 * before.accuracy:.2f} % before, {100 * after.accuracy:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}] after "
            f"({count_of(after.n, 'image')}; compare sweeps for a paired difference)"
        )
    return [*lines, f"wrote {out}"]
