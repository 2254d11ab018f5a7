"""Command-line options made from a settings class, so that no option is written twice."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from nanosft.help import PANELS, Page, render
from nanosft.settings.base import ENV_PREFIX, SettingsT, StageSettings, extra_of, load_settings, option_name

OPTIONS: Final = "Options"
"""The heading of options whose settings name none."""
COMMON: Final = "Every command has"


class HelpCommand(TyperCommand):
    """A command whose help `nanosft.help` lays out."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # its base's are private
        """Write the page."""
        formatter.write(render(_name_of(ctx), make_page(self, ctx), bold=True))


class HelpGroup(TyperGroup):
    """The same for a command that has commands."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # its base's are private
        """Write the page."""
        formatter.write(render(_name_of(ctx), make_page(self, ctx), bold=True))


def make_page(command: HelpCommand | HelpGroup, ctx: typer.Context) -> Page:
    """What the help of a command says."""
    commands = []
    if isinstance(command, HelpGroup):
        for name in command.list_commands(ctx):
            item = command.commands[name]
            commands.append((getattr(item, "rich_help_panel", None) or "Commands", name, _summary(item.help or "")))
        commands.sort(key=lambda row: PANELS.index(row[0]) if row[0] in PANELS else len(PANELS))
    options = [_describe_parameter(param) for param in command.get_params(ctx)]
    return {
        "usage": " ".join(command.collect_usage_pieces(ctx)),
        "text": command.help or "",
        "sections": [rows for rows in (commands, options) if rows],
        "epilog": command.epilog or "",
    }


def _name_of(ctx: typer.Context) -> str:
    return " ".join(ctx.command_path.split()[1:])


def _summary(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split())


def _describe_parameter(param: Any) -> tuple[str, str, str]:
    """Heading, spelling and description of an option or an argument."""
    heading = param.rich_help_panel or (COMMON if param.name == "help" else OPTIONS)
    if param.param_type_name == "argument":
        return heading, str(param.metavar), param.help or ""
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        names += f" / {', '.join(param.secondary_opts)}"
    return heading, names if param.is_flag else f"{names} {param.metavar}", param.help or ""


def command(
    app: typer.Typer, cls: type[SettingsT], *, panel: str | None
) -> Callable[[Callable[[SettingsT], int | None]], Callable[[SettingsT], int | None]]:
    """A decorator that adds a command whose options are the fields of `cls`.

    The decorated function takes the settings; its docstring is the help text, what it returns the exit code.

    Args:
        app: What the command is added to.
        cls: Its `command` names the command; the last word does, in a group.
        panel: The heading in the help of `app` under which the command stands, of `PANELS`; None in a group.
    """

    def decorate(function: Callable[[SettingsT], int | None]) -> Callable[[SettingsT], int | None]:
        def run(*, config: str | None = None, debug: bool = False, **options: Any) -> int | None:
            _begin(debug)
            return function(load_settings(cls, options, config=config))

        _register(app, cls, function, run, _parameters(cls), panel=panel)
        return function

    return decorate


def group_command(
    app: typer.Typer, cls: type[SettingsT]
) -> Callable[[Callable[[SettingsT], None]], Callable[[SettingsT], None]]:
    """As `command`, for a group that is a command itself: it runs where no command of the group is named."""

    def decorate(function: Callable[[SettingsT], None]) -> Callable[[SettingsT], None]:
        def run(context: typer.Context, *, config: str | None = None, debug: bool = False, **options: Any) -> None:
            if context.invoked_subcommand is None:
                _begin(debug)
                function(load_settings(cls, options, config=config))

        signature = inspect.Signature([_CONTEXT, *_parameters(cls), _CONFIG, _DEBUG])
        run.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        app.callback(invoke_without_command=True, help=inspect.getdoc(function), epilog=_epilog(cls))(run)
        return function

    return decorate


def launcher(
    app: typer.Typer, cls: type[SettingsT], *, panel: str
) -> Callable[[Callable[[SettingsT, list[str]], int]], Callable[[SettingsT, list[str]], int]]:
    """As `command`, for one that starts another command line: what follows its own options, left as it is.

    The decorated function takes the settings and that command line, and returns the exit code. Options may be spelled
    with underscores too, as torchrun's are.
    """

    def decorate(function: Callable[[SettingsT, list[str]], int]) -> Callable[[SettingsT, list[str]], int]:
        def run(*, arguments: list[str], config: str | None = None, debug: bool = False, **options: Any) -> int:
            _begin(debug)
            return function(load_settings(cls, options, config=config), arguments)

        context = {"allow_interspersed_args": False, "token_normalize_func": _with_hyphens}
        _register(app, cls, function, run, [_ARGUMENTS, *_parameters(cls)], panel=panel, context=context)
        return function

    return decorate


def _register(
    app: typer.Typer,
    cls: type[StageSettings],
    function: Callable[..., Any],
    run: Callable[..., Any],
    parameters: list[inspect.Parameter],
    *,
    panel: str | None,
    context: dict[str, Any] | None = None,
) -> None:
    run.__signature__ = inspect.Signature([*parameters, _CONFIG, _DEBUG])  # type: ignore[attr-defined]  # typer reads it
    name = cls.command.split()[-1]
    app.command(
        name,
        cls=HelpCommand,
        help=inspect.getdoc(function),
        epilog=_epilog(cls),
        context_settings=context,
        rich_help_panel=panel,
    )(run)


def _begin(debug: bool) -> None:  # noqa: FBT001 - the option's value
    from nanosft.progress import configure_logging  # noqa: PLC0415 - rich takes 0.1 s that the help need not pay

    configure_logging(debug=debug)


def _with_hyphens(token: str) -> str:
    return token.replace("_", "-")


def _parameters(cls: type[StageSettings]) -> list[inspect.Parameter]:
    return [
        _parameter(name, field, group)
        for name, field, group in grouped_fields(cls)
        if kind_of(field.annotation) != "secret"
    ]


def grouped_fields(cls: type[StageSettings]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Name, field and heading of each setting."""
    group = OPTIONS
    for name, field in cls.model_fields.items():
        group = str(extra_of(field).get("group", group))
        yield name, field, group


