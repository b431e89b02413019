"""What can mislead in the evaluation at hand: named where it applies, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import gcd

import numpy as np

from shiftlens.analysis.summary import Metrics
from shiftlens.naming import count_of
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Action, Quantity, Severity, number
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import name_text, number_text, plain, quoted, sentence
from shiftlens.stats import Estimate, Skipped

_note = partial(Finding, severity="note")


def pitfalls(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Everything on the list that applies to this sweep."""
    text = (
        f"Intervals are 95 % intervals over images ({metrics.sweep.n_images:,}), for this one checkpoint: another "
        "training run of the same recipe may differ by more."
    )
    note = "For a recipe or a padding mode the unit is the training run: train several seeds."
    return [
        *_completeness(metrics, setting),
        *_fill(metrics, setting),
        *_blank(metrics),
        *_training(setting),
        *_grid(metrics, setting),
        *_notes(setting),
        Finding("one-checkpoint", text, note=note),
    ]


def _completeness(metrics: Metrics, setting: Setting) -> Iterator[Finding]:
    missing, there, n_all = metrics.sweep.n_missing, metrics.sweep.n_images, setting.n_images or 0
    if missing:
        text = (
            f"The sweep is incomplete: findings are about the {there:,} of {there + missing:,} images that are there."
        )
        quantity, action = Quantity("images measured"), Action("Resume it", setting.sweep_command())
        note = "They are a class-stratified subset."
        if setting.half_width_asked is None:
            note = "They are whole chunks in the order of the data, not a random sample of it."
        yield _note("incomplete", text, quantity, number(float(there), "images"), action=action, note=note)
    if setting.half_width is not None and setting.n_population is not None:
        yield _adaptive(metrics, setting.n_population, setting.half_width, setting)
    short = [f"{name} {n:,} of {count_of(n_all, 'image')}" for name, n in setting.n_controlled.items() if n < n_all]
    if short:
        text = f"A control is incomplete ({', '.join(short)}): its findings are about the images that both hold."
        action = Action("Resume it", setting.sweep_command(control=",".join(setting.n_controlled)))
        yield _note("control-incomplete", text, action=action)
    if setting.header.control is not None:
        text = (
            f"This is the control {setting.header.control} of a sweep, not a sweep: its images were changed before the "
            "model saw them."
        )
        action = Action("See the sweep", ("shiftlens", "findings", str(setting.path)))
        yield _note("is-a-control", text, action=action)


def _adaptive(metrics: Metrics, n_all: int, half: float, setting: Setting) -> Finding:
    made = metrics.profiles[0]
    unit, called, n, others = made.metric.difference_unit, made.metric.called, metrics.sweep.n_images, ""
    quantity, estimate = Quantity("half-width of the confidence band"), number(half, unit)
    if not isinstance(made.map, Skipped):
        wide = np.nanmax(np.maximum(made.map.value - made.map.band_lo, made.map.band_hi - made.map.value))
        others = f" Over other images of the same kind it is ±{number_text(made.metric.factor * float(wide), unit)}."
    if not half:
        text = f"All {n_all:,} images were measured: over these images no {called} is uncertain.{others}"
        return Finding("adaptive", text, quantity, estimate)
    text = (
        f"{n:,} of {n_all:,} images were measured: the simultaneous {100 * setting.level:g} % confidence band for "
        f"{called} over all of them is ±{number_text(half, unit)} at every shift"
        f"{' where at least half of the images have one' if made.metric.optional else ''}.{others}"
    )
    note = (
        "Largest error over all shifts, by a bootstrap of the images, drawn without replacement in a class-stratified "
        "order; it is valid at every look, so also at the one where the sweep stopped. All other intervals are "
        "pointwise, and over other images of the same kind."
    )
    action = Action("Resume it for a narrower band", setting.sweep_command(narrower=True))
    return Finding("adaptive", text, quantity, estimate, action=action, note=note)


