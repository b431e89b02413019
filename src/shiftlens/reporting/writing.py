"""The door: sweeps, feature runs, layer arithmetic and comparisons in, one HTML file out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from shiftlens.data.images import ImageSet
from shiftlens.naming import Printed, distinct, printable
from shiftlens.narrative.finding import Findings
from shiftlens.narrative.words import plain
from shiftlens.progress_bar import shows_progress
from shiftlens.reporting.comparison_part import comparison_part, comparisons
from shiftlens.reporting.encoding import Data
from shiftlens.reporting.feature_part import feature_part
from shiftlens.reporting.given_items import Given, Opened, given
from shiftlens.reporting.inspection_part import inspection_view
from shiftlens.reporting.page import render, written_whole
from shiftlens.reporting.page_maps import WHOLE
from shiftlens.reporting.questions import questions
from shiftlens.reporting.stage_part import stage_hint, stage_part
from shiftlens.reporting.sweep_part import Part, SweepPart, sweep_part
from shiftlens.reporting.thumbnails import Source
from shiftlens.reporting.tile_part import tile_view
from shiftlens.storage.locking import disk_errors

Item = Opened | str | Path
Progress = Callable[[int, int], None]


@dataclass(frozen=True, repr=False)
class Report(Printed):
    """What was written.

    Attributes
    ----------
    path
        The HTML file.
    title
        Its title.
    verdict
        Three sentences on the first sweep; () without one.
    notes
        What was left out, and why: sweeps that cannot be compared, pictures that are not shown.
    findings
        Of the first sweep.
    metric
        What they are about, by name; None without a sweep.

    Examples
    --------
    >>> made = sl.report(sl.inspect(sl.nn.VGG("vgg6", width=4), 32), "report.html", title="A small VGG")
    >>> made.path.name, made.title, made.verdict  # without a sweep there is no verdict
    ('report.html', 'A small VGG', ())
    """

    path: Path
    title: str
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    findings: Findings
    metric: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The object of `shiftlens report --json`."""
        said = {"verdict": list(self.verdict), "notes": list(self.notes), "metric": self.metric}
        return {"files": [str(self.path)], **said}

    def lines(self) -> list[str]:
        """The verdict, what was left out, and where the file is."""
        return [*self.verdict, *(f"note: {note}" for note in self.notes), f"wrote {self.path}"]

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.verdict)
        left_out = "".join(f"<li><small>{escape(note)}</small></li>" for note in self.notes)
        return f"<p><b>{escape(self.title)}</b>: <code>{escape(str(self.path))}</code></p><ul>{said}{left_out}</ul>"


@shows_progress("reporting", "parts")
def report(
    items: Item | Iterable[Item],
    out: str | Path,
    *,
    title: str | None = None,
    images: ImageSet | str | None = None,
    data_root: str | Path | None = None,
    metric: str | None = None,
    partial: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Write one self-contained HTML file: verdict, maps, findings, feature maps, layer arithmetic, comparison.

    It needs no network and opens from disk; its main pictures and findings show without JavaScript. The same input
    gives the same bytes.

    Parameters
    ----------
    items
        Sweeps (of an incomplete one, the images that are whole), feature runs, what `shiftlens.inspect` and
        `shiftlens.compare` gave, or their paths; a file is the JSON of `shiftlens inspect --json` or
        `shiftlens compare --json`. Two sweeps or more are compared where they can be; where not, the page says why.
    out
        The file, ending in .html; what is there is replaced, in one step at the end.
    title
        Of the page; by default the first item's model and data.
    images
        Where the pictures of the images that fail come from: an `ImageSet` or its name, such as "cifar10". By default
        only those of the embedded `digits` are shown. Pictures that are not those of the sweep are left out.
    data_root
        Folder in which `images` are looked for.
    metric
        What the sweeps' parts and comparisons are about; by default their task's, such as "accuracy".
    partial
        Compare sweeps of different images by those that all hold, as after fine-tuning with the others.
    seed
        Of the bootstrap behind some intervals.
    progress
        Called with (parts done, parts in all).

    Returns
    -------
    Report
        `.path`, `.verdict` (three sentences on the first sweep), `.notes` (what was left out, and why).

    Raises
    ------
    InputError
        Nothing to report, something that is none of the kinds, a metric that a sweep does not have, or an output of
        another ending.
    StoreError
        A file that is missing, damaged or foreign, or an output that cannot be written.

    Examples
    --------
    >>> made = report("vgg.zarr", "report.html")  # or a list of sweeps, feature runs, ... on one page
    >>> made.path.name, len(made.verdict)
    ('report.html', 3)
    """
    found = given(items)
    source = Source(images, data_root)
    out = Path(out)
    with written_whole(out) as building:
        view, data, parts = _laid_out(found, source, title, metric, partial, seed, progress)
        page = render(view, data)
        with disk_errors(out, "write"):
            building.write_bytes(page)
    return Report(
        path=out,
        title=view["title"],
        verdict=parts[0].verdict if parts else (),
        notes=tuple(view["notes"]),
        findings=parts[0].findings if parts else Findings(),
        metric=parts[0].metric if parts else None,
    )


def _laid_out(
    found: Given,
    source: Source,
    title: str | None,
    metric: str | None,
    partial: bool,
    seed: int,
    progress: Progress | None,
) -> tuple[Data, Data, list[SweepPart]]:
    """Everything that the page holds, and the sweeps' parts."""
    total = len(found.sweeps) + len(found.runs) + 1
    done = iter(range(1, total + 1))

    def step() -> None:
        number = next(done)
        if progress is not None:
            progress(number, total)

    names = distinct(printable(sweep.path.stem) or "sweep" for sweep in found.sweeps)
    parts, runs = [], []
    for number, (sweep, name) in enumerate(zip(found.sweeps, names, strict=True)):
        parts.append(sweep_part(sweep, number, name, source, seed, metric))
        step()
    made, reasons = comparisons(found.sweeps, names, seed, metric, partial=partial)
    both = [*found.comparisons, *made]
    compared = [comparison_part(each, number) for number, each in enumerate(both)]
    step()
    for number, run in enumerate(found.runs):
        runs.append(feature_part(run, number))
        step()
    stage = stage_part(found.sweeps, names, source)
    without = dict.fromkeys(part.note for part in parts if part.note)
    sections: dict[str, Sequence[Part]] = {"sweeps": parts, "comparisons": compared, "runs": runs}
    maps = [each for part in parts for each in part.data["maps"] if each["group"] == WHOLE]
    view: Data = {
        "words": [*{each["short"]: each["about"] for each in maps}.items()],
        "title": plain(title) if title else _title(found),
        **{name: [part.view for part in section] for name, section in sections.items()},
        "inspections": [inspection_view(each, number) for number, each in enumerate(found.inspections)],
        "tiles": [tile_view(each, number) for number, each in enumerate(found.tiles)],
        "questions": questions(found, parts, both),
        "stage": stage.view if stage else None,
        "stage_hint": None if stage else stage_hint(found.sweeps),
        "notes": [*reasons, *(f"The images that fail are shown without thumbnails: {why}." for why in without)],
    }
    data = {name: [part.data for part in section] for name, section in sections.items()}
    return view, data | {"features": data.pop("runs"), "stage": stage.data if stage else None}, parts


def _title(found: Given) -> str:
    if found.sweeps:
        header = found.sweeps[0].header
        return plain(f"{header.model} on {header.data}")
    first: Any = next((each for group in (found.runs, found.inspections, found.tiles) for each in group), None)
    return plain(first.model) if first is not None else "Comparison of sweeps"
