"""What a container of a manifest runs: its `nanosft` command lines, and the settings they get from its variables."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from nanosft.cli import app
from nanosft.settings import StageSettings
from tests.cluster.manifests import Manifest
from tests.cluster.pod import ENTRYPOINT, TINI

_IN_SCRIPT = re.compile(r"^\s*(?:exec )?(nanosft [^|\n]+)", re.MULTILINE)
CLI: Any = typer.main.get_command(app)


@dataclass(frozen=True)
class Call:
    """One `nanosft` command line.

    Attributes:
        cls: The command's settings class.
        options: What the line itself gives, by field name.
    """

    cls: type[StageSettings]
    options: dict[str, Any]


def command_lines(container: Manifest) -> list[list[str]]:
    """The arguments of each `nanosft` that a container starts, without the name itself."""
    command = [*container.get("command", ENTRYPOINT), *container.get("args", [])]
    assert command[: len(TINI)] == TINI, "tini is process 1, so that SIGTERM arrives"
    rest = command[len(TINI) :]
    if rest[0] == "nanosft":
        return [rest[1:]]
    assert rest[:2] == ["sh", "-c"]
    assert len(rest) == 3
    return [shlex.split(line)[1:] for line in _IN_SCRIPT.findall(rest[2])]


def parse(line: list[str]) -> Iterator[Call]:
    """Parse a command line as the CLI does, which refuses what it does not know; `launch` yields its own one too."""
    name, *arguments = line
    command = CLI.commands[name]
    context = command.make_context(name, list(arguments))
    given = {key: value for key, value in context.params.items() if key not in ("config", "debug")}
    ranks_command = given.pop("arguments", None)
    yield Call(settings_class(name), given)
    if ranks_command is not None:
        yield from parse(ranks_command)


def settings_class(command: str) -> type[StageSettings]:
    """The settings class of a command."""
    (cls,) = [cls for cls in StageSettings.__subclasses__() if cls.command == command]
    return cls


def variables(container: Manifest, config_maps: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """A container's variables from ConfigMaps and literal values; those from Secrets are left out."""
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values.update(config_maps[source["configMapRef"]["name"]])
    values.update({item["name"]: item["value"] for item in container.get("env", []) if "value" in item})
    return values
