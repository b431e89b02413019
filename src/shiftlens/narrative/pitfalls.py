"""What misleads in the evaluation at hand: named where it applies, with what to do about it."""

from __future__ import annotations

from math import gcd

import numpy as np

from shiftlens.analysis.summary import Metrics
from shiftlens.data.digits import CANVAS, DRAWN
from shiftlens.narrative.finding import Finding, Severity
from shiftlens.narrative.performance import measured
from shiftlens.narrative.setting import Setting
from shiftlens.narrative.words import name_text, number_text, plain, quoted
from shiftlens.stats import Estimate, Skipped

CONSTANT = ("black", "mean")


def pitfalls(metrics: Metrics, setting: Setting) -> list[Finding]:
    """Everything on the list that applies to this sweep."""
    found = [
        _incomplete(metrics, setting),
        _adaptive(metrics, setting),
        _half_a_control(setting),
        _is_a_control(setting),
        _lost_content(metrics, setting),
        _new_edge(metrics, setting),
        _fill_space(metrics, setting),
        _blank(metrics),
        _seen_in_training(setting),
        _mirrored_in_training(setting),
        _step_and_stride(metrics, setting),
        _photographers(metrics, setting),
        *_notes(setting),
        _one_model(metrics),
    ]
    return [each for each in found if each is not None]


def _said(
    name: str, statement: str, severity: Severity = "note", evidence: str = "", remedy: str | None = None
) -> Finding:
    return Finding(name, "A", severity, statement, evidence=evidence, remedy=remedy)


def _incomplete(metrics: Metrics, setting: Setting) -> Finding | None:
    missing = metrics.sweep.n_missing
    if not missing:
        return None
    there = metrics.sweep.n_images
    return Finding(
        "incomplete",
        "A",
        "note",
        f"The sweep is not complete: {there:,} of {there + missing:,} images are there, and all that is said here is "
        "about those.",
        float(there),
        "images",
        evidence="They are whole chunks in the order of the data, not a random sample of it."
        if setting.asked is None
        else "They are whole chunks of a fixed order that keeps the classes' shares.",
        remedy=f"Finish it: {setting.sweep_command()}",
    )


def _adaptive(metrics: Metrics, setting: Setting) -> Finding | None:
    half, n_all = setting.half_width, setting.n_population
    if half is None or n_all is None:
        return None
    n = metrics.sweep.n_images
    if not half:
        text = f"All {n_all:,} images were measured: nothing is left of the half-width of an adaptive sweep."
        return Finding("adaptive", "A", "info", text, 0.0, "points")
    return Finding(
        "adaptive",
        "A",
        "info",
        f"{n:,} of {n_all:,} images were measured: the accuracy over all of them is within "
        f"±{number_text(half, 'points')} of the one shown, at every shift at once, with "
        f"{100 * setting.level:g} % confidence.",
        half,
        "points",
        evidence="Largest error over all shifts, by a bootstrap of the images, drawn without replacement in a fixed "
        "order that keeps the classes' shares; it holds at every look, so also at the one where the sweep stopped. All "
        "other intervals are each by itself, and over other images of the same kind.",
        remedy=f"A narrower one goes on from here: {setting.narrower_command()}",
    )


def _half_a_control(setting: Setting) -> Finding | None:
    short = {name: n for name, n in setting.n_controlled.items() if setting.n_images and n < setting.n_images}
    if not short:
        return None
    which = ", ".join(f"{name} {n:,} of {setting.n_images:,} images" for name, n in short.items())
    names = ",".join(setting.n_controlled)
    return _said(
        "control-incomplete",
        f"A control is not complete ({which}): its findings are about the images that both hold.",
        remedy=f"Finish it: {setting.sweep_command(control=names)}",
    )


def _is_a_control(setting: Setting) -> Finding | None:
    if setting.control is None:
        return None
    return _said(
        "is-a-control",
        f"This is the control {setting.control} of a sweep, not a sweep: the pictures were changed before they were "
        "shown.",
        remedy=f"Look at the sweep: `shiftlens findings {_quoted_path(setting)}`",
    )


def _quoted_path(setting: Setting) -> str:
    import shlex

    return shlex.quote(setting.path)


