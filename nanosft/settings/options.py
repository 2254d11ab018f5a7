"""Command-line options made from a settings class, so that no option is written twice."""

import inspect
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.markup import escape

from nanosft.progress import configure_logging
from nanosft.settings.base import SettingsT, StageSettings, extra_of, load_settings, option_name


def command(
    app: typer.Typer, cls: type[SettingsT]
) -> Callable[[Callable[[SettingsT], None]], Callable[[SettingsT], None]]:
    """A decorator that adds a command whose options are the fields of `cls`.

    The decorated function takes the settings; its docstring is the help text.

    Args:
        app: What the command is added to.
        cls: Its `command` names the command; the last word does, in a group.
    """

    def decorate(function: Callable[[SettingsT], None]) -> Callable[[SettingsT], None]:
        def run(*, config: str | None = None, debug: bool = False, **options: Any) -> None:
            configure_logging(debug=debug)
            function(load_settings(cls, options, config=config))

        _register(app, cls, function, run, _parameters(cls))
        return function

    return decorate


def group_command(
    app: typer.Typer, cls: type[SettingsT]
) -> Callable[[Callable[[SettingsT], None]], Callable[[SettingsT], None]]:
    """As `command`, for a group that is a command itself: it runs where no command of the group is named."""

    def decorate(function: Callable[[SettingsT], None]) -> Callable[[SettingsT], None]:
        def run(context: typer.Context, *, config: str | None = None, debug: bool = False, **options: Any) -> None:
            if context.invoked_subcommand is None:
                configure_logging(debug=debug)
                function(load_settings(cls, options, config=config))

        signature = inspect.Signature([_CONTEXT, *_parameters(cls), _CONFIG, _DEBUG])
        run.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it
        app.callback(invoke_without_command=True, help=inspect.getdoc(function), epilog=_epilog(cls))(run)
        return function

    return decorate


def launcher(
    app: typer.Typer, cls: type[SettingsT]
) -> Callable[[Callable[[SettingsT, list[str]], int]], Callable[[SettingsT, list[str]], int]]:
    """As `command`, for one that starts another command line: what follows its own options, left as it is.

    The decorated function takes the settings and that command line, and returns the exit code. Options may be spelled
    with underscores too, as torchrun's are.
    """

    def decorate(function: Callable[[SettingsT, list[str]], int]) -> Callable[[SettingsT, list[str]], int]:
        def run(*, arguments: list[str], config: str | None = None, debug: bool = False, **options: Any) -> int:
            configure_logging(debug=debug)
            return function(load_settings(cls, options, config=config), arguments)

        context = {"allow_interspersed_args": False, "token_normalize_func": _with_hyphens}
        _register(app, cls, function, run, [_ARGUMENTS, *_parameters(cls)], context)
        return function

    return decorate


def _register(
    app: typer.Typer,
    cls: type[StageSettings],
    function: Callable[..., Any],
    run: Callable[..., Any],
    parameters: list[inspect.Parameter],
    context: dict[str, Any] | None = None,
) -> None:
    run.__signature__ = inspect.Signature([*parameters, _CONFIG, _DEBUG])  # type: ignore[attr-defined]  # typer reads it
    name = cls.command.split()[-1]
    app.command(name, help=inspect.getdoc(function), epilog=_epilog(cls), context_settings=context)(run)


def _with_hyphens(token: str) -> str:
    return token.replace("_", "-")


def _parameters(cls: type[StageSettings]) -> list[inspect.Parameter]:
    return [_parameter(name, field) for name, field in cls.model_fields.items() if not _is_secret(field)]


_ARGUMENTS = inspect.Parameter(
    "arguments",
    inspect.Parameter.KEYWORD_ONLY,
    annotation=Annotated[list[str], typer.Argument(metavar="train …", help="The command line of each rank.")],
)

_CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[str | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")],
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")],
)


def _epilog(cls: type[StageSettings]) -> str:
    name = next((name for name, field in cls.model_fields.items() if not extra_of(field).get("argument")), "out")
    option = option_name(name, cls.model_fields[name])
    return (
        f"Every option is also a setting: {option} is the variable NANOSFT_{name.upper()}, "
        f"or the key {name} in --config. The command line wins over the environment, that over the file."
    )


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    extra = extra_of(field)
    annotation = _without_none(field.annotation)
    option: Any
    if extra.get("argument"):
        option = typer.Argument(metavar=name.upper(), help=field.description, show_default=False)
    else:
        names = [option_name(name, field)]
        if annotation is bool:
            names = [f"{names[0]}/--no-{names[0].removeprefix('--')}"]
        if extra.get("short"):
            names.append(str(extra["short"]))
        option = typer.Option(*names, help=_help(field), metavar=extra.get("metavar"), show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation | None, option]
    )


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        return escape(f"{text} [required]")
    default = field.default if field.default is not PydanticUndefined else None
    if field.default_factory is not None or default in (None, "", ()):
        return escape(text)
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    return escape(f"{text} [default: {shown}]")


def _is_secret(field: FieldInfo) -> bool:
    return _without_none(field.annotation) is SecretStr


def _without_none(annotation: Any) -> Any:
    """`int | None` as `int`, `tuple[str, ...]` as `list[str]`, a type that typer does not know as `str`."""
    if get_origin(annotation) in (Union, UnionType):
        kinds = [item for item in get_args(annotation) if item is not type(None)]
        return _without_none(kinds[0]) if len(kinds) == 1 else str
    if get_origin(annotation) is tuple:
        return list[str]
    return annotation
