"""The command line: parse, build the settings, call one stage, map errors to exit codes. No logic.

Stages are imported inside their commands, so that `nanosft generate --help` loads no torch.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from nanosft.errors import EXIT_OK, EXIT_SIGINT, EXIT_UNEXPECTED, ConfigError, Interrupted, NanosftError, StoreError
from nanosft.settings import StageSettings, unknown_variables
from nanosft.settings.audit import AuditSettings, InspectSettings
from nanosft.settings.chat import ChatSettings
from nanosft.settings.doctor import DoctorSettings
from nanosft.settings.evaluate import EvalCompareSettings, EvalSettings
from nanosft.settings.export import ExportSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.knowledge import KnowledgeCheckSettings, KnowledgeDraftSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.offers import ModelsSettings
from nanosft.settings.options import HelpGroup, command, group_command, launcher
from nanosft.settings.report import ReportSettings
from nanosft.settings.run import DemoSettings, DescribeSettings, SubmitSettings, WaitSettings
from nanosft.settings.serve import ServeSettings
from nanosft.settings.train import LaunchSettings, TrainSettings
from nanosft.signals import say_last
from nanosft.streams import complain, make_streams_usable
from nanosft.waiting import set_library_defaults

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

app = typer.Typer(
    name="nanosft",
    no_args_is_help=True,
    cls=HelpGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
knowledge = typer.Typer(name="knowledge", no_args_is_help=True, cls=HelpGroup)
app.add_typer(
    knowledge,
    help="Check a knowledge base, or have one drafted.\n\nnanosft knowledge check knowledge/mine.md",
    rich_help_panel="Make",
)
evaluation = typer.Typer(name="eval", cls=HelpGroup)
app.add_typer(evaluation, rich_help_panel="Measure")


def _print_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
    if value:
        from nanosft import __version__

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

    knowledge, generate, mix and train make the model; chat and serve let it talk. Where to begin:

    nanosft demo
    """


@command(app, GenerateSettings, panel="Make")
def generate(settings: GenerateSettings) -> None:
    """Write synthetic conversations from a knowledge base.

    nanosft generate --out s3://bucket/identity --num 1000 --budget-usd 5

    Needs OPENROUTER_API_KEY, or --provider offline (composed from the knowledge base's facts, without any model) or
    --provider local (a small packaged model). A rerun makes only what is missing; nothing is paid for twice.
    """
    from nanosft.generate.stage import run_generate

    _check_page(settings.html)
    summary = run_generate(settings)
    if settings.html and summary.preview is not None:
        from nanosft.report.stage import write_preview_page

        write_preview_page(settings.html, settings.out, summary.preview)


@command(app, ModelsSettings, panel="Make")
def models(settings: ModelsSettings) -> None:
    """List models that can write the conversations of a plan, and what a thousand of them cost on each.

    nanosft models flash --limit 10

    Listed are those that obey a schema, have room for the plan's prompt and answer, and do not end within 30 days,
    cheapest first, with the price list of the moment.
    """
    from nanosft.generate.models import run_models

    run_models(settings)


@command(app, MixSettings, panel="Make")
def mix(settings: MixSettings) -> None:
    """Make the finetuning set that a recipe states: exact shares, no duplicates, no leaks.

    nanosft mix --recipe recipe.toml --out s3://bucket/mixture
    """
    from nanosft.parallel import prepare

    prepare(settings.workers, "nanosft.mix.reading.rows")  # it imports while this process does

    from nanosft.mix.stage import run_mix

    run_mix(settings)


@command(app, TrainSettings, panel="Make")
def train(settings: TrainSettings) -> None:
    r"""Finetune a nanochat base model on conversations.

    nanosft train --base s3://bucket/base --data s3://bucket/mixture \
        --out s3://bucket/run

    One process; several under `nanosft launch … train …` or torchrun. A rerun of the same command goes on from the
    newest saved state.
    """
    from nanosft.train.stage import run_train

    ask = None
    if settings.eval_probes:
        from nanosft.evaluate.in_training import ProbeAsker

        ask = ProbeAsker(settings)
    summary = run_train(settings, ask)
    if settings.report and not summary.was_finished:
        from nanosft.report.stage import write_beside

        write_beside(settings.out, made=settings.out)
    if settings.evaluate and not settings.preflight:
        from nanosft.evaluate.in_training import evaluate_run

        evaluate_run(settings)


@launcher(app, LaunchSettings, panel="Run")
def launch(settings: LaunchSettings, arguments: list[str]) -> int:
    r"""Run `nanosft train …` or `nanosft eval …` as several ranks, with exit codes that a cluster can act on.

    nanosft launch --standalone --nproc-per-node 8 \
        train --base … --data … --out …

    torchrun's own agent in this process: the same options and PET_ variables. Exits with the code of the rank that
    failed first, 143 after SIGTERM, and 138 for whatever another try may mend.
    """
    from nanosft.train.launch import run_launch

    return run_launch(settings, arguments)


