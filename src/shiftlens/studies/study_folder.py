"""A study's directory: what is there, what is missing, and whether it belongs to the same file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shiftlens.errors import InputError, StoreError
from shiftlens.models.runs import holds_more_than_strays
from shiftlens.naming import one_line
from shiftlens.studies.study_file import Study
from shiftlens.studies.study_runs import RunResult
from shiftlens.training.checkpoint import write_whole
from shiftlens.training.recipe import differences

RECORD = "study.json"
KIND = "study record"
SCHEMA_VERSION = 1
_IGNORED = """\
# Nets and sweeps are large and can be made again; result.json holds all numbers.
/runs/*/*/net/
/runs/*/*/*.zarr/
.*.lock
"""


@dataclass(frozen=True)
class StudyFolder:
    """`study.json` says what the runs are of; `runs/ARM/seed-N` holds one run."""

    path: Path

    def of_run(self, arm: str, seed: int) -> Path:
        """The folder of one run."""
        return self.path / "runs" / arm / f"seed-{seed}"

    def results(self, study: Study) -> dict[tuple[str, int], RunResult]:
        """The runs that are finished, by arm and seed, in the order in which they are run: whole seeds first."""
        found = {}
        for seed in study.seeds:
            for arm in study.variants:
                result = RunResult.read(self.of_run(arm, seed))
                if result is not None:
                    found[arm, seed] = result
        return found

    def missing(self, study: Study) -> list[tuple[str, int]]:
        """The runs that are not finished, in the same order."""
        there = self.results(study)
        return [(arm, seed) for seed in study.seeds for arm in study.variants if (arm, seed) not in there]

    def claim(self, study: Study, digests: Mapping[str, str] | None = None) -> None:
        """Make the directory one of this study, or refuse that of another file.

        `digests` of the images are compared and kept where they are given. Further seeds, arms, sweeps, contrasts and
        claims are no other study.

        Raises
        ------
        InputError
            The directory is of another study; names the keys that differ.
        StoreError
            Something else lies there.
        """
        stored = self._record()
        asked = study.identity() | ({"image_digests": dict(digests)} if digests is not None else {})
        found = differences(*_common(stored, asked))
        if found:
            raise InputError(
                f"{self.path} holds runs of another study: {'; '.join(found)}. Choose another --out, or the same file"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        merged = {**stored, **asked, **{name: {**stored.get(name, {}), **asked[name]} for name in ("arms", "sweeps")}}
        plain = {"kind": KIND, "schema_version": SCHEMA_VERSION, "study": merged}
        write_whole(self.path / RECORD, (json.dumps(plain, indent=1) + "\n").encode())
        write_whole(self.path / ".gitignore", _IGNORED.encode())

    def check(self, study: Study) -> None:
        """The same refusals; nothing is written."""
        found = differences(*_common(self._record(), study.identity()))
        if found:
            raise InputError(f"{self.path} holds runs of another study: {'; '.join(found)}. Choose another --out")

    def _record(self) -> dict[str, Any]:
        file = self.path / RECORD
        if not file.exists():
            if self.path.is_dir() and not holds_more_than_strays(self.path):
                return {}
            if self.path.exists():
                raise StoreError(f"{self.path} must be the directory of a study or not exist: there is no {RECORD}")
            return {}
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
            if (plain["kind"], plain["schema_version"]) != (KIND, SCHEMA_VERSION) or not isinstance(
                plain["study"], dict
            ):
                raise ValueError("another kind or version")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{file} is no record of a study ({one_line(error)})") from None
        return _with_defaults(plain["study"], file)


def _with_defaults(stored: dict[str, Any], file: Path) -> dict[str, Any]:
    """The record with the defaults of keys that came later than it: a study goes on under a newer version."""
    tables = {name: value for name, value in stored.items() if name in Study.model_fields}
    try:
        study = Study.model_validate(tables)
    except ValidationError as error:
        raise StoreError(f"{file} holds what this version does not know ({one_line(error)})") from None
    return stored | {name: value for name, value in study.identity().items() if name in stored}


def _common(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without what only one of them has: an arm or a measure more is no contradiction."""
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name in stored.keys() & asked.keys():
        for side, source in zip(sides, (stored, asked), strict=True):
            value = source[name]
            if name in ("arms", "sweeps"):
                value = {key: value[key] for key in value if key in stored[name] and key in asked[name]}
            side[name] = value
    return sides
