"""Findings of feature runs and of layer arithmetic: where border artefacts start, how far they reach, which side."""

from __future__ import annotations

from functools import partial

from shiftlens.arithmetic import Inspection
from shiftlens.lens.feature_run import FeatureRun, LayerMaps
from shiftlens.lens.map_scores import CONSTANT, Borders
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, number
from shiftlens.narrative.words import plain, sentence
from shiftlens.stats import Skipped, per_cent

CLEAR_OF_CHANCE = 3.0
"""An average's artefact energy is named when it is this many times what chance gives."""

OWN = "Scores are this project's own definition."


def artefacts(found: FeatureRun | Inspection) -> Findings:
    """Return what a feature run (question B) or layer arithmetic (question C) shows.

    Nothing is tested here, so nothing warns: a number is there, or a note that must be known before it is quoted.
    """
    if isinstance(found, Inspection):
        return Findings([_arithmetic(found)])
    unseen = [
        Finding("unseen", sentence(note), severity="note", question="B", which=f"{k}")
        for k, note in enumerate(found.notes, 1)
    ]
    return Findings([*_blank(found), *_average(found), *unseen])


def _energy(layer: LayerMaps) -> float:
    value = layer.scores.artefact_energy
    return 0.0 if isinstance(value, Skipped) else value


def _inspect(model: str, size: tuple[int, int]) -> tuple[str, ...]:
    return ("shiftlens", "inspect", "--model", model, "--size", f"{size[0]}x{size[1]}")


def _blank(run: FeatureRun) -> list[Finding]:
    if not run.is_empty:
        return []
    note = (
        f"{len(run)} layers at {run.size[0]}x{run.size[1]}, compared with the same net with circular padding, which "
        f"keeps a blank input constant at every layer. {OWN}"
    )
    start, what = run.start, f"the feature map of a blank input ({run.input})"
    if start is None:
        text = f"No layer shows border artefacts on {what}."
        note += " Reflect, replicate and circular padding never do: their bias shows in the average over images."
        return [Finding("artefact-start", text, Quantity("first artefact"), note=note, question="B")]
    made = partial(Finding, note=note, severity="note", question="B")
    worst = max(run.layers, key=_energy)
    text = f"Border artefacts on {what} start at layer {plain(start.name)} ({start.kind})."
    action = Action("See how much padding each layer uses", _inspect(run.model, run.size))
    first = made("artefact-start", text, Quantity("first artefact", layer=start.name), action=action)
    text = (
        f"At layer {plain(worst.name)}, {per_cent(_energy(worst))} of the power of {what} is spatial variation that "
        "the image cannot explain, the largest share of all layers."
    )
    quantity = Quantity("artefact energy", layer=worst.name)
    most = made("artefact-energy", text, quantity, number(_energy(worst), "share"))
    return [first, most, _reach(run, made), *_sides(run, note)]


def _reach(run: FeatureRun, made: partial[Finding]) -> Finding:
    known = [layer for layer in run.layers if not isinstance(layer.scores.covered, Skipped)]
    full = next((layer for layer in known if layer.scores.covered == 1), None)
    if full is not None:
        text = f"From layer {plain(full.name)} on, border artefacts cover the whole feature map."
        return made("artefact-reach", text, Quantity("artefact reach", layer=full.name))
    pixels = [(layer.scores.reach_pixels, layer) for layer in known]
    far, layer = max(((p, each) for p, each in pixels if not isinstance(p, Skipped)), key=lambda pair: pair[0])
    text = f"Border artefacts reach at most {far:.0f} px into the image, at layer {plain(layer.name)}."
    return made("artefact-reach", text, Quantity("artefact reach", layer=layer.name), number(float(far), "px"))