@command(app, ChatSettings, panel="Use")
def chat(settings: ChatSettings) -> None:
    """Talk to a finetuned (or base) model.

    nanosft chat --model s3://bucket/run -p "Who are you?"
    """
    from nanosft.chat.stage import run_chat

    run_chat(settings)


@command(app, ServeSettings, panel="Use")
def serve(settings: ServeSettings) -> None:
    """Serve models: a page to talk on, and OpenAI's API. Needs the extra `serve`.

    nanosft serve --model s3://bucket/run --model base=s3://bucket/base
    """
    try:
        from nanosft.serve.stage import run_serve
    except ModuleNotFoundError as exc:
        raise ConfigError(f"{exc.name} is not installed: pip install 'nanosft[serve]'") from exc

    run_serve(settings)


@command(app, ExportSettings, panel="Use")
def export(settings: ExportSettings) -> None:
    """Hand a model or a data set on, to Hugging Face's libraries or to nanochat's tools.

    nanosft export --model s3://bucket/run --out s3://bucket/run-hf

    What was written is loaded anew and compared before it counts: tensors, ids, logits, answers. Needs the extra
    `export`.
    """
    try:
        from nanosft.export.stage import run_export

        run_export(settings)
    except ModuleNotFoundError as exc:
        raise ConfigError(f"{exc.name} is not installed: pip install 'nanosft[export]'") from exc


@group_command(evaluation, EvalSettings)
def evaluate(settings: EvalSettings) -> None:
    """Evaluate a model: who it says it is, how it carries itself, what it has forgotten.

    nanosft eval --model s3://bucket/run --out s3://bucket/run-evaluation

    Probes are made from the knowledge base's facts; those that stand in the training data are left out. `nanosft eval
    compare A B` shows evaluations side by side.
    """
    from nanosft.evaluate.stage import run_eval
    from nanosft.judging import make_judge

    try:
        run_eval(settings, make_judge(settings))
    finally:  # a requirement that is not met is what one looks for
        if settings.report and settings.out and os.environ.get("RANK", "0") == "0":
            from nanosft.report.stage import write_beside

            write_beside(settings.model, made=settings.out)


@command(evaluation, EvalCompareSettings, panel=None)
def compare(settings: EvalCompareSettings) -> None:
    """Show evaluations side by side, with differences to the first and their intervals.

    nanosft eval compare s3://bucket/one s3://bucket/other
    """
    from nanosft.evaluate.stage import run_compare

    run_compare(settings)


@command(app, AuditSettings, panel="Measure")
def audit(settings: AuditSettings) -> None:
    """Look for defects in any set of conversations.

    nanosft audit s3://bucket/identity --out s3://bucket/audited
    """
    from nanosft.audit.stage import check_refused_share, run_audit

    _check_page(settings.html)
    if settings.judge_model is None:
        found = run_audit(settings)
    else:
        from nanosft.judging import make_scorer

        with make_scorer(settings) as ask_scores:
            found = run_audit(settings, ask_scores)
    if settings.html:
        from nanosft.report.stage import write_audit_page

        rows_format = "auto" if settings.out else settings.format
        write_audit_page(settings.html, settings.out or settings.uri, found.to_json(), format=rows_format)
    check_refused_share(settings, found)


@command(app, InspectSettings, panel="Measure")
def inspect(settings: InspectSettings) -> None:
    """Show what a set of conversations is like: counts, lengths, openings, duplicates, samples.

    nanosft inspect s3://bucket/mixture
    """
    from nanosft.audit.inspection import run_inspect

    _check_page(settings.html)
    run_inspect(settings)
    if settings.html:
        from nanosft.report.stage import write_set_page

        write_set_page(settings.html, settings.uri, format=settings.format)


@command(app, DescribeSettings, panel="Measure")
def describe(settings: DescribeSettings) -> None:
    """Tell what a finished set or model is, and all that it was made from.

    nanosft describe s3://bucket/run
    """
    from nanosft.describe import run_describe

    run_describe(settings)


@command(app, ReportSettings, panel="Measure")
def report(settings: ReportSettings) -> None:
    """Write one self-contained HTML page of a run, a data set, an audit or an evaluation; it asks nothing of a network.

    nanosft report s3://bucket/run

    `nanosft report compare A B …` lays runs over each other. With --watch the page is written anew while a run goes on.
    """
    from nanosft.report.stage import run_report

    run_report(settings)


