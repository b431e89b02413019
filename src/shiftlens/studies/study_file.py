"""`study.toml`: which nets are trained, what is measured of each, and which differences are tested."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from shiftlens.errors import InputError
from shiftlens.naming import one_line, printable, unknown_name
from shiftlens.paths import kind_of
from shiftlens.protocols import PROTOCOLS
from shiftlens.shifts import Fill, ShiftGrid
from shiftlens.studies.measures import CONSISTENCY, CROPS, FEATURES, NEURONS, PROBE, SWEEP, Measure
from shiftlens.studies.study_arms import Arm, Count, Factors, Table, Training

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*")
MAX_BYTES = 2**20


class Data(Table):
    """Which images: a spec of `load_images`, and how many.

    With `held_out`, so many training images are kept from training and measured in place of the test split: for
    choices that must not see it.
    """

    images: str = "digits"
    train_limit: Count | None = None
    test_limit: Count | None = None
    held_out: Annotated[int, Field(ge=0)] = 0


class SweepTable(Table):
    """One sweep of every net."""

    max_shift: Count = 8
    step: Count = 2
    fill: str | float = "black"
    limit: Count | None = None

    @model_validator(mode="after")
    def _sweepable(self) -> Self:
        Fill.parse(self.fill)
        ShiftGrid(self.max_shift, self.step)
        return self


class ImageTable(Table):
    """A measure that looks at so many test images."""

    images: Count = 256


class ConsistencyTable(Table):
    """Published protocols of consistency; of all test images without a number of `images`."""

    protocols: list[str]
    images: Count | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise unknown_name("protocol", name, PROTOCOLS)
        return self


class Contrast(Table):
    """One difference that is tested: of an arm's measure, less that of `against` (or of `against_measure`).

    Without either, the measure itself is tested. `expect` says on which side of `than` it should lie. With a `margin`
    the arm is to be non-inferior: `than` is minus the margin where more is expected, plus the margin where less is.
    """

    name: str
    arm: str
    measure: str
    against: str | None = None
    against_measure: str | None = None
    expect: Literal["above", "below"] = "above"
    than: float = 0.0
    margin: Annotated[float, Field(gt=0)] | None = None
    claim: str | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if self.margin is not None and self.than:
            raise InputError(f"contrast {self.name!r}: margin and than exclude each other")
        return self

    @property
    def bound(self) -> float:
        """The value that the difference is tested against."""
        if self.margin is None:
            return self.than
        return -self.margin if self.expect == "above" else self.margin

    @property
    def is_paired(self) -> bool:
        """Whether two values of a seed are compared."""
        return self.against is not None or self.against_measure is not None


class Claim(Table):
    """What a source says, in words, for `claims.md`; its contrasts name it.

    With `needs = "any"` one confirmed contrast confirms the claim; by default all must be.
    """

    title: str
    source: str
    says: str
    did: str
    would_change: str
    needs: Literal["all", "any"] = "all"


class Study(Table):
    """The whole file.

    Attributes
    ----------
    name
        What the page is called.
    seeds
        A number (seeds from 0) or the seeds; each arm is trained once with each.
    data, training
        See there.
    factors, arms
        Every combination of the factors' lists is an arm, named by its levels (`base` where there is nothing else);
        `arms` adds others by name, which take from `factors` what they do not say: its single value, or its first.
    sweeps
        By name; their measures are `NAME.near` and so on.
    features, probe, neurons, consistency, crops
        Measured where the table is there; `crops` of arms with `cut`.
    contrasts, claims
        What is tested, and what for.
    """

    name: str = "study"
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=lambda: [*range(5)])
    data: Data = Data()
    training: Training = Training()
    factors: Factors = Factors()
    arms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    sweeps: dict[str, SweepTable] = Field(default_factory=lambda: {"black": SweepTable()})
    features: ImageTable | None = None
    probe: ImageTable | None = None
    neurons: ImageTable | None = None
    consistency: ConsistencyTable | None = None
    crops: ImageTable | None = None
    contrasts: list[Contrast] = Field(default_factory=list)
    claims: dict[str, Claim] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("seeds"), int):
            value = {**value, "seeds": list(range(value["seeds"]))}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds must be distinct and at least one, got {self.seeds}")
        for name in (*self.arms, *self.sweeps):
            if not NAME.fullmatch(name):
                raise InputError(f"the name {name!r} is also that of a folder: use letters, digits, - and _")
        if len({each.name for each in self.contrasts}) < len(self.contrasts):
            raise InputError("each contrast needs a name of its own")
        for name, arm in self.variants.items():
            try:
                arm.settings(self.training)
            except InputError as error:
                raise InputError(f"arm {name}: {error}") from None
        for each in self.contrasts:
            self._check(each)
        return self

    def _check(self, contrast: Contrast) -> None:
        where = f"contrast {contrast.name!r}: "
        for arm in (contrast.arm, contrast.against):
            if arm is not None and arm not in self.variants:
                raise InputError(where + str(unknown_name("arm", arm, self.variants)))
        for measure in (contrast.measure, contrast.against_measure):
            if measure is not None and measure.partition("@")[0] not in self.measures:
                raise InputError(where + str(unknown_name("measure", measure, self.measures)))
        if contrast.claim is not None and contrast.claim not in self.claims:
            raise InputError(where + str(unknown_name("claim", contrast.claim, self.claims)))

    @cached_property
    def variants(self) -> dict[str, Arm]:
        """Every arm by its name, in the order in which they are run."""
        table = self.factors.model_dump()
        lists = {name: levels for name, levels in table.items() if isinstance(levels, list)}
        for name, levels in lists.items():
            if not levels or len(set(levels)) < len(levels):
                raise InputError(f"factor {name}: expected distinct levels, got {levels}")
        found: dict[str, Arm] = {}
        first = {name: levels[0] for name, levels in lists.items()}
        if lists or not self.arms:
            for chosen in (dict(zip(lists, each, strict=True)) for each in itertools.product(*lists.values())):
                found["-".join(map(str, chosen.values())) or "base"] = _checked(Arm, table | chosen, "factors")
        for name, levels_of in self.arms.items():
            if name in found:
                raise InputError(f"arm {name!r} is there already, by the factors")
            found[name] = _checked(Arm, table | first | levels_of, f"arm {name}")
        return found

    @cached_property
    def measures(self) -> dict[str, Measure]:
        """Everything that is measured of a run, by name."""
        found = {f"{sweep}.{name}": each for sweep in self.sweeps for name, each in SWEEP.items()}
        tables = {"features": FEATURES, "probe": PROBE, "neurons": NEURONS, "crops": CROPS}
        for part, known in tables.items():
            if getattr(self, part) is not None:
                found |= {f"{part}.{name}": each for name, each in known.items()}
        if self.consistency is not None:
            found |= {f"consistency.{name}": CONSISTENCY for name in self.consistency.protocols}
        return found

    def identity(self) -> dict[str, Any]:
        """What decides the runs, without seeds, contrasts and words: two studies may share runs where it agrees."""
        plain = self.model_dump(mode="json", include={"data", "training", "sweeps", *_PARTS})
        arms = {name: arm.model_dump(mode="json") for name, arm in self.variants.items()}
        return {key: value for key, value in plain.items() if value is not None} | {"arms": arms}


_T = TypeVar("_T", bound=Table)
_PARTS = ("features", "probe", "neurons", "consistency", "crops")


def _checked(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """A table read; `InputError` says where and what is wrong with it, in one line."""
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        path = "".join(f"{part}: " for part in fault["loc"] if isinstance(part, str))
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise InputError(printable(f"{where}: {path}{message}")) from None


def read_study(given: Study | Mapping[str, Any] | str | Path) -> Study:
    """Read a study from its file, or from a table of the same keys.

    Raises
    ------
    InputError
        No such file, no TOML, an unknown key or level (with the nearest), or contrasts of arms or measures that are
        not there.
    """
    if isinstance(given, Study):
        return given
    if isinstance(given, Mapping):
        return _checked(Study, given, "study")
    file = Path(given)
    if kind_of(file) != "file":
        raise InputError(f"{file}: expected a file that describes a study (study.toml), found {kind_of(file)}")
    try:
        table = tomllib.loads(file.read_bytes()[:MAX_BYTES].decode("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file} is no TOML: {one_line(error)}") from None
    return _checked(Study, table, str(file))
