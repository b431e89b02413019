"""Everything that was measured as one HTML file to look at."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shiftlens.reporting.writing import Item, Report, report

__all__ = ["Item", "Report", "report"]


def __getattr__(name: str) -> Any:
    # When first used: the live page needs what encodes pictures, and not the 100 MB that stores and arrays take.
    if name in __all__:
        from shiftlens.reporting import writing

        return getattr(writing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
