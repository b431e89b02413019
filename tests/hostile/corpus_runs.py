"""Hostile run directories: what a stranger can write into `model.json` and beside it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from hostile.corpus_weights import safetensors_bytes
from hostile.machinery import Case, outside
from hostile.payloads import pickled

Facts = dict[str, Any]
WHERE: dict[str, Path] = {}
"""`run`: the lawful run directory that all of these are made from; filled in by the fixture `ground`."""


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(WHERE["run"], folder / "run"))


def told(change: Callable[[Facts], object]) -> Callable[[Path], Path]:
    """A run whose facts are changed, in `model.json` and in the copy of it that rides along in the weights."""

    def build(folder: Path) -> Path:
        run = copied(folder)
        facts = json.loads((run / "model.json").read_text())
        change(facts)
        return with_text(json.dumps(facts))(folder, run)

    return build


def with_text(text: str | bytes) -> Callable[..., Path]:
    def build(folder: Path, run: Path | None = None) -> Path:
        run = run or copied(folder)
        content = text.encode() if isinstance(text, str) else text
        (run / "model.json").write_bytes(content)
        return run

    return build


def _put(*path: str, to: object) -> Callable[[Facts], None]:
    def change(facts: Facts) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = to

    return change


def kwargs(**arguments: object) -> Callable[[Facts], None]:
    return lambda facts: facts["build"]["kwargs"].update(arguments)


def edits(*each: Facts) -> Callable[[Path], Path]:
    return told(_put("edits", to=list(each)))


def edit(path: str, what: str, after: object = "reflect", **options: object) -> Facts:
    return {"path": path, "what": what, "before": None, "after": after, **options}


def raw(change: Callable[[str], str]) -> Callable[[Path], Path]:
    return lambda folder: with_text(change((WHERE["run"] / "model.json").read_text()))(folder)


def instead(name: str, make: Callable[[Path, Path], object]) -> Callable[[Path], Path]:
    """Another thing in the place of a file of the run."""

    def build(folder: Path) -> Path:
        run = copied(folder)
        (run / name).unlink()
        make(run / name, folder)
        return run

    return build


def linked(target: str) -> Callable[[Path, Path], object]:
    return lambda path, folder: path.symlink_to(target)


def to_the_secret(path: Path, folder: Path) -> None:
    path.symlink_to(outside(folder) / "gone")


def _nested_edits(n: int) -> list[Facts]:
    """Each wraps what the one before has wrapped: a net `n` layers deep."""
    return [edit("0.6" + ".layer" * k, "downsample", "blur") for k in range(n)]


def inner_facts(folder: Path) -> Path:
    """The copy of the facts in the weights' header is what is hostile; `model.json` belongs to other weights."""
    run = copied(folder)
    with safe_open(run / "model.safetensors", framework="pt") as opened:
        facts = json.loads(opened.metadata()["model.json"])
    (run / "model.json").write_text(json.dumps(facts | {"weights": "sha256:other"}))
    facts["build"]["factory"] = "os:system"
    whole = to_safetensors(load_file(run / "model.safetensors"), {"model.json": json.dumps(facts)})
    (run / "model.safetensors").write_bytes(whole)
    return run


def deep_inner_facts(folder: Path) -> Path:
    run = copied(folder)
    facts = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(facts | {"weights": "sha256:other"}))
    whole = to_safetensors(load_file(run / "model.safetensors"), {"model.json": "[" * 200_000})
    (run / "model.safetensors").write_bytes(whole)
    return run


def run_link(folder: Path) -> Path:
    (folder / "link").symlink_to(copied(folder))
    return folder / "link"


def strange_name(folder: Path) -> Path:
    return copied(folder).rename(folder / "\x1b[2J[red]$\\frac{\u202er un")


def is_a_file(folder: Path) -> Path:
    (folder / "run").write_text("{}")
    return folder / "run"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "run")
    return folder / "run"


