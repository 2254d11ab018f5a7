"""Settings of `nanosft report`, and of the page that other commands write."""

from typing import ClassVar, Final

from pydantic import Field, model_validator

from nanosft.conversation import Format
from nanosft.settings.base import StageSettings

COMPARE: Final = "compare"
"""The first word in place of a URI, where runs are laid over each other."""


class ReportSettings(StageSettings):
    """What `nanosft report` is told."""

    command: ClassVar[str] = "report"

    uris: tuple[str, ...] = Field(
        min_length=1,
        description="A run, a data set, an audit or an evaluation; or compare and two or more runs.",
        json_schema_extra={"argument": True},
    )
    out: str | None = Field(
        default=None, description="The page's file or object (default: NAME-report.html in the working directory)."
    )
    format: Format = Field(
        default="auto", description="Format of the rows of a data set (default: told by their keys)."
    )
    max_data_mib: float = Field(
        default=12.0,
        ge=0,
        le=256,
        description="Compressed conversations in the page, in MiB: of more, a sample by the seed. 0: none.",
    )
    max_tokens: int = Field(
        default=1_000_000,
        ge=0,
        description="Tokens that are coloured by their loss mask; conversations beyond show words.",
    )
    tokenizer: str | None = Field(
        default=None, description="URI of the base whose tokens are shown (default: the base of the run)."
    )
    max_seq_len: int | None = Field(
        default=None, ge=1, description="Tokens of a packed row (default: as in the run, else as in the base)."
    )
    seed: int = Field(default=0, ge=0, description="Seed of the sample.")
    watch: bool = Field(default=False, description="Write the page anew until the run is finished; it reloads itself.")
    interval_s: float = Field(
        default=30.0,
        ge=1,
        description="Seconds between two looks of --watch.",
        json_schema_extra={"flag": "--interval"},
    )

    @property
    def compared(self) -> tuple[str, ...]:
        """The runs to lay over each other; empty where one page is asked for."""
        return self.uris[1:] if self.uris[0] == COMPARE else ()

    @model_validator(mode="after")
    def _check_uris(self) -> "ReportSettings":
        if self.uris[0] == COMPARE and len(self.uris) < 3:  # noqa: PLR2004 - the word and a pair
            raise ValueError("report compare: give two runs or more")
        if self.uris[0] != COMPARE and len(self.uris) > 1:
            raise ValueError(f"several URIs: write `nanosft report {COMPARE} {' '.join(self.uris)}`")
        if self.watch and self.compared:
            raise ValueError("--watch: looks at one run, not at a comparison")
        return self
