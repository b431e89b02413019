"""What misleads in a comparison: named where it applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shiftlens.analysis.arms import Aligned, Arm
from shiftlens.narrative.finding import Finding, Severity
from shiftlens.narrative.words import name_text, plain


def notes(aligned: Aligned) -> list[Finding]:
    """Everything on the list that applies."""
    found = [
        _left_out(aligned),
        _adaptive(aligned),
        _control(aligned),
        _same_model(aligned),
        _other_answers(aligned),
        _like_answers(aligned),
        _sizes(aligned),
        _view(aligned),
        _fill(aligned),
        _precision(aligned),
        _training(aligned),
        _checkpoints(aligned),
    ]
    return [each for each in found if each is not None]


def _said(name: str, text: str, severity: Severity = "note", evidence: str = "") -> Finding:
    return Finding(name, "D", severity, text, evidence=evidence)


def _listed(aligned: Aligned, of: Callable[[Arm], Any]) -> str | None:
    """Every arm with its value of something, or None where all have the same."""
    values = [of(arm) for arm in aligned.arms]
    if all(value == values[0] for value in values):
        return None
    return ", ".join(f"{name_text(arm.name)} {plain(str(v))}" for arm, v in zip(aligned.arms, values, strict=True))


def _left_out(aligned: Aligned) -> Finding | None:
    if not aligned.n_left_out:
        return None
    text = (
        f"All that is said here is about the {aligned.n_images:,} images that every sweep holds; up to "
        f"{aligned.n_left_out:,} more are in some only."
    )
    # Of an adaptive sweep and any other sweep of all images, the common ones are a beginning of the fixed order.
    fair = all(arm.facts.half_width is not None for arm in aligned.arms if _is_short(arm, aligned))
    evidence = (
        "They are a beginning of a fixed order that keeps the classes' shares."
        if fair
        else "They need not be a random sample of the images."
    )
    return _said("images-left-out", text, evidence=evidence)


def _is_short(arm: Arm, aligned: Aligned) -> bool:
    """Whether an arm holds none but the common images, and could have held more."""
    return arm.facts.n_images == aligned.n_images != arm.facts.n_population


def _adaptive(aligned: Aligned) -> Finding | None:
    arms = [
        f"{name_text(arm.name)} {facts.n_images:,} of {facts.n_population:,} (±{facts.half_width:.1f} points)"
        for arm in aligned.arms
        if (facts := arm.facts).half_width is not None and facts.n_population is not None
    ]
    if not arms:
        return None
    return _said(
        "adaptive",
        f"Images were measured until every accuracy was known well enough: {', '.join(arms)}. Compared are the "
        f"{aligned.n_images:,} that every sweep holds.",
        "info",
        evidence="The half-widths are of each sweep's own accuracies; differences are paired, image by image.",
    )


def _control(aligned: Aligned) -> Finding | None:
    control = aligned.arms[aligned.baseline].facts.control
    if control is None:
        return None
    return _said(
        "is-a-control", f"These are the controls {control} of sweeps: the pictures were changed before they were shown."
    )


def _same_model(aligned: Aligned) -> Finding | None:
    base = aligned.arms[aligned.baseline]
    same = [
        name_text(aligned.arms[k].name)
        for k in aligned.others
        if _same_digest(base, aligned.arms[k]) and _answers_alike(base, aligned.arms[k]) is not False
    ]
    if not same:
        return None
    return _said(
        "same-model",
        f"{', '.join(same)} and {name_text(base.name)} are of the same model: nothing but the engine can differ.",
    )


def _other_answers(aligned: Aligned) -> Finding | None:
    """Sweeps of one digest whose models answered otherwise on the fixed pictures."""
    base = aligned.arms[aligned.baseline]
    other = [
        name_text(aligned.arms[k].name)
        for k in aligned.others
        if _same_digest(base, aligned.arms[k]) and _answers_alike(base, aligned.arms[k]) is False
    ]
    if not other:
        return None
    return _said(
        "other-answers",
        f"{', '.join(other)} and {name_text(base.name)} claim the same model (by digest), but it answered otherwise on "
        "the fixed pictures when they were swept: something that the digest does not cover was another.",
        "warn",
    )


def _like_answers(aligned: Aligned) -> Finding | None:
    """The reverse: other digests, the same answers."""
    base = aligned.arms[aligned.baseline]
    alike = [
        name_text(aligned.arms[k].name)
        for k in aligned.others
        if not _same_digest(base, aligned.arms[k]) and _answers_alike(base, aligned.arms[k])
    ]
    if not base.facts.model_digest or not alike:
        return None
    return _said(
        "like-answers",
        f"{', '.join(alike)} and {name_text(base.name)} have other digests and answer alike on the fixed pictures: "
        "this may be one net whose code was written anew.",
    )


def _same_digest(one: Arm, two: Arm) -> bool:
    return bool(one.facts.model_digest) and one.facts.model_digest == two.facts.model_digest


def _answers_alike(one: Arm, two: Arm) -> bool | None:
    """None where it cannot be told: another input, or a model that has not answered."""
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
    whose = "the source picture" if aligned.unit == "source" else "the baseline's input"
    scales = ", ".join(f"{name_text(arm.name)} {8 * arm.scale:.2f} px" for arm in aligned.arms)
    return _said(
        "input-sizes",
        f"The nets have inputs of different size ({sizes}): compared are equal shifts on each net's own input, so a "
        f"shift of 8 px is another distance in {whose}: {scales}.",
        evidence="Retained areas and radii are scaled; shifts, and all means over shifts, are not.",
    )


def _view(aligned: Aligned) -> Finding | None:
    def view(arm: Arm) -> str:
        p = arm.facts.preprocessing
        resize = "no resizing of its own" if p.resize is None else f"shorter side {p.resize} px, {p.interpolation}"
        return f"{resize}, {len(p.mean)} channel{'s' if len(p.mean) > 1 else ''}"

    views = _listed(aligned, view)
    if views is None:
        return None
    return _said(
        "other-view",
        f"The nets are not shown the same pixels ({views}): part of a difference may be the preprocessing's.",
    )


def _fill(aligned: Aligned) -> Finding | None:
    if aligned.arms[0].facts.fill.name != "mean":
        return None
    means = _listed(aligned, lambda arm: ", ".join(f"{v:.3f}" for v in arm.facts.preprocessing.mean))
    if means is None:
        return None
    return _said("fill-space", f"Fill mean is another colour for each net, its own normalisation's mean: {means}.")


def _precision(aligned: Aligned) -> Finding | None:
    how = _listed(aligned, lambda arm: f"{arm.facts.engine} in {arm.facts.dtype}")
    if how is None:
        return None
    return _said(
        "precision",
        f"The sweeps were not computed alike ({how}): rounding alone turns a few predictions.",
        "info",
        evidence="Sweep all with the same --dtype to be sure.",
    )


def _training(aligned: Aligned) -> Finding | None:
    def augmentation(arm: Arm) -> str:
        facts = arm.facts.training.get("augmentation")
        if not isinstance(facts, dict):
            return "unknown"
        return ", ".join(f"{key} {facts[key]}" for key in sorted(facts))

    seen = _listed(aligned, augmentation)
    if seen is None:
        return None
    return _said(
        "shifts-in-training",
        f"The nets were not trained with the same augmentation ({seen}): shifts seen in training are learnt, and what "
        "differs here need not be the architecture's.",
    )


def _checkpoints(aligned: Aligned) -> Finding:
    return _said(
        "checkpoints",
        f"Intervals are over images ({aligned.n_images:,}), for these checkpoints: another training run of the same "
        "recipe may differ by more than any difference here.",
        evidence="For a recipe or a padding mode the unit is the training run: train several seeds of each.",
    )