def _fill(metrics: Metrics, setting: Setting) -> Iterator[Finding]:
    constant, values, fill = metrics.sweep.fill_is_constant, setting.fill_values, plain(setting.fill)
    if setting.fill != "wrap":
        yield _lost_content(metrics, setting)
    action: Action | None = Action("Compare with a constant surround", setting.sweep_command(fill="mean"))
    severity: Severity = "note"
    if constant:
        text = f"Fill {fill} draws a straight edge where the image ends, unless the image ends in that colour."
        action = Action("Sweep with a fill that draws no edge", setting.sweep_command(fill="reflect"))
        if free := _free(metrics):
            text += f" No cost of it is seen: {free} with the occlusion control, which draws it too."
            action, severity = None, "info"
    elif setting.fill == "wrap":
        text = (
            "Fill wrap loses no content, but draws a seam where opposite borders meet, and a shift by the size of the "
            "image is no shift."
        )
    else:
        text = f"Fill {fill} continues the border: it draws no edge, but adds content that the image does not have."
    yield Finding("new-edge", text, action=action, severity=severity)
    if not constant or values is None:
        return
    if np.any(values):
        shown = ", ".join(f"{v:.2f}" for v in dict.fromkeys(round(v, 2) for v in values))
        text = (
            f"Fill {fill} is {shown} after normalisation, not 0: it is not comparable with shifts of normalised "
            "tensors, which are filled with 0 (fill mean)."
        )
        other = setting.sweep_command(fill="black" if setting.fill == "mean" else "mean")
        yield _note("fill-space", text, action=Action("Measure the other", other))
    else:
        text = f"Fill {fill} is 0 after normalisation, as zero padding is: the first layer sees no edge of the fill."
        yield Finding("fill-space", text)


def _lost_content(metrics: Metrics, setting: Setting) -> Finding:
    kept = metrics.retained[0] if metrics.retained else Skipped("retained", "none")
    size, estimate = metrics.sweep.picture_size, None
    text = f"A shift also pushes content out of view, which can make {metrics.metric.called} worse at any position."
    free = _free(metrics)
    if free:
        text = f"A shift also pushes content out of view; no cost of that is seen: {free} with the occlusion control."
    elif not isinstance(kept, Skipped) and size is not None and len(metrics.sweep.dxs) > 1:
        estimate = number(float(min(kept.radius.value / size[1], 1.0)), "share")
        text += (
            f" At {number_text(kept.radius.value, 'px')} to one side, the retained radius, "
            f"{number_text(estimate.value, 'share')} of the image is lost."
        )
    action, quantity = None, Quantity("lost share of the image")
    severity: Severity = "note"
    if free:
        severity = "info"
    elif not isinstance(metrics.occlusion, Skipped):
        text += " The occlusion control measures it: see occlusion-effect and placement-effect."
        severity = "info"
    elif setting.may_have("occlusion"):
        action = Action("Separate lost content from position", setting.sweep_command(control="occlusion"))
    elif not metrics.sweep.fill_is_constant:
        action = Action("Use a fill that loses nothing", setting.sweep_command(fill="wrap"))
    note = "Geometry alone."
    return Finding("lost-content", text, quantity, estimate, action=action, note=note, severity=severity)


def _free(metrics: Metrics) -> str:
    """How much worse the occlusion control is, where its interval holds 0; empty elsewhere."""
    made = metrics.occlusion
    if isinstance(made, Skipped) or not made.overall.lo <= 0 <= made.overall.hi:
        return ""
    return quoted(made.overall)


def _blank(metrics: Metrics) -> Iterator[Finding]:
    blank = metrics.blank
    if isinstance(blank, Skipped):
        return
    known = {name: made for name, made in blank.metrics.items() if isinstance(made, Estimate)}
    parts = [f"{metrics.profile(name).metric.called} is {quoted(made)}" for name, made in known.items()]
    if blank.predicted:
        share = number_text(blank.share, "share")
        parts = [f"the predicted class is {name_text(blank.predicted)} in {share} of the cases", *parts]
    text = (
        f"Where a shift leaves nothing of the image in view ({count_of(blank.n_shifts, 'shift')} of the grid), "
        f"{', '.join(parts) or 'nothing was measured'}: this says nothing about the images."
    )
    # A number says more than a share that only counts labels.
    name = next((each.name for each in metrics.sweep.metrics if not each.is_share), metrics.metric.name)
    note = "[own] These shifts are left out of every test and every mean."
    yield _note("blank-limit", text, Quantity(name, of="blank input"), known.get(name), note=note)


