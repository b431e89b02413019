"""Findings of feature runs and of layer arithmetic: where border artefacts start, how far they reach, which side."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Literal

from shiftlens.arithmetic import Inspection
from shiftlens.lens.feature_run import SILENT, ZEROS_ON_ZEROS, FeatureRun, LayerMaps
from shiftlens.lens.map_scores import CONSTANT, Borders
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Quantity, number
from shiftlens.narrative.setting import Named, named_model
from shiftlens.narrative.words import plain, sentence
from shiftlens.stats import Skipped, per_cent

CLEAR_OF_CHANCE = 3.0
"""An average's artefact energy is named when it is this many times what chance gives."""

OWN = "Scores are this project's own definition."


def artefacts(found: FeatureRun | Inspection) -> Findings:
    """Return what a feature run (question B) or layer arithmetic (question C) shows.

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
        return Findings([_arithmetic(found), *_unseen(found.unseen, "C")])
    return Findings([*_blank(found), *_average(found), *_unseen(found.notes, "B")])


def _unseen(notes: tuple[str, ...], question: Literal["B", "C"]) -> list[Finding]:
    return [
        Finding("unseen", sentence(note), severity="note", question=question, which=f"{k}")
        for k, note in enumerate(notes, 1)
    ]


def _energy(layer: LayerMaps) -> float:
    value = layer.scores.artefact_energy
    return 0.0 if isinstance(value, Skipped) else value


def _robust(run: FeatureRun) -> Action:
    """What raised accuracy under shifts in this project's study, for the user's own net; blur only where it strides."""
    return less_dependent(Named.of_run(run), "runs/less-dependent", size=run.size, strides=is_strided(run))


def is_strided(run: FeatureRun) -> bool:
    """Whether maps get smaller from the first layer to the last."""
    return run.layers[-1].maps.shape[1:] < run.layers[0].maps.shape[1:]


def less_dependent(named: Named, out: str, *, size: tuple[int, int], strides: bool) -> Action:
    """Blur and fine-tuning with shifts of up to an eighth of the image; no command does it through a label map."""
    text = (
        f"To depend less on position, {'blur its strides and ' if strides else ''}fine-tune it with shifted images, "
        "which raised accuracy under shifts in this project's study (docs/repair.md); compare sweeps before and after. "
        "It takes images whose labels are the model's classes"
    )
    if "label_map" in named.data_options:
        return Action(f"{text}, and no label map")
    return Action(text, named.repair_command(out, blur=strides, shift=max(1, min(size) // 8)))


def _repadded(run: FeatureRun) -> Action:
    return Action(
        "As an experiment, pad in another way: that changes border artefacts, and raised no accuracy in this project's "
        "study (docs/repair.md)",
        Named.of_run(run).repair_command("runs/reflect", padding="reflect"),
    )


def _blank(run: FeatureRun) -> list[Finding]:
    if not run.is_empty:
        return []
    evidence = (
        f"{count_of(len(run), 'layer')} at {run.size[0]}x{run.size[1]}, compared with the same net with circular "
        f"padding, which keeps a blank input constant at every layer. {OWN}"
    )
    start, what = run.start, f"the feature map of a {plain(run.shown)}"
    n_silent = len(run.silent)
    if n_silent == len(run):
        text = f"Border artefacts cannot be judged: {SILENT}."
        return [
            Finding("artefact-start", text, Quantity("first artefact"), note=evidence, severity="note", question="B")
        ]
    if n_silent:
        evidence += f" {count_of(n_silent, 'layer')} whose maps are zero everywhere cannot be judged."
    if start is None:
        n_judged = len(run) - n_silent
        which = f"None of the {n_judged} layers that were judged" if run.notes or n_silent else "No layer"
        text = f"{which} shows border artefacts on {what}."
        if n_judged == 1:
            text = f"The one layer that was judged shows no border artefacts on {what}."
        more = " Reflect, replicate and circular padding never do: their bias shows in the average over images."
        return [Finding("artefact-start", text, Quantity("first artefact"), note=evidence + more, question="B")]
    made = partial(Finding, note=evidence, severity="note", question="B")
    text = f"Border artefacts on {what} start at layer {plain(start.name)} ({start.kind})"
    if run.may_start_before:
        text += f"; {ZEROS_ON_ZEROS}"
        clear = _clear(run)
        if clear:
            text += f", and on the {run.averaged} they start at layer {plain(clear[0][2].name)}"
    worst = max(run.layers, key=_energy)
    return [
        made(
            "artefact-start",
            f"{text}.",
            Quantity("first artefact", layer=start.name),
            action=Action("See how much padding each layer uses", Named.of_run(run).inspect_command(run.size)),
        ),
        made(
            "artefact-energy",
            f"At layer {plain(worst.name)}, {per_cent(_energy(worst))} of the power of {what} is spatial variation "
            "that the image cannot explain, the largest share of all layers.",
            Quantity("artefact energy", layer=worst.name, of=plain(run.shown)),
            number(_energy(worst), "share"),
            action=_robust(run),
        ),
        _reach(run, made),
        *_sides(run, evidence),
    ]


def _reach(run: FeatureRun, made: partial[Finding]) -> Finding:
    known = [layer for layer in run.layers if not isinstance(layer.scores.covered, Skipped)]
    full = next((layer for layer in known if layer.scores.covered == 1), None)
    if full is not None:
        text = f"From layer {plain(full.name)} on, border artefacts cover the whole feature map."
        return made("artefact-reach", text, Quantity("artefact reach", layer=full.name), action=_repadded(run))
    pixels = [(layer.scores.reach_pixels, layer) for layer in known]
    far, layer = max(((p, each) for p, each in pixels if not isinstance(p, Skipped)), key=lambda pair: pair[0])
    text = f"Border artefacts reach at most {far:.0f} px into the image, at layer {plain(layer.name)}."
    quantity = Quantity("artefact reach", layer=layer.name)
    return made("artefact-reach", text, quantity, number(float(far), "px"), action=_repadded(run))


def _sides(run: FeatureRun, evidence: str) -> list[Finding]:
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
        if value < 1e-6:
            where = "every layer that was looked at" if run.notes else "every layer"
            text = f"Border artefacts are equal at {names[0]} and {names[1]}, at {where}."
        else:
            text = f"Border artefacts differ between {names[0]} and {names[1]}: at layer {plain(layer.name)}, "
            text += f"{per_cent(value)} of their variation changes sign when the map is mirrored"
            if isinstance(layer.scores.borders, Borders):
                text += f" (compared with the net without borders, {_which(layer.scores.borders, names)})"
            text += "."
        quantity = Quantity("odd share of the artefacts", axis, layer=layer.name)
        estimate = number(float(value), "share")
        made.append(Finding("artefact-sides", text, quantity, estimate, note=evidence, question="B", which=axis))
    return made


def _which(borders: Borders, names: tuple[str, str]) -> str:
    values = [(name, getattr(borders, name)) for name in names]
    return ", ".join(
        f"{name} {'excited' if value > 0 else 'suppressed'} by {per_cent(abs(value))}" for name, value in values
    )


def _average(run: FeatureRun) -> list[Finding]:
    averages = [(layer, layer.average) for layer in run.layers if layer.average is not None]
    if not averages:
        return []
    made = partial(Finding, question="B")
    evidence = f"Mean over {count_of(run.n_images, 'image')} of {plain(run.data or '')}. {OWN}"
    if any(average.rolled is None for _, average in averages):
        text = (
            "The average over images has no control for their content: photographs are centred, so the content itself "
            "varies over space."
        )
        return [made("average-content", text, note=evidence, severity="note")]
    clear, n_rated = _clear(run), len(_rated(run))
    quantity = Quantity("artefact energy", of=run.averaged)
    if not clear:
        text = f"The {run.averaged}, with content everywhere alike, varies over space in no layer beyond chance."
        return [made("average-energy", text, quantity, note=evidence)]
    energy, noise, layer = max(clear, key=lambda row: row[0])
    text = (
        f"At layer {plain(layer.name)}, {per_cent(energy)} of the power of the {run.averaged}, with content everywhere "
        f"alike, is spatial variation ({energy / noise:,.0f} times what chance gives, {per_cent(noise)}): "
        f"{len(clear)} of {count_of(n_rated, 'layer')} {'exceeds' if len(clear) == 1 else 'exceed'} "
        f"{CLEAR_OF_CHANCE:.0f} times chance."
    )
    note = f"{evidence} Rolled images have a seam where their opposite sides meet, everywhere alike."
    quantity = Quantity("artefact energy", layer=layer.name, of=run.averaged)
    return [made("average-energy", text, quantity, number(float(energy), "share"), note=note, severity="note")]


def _rated(run: FeatureRun) -> list[tuple[float, float, LayerMaps]]:
    """Artefact energy of each layer's average, what chance gives, and the layer."""
    scores = [
        (layer.average.scores, layer) for layer in run.layers if layer.average and layer.average.rolled is not None
    ]
    return [
        (each.artefact_energy, each.noise, layer)
        for each, layer in scores
        if not isinstance(each.artefact_energy, Skipped) and each.noise
    ]


