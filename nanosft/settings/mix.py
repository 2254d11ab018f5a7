"""Settings of `nanosft mix`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nanosft.settings.base import StageSettings


class MixSettings(StageSettings):
    """What `nanosft mix` is told; what the mixture shall be stands in the recipe."""

    command: ClassVar[str] = "mix"

    recipe: str = Field(
        description="URI of the recipe, in TOML. The shortest: synthetic_share = 0.3, and two [[sources]] tables with "
        "a name and a uri, one of them with synthetic = true. A source may have ratio, epochs, rest or max_rows; "
        "recipe.example.toml in nanosft/mix shows every key.",
        json_schema_extra={"group": "What to make", "content": False},
    )
    out: str | None = Field(
        default=None, description="URI of the prefix that gets the mixture.", json_schema_extra={"content": False}
    )
    dry_run: bool = Field(
        default=False,
        description="Print the table that would result, and write nothing.",
        json_schema_extra={"content": False},
    )
    on_bad_row: Literal["error", "skip"] = Field(
        default="error",
        description="A line that is no conversation: error ends the run, skip counts it and writes it to refused/.",
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="With --on-bad-row skip: the share of a source's lines that may be bad.",
        json_schema_extra={"content": False},
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=256,
        description="Processes that read and write rows (0: one a CPU).",
        json_schema_extra={"group": "Resources", "content": False},
    )
    memory_limit: int = Field(
        default=1024,
        ge=256,
        description="Peak resident memory of each process, in MiB, however large the sources; what held-out sets take "
        "is not in it.",
        json_schema_extra={"content": False},
    )
    work_dir: str | None = Field(
        default=None,
        description="Local directory for what is spilled, up to two and a half times the data (default: the system's "
        "temporary one).",
        json_schema_extra={"content": False},
    )
    json_output: bool = Field(
        default=False,
        description="Print the report as one JSON object.",
        json_schema_extra={"group": "Reporting", "content": False, "flag": "--json"},
    )

    @model_validator(mode="after")
    def _need_out(self) -> "MixSettings":
        if self.out is None and not self.dry_run:
            raise ValueError("--out is missing: give it, or set NANOSFT_OUT; only --dry-run goes without")
        return self
