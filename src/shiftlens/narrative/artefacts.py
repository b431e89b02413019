"""What a feature run and layer arithmetic say, in sentences: which layer invents something, how far, on which side."""

from __future__ import annotations

import shlex

from shiftlens.arithmetic import Inspection
from shiftlens.lens.feature_run import FeatureRun, LayerMaps
from shiftlens.lens.map_scores import CONSTANT, Borders
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.words import plain
from shiftlens.stats import Skipped

CLEAR_OF_CHANCE = 3.0
"""An average's artefact energy is named when it is this many times what chance gives."""

OWN = "Scores are this project's own definition."


def artefacts(found: FeatureRun | Inspection) -> Findings:
    """Say what a feature run (question B) or layer arithmetic (question C) shows.

    Parameters
    ----------
    found
        From `shiftlens.features` or `shiftlens.inspect`.

    Returns
    -------
    Findings
        Nothing is tested here, so nothing warns: a number is there, or a note that must be known before it is quoted.
    """
    if isinstance(found, Inspection):
        return Findings(_arithmetic(found))
    said = [*_empty(found), *_average(found)]
    return Findings([*said, *(Finding(f"unseen-{k}", "B", "note", _sentence(n)) for k, n in enumerate(found.notes, 1))])


def _sentence(text: str) -> str:
    shown = plain(text)
    return f"{shown[:1].upper()}{shown[1:]}."