@command(knowledge, KnowledgeCheckSettings, panel=None)
def check(settings: KnowledgeCheckSettings) -> None:
    """Report a knowledge base's structure, contradictions, empty topics and size.

    nanosft knowledge check knowledge/self_knowledge.md
    """
    from nanosft.generate.authoring import run_knowledge_check

    run_knowledge_check(settings)


@command(knowledge, KnowledgeDraftSettings, panel=None)
def draft(settings: KnowledgeDraftSettings) -> None:
    """Have the chat API draft a knowledge base in our structure, for a person to edit.

    nanosft knowledge draft --from README.md --out knowledge/mine.md
    """
    from nanosft.generate.authoring import run_knowledge_draft

    run_knowledge_draft(settings)


@command(app, DoctorSettings, panel="Run")
def doctor(settings: DoctorSettings) -> int:
    """Look at what a run stands on: packages, devices, memory, disk, ranks, store, chat API.

    nanosft doctor --out s3://bucket/run

    Each line is ok, a warning, or an error with what mends it; the exit code is that of the command which would fail.
    """
    from nanosft.doctor.stage import run_doctor

    return run_doctor(settings)


@command(app, WaitSettings, panel="Run")
def wait(settings: WaitSettings) -> None:
    """Wait until a set is finished: what a stage's init container does.

    nanosft wait s3://bucket/identity --timeout 3600
    """
    from nanosft.wait import run_wait

    run_wait(settings)


@command(app, SubmitSettings, panel="Run")
def submit(settings: SubmitSettings) -> None:
    """Print, or apply, the Kubernetes manifests of a run that one TOML file describes.

    nanosft submit run.toml
    """
    from nanosft.submit import run_submit

    run_submit(settings)


@command(app, DemoSettings, panel="Run")
def demo(settings: DemoSettings) -> None:
    """Walk the whole road on a tiny base made on the spot: no key, no server, no GPU.

    nanosft demo
    """
    from nanosft.demo import run_demo

    run_demo(settings)


def _check_page(out: str | None) -> None:
    if out is not None:
        from nanosft.report.stage import check_place

        check_place(out)


def main() -> None:
    """Run the command line and exit with the contract's code (nanosft/errors.py)."""
    set_library_defaults(os.environ)
    make_streams_usable()
    # To look for plugins, pydantic reads the entry points of all that is installed, before its first validator.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for problem in unknown_variables(StageSettings.__subclasses__(), os.environ):
        complain(f"warning: {problem}")
    sys.exit(_run_in_job() if "JOB_MARKS_FAILURE" in os.environ else _run(complain))


def _run_in_job() -> int:
    """`_run`, where those that wait for this stage shall learn that it has ended for good."""
    from nanosft.data.failure import JobProcess

    lines: list[str] = []

    def complain_and_keep(message: str, *, traceback: bool = False) -> None:
        lines.append(complain(message, traceback=traceback))

    process = JobProcess.find(sys.argv[1:], os.environ)
    if process is None:
        return _run(complain)
    process.clear()
    code = _run(complain_and_keep)
    process.mark(code, lines[-1] if lines else "")
    return code


def _run(complain: Callable[..., object]) -> int:
    debug = "--debug" in sys.argv
    try:
        result = app(standalone_mode=False, prog_name="nanosft")
        sys.stdout.flush()  # here a full disk is an error with a message
    except typer.TyperException as exc:
        if message := exc.format_message().rstrip("."):  # without arguments the help is the message
            complain(f"error: {message}; --help tells more")
        return exc.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_SIGINT
    except Interrupted as exc:
        line = str(exc)
        say_last(lambda: complain(line))
        return 128 + exc.signum
    except NanosftError as exc:
        complain(f"error: {exc}", traceback=debug)
        return exc.exit_code
    except Exception as exc:  # noqa: BLE001 - the last resort: a defect of ours still gets its line and its exit code
        return _tell_unexpected(exc, complain, debug=debug)
    return result if isinstance(result, int) else EXIT_OK


def _tell_unexpected(exc: Exception, complain: Callable[..., object], *, debug: bool) -> int:
    """The line and the exit code of what no stage has foreseen: a full disk, wherever it was met, or a defect."""
    if isinstance(exc, OSError) and exc.errno in _FULL:
        where = exc.filename or "a disk, or what the output goes to"
        complain(f"error: {where}: {exc.strerror}: free some space and run the same command again", traceback=debug)
        return StoreError.exit_code
    hint = "" if debug else "; this is a defect of nanosft: run again with --debug for the traceback"
    complain(f"unexpected error: {type(exc).__name__}: {exc}{hint}", traceback=debug)
    return EXIT_UNEXPECTED