def _lost_content(metrics: Metrics, setting: Setting) -> Finding | None:
    if setting.fill == "wrap":
        return None
    kept = metrics.retained[0] if metrics.retained else Skipped("retained", "none")
    size = metrics.sweep.picture_size
    text = "A shift also pushes content out of the picture, which would cost accuracy at any place."
    value: float | None = None
    if not isinstance(kept, Skipped) and size is not None and len(metrics.sweep.dxs) > 1:
        value = float(min(kept.radius.value / size[1], 1.0))
        text += (
            f" At {number_text(kept.radius.value, 'px')} to one side, the retained radius, "
            f"{number_text(value, 'share')} of the picture is gone."
        )
    if setting.data == "digits":
        free = (CANVAS - DRAWN) // 2
        text += f" The drawn digits lose nothing up to {free} px: up to there only the place has changed."
    measured_here = not isinstance(metrics.occlusion, Skipped)
    remedy = None
    if measured_here:
        text += " The occlusion control measures it: see occlusion-effect and placement-effect."
    elif metrics.sweep.fill_is_constant:
        remedy = f"Separate lost content from the move: {setting.sweep_command(control='occlusion')}"
    else:
        remedy = f"A fill that loses nothing: {setting.sweep_command(fill='wrap')}"
    severity: Severity = "info" if measured_here else "note"
    unit = None if value is None else "share"
    return Finding("lost-content", "A", severity, text, value, unit, evidence="Geometry alone.", remedy=remedy)


def _new_edge(metrics: Metrics, setting: Setting) -> Finding:
    fill = plain(setting.fill)
    if metrics.sweep.fill_is_constant and setting.data == "digits" and setting.fill == "black":
        return _said(
            "new-edge",
            "The fill has the colour of the digits' own background: a shift draws no new edge as long as the digit is "
            "whole.",
            "info",
        )
    if metrics.sweep.fill_is_constant:
        text = f"Fill {fill} draws a straight edge where the picture ends, which no unshifted picture has."
        return _said(
            "new-edge", text, remedy=f"Sweep without a step at the edge: {setting.sweep_command(fill='reflect')}"
        )
    if setting.fill == "wrap":
        text = (
            "Fill wrap loses no content, but draws a seam where opposite borders meet, and on n pixels a shift by n is "
            "none at all."
        )
    else:
        text = f"Fill {fill} repeats what is at the border: there is no step, but content appears that was not there."
    return _said("new-edge", text, remedy=f"Compare with an empty surround: {setting.sweep_command(fill='mean')}")


def _fill_space(metrics: Metrics, setting: Setting) -> Finding | None:
    values = setting.fill_values
    if not metrics.sweep.fill_is_constant or values is None:
        return None
    if not np.any(values):
        return _said(
            "fill-space",
            f"Fill {plain(setting.fill)} is 0 after normalisation, which is also what zero padding puts around a "
            "picture: the first layer sees no border of its own.",
            "info",
        )
    shown = ", ".join(f"{v:.2f}" for v in dict.fromkeys(round(v, 2) for v in values))
    return _said(
        "fill-space",
        f"Fill {plain(setting.fill)} is {shown} after normalisation, not 0: a shift in normalised space (fill mean) is "
        "another measurement, and the two are not comparable.",
        evidence="A loop that shifts already normalised tensors, as many do, has fill mean.",
        remedy=f"Measure the other: {setting.sweep_command(fill='black' if setting.fill == 'mean' else 'mean')}",
    )


def _blank(metrics: Metrics) -> Finding | None:
    blank = metrics.blank
    if isinstance(blank, Skipped):
        return None
    name = name_text(blank.predicted)
    text = (
        f"Where a shift leaves nothing of the picture ({blank.n_shifts:,} shifts of the grid), the model answers "
        f"{name} in {number_text(blank.share, 'share')} of the cases"
    )
    evidence = "[own] The blank limit. These shifts are left out of every test and every mean."
    if isinstance(blank.loss, Skipped) or isinstance(blank.accuracy, Skipped):
        return _said("blank-limit", f"{text}.", evidence=evidence)
    text += (
        f", with a loss of {quoted(blank.loss)}. The accuracy there, {quoted(blank.accuracy)}, says only how often "
        f"{name} is the label."
    )
    return measured("blank-limit", text, blank.loss, evidence, severity="note")