def _sides(run: FeatureRun, note: str) -> list[Finding]:
    made = []
    for axis, contrast, names in (("x", "contrast_lr", ("left", "right")), ("y", "contrast_ud", ("top", "bottom"))):
        # Where next to nothing varies, the odd share of it says nothing.
        rows = [
            (value, layer)
            for layer in run.layers
            if not isinstance(value := getattr(layer.scores, contrast), Skipped) and _energy(layer) > 100 * CONSTANT
        ]
        if not rows:
            continue
        value, layer = max(rows, key=lambda row: row[0])
        borders = layer.scores.borders
        if value < 1e-6:
            text = f"Border artefacts are equal at {names[0]} and {names[1]}, at every layer."
        else:
            compared = ""
            if isinstance(borders, Borders):
                sides = ", ".join(_side(name, getattr(borders, name)) for name in names)
                compared = f" (compared with the net without borders, {sides})"
            text = (
                f"Border artefacts differ between {names[0]} and {names[1]}: at layer {plain(layer.name)}, "
                f"{per_cent(value)} of their variation changes sign when the map is mirrored{compared}."
            )
        quantity = Quantity("odd share of the artefacts", axis, layer=layer.name)
        estimate = number(float(value), "share")
        made.append(Finding("artefact-sides", text, quantity, estimate, note=note, question="B", which=axis))
    return made


def _side(name: str, value: float) -> str:
    return f"{name} {'excited' if value > 0 else 'suppressed'} by {per_cent(abs(value))}"


def _average(run: FeatureRun) -> list[Finding]:
    averages = [(layer, layer.average) for layer in run.layers if layer.average is not None]
    if not averages:
        return []
    note = f"Mean over {run.n_images:,} images of {plain(run.data or '')}. {OWN}"
    if any(average.rolled is None for _, average in averages):
        text = (
            "The average over images has no control for their content: photographs are centred, so the content itself "
            "varies over space."
        )
        return [Finding("average-content", text, note=note, severity="note", question="B")]
    rows = [
        (average.scores.artefact_energy, average.scores.noise, layer)
        for layer, average in averages
        if not isinstance(average.scores.artefact_energy, Skipped) and average.scores.noise
    ]
    clear = [row for row in rows if row[0] / row[1] >= CLEAR_OF_CHANCE]
    what = "artefact energy of the average"
    if not clear:
        text = "With content rolled evenly over the image, no layer's average varies over space beyond chance."
        return [Finding("average-energy", text, Quantity(what), note=note, question="B")]
    energy, noise, layer = max(clear, key=lambda row: row[0])
    text = (
        f"With content rolled evenly over the image, {per_cent(energy)} of the power of the average map of layer "
        f"{plain(layer.name)} is spatial variation ({energy / noise:,.0f} times what chance gives, {per_cent(noise)}): "
        f"{len(clear)} of {len(rows)} layers exceed {CLEAR_OF_CHANCE:.0f} times chance."
    )
    note += " Rolled images have a seam where their opposite sides meet, everywhere alike."
    quantity, estimate = Quantity(what, layer=layer.name), number(float(energy), "share")
    return [Finding("average-energy", text, quantity, estimate, note=note, severity="note", question="B")]


def _arithmetic(found: Inspection) -> Finding:
    (h, w), n_uneven = found.size, len(found.uneven)
    judged = [layer for layer in found.layers if not isinstance(layer.used, Skipped) and not layer.merged]
    note = "Layer arithmetic from one forward pass without numbers (arXiv 2010.02178, section 3)."
    quantity, count = Quantity("layers that pad unevenly"), number(float(n_uneven), "layers")
    if found.is_even:
        text = f"At {h}x{w}, all {len(judged)} layers use the same padding on opposite sides."
        return Finding("uneven-padding", text, quantity, number(0.0, "layers"), note=note, question="C")
    names = ", ".join(plain(layer.name) for layer in found.uneven[:3])
    more = f" and {n_uneven - 3} more" if n_uneven > 3 else ""
    height, width = (_nearest(n, found.even_sizes[axis]) for axis, n in (("h", h), ("w", w)))
    action = None
    if height is not None and width is not None:
        text = f"Use images of {height}x{width} px, which every layer pads evenly"
        action = Action(text, _inspect(found.model, (height, width)))
    text = f"At {h}x{w}, {n_uneven} of {len(judged)} layers use different padding on opposite sides: {names}{more}."
    return Finding("uneven-padding", text, quantity, count, action=action, note=note, severity="note", question="C")


def _nearest(n: int, sizes: tuple[int, ...]) -> int | None:
    return min(sizes, key=lambda size: abs(size - n), default=None)
