"""Settings of `nanosft describe`."""

from typing import ClassVar

from pydantic import Field

from nanosft.settings.base import StageSettings


class DescribeSettings(StageSettings):
    """What `nanosft describe` is told."""

    command: ClassVar[str] = "describe"

    uri: str = Field(
        description="Prefix of a data set or a run (what was given as --out), or of one training state.",
        json_schema_extra={"argument": True},
    )
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})