def _share(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 else f"{100 * value:.2g} %"


def _energy(layer: LayerMaps) -> float:
    value = layer.scores.artefact_energy
    return 0.0 if isinstance(value, Skipped) else value


def _empty(run: FeatureRun) -> list[Finding]:
    if not run.is_empty:
        return []
    what = f"an empty picture ({run.input})"
    evidence = (
        f"{len(run)} layers at {run.size[0]}x{run.size[1]}, against the same net with circular padding, under which an "
        f"empty picture stays constant at every layer. {OWN}"
    )
    start = run.start
    if start is None:
        said = f"No layer leaves marks of its borders on the map of {what}."
        more = " Mirror, replicate and circular padding always do this: their bias shows in the average over pictures."
        return [Finding("artefact-start", "B", "info", said, evidence=evidence + more)]
    size = shlex.join(["shiftlens", "inspect", "--model", run.model, "--size", f"{run.size[0]}x{run.size[1]}"])
    made = [
        Finding(
            "artefact-start",
            "B",
            "note",
            f"Borders leave their first marks on the map of {what} at layer {plain(start.name)} ({start.kind}).",
            evidence=evidence,
            remedy=f"`{size}` says what padding each layer uses.",
        )
    ]
    worst = max(run.layers, key=_energy)
    made.append(
        Finding(
            "artefact-energy",
            "B",
            "note",
            f"At layer {plain(worst.name)}, {_share(_energy(worst))} of the power of the map of {what} is variation "
            f"over space that the picture cannot explain: the most of all layers.",
            value=_energy(worst),
            unit="share",
            evidence=evidence,
        )
    )
    return [*made, *_reach(run, evidence), *_sides(run, evidence)]


def _reach(run: FeatureRun, evidence: str) -> list[Finding]:
    known = [layer for layer in run.layers if not isinstance(layer.scores.covered, Skipped)]
    full = next((layer for layer in known if layer.scores.covered == 1), None)
    if full is not None:
        text = f"From layer {plain(full.name)} on, no cell of the map is free of the borders' marks."
        return [Finding("artefact-reach", "B", "note", text, evidence=evidence)]
    pixels = [(layer.scores.reach_pixels, layer) for layer in known]
    far, layer = max(((p, each) for p, each in pixels if not isinstance(p, Skipped)), key=lambda pair: pair[0])
    text = f"The borders' marks reach {far:.0f} px into the picture, at layer {plain(layer.name)}."
    return [Finding("artefact-reach", "B", "note", text, value=float(far), unit="px", evidence=evidence)]


def _sides(run: FeatureRun, evidence: str) -> list[Finding]:
    made = []
    for name, axis, contrast, names in (
        ("artefact-sides-x", "left/right", "contrast_lr", ("left", "right")),
        ("artefact-sides-y", "up/down", "contrast_ud", ("top", "bottom")),
    ):
        # Where next to nothing varies, the share of it that is odd says nothing.
        rows = [
            (value, layer)
            for layer in run.layers
            if not isinstance(value := getattr(layer.scores, contrast), Skipped) and _energy(layer) > 100 * CONSTANT
        ]
        if not rows:
            continue
        value, layer = max(rows, key=lambda row: row[0])
        text = f"The marks are not the same {axis}: at layer {plain(layer.name)}, {_share(value)} of their variation "
        text += "changes sign when the map is mirrored"
        if isinstance(layer.scores.borders, Borders):
            text += f" (against the net without borders, {_which(layer.scores.borders, names)})"
        text += "."
        if value < 1e-6:
            text = f"The marks are the same {axis} at every layer."
        made.append(Finding(name, "B", "info", text, value=float(value), unit="share", evidence=evidence))
    return made


def _which(borders: Borders, names: tuple[str, str]) -> str:
    first, second = getattr(borders, names[0]), getattr(borders, names[1])
    words = [f"{name} {'excited' if value > 0 else 'suppressed'} by {_share(abs(value))}" for name, value in
             zip(names, (first, second), strict=True)]  # fmt: skip
    return ", ".join(words)


def _average(run: FeatureRun) -> list[Finding]:
    layers = [layer for layer in run.layers if layer.average is not None]
    if not layers:
        return []
    rolled = all(layer.average is not None and layer.average.rolled is not None for layer in layers)
    evidence = f"Mean over {run.n_images:,} images of {plain(run.data or '')}. {OWN}"
    if not rolled:
        text = (
            "The average over pictures has no control for what is in them: photographs are centred, so content itself"
        )
        return [Finding("average-content", "B", "note", f"{text} is not the same everywhere.", evidence=evidence)]
    rows = []
    for layer in layers:
        scores = layer.average.scores if layer.average is not None else layer.scores
        if not isinstance(scores.artefact_energy, Skipped) and scores.noise:
            rows.append((scores.artefact_energy / scores.noise, scores.artefact_energy, scores.noise, layer))
    clear = [row for row in rows if row[0] >= CLEAR_OF_CHANCE]
    if not clear:
        text = "With content moved evenly over the picture, no layer's average varies over space beyond chance."
        return [Finding("average-energy", "B", "info", text, evidence=evidence)]
    ratio, energy, noise, layer = max(clear, key=lambda row: row[1])
    text = (
        f"With content moved evenly over the picture, {_share(energy)} of the power of the average map of layer "
        f"{plain(layer.name)} is still variation over space ({ratio:,.0f} times what chance gives, {_share(noise)}): "
        f"{len(clear)} of {len(rows)} layers are beyond {CLEAR_OF_CHANCE:.0f} times chance."
    )
    seam = " Rolled pictures have a seam where their opposite sides meet; it is everywhere alike."
    return [Finding("average-energy", "B", "note", text, value=float(energy), unit="share", evidence=evidence + seam)]


def _arithmetic(found: Inspection) -> list[Finding]:
    h, w = found.size
    evidence = "Layer arithmetic from one forward pass without numbers (arXiv 2010.02178, section 3)."
    judged = [layer for layer in found.layers if not isinstance(layer.used, Skipped) and not layer.merged]
    if found.is_even:
        text = f"At {h}x{w}, all {len(judged)} layers use as much padding on one side as on the other."
        return [Finding("uneven-padding", "C", "info", text, value=0.0, unit="layers", evidence=evidence)]
    names = ", ".join(plain(layer.name) for layer in found.uneven[:3])
    more = f" and {len(found.uneven) - 3} more" if len(found.uneven) > 3 else ""
    text = f"At {h}x{w}, {len(found.uneven)} of {len(judged)} layers treat opposite sides differently: {names}{more}."
    sizes = {axis: _nearest(n, found.even_sizes[axis]) for axis, n in (("h", h), ("w", w))}
    remedy = None
    if all(size is not None for size in sizes.values()):
        size = f"{sizes['h']}x{sizes['w']}"
        command = shlex.join(["shiftlens", "inspect", "--model", found.model, "--size", size])
        remedy = f"Pictures of {size} pixels would treat all sides alike (`{command}`)."
    return [
        Finding(
            "uneven-padding",
            "C",
            "note",
            text,
            value=float(len(found.uneven)),
            unit="layers",
            evidence=evidence,
            remedy=remedy,
        )
    ]


def _nearest(n: int, sizes: tuple[int, ...]) -> int | None:
    return min(sizes, key=lambda size: abs(size - n), default=None)
