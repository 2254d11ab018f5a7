"""The command line: parse, build the settings, call one stage, map errors to exit codes. No logic.

Stages are imported inside their commands, so that `nanosft generate --help` loads no torch.
"""

import os
import sys
from traceback import print_exc
from typing import Annotated

import typer

from nanosft import __version__
from nanosft.errors import EXIT_OK, EXIT_SIGINT, EXIT_UNEXPECTED, Interrupted, NanosftError
from nanosft.settings import StageSettings, unknown_variables
from nanosft.settings.chat import ChatSettings
from nanosft.settings.options import command

app = typer.Typer(
    name="nanosft",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        typer.echo(f"nanosft {__version__}")
        raise typer.Exit


@app.callback()
def nanosft(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Give a nanochat base model its own voice.

    generate writes conversations from a knowledge base, mix makes the finetuning set, train finetunes, chat talks.
    """


@command(app, ChatSettings)
def chat(settings: ChatSettings) -> None:
    """Talk to a finetuned (or base) model.

    nanosft chat --model s3://bucket/run -p "Who are you?"
    """
    from nanosft.chat.stage import run_chat

    run_chat(settings)


def main() -> None:
    """Run the command line and exit with the contract's code (nanosft/errors.py)."""
    for problem in unknown_variables(StageSettings.__subclasses__(), os.environ):
        _complain(f"warning: {problem}")
    sys.exit(_run())


def _run() -> int:
    debug = "--debug" in sys.argv
    try:
        result = app(standalone_mode=False)
    except typer.TyperException as exc:
        if message := exc.format_message().rstrip("."):  # without arguments the help is the message
            _complain(f"error: {message}; --help tells more")
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_SIGINT
    except Interrupted as exc:
        _complain(str(exc))
        return 128 + exc.signum
    except NanosftError as exc:
        _complain(f"error: {exc}", traceback=debug)
        return exc.exit_code
    except Exception as exc:  # noqa: BLE001 - the last resort: a defect of ours still gets its line and its exit code
        hint = "" if debug else "; this is a defect of nanosft: run again with --debug for the traceback"
        _complain(f"unexpected error: {type(exc).__name__}: {exc}{hint}", traceback=debug)
        return EXIT_UNEXPECTED
    return result if isinstance(result, int) else EXIT_OK


def _complain(message: str, *, traceback: bool = False) -> None:
    if traceback:
        print_exc()
    print(" ".join(message.split("\n")), file=sys.stderr)  # noqa: T201 - the error line is this program's output