def _clear(run: FeatureRun) -> list[tuple[float, float, LayerMaps]]:
    """Those of which chance alone does not explain the energy."""
    return [row for row in _rated(run) if row[0] / row[1] >= CLEAR_OF_CHANCE]


def _arithmetic(found: Inspection) -> Finding:
    (h, w), n_uneven = found.size, len(found.uneven)
    judged = [layer for layer in found.layers if not isinstance(layer.used, Skipped) and not layer.merged]
    made = partial(
        Finding,
        quantity=Quantity("layers that pad unevenly"),
        question="C",
        note="Layer arithmetic from one forward pass without numbers (arXiv 2010.02178, section 3).",
    )
    if found.is_even and found.unseen:
        kinds = ", ".join(f"{n} {plain(kind)}" for kind, n in Counter(layer.kind for layer in judged).items())
        text = f"At {h}x{w}, the layers that were looked at ({kinds}) use the same padding on opposite sides."
        return made("uneven-padding", f"{text} The rest of the net is not judged.", estimate=number(0.0, "layers"))
    if found.is_even:
        which = "the only layer uses" if len(judged) == 1 else f"all {len(judged)} layers use"
        text = f"At {h}x{w}, {which} the same padding on opposite sides."
        return made("uneven-padding", text, estimate=number(0.0, "layers"))
    names = ", ".join(plain(layer.name) for layer in found.uneven[:3])
    more = f" and {n_uneven - 3} more" if n_uneven > 3 else ""
    height, width = (_nearest(n, found.even_sizes[axis]) for axis, n in (("h", h), ("w", w)))
    action = None
    if height is not None and width is not None:
        text = f"Use images of {height}x{width} px, which every layer pads evenly"
        action = Action(
            text,
            Named(named_model(found.model, found.model_options), found.model_options).inspect_command((height, width)),
        )
    return made(
        "uneven-padding",
        f"At {h}x{w}, {n_uneven} of {count_of(len(judged), 'layer')} {'uses' if n_uneven == 1 else 'use'} "
        f"different padding on opposite sides: {names}{more}.",
        estimate=number(float(n_uneven), "layers"),
        action=action,
        severity="note",
    )


def _nearest(n: int, sizes: tuple[int, ...]) -> int | None:
    return min(sizes, key=lambda size: abs(size - n), default=None)
