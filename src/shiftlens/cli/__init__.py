"""The command line: parse, call one function, print.

Nothing here loads torch before a command really runs, so `--help` is instant.
"""

from __future__ import annotations

from shiftlens.cli.app import main

__all__ = ["main"]
