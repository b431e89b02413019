"""Numbers and directions as text: digits are chosen and names are made safe to print here and nowhere else."""

from __future__ import annotations

from shiftlens.stats import Estimate

LONGEST_NAME = 40
WAYS = {"x": ("to the right", "to the left"), "y": ("down", "up")}
"""Where an image moves along each axis: with a positive and with a negative shift."""


def number_text(value: float, unit: str, digits: int | None = None) -> str:
    """A number with its unit: shares in per cent."""
    digits = _digits(value, unit) if digits is None else digits
    if unit == "share":
        return f"{100 * value:.{digits}f} %"
    shown = {"points": " points", "nats": " nats", "px": " px", "px^2": " px²"}.get(unit, f" {unit}")
    return f"{value:,.{digits}f}{shown}"


def with_interval(value: float, lo: float, hi: float, unit: str) -> str:
    """A number with its unit and its interval in brackets, as many digits as the interval's width asks for."""
    digits = max(_digits(value, unit), _digits((hi - lo) / 2, unit))
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


def sentence(text: str) -> str:
    """A text from outside as one line with a capital and a point."""
    shown = plain(text).strip().rstrip(".")
    return f"{shown[:1].upper()}{shown[1:]}."


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


def _digits(value: float, unit: str) -> int:
    """Digits after the point that a number of this size deserves."""
    size = abs(value)
    if unit == "share":
        return 1
    if unit == "px":
        return 1 if size >= 0.3 else 2
    if unit == "points":
        return 1 if size >= 1 or not size else 2 if size >= 0.1 else 3
    if unit == "nats":
        return 2 if size >= 0.1 or not size else 3
    return 0