def _training(setting: Setting) -> Iterator[Finding]:
    seen, fill, mirror = _seen_in_training(setting)
    if seen is None:
        text = "The model does not say which shifts were in its training: its robustness may be learnt."
        yield Finding("shifts-in-training", text, note="Only run directories of `shiftlens train` say it.")
    elif seen == 0:
        yield Finding("shifts-in-training", "No shifts were in the training: any robustness is the architecture's.")
    else:
        text = (
            f"Shifts of up to {seen} px to each side were in the training (fill {fill}): robustness up to there, and a "
            "little beyond, is learnt."
        )
        note = "One net of this project, trained with shifts of up to 2 px, kept its level for 3 to 4 px."
        quantity, estimate = Quantity("largest shift in training"), number(float(seen), "px")
        yield _note("shifts-in-training", text, quantity, estimate, note=note)
    if mirror not in (None, "none"):
        text = (
            f"Mirrored images were in the training ({plain(str(mirror))}), which hides differences of the model "
            "between left and right: look at up and down too."
        )
        yield _note("mirrors-in-training", text)


def _seen_in_training(setting: Setting) -> tuple[int | None, str, object]:
    """Largest shift in pixels of the training or a later fine-tuning (None where not said), its fill, and mirroring."""
    facts = setting.header.training.get("augmentation")
    if not isinstance(facts, dict):
        return None, "", None
    seen, fill, mirror = facts.get("shift"), plain(str(facts.get("shift_fill", "another fill"))), facts.get("mirror")
    if not isinstance(seen, int) or isinstance(seen, bool):
        return None, "", mirror
    healed = setting.header.training.get("healed")
    for each in healed if isinstance(healed, list | tuple) else ():
        settings = each.get("settings") if isinstance(each, dict) else None
        later = settings.get("shift") if isinstance(settings, dict) else None
        if isinstance(later, int) and not isinstance(later, bool) and later > seen:
            seen, fill = later, "reflect"
    return seen, fill, mirror


def _grid(metrics: Metrics, setting: Setting) -> Iterator[Finding]:
    step = max(metrics.sweep.step)
    if step > 1:
        text = f"Shifts are {step} px apart: nothing is known in between, and areas count {step * step} px² a cell."
        hidden = [str(s) for s in metrics.sweep.strides if s > 1 and gcd(step, s) > 1]
        if hidden:
            text += f" The step shares a factor with strides of the net ({', '.join(hidden)}) and hides their ripple."
        yield _note("step-and-stride", text, action=Action("Sweep every pixel", setting.sweep_command(step=1)))
    if not isinstance(metrics.asymmetry_x, Skipped) and isinstance(metrics.asymmetry_x_model, Skipped):
        tests = [metrics.test(f"asymmetry x {kind}") for kind in ("overall", "pairs")]
        held = any(not isinstance(test, Skipped) and test.holds for test in tests)
        severity: Severity = "note" if held else "info"
        text = (
            "The dataset may be biased between left and right: without a flip control, its part of the asymmetry "
            "cannot be separated from the model's."
        )
        action = Action("Separate it", setting.sweep_command(control="flip"))
        note = "The flip control does so for left and right; nothing does for up and down."
        yield Finding("photographers-bias", text, action=action, note=note, severity=severity)


def _notes(setting: Setting) -> Iterator[Finding]:
    for note in setting.header.data_notes:
        if "JPEG" in note:
            blocks = "The artefacts of JPEG's blocks of 8 x 8 px move with the image"
            text = f"{sentence(note)} {blocks}, and the numbers may differ from those on the originals."
            yield _note("jpeg-copy", text)
        else:
            yield _note("data-note", f"About the images: {plain(note)}.")
    for note in setting.header.model_notes:
        yield _note("model-note", f"About the model: {plain(note)}.")
