"""Settings of `nanosft wait`."""

from typing import ClassVar

from pydantic import Field

from nanosft.settings.base import StageSettings


class WaitSettings(StageSettings):
    """What `nanosft wait` is told."""

    command: ClassVar[str] = "wait"

    uri: str = Field(
        description="Prefix whose manifest.json is waited for, or one .jsonl, .jsonl.gz or .jsonl.zst object.",
        json_schema_extra={"argument": True},
    )
    timeout_s: float = Field(
        default=3600.0,
        ge=0,
        description="Seconds to wait; then exit code 75. 0 looks once.",
        json_schema_extra={"flag": "--timeout"},
    )
    interval_s: float = Field(
        default=10.0, gt=0, description="Seconds between two looks.", json_schema_extra={"flag": "--interval"}
    )
