"""Settings of `nanosft submit`."""

from typing import ClassVar, Literal

from pydantic import Field

from nanosft.settings.base import StageSettings

Stage = Literal["generate", "mix", "sft"]


class SubmitSettings(StageSettings):
    """What `nanosft submit` is told."""

    command: ClassVar[str] = "submit"

    run: str = Field(
        description="TOML file that describes the run; k8s/README.md shows one.",
        json_schema_extra={"argument": True},
    )
    apply: bool = Field(default=False, description="Apply the manifests with kubectl instead of printing them.")
    stages: tuple[Stage, ...] = Field(
        default=("generate", "mix", "sft"),
        min_length=1,
        description="Stage to submit: generate, mix or sft; may be repeated (default: all three).",
        json_schema_extra={"flag": "--stage"},
    )
    manifests: str | None = Field(
        default=None, description="Directory with base/ and overlays/ (default: those that came with nanosft)."
    )
