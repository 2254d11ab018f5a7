"""Settings of `nanosft audit` and `nanosft inspect`."""

from typing import ClassVar, Final, Literal

from pydantic import Field, SecretStr, model_validator

from nanosft.conversation import Format
from nanosft.settings.base import StageSettings
from nanosft.settings.gates import SKIPPED_GATES_HELP, SkippedGates
from nanosft.settings.judge import (
    JUDGE_KEY_HELP,
    JUDGE_MODEL_HELP,
    JUDGE_SHARE_HELP,
    JUDGE_URL_HELP,
    MIN_SCORE_HELP,
    OWN_ANSWER_PRICE_HELP,
    OWN_PRICE_HELP,
    check_min_score,
)

_HTML_HELP: Final = (
    "Also write what was found as a page, with the conversations in it: its file or object, tried before the work."
)


class AuditSettings(StageSettings):
    """What `nanosft audit` is told."""

    command: ClassVar[str] = "audit"

    uri: str = Field(
        description="A file or prefix of conversations in any accepted format.",
        json_schema_extra={"group": "What to look at", "argument": True},
    )
    out: str | None = Field(
        default=None,
        description="Prefix for clean/ and refused/, each with a manifest (default: only the table).",
        json_schema_extra={"content": False},
    )
    format: Format = Field(default="auto", description="Format of the rows (default: told by their keys).")
    knowledge: str | None = Field(
        default=None,
        description="URI of the knowledge base: identity and grounding are checked against it (default: no grounding).",
    )
    name: str | None = Field(
        default=None, description="The assistant's name (default: the knowledge's, else what most rows claim)."
    )
    maker: str | None = Field(
        default=None, description="Who made the assistant (default: the knowledge's, else what most rows claim)."
    )
    tokenizer: str | None = Field(
        default=None, description="URI of a nanochat base whose tokenizer must render each row (default: none)."
    )
    max_context_tokens: int | None = Field(
        default=None, ge=1, description="With --tokenizer: longest conversation, in tokens (default: no limit)."
    )
    skip_gates: SkippedGates = Field(
        default=(), description=SKIPPED_GATES_HELP, json_schema_extra={"group": "What counts as a defect"}
    )
    strict_grounding: bool = Field(
        default=False,
        description="Refuse proper names that the knowledge base does not hold, instead of reporting them.",
    )
    ascii: Literal["keep", "fold", "reject"] = Field(
        default="keep", description="Non-ASCII text: keep it, fold what has an ASCII form, or reject the conversation."
    )
    min_chars: int = Field(default=1, ge=0, description="Characters that an answer has at least.")
    max_chars: int = Field(default=20_000, ge=1, description="Characters that a message has at most.")
    banned_phrases: tuple[str, ...] = Field(
        default=(), description="Phrases that no answer may hold, beside the built-in ones; may be repeated."
    )
    near_duplicate_threshold: float = Field(
        default=0.7, gt=0, le=1, description="Similarity from which two conversations are near-duplicates."
    )
    judge_model: str | None = Field(
        default=None, min_length=1, description=JUDGE_MODEL_HELP, json_schema_extra={"group": "A judge"}
    )
    judge_share: float = Field(default=1.0, gt=0, le=1, description=JUDGE_SHARE_HELP)
    min_score: int | None = Field(default=None, ge=1, le=5, description=MIN_SCORE_HELP)
    seed: int = Field(default=0, ge=0, description="Seed of the rows that --judge-share draws.")
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="Most US dollars for the judge, all runs of the audit together (default: no limit).",
        json_schema_extra={"content": False},
    )
    base_url: str = Field(
        default="https://openrouter.ai/api/v1",
        description=JUDGE_URL_HELP,
        json_schema_extra={"content": False},
    )
    openrouter_api_key: SecretStr | None = Field(
        default=None,
        description=JUDGE_KEY_HELP,
        json_schema_extra={"content": False, "env": "OPENROUTER_API_KEY"},
    )
    prompt_price_usd: float | None = Field(
        default=None,
        ge=0,
        description=OWN_PRICE_HELP,
        json_schema_extra={"content": False},
    )
    completion_price_usd: float | None = Field(
        default=None,
        ge=0,
        description=OWN_ANSWER_PRICE_HELP,
        json_schema_extra={"content": False},
    )
    max_refused_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Exit 3 when a larger share of the rows is refused (default: never).",
        json_schema_extra={"group": "Verdict and output", "content": False},
    )
    examples: int = Field(
        default=3, ge=0, le=100, description="Examples of each defect to show.", json_schema_extra={"content": False}
    )
    html: str | None = Field(
        default=None,
        description=_HTML_HELP,
        json_schema_extra={"content": False},
    )
    json_output: bool = Field(
        default=False, description="Print one JSON object.", json_schema_extra={"content": False, "flag": "--json"}
    )

    @model_validator(mode="after")
    def _check_judge(self) -> "AuditSettings":
        check_min_score(self.min_score, self.judge_model)
        return self


class InspectSettings(StageSettings):
    """What `nanosft inspect` is told."""

    command: ClassVar[str] = "inspect"

    uri: str = Field(
        description="A file, a prefix, or a pattern with * of conversations in any accepted format.",
        json_schema_extra={"argument": True},
    )
    format: Format = Field(default="auto", description="Format of the rows (default: told by their keys).")
    tokenizer: str | None = Field(default=None, description="URI of the base: count its tokens too.")
    samples: int = Field(default=3, ge=0, le=100, description="Conversations to show, chosen by the seed.")
    openings: int = Field(default=10, ge=0, le=1000, description="Most frequent first messages to show.")
    seed: int = Field(default=0, ge=0, description="Seed of the samples.")
    html: str | None = Field(
        default=None,
        description=_HTML_HELP,
    )
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})