def _seen_in_training(setting: Setting) -> Finding | None:
    seen, fill = _shift_shown(setting)
    if seen is None:
        return _said(
            "shifts-in-training",
            "The model does not say which shifts it saw in training: how far it holds may be learnt, not built in.",
            "info",
            evidence="Only run directories of `shiftlens train` say it.",
        )
    if seen == 0:
        return _said("shifts-in-training", "No shift was shown in training: whatever holds, holds by itself.", "info")
    return Finding(
        "shifts-in-training",
        "A",
        "note",
        f"Shifts of up to {seen} px to each side were shown in training (fill {fill}): strength up to there, and a "
        "little beyond, is learnt.",
        float(seen),
        "px",
        evidence="One net of this project, trained with shifts of up to 2 px, kept 95 % of its accuracy for 3 to 4 px.",
    )


def _shift_shown(setting: Setting) -> tuple[int | None, str]:
    """Largest shift of the training, or of a fine-tuning since then, in pixels, and its fill; None where not said."""
    facts = setting.training.get("augmentation")
    seen = facts.get("shift") if isinstance(facts, dict) else None
    if not isinstance(facts, dict) or not isinstance(seen, int) or isinstance(seen, bool):
        return None, ""
    fill = plain(str(facts.get("shift_fill", "another fill")))
    healed = setting.training.get("healed")
    for each in healed if isinstance(healed, list | tuple) else ():
        settings = each.get("settings") if isinstance(each, dict) else None
        later = settings.get("shift") if isinstance(settings, dict) else None
        if isinstance(later, int) and not isinstance(later, bool) and later > seen:
            seen, fill = later, "reflect"
    return seen, fill


def _mirrored_in_training(setting: Setting) -> Finding | None:
    facts = setting.training.get("augmentation")
    mirror = facts.get("mirror") if isinstance(facts, dict) else None
    if mirror in (None, "none"):
        return None
    return _said(
        "mirrors-in-training",
        f"Mirrored pictures were shown in training ({plain(str(mirror))}), which hides what a model's left and right "
        "do differently: look at up and down too.",
    )


def _step_and_stride(metrics: Metrics, setting: Setting) -> Finding | None:
    step = max(metrics.sweep.step)
    hidden = [s for s in metrics.sweep.strides if s > 1 and gcd(step, s) > 1]
    if step == 1:
        return None
    text = f"Shifts are {step} px apart: what happens in between is not seen, and areas count {step * step} px² a cell."
    if hidden:
        listed = ", ".join(map(str, hidden))
        text += f" The step shares a factor with strides of the net ({listed}), whose ripple it cannot see."
    same = setting.sweep_command(step=1)
    return _said("step-and-stride", text, remedy=f"Every pixel: {same}")


def _photographers(metrics: Metrics, setting: Setting) -> Finding | None:
    if isinstance(metrics.asymmetry_x, Skipped) or not isinstance(metrics.asymmetry_x_model, Skipped):
        return None
    tests = [metrics.test(f"asymmetry x {kind}") for kind in ("overall", "pairs")]
    found = any(not isinstance(test, Skipped) and test.holds for test in tests)
    about = "is not told apart from the model's here"
    return _said(
        "photographers-bias",
        f"Whoever took or wrote the pictures may favour one side: that part of left against right {about}.",
        "note" if found else "info",
        evidence="The flip control takes it out, for left and right. Nothing takes it out for up and down.",
        remedy=f"Take it out: {setting.sweep_command(control='flip')}",
    )


def _notes(setting: Setting) -> list[Finding]:
    found = []
    for note in setting.data_notes:
        if "JPEG" in note:
            text = (
                f"{_sentence(note)} What compression did in blocks of 8 x 8 px moves with the picture, and accuracy "
                "need not equal that on the originals."
            )
            found.append(_said("jpeg-copy", text))
        else:
            found.append(_said("data-note", f"About the images: {plain(note)}."))
    found += [_said("model-note", f"About the model: {plain(note)}.") for note in setting.model_notes]
    return found


def _sentence(note: str) -> str:
    text = plain(note).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."


def _one_model(metrics: Metrics) -> Finding:
    rest: Estimate = metrics.accuracy_at_origin
    return _said(
        "one-checkpoint",
        f"Intervals are 95 % intervals over images ({rest.n:,}), for this one checkpoint: another training run of the "
        "same recipe may differ by more.",
        "info",
        evidence="For a recipe or a padding mode the unit is the training run: train several seeds.",
    )
