"""Ends what is left of a Ray session, and removes its folder, once the process that started it says so or is gone.

Run as a program, `python ray_keeper.py FOLDER PARENT`, by `ray_session`: it outlives its parent however that dies,
which nothing inside the parent can. Ray's own processes notice the death of theirs late, some of them after minutes.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 30.0
"""Seconds for killed processes to be gone; one that hangs in the kernel may take longer."""


def wait_for_the_end(parent: int) -> None:
    """Return when the parent writes to this process or has ended, killed or not."""
    watched = [sys.stdin.fileno()]
    if hasattr(os, "pidfd_open"):  # the pipe alone stays open in what the parent forked
        try:
            watched.append(os.pidfd_open(parent))
        except OSError:
            return
        if os.getppid() != parent:
            return
    select.select(watched, [], [])


def end_those_of(folder: str, spared: tuple[int, ...]) -> None:
    """Kill every process that has an output file below `folder` open: all that Ray starts have, however they rename."""
    until = time.monotonic() + PATIENCE
    n_quiet = 0
    while n_quiet < 2 and time.monotonic() < until:
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        n_killed = sum(_killed(number, folder) for number in found if number not in spared)
        n_quiet = 0 if n_killed else n_quiet + 1
        time.sleep(0.05)


def _killed(number: int, folder: str) -> bool:
    try:
        process = os.pidfd_open(number)  # so that a number given away meanwhile cannot be hit
    except OSError:
        return False
    try:
        if not any(_is_output(file, folder) for file in Path(f"/proc/{number}/fd").iterdir()):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:  # gone, or somebody else's
        return False
    finally:
        os.close(process)
    return True


def _is_output(file: Path, folder: str) -> bool:
    """Not what is only read, and not the logs of the process that started Ray: it and what it forks go on."""
    try:
        name = str(file.readlink()).removesuffix(" (deleted)")
        return (
            name.startswith(folder + os.sep) and name.endswith((".out", ".err")) and bool(file.lstat().st_mode & 0o200)
        )
    except OSError:  # closed meanwhile
        return False


def main(folder: str, parent: int) -> None:
    """Wait, then clean up."""
    os.chdir("/")
    wait_for_the_end(parent)
    if Path("/proc").is_dir() and hasattr(os, "pidfd_open"):
        end_those_of(folder, (os.getpid(), parent))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
