"""What can mislead in a comparison: named where it applies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from shiftlens.analysis.arms import Aligned, Arm
from shiftlens.analysis.comparable import view_of
from shiftlens.given import MODEL_OPTIONS, option_words
from shiftlens.narrative.finding import Finding, Findings
from shiftlens.narrative.finding_parts import Action, Severity
from shiftlens.narrative.setting import Setting, named_model
from shiftlens.narrative.words import name_text, number_text, plain
from shiftlens.tasks.embedding import Embedding

DOUBTS = ("same-model", "other-answers", "like-answers", "other-model", "is-a-control", "fine-tuned")


def notes(aligned: Aligned) -> list[Finding]:
    """Everything on the list that applies."""
    return [
        *_images(aligned),
        *_galleries(aligned),
        *_same_models(aligned),
        *_other_models(aligned),
        *_fine_tuned(aligned),
        *_unequal(aligned),
    ]


def doubts(findings: Findings) -> Findings:
    """Caveats without which a comparison misleads: the sweeps are not what their names say."""
    return findings.of_kind(*DOUBTS)


def _caveat(kind: str, text: str, severity: Severity = "note", note: str = "", action: Action | None = None) -> Finding:
    return Finding(kind, text, action=action, note=note, severity=severity, question="D", section="caveats")


def _images(aligned: Aligned) -> Iterator[Finding]:
    n = aligned.n_images
    if aligned.n_left_out:
        # Of an adaptive sweep and any other sweep of all images, the common ones are the first of the stratified order.
        short = [arm for arm in aligned.arms if arm.n_images == n != arm.n_population]
        stratified = all(arm.half_width is not None for arm in short)
        text = (
            f"All findings are about the {n:,} images that every sweep holds; up to {aligned.n_left_out:,} more are in "
            "only some of them."
        )
        note = f"They {'are a class-stratified subset' if stratified else 'need not be a random sample'}."
        yield _caveat("images-left-out", text, note=note)
    unit = aligned.arms[0].arrays.metrics[0].difference_unit
    adaptive = [
        f"{name_text(arm.name)} {arm.n_images:,} of {arm.n_population:,} (±{number_text(arm.half_width, unit)})"
        for arm in aligned.arms
        if arm.half_width is not None
    ]
    if adaptive:
        text = (
            f"Adaptive sweeps measured images until their confidence band was narrow enough: {', '.join(adaptive)}. "
            f"Compared are the {n:,} that every sweep holds."
        )
        note = "The half-widths are of each sweep's own values; differences are paired, image by image."
        yield _caveat("adaptive", text, "info", note)
    control = aligned.arms[aligned.baseline].header.control
    if control is not None:
        text = f"These are the controls {control} of sweeps: the images were changed before the models saw them."
        yield _caveat("is-a-control", text)


def _galleries(aligned: Aligned) -> Iterator[Finding]:
    """Embedding sweeps whose ranks are among other images than those of the baseline."""
    headers = [arm.header for arm in aligned.arms]
    if not all(isinstance(header.task, Embedding) for header in headers):
        return
    # Images of another size have another digest though they are the same ones.
    galleries = {(view_of(each), each.task.gallery_digest or "") for each in headers}
    n_views = len({view for view, _ in galleries})
    if len({header.task.n_gallery for header in headers}) == 1 and len(galleries) == n_views:
        return
    each = [f"{name_text(arm.name)} {_gallery(arm.header.task)}" for arm in aligned.arms]
    text = f"Ranks are not comparable, since the galleries are not the same images: {', '.join(each)}."
    yield _caveat("other-gallery", text, note="The larger the gallery, the larger a rank; cosine similarity has none.")


def _gallery(task: Embedding) -> str:
    return f"{task.n_gallery:,} ({task.gallery_digest[:19] or 'not recorded'})"


def _same_models(aligned: Aligned) -> Iterator[Finding]:
    """Sweeps with the baseline's digest or its logits, and what it means where only one of both is equal."""
    base = aligned.arms[aligned.baseline]
    names: dict[str, list[str]] = {"same-model": [], "other-answers": [], "like-answers": []}
    for arm in (aligned.arms[k] for k in aligned.others):
        logits = _equal_logits(base, arm)
        if base.header.model_digest and base.header.model_digest == arm.header.model_digest:
            names["other-answers" if logits is False else "same-model"].append(name_text(arm.name))
        elif base.header.model_digest and logits:
            names["like-answers"].append(name_text(arm.name))
    texts = {
        "same-model": "are of the same model: only the engine can cause a difference.",
        "other-answers": "claim the same model (by digest), but gave different logits for the fixed images when they "
        "were swept: something that the digest does not cover was different.",
        "like-answers": "have different digests and equal logits for the fixed images: this may be one net whose code "
        "was rewritten.",
    }
    for kind, found in names.items():
        if found:
            text = f"{', '.join(found)} and {name_text(base.name)} {texts[kind]}"
            yield _caveat(kind, text, "warn" if kind == "other-answers" else "note")