SHAPE_ONLY = ("inspect", "foveation")
"""Commands that read `model.json` for the net's shape, and neither its weights nor how pictures are prepared."""

ODD_NAMES = ["[red]\x1b[31mred[/]", "$\\frac{", "<script>alert(1)</script>\u202e"]

RUNS: dict[str, Case] = {
    "factory os:system": Case(told(_put("build", "factory", to="os:system")), says="unknown factory"),
    "factory of the root": Case(told(_put("build", "factory", to="builtins:eval")), says="unknown factory"),
    "timm from a hub": Case(told(_put("build", to={"factory": "timm:hf-hub:evil/x"})), says="unknown timm"),
    "timm from a folder": Case(told(_put("build", to={"factory": "timm:local-dir:/tmp/x"})), says="unknown timm"),
    "torchvision by a path": Case(
        told(_put("build", to={"factory": "torchvision:../../x"})), says="unknown torchvision"
    ),
    "a name of ten thousand letters": Case(told(_put("build", "factory", to="x" * 10_000)), says="at most 200"),
    "width of a billion": Case(told(kwargs(width=10**9)), says="4096"),
    "weights of a petabyte": Case(
        told(lambda f: [kwargs(width=4096, head="flatten", n_classes=10**5, size=[16384, 16384])(f)]),
        says="weights do not fit",
        unread=SHAPE_ONLY,
    ),
    "input of 16384 x 16384": Case(told(_put("preprocessing", "size", to=[16384, 16384])), says="pixels"),
    "input of a billion": Case(told(_put("preprocessing", "size", to=[10**9, 1])), says="preprocessing.size"),
    "negative input": Case(told(_put("preprocessing", "size", to=[-1, 16])), says="preprocessing.size"),
    "argument of code": Case(told(kwargs(padding={"__reduce__": "os.system"})), says="padding"),
    "unknown argument": Case(told(kwargs(__class__="x")), says="__class__"),
    "NaN mean": Case(
        raw(lambda t: t.replace('"mean": [\n      0.5', '"mean": [\n      NaN')),
        says="model.json: mean must lie",
        unread=SHAPE_ONLY,
    ),
    "infinite std": Case(
        raw(lambda t: t.replace('"std": [\n      0.25', '"std": [\n      1e999')), says="std", unread=SHAPE_ONLY
    ),
    "number of 5000 digits": Case(
        raw(lambda t: t.replace('"width": 2', '"width": ' + "9" * 5000)),
        says="model.json is no readable JSON: Exceeds the limit",
    ),
    "a hundred thousand deep": Case(with_text("[" * 100_000), says="no readable JSON"),
    "deep inside the facts": Case(
        raw(lambda t: t.replace('"metrics": {}', '"metrics": ' + '{"a":' * 400 + "1" + "}" * 400)), "either"
    ),
    "keys twice": Case(raw(lambda t: '{"kind": "sweep", ' + t.lstrip("{\n ")), "either"),
    "not UTF-8": Case(with_text(b'{"kind": "run", "x": "\xff\xfe"}'), says="no readable JSON"),
    "UTF-16": Case(with_text("{}".encode("utf-16")), says="model.json is of kind"),
    "half a surrogate": Case(told(_put("class_names", to=["\ud800", "b", "c"])), says="model.json: Invalid JSON"),
    "a list": Case(with_text("[]"), says="expected 'run'"),
    "another kind": Case(told(_put("kind", to="\x1b[2Jsweep")), says=r"\x1b[2Jsweep"),
    "a later version": Case(told(_put("schema_version", to=99)), says="schema_version 99"),
    "version that is no number": Case(told(_put("schema_version", to={"a": "\x1b[2J"})), says="schema_version"),
    "17 MB of JSON": Case(raw(lambda t: t + " " * (17 * 2**20)), says="more than a run's"),
    "weights of another digest": Case(told(_put("weights", to="sha256:0")), "either"),
    "class names of a megabyte": Case(told(_put("class_names", to=["x" * 2**20, "b", "c"])), "either"),
    "a million class names": Case(told(_put("class_names", to=["x"] * 10**6)), says="class names", unread=SHAPE_ONLY),
    "class names with markup": Case(told(_put("class_names", to=ODD_NAMES)), "either"),
    "edit of a dunder": Case(edits(edit("__class__", "padding")), says="no layer"),
    "edit above the net": Case(edits(edit("..", "padding")), says="no layer"),
    "edit of no kind": Case(edits(edit("0.0", "exec")), says="unknown edit 'exec'"),
    "edit of an unhashable kind": Case(edits(edit("0.0", ["x"])), says="edit"),
    "edit to an unhashable mode": Case(edits(edit("0.0", "padding", ["x"])), says="0.0"),
    "edit without a path": Case(edits({"what": "padding"}), says="needs a path"),
    "padding of a billion": Case(edits(edit("", "input padding", sides=[10**9] * 4)), says="input padding needs"),
    "padding of 4096": Case(edits(edit("", "input padding", sides=[4096] * 4)), says="input padding needs"),
    "padding in every layer": Case(
        edits(*[edit(f"{k}.0", "input padding", sides=[1024] * 4) for k in range(3)]), says="belongs to the net"
    ),
    "a filter of a billion": Case(edits(edit("0.6", "downsample", "blur", filter_size=10**9)), says="filter_size"),
    "a leader that is no layer": Case(
        edits(edit("0.6", "downsample", "polyphase", leader="1")), says="chooses no grid"
    ),
    "two thousand wrappings": Case(told(_put("edits", to=_nested_edits(2000))), says="at most 300 characters"),
    "twenty thousand edits": Case(
        told(_put("edits", to=[edit("0.0", "input size", [16, 16])] * 20_000)), says="edits: List should have at most"
    ),
    "weights that are a pickle": Case(
        instead("model.safetensors", lambda p, f: p.write_bytes(pickled(f))),
        says="no readable safetensors",
        unread=SHAPE_ONLY,
    ),
    "weights with a lying header": Case(
        instead("model.safetensors", lambda p, f: p.write_bytes(safetensors_bytes(b"{}", length=2**60))),
        says="no readable safetensors",
        unread=SHAPE_ONLY,
    ),
    "facts in the weights": Case(inner_facts, says="unknown factory", unread=SHAPE_ONLY),
    "deep facts in the weights": Case(deep_inner_facts, says="no readable JSON", unread=SHAPE_ONLY),
    "weights are a pipe": Case(
        instead("model.safetensors", lambda p, f: os.mkfifo(p)), says="model.safetensors", unread=SHAPE_ONLY
    ),
    "weights are endless": Case(
        instead("model.safetensors", linked("/dev/zero")), says="model.safetensors", unread=SHAPE_ONLY
    ),
    "weights cannot be read": Case(
        instead("model.safetensors", linked("/proc/self/mem")), says="model.safetensors", unread=SHAPE_ONLY
    ),
    "weights lead outside": Case(
        instead("model.safetensors", to_the_secret), says="model.safetensors", unread=SHAPE_ONLY
    ),
    "facts are a pipe": Case(instead("model.json", lambda p, f: os.mkfifo(p)), says="no model.json in it"),
    "facts are endless": Case(instead("model.json", linked("/dev/zero")), says="no model.json in it"),
    "facts cannot be read": Case(instead("model.json", linked("/proc/self/mem")), says="cannot be read"),
    "facts lead outside": Case(instead("model.json", to_the_secret), says="no model.json in it"),
    "a link to a run": Case(run_link, "fine"),
    "a name that steers a terminal": Case(strange_name, "fine"),
    "a file": Case(is_a_file, says=("is a file; name what builds", "is no run directory")),
    "a pipe": Case(pipe, says=("does not exist", "is no run directory")),
}
