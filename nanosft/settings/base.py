"""What every command's settings share: their sources, their order, and errors that name the option.

A field `num_shards` is the option `--num-shards`, the variable `NANOSFT_NUM_SHARDS`, and the key `num_shards` of the
file given by `--config` (at its top level, or in a table with the command's name: `[mix]`, `[knowledge.check]`). The
command line wins over the environment, that over the file, that over the default. Constructing a class in Python reads
none of these.

A field's `json_schema_extra` may hold `argument` (True: positional on the command line), `flag` (another spelling:
`json_output` is `--json`, as pydantic has a `json` of its own), `short` (`"-p"`), `metavar`, `env` (a variable with a
name of its own, read when `NANOSFT_…` is not set), `content` (False: it decides where and how the work is done, not
what comes out), and `group` (the heading in the command's help under which it and the fields after it stand, up to the
next `group`). A `SecretStr` is never a command-line option.
A list is given as a repeated option, or with commas in a variable.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from nanosft.errors import ConfigError
from nanosft.foreign import parse_toml

ENV_PREFIX = "NANOSFT_"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PASSWORD_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://[^/\s@:]*:[^/\s@]*@")

_MAX_CONFIG_BYTES: Final = 1 << 24
_MAX_INTEGER: Final = (1 << 64) - 1
_MAX_REAL: Final = 1e9
"""Of seconds, rates and prices alike; single precision and the system's clocks hold ten times as much."""

Step = int | Literal["best", "last"]
"""Which checkpoint of a run: a number, the one with the lowest validation loss, or the newest."""


class StageSettings(BaseSettings):
    """Base of every command's settings: immutable, and without unknown fields."""

    # Validators are built when a command first needs them: one command has no use for those of the others.
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        defer_build=True,
    )
    command: ClassVar[str] = ""
    """The command's name, which is also its table in a `--config` file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what is passed and nothing else: `load_settings` alone looks at the environment and the file."""
        return (init_settings,)

    @field_validator("*")
    @classmethod
    def _check_urls(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a password in a URL, and what no JSON can hold: settings go into manifests, logs and messages."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and _PASSWORD_URL.match(text):
                raise ValueError("holds a password: a URL of a setting is kept and shown; give the key by its variable")
            if isinstance(text, str) and "\0" in text:
                raise ValueError("holds a NUL, which no name has")
            if isinstance(text, str) and info.field_name != "prompt" and _SURROGATE.search(text):
                written = Path(os.path.abspath(text)).as_uri()  # noqa: PTH100 - resolve() follows links
                raise ValueError(f"is no UTF-8, as all settings are; where it means a file, write {written}")
        return value

    @field_validator("base_url", check_fields=False)
    @classmethod
    def _check_address(cls, value: str) -> str:
        """Refuse what no client could take apart."""
        try:
            _ = urlsplit(value).port
        except ValueError as exc:
            raise ValueError(f"is no URL: {exc}") from exc
        return value

    @field_validator("*")
    @classmethod
    def _check_numbers(cls, value: Any) -> Any:
        """Refuse numbers that torch, JSON or a clock cannot hold."""
        if isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise ValueError("is out of bounds: whole numbers have 64 bits")
        if isinstance(value, float) and not abs(value) <= _MAX_REAL:
            raise ValueError(f"is out of bounds: at most {_MAX_REAL:g} is meant by nobody")
        return value

    def content(self) -> dict[str, Any]:
        """The settings that decide what comes out, as JSON values by name: runs with equal ones make equal sets."""
        return self.model_dump(mode="json", include=self.content_names())

    @classmethod
    def content_names(cls) -> set[str]:
        """The fields that decide what comes out: all that do not say otherwise (`content`)."""
        return {name for name, field in cls.model_fields.items() if extra_of(field).get("content", True)}


SettingsT = TypeVar("SettingsT", bound=StageSettings)


def load_settings(cls: type[SettingsT], options: Mapping[str, Any], *, config: str | None = None) -> SettingsT:
    """Settings from the command line, the environment and a file, in this order of precedence.

    Args:
        cls: The command's class.
        options: What the command line gave; None or an empty list stand for "not given".
        config: Path of a TOML file, or None.

    Raises:
        ConfigError: A value is missing, unknown or out of bounds; the message names the option.
    """
    given = {name: value for name, value in options.items() if value is not None and value not in ([], ())}
    merged = {**_from_file(cls, config), **_from_environment(cls), **given}
    try:
        return cls(**merged)
    except ValidationError as exc:
        raise ConfigError("; ".join(_problem(cls, error) for error in exc.errors())) from exc


def option_name(name: str, field: FieldInfo) -> str:
    """How the command line spells a field: `--num-shards`, or `URI` for a positional one."""
    extra = extra_of(field)
    return name.upper() if extra.get("argument") else str(extra.get("flag") or "--" + name.replace("_", "-"))


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """A field's `json_schema_extra`, empty where it has none."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def unknown_variables(classes: Iterable[type[StageSettings]], environ: Mapping[str, str]) -> list[str]:
    """One sentence for each `NANOSFT_…` variable that no command knows, with the nearest name that one does.

    A warning and no error: Kubernetes puts variables of its own into pods beside a Service named `nanosft-…`.
    """
    known = {ENV_PREFIX + name.upper() for cls in classes for name in cls.model_fields}
    problems = []
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            problems.append(f"{name} is no setting of nanosft" + (f"; did you mean {near[0]}?" if near else ""))
    return problems


class _Environment(EnvSettingsSource):
    """The environment, where a list may also be written with commas."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
            return [item.strip() for item in value.split(",")]
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as exc:
            variable = ENV_PREFIX + field_name.upper()
            raise ConfigError(f"{variable}: not JSON: {exc}; a list may also be written with commas") from exc


def _from_environment(cls: type[StageSettings]) -> dict[str, Any]:
    values = _Environment(cls)()
    for name, field in cls.model_fields.items():
        own_name = extra_of(field).get("env")
        if isinstance(own_name, str) and name not in values and os.environ.get(own_name):
            values[name] = os.environ[own_name]
    return values


def _from_file(cls: type[StageSettings], config: str | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        with Path(config).open("rb") as file:
            data = file.read(_MAX_CONFIG_BYTES)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"--config {config}: cannot be read: {reason}") from exc
    table = parse_toml(data, where=f"--config {config}")
    top_level = {key: value for key, value in table.items() if not isinstance(value, dict)}
    commands = {other.command.split()[0] for other in StageSettings.__subclasses__() if other.command}
    for name in table.keys() - top_level.keys() - commands:
        if near := difflib.get_close_matches(name, commands, n=1):
            raise ConfigError(f"--config {config}: [{name}] is no command; did you mean [{near[0]}]?")
    own_table: Any = table
    for word in cls.command.split():
        own_table = own_table.get(word, {}) if isinstance(own_table, dict) else {}
    if not isinstance(own_table, dict):
        raise ConfigError(f"--config {config}: {cls.command!r} must be a table: write [{cls.command}]")
    values = {**top_level, **own_table}
    for key in values:
        if key not in cls.model_fields:
            near = difflib.get_close_matches(key, cls.model_fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"--config {config}: {key!r} is no setting of `nanosft {cls.command}`{hint}")
    return values


def _problem(cls: type[StageSettings], error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    field = cls.model_fields.get(name)
    option = option_name(name, field) if field else name
    if error["type"] == "missing":
        return f"{option} is missing: give it, or set {ENV_PREFIX}{name.upper()}"
    message = str(error["msg"])
    return f"{option}: {message.removeprefix('Value error, ')}"
