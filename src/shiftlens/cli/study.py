"""`study`: many nets x seeds, from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell


def study(
    shell: Shell,
    file: Annotated[Path, typer.Argument(metavar="study.toml", help="What is trained, measured and tested.")],
    out: Annotated[Path, typer.Option("--out", help="The study's directory; an unfinished study is resumed.")],
    plan: Annotated[bool, typer.Option("--plan", help="Only print how many runs are missing, and the time.")] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Start no further run after so many minutes.")
    ] = None,
    claims: Annotated[
        Path | None, typer.Option("--claims", help="Also write one paragraph a claim to this Markdown file.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", help="Make the runs on Ray: local, local:N, auto, or HOST:PORT of its head."),
    ] = None,
    data_root: o.DataRoot = None,
    device: o.Device = "auto",
) -> o.Answer:
    """Train and measure every arm of a study with every seed, and test its contrasts over training runs.

    Example: shiftlens study study.toml --out studies/padding --minutes 60
    """
    from shiftlens.studies.study_page import write_claims
    from shiftlens.studies.studying import study as run

    with shell.progress("studying", "runs") as report:
        made = run(
            file,
            out,
            plan=plan,
            minutes=minutes,
            data_root=data_root,
            device=device,
            cluster=cluster,
            progress=report,
        )
    files = [*made.files, *([write_claims(made, claims)] if claims is not None else [])]
    named = [file for file in files if file.suffix != ".png"]
    return made.to_dict() | {"files": [str(file) for file in files]}, [*made.lines(), *o.wrote(*map(str, named))]
