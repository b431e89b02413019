"""`shiftlens doctor`: the installation in a few lines."""

from __future__ import annotations

from shiftlens.cli.console import Shell
from shiftlens.cli.options import Answer


def doctor(_shell: Shell) -> Answer:
    """Describe the installation: versions, device, number formats, caches, extras, to paste into an issue.

    Example: shiftlens doctor
    """
    from shiftlens.installation import describe_installation, installation_lines

    found = describe_installation()
    return found, installation_lines(found)
