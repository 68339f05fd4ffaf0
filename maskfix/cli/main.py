"""The ``maskfix`` command: registers the subcommands, and turns known errors into one line.

Heavy packages are imported inside the commands, so that help and completion are quick.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from maskfix.cli.bench import bench_command
from maskfix.cli.data import app as data_app
from maskfix.cli.docs import docs_command
from maskfix.cli.eval import compare_command, evaluate_command
from maskfix.cli.export import export_command
from maskfix.cli.merge import merge_command
from maskfix.cli.refine import refine_command
from maskfix.cli.sheet import sheet_command
from maskfix.cli.show import show_command
from maskfix.cli.train import train_command
from maskfix.cli.triage import triage_command
from maskfix.cli.weights import app as weights_app
from maskfix.errors import MaskfixError
from maskfix.runtime import wait_passively

app = typer.Typer(
    name="maskfix",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("refine")(refine_command)
app.command("merge")(merge_command)
app.command("show")(show_command)
app.command("triage")(triage_command)
app.command("sheet")(sheet_command)
app.command("export")(export_command)
app.command("eval")(evaluate_command)
app.command("compare")(compare_command)
app.command("train")(train_command)
app.command("bench")(bench_command)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")
app.command("docs")(docs_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from maskfix.version import __version__

        typer.echo(f"maskfix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Repair instance masks in batch with a few clicks.

    Exit status: 0 all good, 1 some instances failed, 2 unusable input or flags.

    Documentation: maskfix docs
    """


def main() -> None:
    """Run the command line; the process ends with the documented exit status."""
    try:
        _run()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _run() -> None:
    wait_passively()
    try:
        status = app(standalone_mode=False)
    except MaskfixError as error:
        _fail(" ".join(str(error).split()), error.exit_code)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted; go on with --resume where the command has it", 130)
    except typer.TyperException as error:  # unknown or malformed flags
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context else ""
        message = getattr(error, "format_message", error.__str__)()
        if message.startswith("Usage:"):  # a command that wants a subcommand shows its help
            print(message)
            sys.exit(2)
        _fail(" ".join(message.split()) + hint, 2)
    except BrokenPipeError:
        raise
    except OSError as error:  # a file that is missing or may not be read, a full disk
        if error.filename is None and error.errno is None:
            raise
        _fail(f"{error.filename or 'input or output'}: {error.strerror}", 2)
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> None:
    print(f"maskfix: error: {message}", file=sys.stderr)
    sys.exit(status)