def _other_models(aligned: Aligned) -> Iterator[Finding]:
    """Sweeps whose model has the baseline's spec and another digest: a command that was run without an option."""
    base = aligned.arms[aligned.baseline]
    model, digest = base.header.model, base.header.model_digest
    others = [aligned.arms[k] for k in aligned.others]
    found = [arm for arm in others if arm.header.model == model and digest not in ("", arm.header.model_digest)]
    if found and named_model(model, known=bool(base.header.training)) != "MODEL":
        given = {arm.name: " ".join(option_words(arm.header.model_options, MODEL_OPTIONS)) for arm in (base, *found)}
        listed = ", ".join(f"{name_text(name)} {plain(text) or 'no options'}" for name, text in given.items())
        how = f"they were given {listed}" if len(set(given.values())) > 1 else "its code or weights were changed since"
        names = ", ".join(name_text(arm.name) for arm in found)
        text = f"Not the same model in {name_text(base.name)} and {names}, though all name {plain(model)}: {how}."
        yield _caveat("other-model", text)


def _fine_tuned(aligned: Aligned) -> Iterator[Finding]:
    """Sweeps whose model was fine-tuned, beside the baseline's that was not, or the reverse; the fair baseline."""
    tuned = [arm for arm in aligned.arms if _tunings(arm)]
    plain_ones = [arm for arm in aligned.arms if not _tunings(arm)]
    if not tuned or not plain_ones:
        return
    which, others = (", ".join(name_text(arm.name) for arm in arms) for arms in (tuned, plain_ones))
    text = (
        f"{which} {'were' if len(tuned) > 1 else 'was'} fine-tuned, {others} {'were' if len(plain_ones) > 1 else 'was'}"
        " not: the difference is of the fine-tuning and of all else that was changed."
    )
    first, facts = plain_ones[0], _tunings(tuned[0])[-1]
    command = Setting(first.header).named.finetune_command(facts, "runs/tuned")
    how = f"Fine-tune {name_text(first.name)} equally, sweep the result, and compare with that sweep"
    yield _caveat("fine-tuned", text, action=Action(how, command))


def _tunings(arm: Arm) -> list[Mapping[str, Any]]:
    """What the run of a sweep's model says of its fine-tunings, in order."""
    healed = arm.header.training.get("healed")
    each = healed if isinstance(healed, list | tuple) else []
    return [facts for facts in each if isinstance(facts, Mapping) and facts.get("kind") == "fine-tune"]


def _equal_logits(one: Arm, two: Arm) -> bool | None:
    """Whether two models gave the same logits for the fixed images; None where that is not known."""
    a, b = one.header, two.header
    if a.behaviour is None or b.behaviour is None or not (a.behaviour.tells and b.behaviour.tells):
        return None
    if (a.image_size, len(a.preprocessing.mean)) != (b.image_size, len(b.preprocessing.mean)):
        return None
    return a.behaviour.difference(b.behaviour) is None


def _unequal(aligned: Aligned) -> Iterator[Finding]:
    """What is not the same for all sweeps, and what that means; and what another training run would change."""

    def listed(of: Callable[[Arm], Any]) -> str:
        values = [of(arm) for arm in aligned.arms]
        if all(value == values[0] for value in values):
            return ""
        return ", ".join(f"{name_text(arm.name)} {plain(str(v))}" for arm, v in zip(aligned.arms, values, strict=True))

    if sizes := listed(lambda arm: "{}x{} px".format(*arm.header.image_size)):
        whose = "the source image" if aligned.unit == "source" else "the baseline's input"
        scales = ", ".join(f"{name_text(arm.name)} {8 * arm.scale:.2f} px" for arm in aligned.arms)
        text = (
            f"The nets have inputs of different size ({sizes}). Equal shifts of each net's own input are compared, so "
            f"a shift of 8 px is another distance in {whose}: {scales}."
        )
        yield _caveat("input-sizes", text, note="Retained areas and radii are scaled; means over shifts are not.")
    if views := listed(_view):
        text = f"The nets get different pixels ({views}): part of a difference may come from the preprocessing."
        yield _caveat("other-view", text)
    means = listed(lambda arm: ", ".join(f"{v:.3f}" for v in arm.header.preprocessing.mean))
    if means and aligned.arms[0].header.fill.name == "mean":
        text = f"Fill mean is a different colour for each net, the mean of its own normalisation: {means}."
        yield _caveat("fill-space", text)
    if how := listed(lambda arm: f"{arm.header.plan.engine} in {arm.header.plan.dtype}"):
        text = f"The sweeps were computed in different ways ({how}): rounding alone changes a few predictions."
        yield _caveat("precision", text, "info", "Sweep all with the same --dtype to exclude this.")
    if seen := listed(_augmentation):
        text = (
            f"The nets were trained with different augmentation ({seen}): robustness to shifts in training is learnt, "
            "and a difference need not come from the architecture."
        )
        yield _caveat("shifts-in-training", text)
    text = (
        f"Intervals are over images ({aligned.n_images:,}), for these checkpoints: another training run of the same "
        "recipe may differ by more than any difference here."
    )
    note = "For a recipe or a padding mode the unit is the training run: train several seeds of each."
    yield _caveat("checkpoints", text, note=note)


def _view(arm: Arm) -> str:
    p = arm.header.preprocessing
    side = p.resize
    how = f"shorter side {side} px" if side is None or isinstance(side, int) else f"stretched to {side[0]}x{side[1]} px"
    resize = "no resizing of its own" if side is None else f"{how}, {p.interpolation}"
    return f"{resize}, {len(p.mean)} channel{'s' if len(p.mean) > 1 else ''}"


def _augmentation(arm: Arm) -> str:
    facts = arm.header.training.get("augmentation")
    return ", ".join(f"{key} {facts[key]}" for key in sorted(facts)) if isinstance(facts, dict) else "unknown"
