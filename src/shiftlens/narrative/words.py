"""Numbers and directions as text: digits are chosen and names are made safe to print here and nowhere else."""

from __future__ import annotations

import math

from shiftlens.stats import Estimate
from shiftlens.tasks.task import Variable

LONGEST_NAME = 40
KNOWN = ("share", "points", "nats", "px", "px^2")
"""Units whose numbers have a size that is known."""

WAYS = {"x": ("to the right", "to the left"), "y": ("down", "up")}
"""Where an image moves along each axis: with a positive and with a negative shift."""


def number_text(value: float, unit: str, digits: int | None = None) -> str:
    """A number with its unit: shares in per cent."""
    digits = digits_of(value, unit) if digits is None else digits
    if unit == "share":
        return f"{100 * value:.{digits}f} %"
    shown, unit = f"{value:,.{digits}f}", unit.replace("px^2", "px²")
    return f"{shown} {unit.removesuffix('s') if shown == '1' else unit}".rstrip()


def with_interval(value: float, lo: float, hi: float, unit: str) -> str:
    """A number with its unit and its interval in brackets, as many digits as the interval's width asks for."""
    half = (hi - lo) / 2
    digits = max(digits_of(value, unit), digits_of(half, unit)) if unit in KNOWN else digits_of(half, unit, 2)
    factor = 100 if unit == "share" else 1
    return f"{number_text(value, unit, digits)} [{factor * lo:,.{digits}f}, {factor * hi:,.{digits}f}]"


def quoted(estimate: Estimate) -> str:
    """Number, unit and 95 % interval; with "at least" where the grid ends before the truth does."""
    text = with_interval(estimate.value, estimate.lo, estimate.hi, estimate.unit)
    return f"at least {text}" if estimate.at_least else text


def size_of(estimate: Estimate) -> str:
    """The same for a difference whose sign is said in words: the number without its sign, the interval turned."""
    return quoted(estimate if estimate.value >= 0 else estimate.scaled(-1, estimate.unit))


def way(axis: str, value: float) -> str:
    """Which way a shift of that sign moves the image: "to the right", "to the left", "down", "up"."""
    return WAYS[axis][0 if value > 0 else 1]


def capital(text: str) -> str:
    """The text as a sentence begins with it."""
    return f"{text[:1].upper()}{text[1:]}"


def level_text(metric: Variable, value: float, level: float) -> str:
    """How far a metric may move from a value and still be kept at a level: "at or above 95 % of" the value."""
    side = "above" if metric.sign > 0 else "below"
    factor = level if metric.sign * value >= 0 else 2 - level
    return f"at or {side} " + (f"{100 * factor:.0f} % of" if metric.unit == "share" else f"{factor:.3g} times")


def sentence(text: str) -> str:
    """A text from outside as one line with a capital and a point."""
    return f"{capital(plain(text).strip().rstrip('.'))}."


def tests_text(n: int) -> str:
    """What a p-value was corrected for."""
    return f"all {n} tests" if n > 1 else "the one test"


def p_text(p_value: float) -> str:
    """A p-value with two digits."""
    return f"p = {p_value:.2g}" if p_value >= 1e-4 else "p < 0.0001"


def name_text(name: str) -> str:
    """A class name in quotes that can do nothing but be read: control characters escaped, long ones cut."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)
    return f"'{safe[:LONGEST_NAME]}…'" if len(safe) > LONGEST_NAME else f"'{safe}'"


def plain(text: str) -> str:
    """A text from outside on one line, control characters escaped."""
    return "".join(c if c.isprintable() else " " for c in text)


def digits_of(value: float, unit: str, significant: int = 3) -> int:
    """Digits after the point that a number of this size deserves; of an unknown unit, so many significant ones."""
    size = abs(value)
    if unit == "share":
        return 1
    if unit == "px":
        return 1 if size >= 0.3 else 2
    if unit == "points":
        return 1 if size >= 1 or not size else 2 if size >= 0.1 else 3
    if unit == "nats":
        return 2 if size >= 0.1 or not size else 3
    if unit == "px^2" or not math.isfinite(size) or size == round(size):
        return 0
    return min(max(0, significant - 1 - math.floor(math.log10(size))), 9)
