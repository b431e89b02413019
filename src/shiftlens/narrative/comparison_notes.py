"""What can mislead in a comparison: named where it applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shiftlens.analysis.arms import Aligned, Arm
from shiftlens.narrative.finding import Finding
from shiftlens.narrative.finding_parts import Severity
from shiftlens.narrative.words import name_text, plain


def notes(aligned: Aligned) -> list[Finding]:
    """Everything on the list that applies."""
    found = [
        _left_out(aligned),
        _adaptive(aligned),
        _control(aligned),
        *_same_models(aligned),
        _sizes(aligned),
        _preprocessing(aligned),
        _fill(aligned),
        _precision(aligned),
        _training(aligned),
        _caveat(
            "checkpoints",
            f"Intervals are over images ({aligned.n_images:,}), for these checkpoints: another training run of the "
            "same recipe may differ by more than any difference here.",
            note="For a recipe or a padding mode the unit is the training run: train several seeds of each.",
        ),
    ]
    return [each for each in found if each is not None]


def _caveat(kind: str, text: str, severity: Severity = "note", note: str = "") -> Finding:
    return Finding(kind, text, note=note, severity=severity, question="D", section="caveats")


def _listed(aligned: Aligned, of: Callable[[Arm], Any]) -> str | None:
    """Every arm with its value of something, or None where all have the same."""
    values = [of(arm) for arm in aligned.arms]
    if all(value == values[0] for value in values):
        return None
    return ", ".join(f"{name_text(arm.name)} {plain(str(v))}" for arm, v in zip(aligned.arms, values, strict=True))


def _left_out(aligned: Aligned) -> Finding | None:
    if not aligned.n_left_out:
        return None
    n = aligned.n_images
    # Of an adaptive sweep and any other sweep of all images, the common ones are the first of the stratified order.
    short = [arm for arm in aligned.arms if arm.facts.n_images == n != arm.facts.n_population]
    stratified = all(arm.facts.half_width is not None for arm in short)
    return _caveat(
        "images-left-out",
        f"All findings are about the {n:,} images that every sweep holds; up to {aligned.n_left_out:,} more are in "
        "only some of them.",
        note="They are a class-stratified subset." if stratified else "They need not be a random sample of the images.",
    )


def _adaptive(aligned: Aligned) -> Finding | None:
    arms = [
        f"{name_text(arm.name)} {facts.n_images:,} of {facts.n_population:,} (±{facts.half_width:.1f} points)"
        for arm in aligned.arms
        if (facts := arm.facts).half_width is not None and facts.n_population is not None
    ]
    if not arms:
        return None
    return _caveat(
        "adaptive",
        f"Adaptive sweeps measured images until their confidence band was narrow enough: {', '.join(arms)}. Compared "
        f"are the {aligned.n_images:,} that every sweep holds.",
        "info",
        "The half-widths are of each sweep's own accuracies; differences are paired, image by image.",
    )


def _control(aligned: Aligned) -> Finding | None:
    control = aligned.arms[aligned.baseline].facts.control
    if control is None:
        return None
    text = f"These are the controls {control} of sweeps: the images were changed before the models saw them."
    return _caveat("is-a-control", text)


def _same_models(aligned: Aligned) -> list[Finding]:
    """Sweeps with the baseline's digest or its logits, and what it means where only one of both is equal."""
    base = aligned.arms[aligned.baseline]
    found: dict[str, list[str]] = {}
    for arm in (aligned.arms[k] for k in aligned.others):
        digest = bool(base.facts.model_digest) and base.facts.model_digest == arm.facts.model_digest
        logits = _equal_logits(base, arm)
        if digest:
            found.setdefault("other-answers" if logits is False else "same-model", []).append(name_text(arm.name))
        elif base.facts.model_digest and logits:
            found.setdefault("like-answers", []).append(name_text(arm.name))
    rows: tuple[tuple[str, str, Severity], ...] = (
        ("same-model", "are of the same model: only the engine can cause a difference.", "note"),
        (
            "other-answers",
            "claim the same model (by digest), but gave different logits for the fixed images when they were swept: "
            "something that the digest does not cover was different.",
            "warn",
        ),
        (
            "like-answers",
            "have different digests and equal logits for the fixed images: this may be one net whose code was "
            "rewritten.",
            "note",
        ),
    )
    return [
        _caveat(kind, f"{', '.join(found[kind])} and {name_text(base.name)} {text}", severity)
        for kind, text, severity in rows
        if kind in found
    ]


def _equal_logits(one: Arm, two: Arm) -> bool | None:
    """Whether two models gave the same logits for the fixed images; None where that is not known."""
    a, b = one.facts, two.facts
    if a.behaviour is None or b.behaviour is None or not (a.behaviour.tells and b.behaviour.tells):
        return None
    if (a.image_size, len(a.preprocessing.mean)) != (b.image_size, len(b.preprocessing.mean)):
        return None
    return a.behaviour.difference(b.behaviour) is None


def _sizes(aligned: Aligned) -> Finding | None:
    sizes = _listed(aligned, lambda arm: "{}x{} px".format(*arm.facts.image_size))
    if sizes is None:
        return None
    whose = "the source image" if aligned.unit == "source" else "the baseline's input"
    scales = ", ".join(f"{name_text(arm.name)} {8 * arm.scale:.2f} px" for arm in aligned.arms)
    return _caveat(
        "input-sizes",
        f"The nets have inputs of different size ({sizes}). Equal shifts of each net's own input are compared, so a "
        f"shift of 8 px is another distance in {whose}: {scales}.",
        note="Retained areas and radii are scaled; shifts, and all means over shifts, are not.",
    )


def _preprocessing(aligned: Aligned) -> Finding | None:
    def preprocessing(arm: Arm) -> str:
        p = arm.facts.preprocessing
        resize = "no resizing of its own" if p.resize is None else f"shorter side {p.resize} px, {p.interpolation}"
        return f"{resize}, {len(p.mean)} channel{'s' if len(p.mean) > 1 else ''}"

    views = _listed(aligned, preprocessing)
    if views is None:
        return None
    text = f"The nets get different pixels ({views}): part of a difference may come from the preprocessing."
    return _caveat("other-view", text)


def _fill(aligned: Aligned) -> Finding | None:
    if aligned.arms[0].facts.fill.name != "mean":
        return None
    means = _listed(aligned, lambda arm: ", ".join(f"{v:.3f}" for v in arm.facts.preprocessing.mean))
    if means is None:
        return None
    text = f"Fill mean is a different colour for each net, the mean of its own normalisation: {means}."
    return _caveat("fill-space", text)


def _precision(aligned: Aligned) -> Finding | None:
    how = _listed(aligned, lambda arm: f"{arm.facts.engine} in {arm.facts.dtype}")
    if how is None:
        return None
    text = f"The sweeps were computed in different ways ({how}): rounding alone changes a few predictions."
    return _caveat("precision", text, "info", "Sweep all with the same --dtype to exclude this.")


def _training(aligned: Aligned) -> Finding | None:
    def augmentation(arm: Arm) -> str:
        facts = arm.facts.training.get("augmentation")
        if not isinstance(facts, dict):
            return "unknown"
        return ", ".join(f"{key} {facts[key]}" for key in sorted(facts))

    seen = _listed(aligned, augmentation)
    if seen is None:
        return None
    return _caveat(
        "shifts-in-training",
        f"The nets were trained with different augmentation ({seen}): robustness to shifts in training is learnt, and "
        "a difference need not come from the architecture.",
    )