def kind_of(annotation: Any) -> str:
    """What an option takes: its choices, `N`, `X` (a real number), `TEXT`; or that it is a `switch` or a `secret`."""
    if get_origin(annotation) in (Union, UnionType):
        return "|".join(kind_of(item) for item in get_args(annotation) if item is not type(None))
    if get_origin(annotation) is tuple:
        return f"{kind_of(get_args(annotation)[0])} …"
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    return {bool: "switch", int: "N", float: "X", SecretStr: "secret"}.get(annotation, "TEXT")


_ARGUMENTS = inspect.Parameter(
    "arguments",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[list[str], typer.Argument(metavar="train …", help="The command line of each rank.")],
)

_common = partial(typer.Option, rich_help_panel=COMMON)
_CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        _common("--config", metavar="FILE", help="Read settings from a TOML file."),
    ],
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, _common("--debug", help="Show tracebacks and debug messages.")],
)


def _epilog(cls: type[StageSettings]) -> str:
    name = next((name for name, field in cls.model_fields.items() if not extra_of(field).get("argument")), "out")
    option = option_name(name, cls.model_fields[name])
    secrets = [
        f"{extra_of(field).get('env', ENV_PREFIX + key.upper())} is a variable and no option: {field.description} "
        for key, field in cls.model_fields.items()
        if kind_of(field.annotation) == "secret"
    ]
    return "".join(secrets) + (
        f"Every option is also a setting: {option} is the variable NANOSFT_{name.upper()}, "
        f"or the key {name} in --config. The command line wins over the environment, that over the file."
    )


def _parameter(name: str, field: FieldInfo, group: str) -> inspect.Parameter:
    extra = extra_of(field)
    annotation = _without_none(field.annotation)
    panel = group if group != OPTIONS else None
    option: Any
    if extra.get("argument"):
        option = typer.Argument(metavar=name.upper(), help=_help(field), show_default=False, rich_help_panel=panel)
    else:
        names = [option_name(name, field)]
        if annotation is bool and field.default is not False:
            names = [f"{names[0]}/--no-{names[0].removeprefix('--')}"]
        if extra.get("short"):
            names.append(str(extra["short"]))
        metavar = extra.get("metavar") or kind_of(field.annotation).removesuffix(" …")
        option = typer.Option(*names, help=_help(field), metavar=metavar, show_default=False, rich_help_panel=panel)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation | None, option]
    )


def _help(field: FieldInfo) -> str:
    """A field's description with its default, as a person reads it."""
    text = field.description or ""
    if field.is_required():
        return f"{text} Required."
    if field.default in (None, "", ()) or field.default is False or "(default: " in text:
        return text
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    shown = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{text.removesuffix('.')} (default: {'on' if field.default is True else shown})."


def _without_none(annotation: Any) -> Any:
    """`int | None` as `int`, `tuple[str, ...]` as `list[str]`, a type that typer does not know as `str`."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [item for item in get_args(annotation) if item is not type(None)]
        return _without_none(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is tuple:
        return list[str]
    return annotation
