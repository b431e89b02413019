"""Make the example notebooks from the scripts beside them: `python examples/make_notebooks.py [NAME ...]`.

`# %%` starts a code cell, `# %% [markdown]` a text cell. The notebook runs in an empty directory. Its output is stored
without times and facts of the machine, so the same code gives the same file.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent
SCRIPTS = {
    "course.ipynb": "course.py",
    "own-model.ipynb": "own_model.py",
    "detection.ipynb": "detection.py",
    "segmentation.ipynb": "segmentation.py",
}
MARK = re.compile(r"^# %%(?: \[(markdown)\])?[ ]*\n", re.MULTILINE)

WARNINGS_ARE_ERRORS = """\
import warnings
warnings.simplefilter("error")
warnings.filterwarnings("default", module=r"(ipykernel|zmq|tornado|asyncio|jupyter_client|traitlets)")
"""
"""Run before a notebook's own first cell, never kept."""

PASSING = ("how to compute was chosen before all ways were tried", "measuring how to compute", "\r")
"""How lines about progress and about a busy machine begin; they differ from run to run and are not kept."""
ESTIMATE = re.compile(r"[\d,]+ evaluations, about ")
"""How the line about the time of a long sweep begins, which a slower machine prints."""


def cells(script: str) -> list[tuple[str, str]]:
    """Kind (markdown or code) and text of each cell of a script.

    Raises
    ------
    ValueError
        Text before the first mark, or a line of a text cell that is no comment.
    """
    before, *parts = MARK.split(script)
    if before.strip():
        raise ValueError(f"expected '# %%' first, got {before.splitlines()[0]!r}")
    found = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if kind == "markdown":
            lines = text.strip().splitlines()
            if wrong := [line for line in lines if not line.startswith("#")]:
                raise ValueError(f"expected comments in a text cell, got {wrong[0]!r}")
            found.append(("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)))
        else:
            # A line that only a notebook understands is a comment in the script.
            found.append(("code", re.sub(r"^# %(?=\w)", "%", text.strip(), flags=re.MULTILINE)))
    return found


def notebook(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, not executed; a cell's id is its number."""
    made = new_notebook()
    for number, (kind, text) in enumerate(cells(script.read_text(encoding="utf-8"))):
        cell = new_markdown_cell(text) if kind == "markdown" else new_code_cell(text)
        cell["id"] = f"cell-{number:02}"
        made.cells.append(cell)
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return made


def execute(made: nbformat.NotebookNode, where: Path, *, strict: bool = True) -> nbformat.NotebookNode:
    """Execute in a directory and keep the output that is the same each time.

    Parameters
    ----------
    made
        From `notebook`; not changed.
    where
        Working directory.
    strict
        Warnings are errors.
    """
    from nbclient import NotebookClient

    run = nbformat.from_dict(made)
    if strict:
        run.cells.insert(0, new_code_cell(WARNINGS_ARE_ERRORS))
    # Test runners and shells set this; it overrides `%matplotlib inline` in the kernel.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        NotebookClient(run, timeout=600, resources={"metadata": {"path": str(where)}}).execute()
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if strict:
        del run.cells[0]
    number = 0
    for cell in run.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            cell.outputs = _joined([_kept(output, number) for output in cell.outputs if not _only_passing(output)])
    run.metadata = made.metadata
    return run


def _only_passing(output: Any) -> bool:
    return output.get("name") == "stderr" and all(
        line.startswith(PASSING) or ESTIMATE.match(line) for line in output["text"].split("\n") if line
    )


def _kept(output: Any, number: int) -> Any:
    if "execution_count" in output:
        output["execution_count"] = number
    output.get("data", {}).pop("image/svg+xml", None)
    if "metadata" in output:
        output["metadata"] = {}
    return output


def _joined(outputs: list[Any]) -> list[Any]:
    """Outputs with consecutive prints joined: how they are split differs from run to run."""
    joined: list[Any] = []
    for output in outputs:
        if output["output_type"] == "stream" and joined and joined[-1].get("name") == output["name"]:
            joined[-1]["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def main() -> None:
    """Write every notebook, or those that are named."""
    for name in sys.argv[1:] or SCRIPTS:
        script = SCRIPTS[name]
        with tempfile.TemporaryDirectory() as where:
            done = execute(notebook(HERE / script), Path(where))
        nbformat.write(done, HERE / name)
        print(f"{name}: {(HERE / name).stat().st_size / 1024:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
