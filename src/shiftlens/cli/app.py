"""The application: which commands there are, and how each kind of failure ends."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Sequence
from contextlib import chdir, suppress
from pathlib import Path

import typer

from shiftlens.cli import (
    about,
    check,
    compare,
    export,
    lens,
    live,
    look,
    measure,
    probe,
    repair,
    report,
    study,
    tiling,
    train,
)
from shiftlens.cli.console import error_line, flush_streams, prepare_terminal
from shiftlens.cli.grouped_help import Command, Group
from shiftlens.cli.options import command
from shiftlens.errors import ShiftlensError, StoreError

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What a stream says that takes no more; an error of a file names it."""

_INTERRUPTED = "interrupted; run the same command again: sweeps and trainings resume where they stopped"

app = typer.Typer(
    name="shiftlens",
    cls=Group,
    help="Audit a vision model's spatial behaviour: evaluate it under every shift of the image.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _function in (
    train.demo,
    train.train,
    train.train_scenes,
    measure.evaluate,
    measure.sweep,
    measure.verify,
    look.findings,
    look.plot,
    compare.compare,
    check.check,
    measure.consistency,
    probe.probe,
    lens.inspect,
    lens.features,
    lens.foveation,
    lens.kernels,
    lens.neurons,
    tiling.tiles,
    repair.repair,
    export.export,
    report.report,
    study.study,
    live.explore,
    about.doctor,
):
    app.command(cls=Command)(command(_function))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"shiftlens {version('shiftlens')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def _own_matplotlib() -> None:
    """Matplotlib obeys a file `matplotlibrc` in the folder it is loaded in, whoever put it there: load it elsewhere."""
    if os.path.lexists("matplotlibrc"):
        with chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401 - what it does is wanted, not its name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0 success, 2 bad use or bad input (one line on stderr), 3 a crash,
        130 interrupted.
    """
    prepare_terminal()
    code = _outcome(argv)
    error = flush_streams()
    if error is not None and code == 0 and not isinstance(error, BrokenPipeError):
        return _unwritten(error)
    return code


def _outcome(argv: Sequence[str] | None) -> int:
    try:
        _own_matplotlib()
        code = app(args=argv, prog_name="shiftlens", standalone_mode=False)
    except ShiftlensError as error:
        error_line(str(error), getattr(error, "__notes__", ()))
        return error.exit_code
    except SystemExit as error:
        # So Rich and Typer end when the reader of our output has gone: with 1, which no command gives.
        return 0 if error.code == 1 else int(error.code or 0)
    except typer.TyperException as error:
        # Bad use, found by the parser: its message without the usage text around it.
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        error_line(f"{message} (see 'shiftlens --help')")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        error_line(_INTERRUPTED)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if _folder_is_gone():
            error_line("the folder that this was started in is gone; change to one that is there")
            return 2
        return _unwritten(error) if error.errno in _CANNOT_WRITE and error.filename is None else _crashed()
    except Exception:
        return _crashed()
    if code == 130:
        error_line(_INTERRUPTED)
    return int(code or 0)


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _unwritten(error: OSError) -> int:
    error_line(f"cannot write the result: {error.strerror or error}")
    return StoreError.exit_code


def _crashed() -> int:
    with suppress(OSError):  # standard error may be full, too
        traceback.print_exc()
    error_line("crashed: this is a defect of shiftlens; the lines above say where")
    return 3
