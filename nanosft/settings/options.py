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
    app: typer.Typer, cls: type[SettingsT], *, takes_command: bool = False
) -> Callable[[Callable[[SettingsT], int | None]], Callable[..., int | None]]:
    """A decorator that adds a command whose options are the fields of `cls`.

    The decorated function takes the settings; its docstring is the help text; an exit code it returns is the process's.

    Args:
        app: What the command is added to.
        cls: Its `command` names the command; the last word does, in a group.
        takes_command: The first positional word begins another command line, whose options are left to it.
    """

    def decorate(function: Callable[[SettingsT], int | None]) -> Callable[..., int | None]:
        def run(*, config: str | None = None, debug: bool = False, **options: Any) -> int | None:
            configure_logging(debug=debug)
            return function(load_settings(cls, options, config=config))

        parameters = [_parameter(name, field) for name, field in cls.model_fields.items() if not _is_secret(field)]
        run.__signature__ = inspect.Signature([*parameters, _CONFIG, _DEBUG])  # type: ignore[attr-defined]  # typer reads it
        run.__doc__ = function.__doc__
        context = {"allow_interspersed_args": False, "ignore_unknown_options": True} if takes_command else None
        name = cls.command.split()[-1]
        app.command(name, help=inspect.getdoc(function), epilog=_epilog(cls), context_settings=context)(run)
        return run

    return decorate


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
