"""`check`: pass or fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell
from shiftlens.errors import InputError, StoreError

if TYPE_CHECKING:
    from shiftlens.gate.check_result import CheckResult


@dataclass(frozen=True)
class LimitOptions(o.Options):
    """What must hold."""

    min_unshifted: Annotated[
        float | None, typer.Option("--min-unshifted", help="Least metric on unshifted images (a share: 0 to 1).")
    ] = None
    max_unshifted: Annotated[
        float | None, typer.Option("--max-unshifted", help="The same of a metric that is better when it is lower.")
    ] = None
    min_near: Annotated[
        float | None, typer.Option("--min-near", help="Least mean of the metric within 8 px of (0, 0).")
    ] = None
    max_near: Annotated[
        float | None, typer.Option("--max-near", help="The same of a metric that is better when it is lower.")
    ] = None
    min_retained_radius: Annotated[
        float | None,
        typer.Option("--min-retained-radius", help="Least radius in px within which 95 % of the metric is kept."),
    ] = None
    max_drop: Annotated[
        str | None, typer.Option("--max-drop", help="Largest fall at any shift: points@px, such as 2@4.")
    ] = None
    max_side_difference: Annotated[
        float | None, typer.Option("--max-side-difference", help="Most points between opposite sides.")
    ] = None
    min_consistency: Annotated[
        float | None, typer.Option("--min-consistency", help="Least pairwise consistency, 0 to 1.")
    ] = None
    max_confidence_swing: Annotated[
        str | None,
        typer.Option("--max-confidence-swing", help="Most swing of the confidence: share@px, such as 0.2@4."),
    ] = None
    max_border_ratio: Annotated[
        float | None, typer.Option("--max-border-ratio", help="Most errors near the border over errors inside.")
    ] = None
    max_tile_mismatch: Annotated[
        float | None,
        typer.Option("--max-tile-mismatch", help="Of a tile report: most share of the output's range (or of pixels)."),
    ] = None
    max_tile_mismatch_with_overlap: Annotated[
        float | None,
        typer.Option("--max-tile-mismatch-with-overlap", help="The same with the report's overlap."),
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are given."""
        return {name: value for name, value in vars(self).items() if value is not None}


def check(
    shell: Shell,
    limits: LimitOptions,
    model: o.OptionalModel,
    images: o.ImageOptions,
    sweeps: Annotated[
        list[Path] | None, typer.Argument(metavar="S.zarr ...", help="Sweeps or tile reports; each is checked.")
    ] = None,
    gate: Annotated[Path | None, typer.Option("--gate", help="File with limits; options go first.")] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Sweep of the same images: differences are paired.")
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option("--allow", help="How much worse than it: unshifted=1,drop=2@4 (default: 1 point)."),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--lenient",
            help="Pass only what is proven kept (default), or fail only what is proven breached; both at 5 %.",
        ),
    ] = None,
    metric: o.Metric = None,
    partial: o.Partial = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Write a Markdown table; appended to $GITHUB_STEP_SUMMARY.")
    ] = None,
    annotations: Annotated[
        bool | None,
        typer.Option("--annotations/--no-annotations", help="Print GitHub annotations (default: in GitHub Actions)."),
    ] = None,
    adaptive: Annotated[
        bool, typer.Option("--adaptive", help="Sweep --model on only as many images of --data as the decision needs.")
    ] = False,
    max_shift: Annotated[
        str | None,
        typer.Option("--max-shift", help="With --adaptive: largest shift (default: as far as the limits need)."),
    ] = None,
    task: Annotated[str, typer.Option("--task", help="With --adaptive: the task, as of sweep.")] = "classification",
    label_map: o.LabelMap = None,
    batch_size: o.BatchSize = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="With --adaptive: folder that keeps the sweeps (default: none are kept)."),
    ] = None,
    seed: o.Seed = 0,
) -> None:
    """Check sweeps against limits or a baseline, for CI; exit code 0 passed, 1 failed.

    Example: shiftlens check vgg.zarr --min-retained-radius 3 --max-drop 2@4 --junit check.xml
    """
    from shiftlens.gate.gating import check as check_sweeps
    from shiftlens.gate.limits import gate_of

    given: dict[str, Any] = limits.given | {"metric": metric}
    given["mode"] = None if strict is None else "strict" if strict else "lenient"
    given["allowed"] = _table(allow)
    wanted = gate_of(gate, given | ({} if baseline is None else {"baseline": str(baseline)}))
    paths = sweeps or []
    if adaptive:
        if paths or not model.model:
            raise InputError("--adaptive sweeps a model: expected --model and no sweep")
        shown = images.load(shell)
        extra = {"task": task, "label_map": label_map, "batch_size": batch_size, "device": model.device}
        result = _adaptively(shell, model.load(shell, shown), shown, wanted, out, max_shift, seed, extra)
    else:
        if model.model or max_shift or out:
            raise InputError("expected --adaptive with --model, --max-shift and --out, or sweeps without them")
        if not paths:
            raise InputError("expected a sweep to check, or --adaptive with --model and --data")
        result = check_sweeps(paths, gate=wanted, partial=partial, seed=seed)
    if junit is not None:
        _write(junit, '<?xml version="1.0" encoding="UTF-8"?>\n' + result.junit())
    if summary is not None:
        _write(summary, result.markdown(), append=str(summary) == os.environ.get("GITHUB_STEP_SUMMARY"))
    if os.environ.get("GITHUB_ACTIONS") == "true" if annotations is None else annotations:
        stream = shell.stderr if shell.as_json else shell.stdout
        for line in result.annotations():
            stream.print(line, markup=False, soft_wrap=True)
    shell.result(result.to_dict(), [*result.lines(), *o.wrote(*(f for f in (junit, summary) if f is not None))])
    if not result.passed:
        raise typer.Exit(result.exit_code)


def _adaptively(
    shell: Shell,
    model: Any,
    images: Any,
    gate: Any,
    out: Path | None,
    max_shift: str | None,
    seed: int,
    extra: dict[str, Any],
) -> CheckResult:
    from shiftlens.gate.looking_on import check_adaptively
    from shiftlens.shifts import ShiftGrid
    from shiftlens.sweeps.sweep_result import open_sweep

    if not gate.asks and gate.baseline is None:
        raise InputError("expected at least one condition (such as --min-retained-radius 3) or a baseline, got none")
    largest = o.size(max_shift, "--max-shift", least=0)
    baseline = None if gate.baseline is None else open_sweep(gate.baseline)
    with TemporaryDirectory(prefix="shiftlens-check-") as folder, shell.progress("sweeping", "evaluations") as report:
        return check_adaptively(
            model,
            images,
            gate,
            out=Path(folder) if out is None else out,
            grid=None if largest is None else ShiftGrid(largest),
            baseline=baseline,
            seed=seed,
            announce=shell.say,
            progress=report,
            **extra,
        )[0]


def _table(text: str | None) -> dict[str, Any] | None:
    """`unshifted=1,drop=2@4` as a table; numbers where they are none of `points@px`."""
    if text is None:
        return None
    pairs = [each.partition("=") for each in text.split(",")]
    table: dict[str, Any] = {}
    for key, equals, value in pairs:
        if not equals:
            raise InputError(f"--allow must be names with amounts, such as unshifted=1,drop=2@4, got {text!r}")
        try:
            table[key.strip()] = value.strip() if "@" in value else float(value)
        except ValueError:
            raise InputError(f"--allow: expected a number for {key.strip()}, got {value!r}") from None
    return table


def _write(path: Path, text: str, *, append: bool = False) -> None:
    try:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
