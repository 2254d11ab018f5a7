"""Settings of `nanosft generate`."""

import math
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from nanosft.settings.base import StageSettings
from nanosft.settings.gates import SKIPPED_GATES_HELP, SkippedGates
from nanosft.settings.judge import (
    JUDGE_ANSWER_PRICE_HELP,
    JUDGE_MODEL_HELP,
    JUDGE_PRICE_HELP,
    JUDGE_SHARE_HELP,
    MIN_SCORE_HELP,
    check_min_score,
)
from nanosft.settings.models import DEFAULT_MODEL
from nanosft.settings.shares import (
    DEFAULT_LANGUAGES,
    LANGUAGES_HELP,
    MODEL_HELP,
    Languages,
    Models,
    split_languages,
    split_models,
)

Reasoning = Literal["off", "minimal", "low", "medium", "high", "xhigh"]
Provider = Literal["openrouter", "local", "offline"]
Mode = Literal["sync", "batch", "auto"]


class GenerateSettings(StageSettings):
    """What `nanosft generate` is told."""

    command: ClassVar[str] = "generate"

    out: str = Field(
        description="URI of the prefix that gets the conversations.",
        json_schema_extra={"group": "What to write", "content": False},
    )
    knowledge: str | None = Field(
        default=None, description="URI of the knowledge base: Markdown with what is true (default: shipped)."
    )
    dimensions: str | None = Field(
        default=None,
        description="URI of a TOML file with topics, personas, dynamics and first messages (default: shipped).",
    )
    tone: str = Field(
        default="", description="How the assistant speaks, in a few words (default: as the knowledge says)."
    )
    examples: str | None = Field(
        default=None,
        description="URI of conversations that show the wanted voice, for the part of the prompt that is cached.",
    )
    num_examples: int = Field(default=3, ge=1, le=50, description="Of --examples, so many are drawn by the seed.")
    languages: Languages = Field(default=DEFAULT_LANGUAGES, description=LANGUAGES_HELP)
    max_messages: int | None = Field(
        default=None,
        ge=2,
        le=400,
        multiple_of=2,
        description="Longest conversation, in messages: dynamics that are longer are left out, and where it is 24 or "
        "more long talks, one row in 20, go on to as many (default: as long as the dynamics are, 20 in those shipped).",
    )
    num: int = Field(default=1000, ge=1, le=10_000_000, description="Conversations in the plan, over all shards.")
    seed: int = Field(default=0, ge=0, description="Seed of the plan.")

    num_shards: int = Field(
        default=1,
        ge=1,
        le=99_999,
        description="Processes that share the plan.",
        json_schema_extra={"group": "Shards and reruns", "content": False},
    )
    shard_index: int = Field(
        default=0,
        ge=0,
        description="Which of the shards this process makes, from 0 (default: $JOB_COMPLETION_INDEX, else 0).",
        json_schema_extra={"content": False, "env": "JOB_COMPLETION_INDEX"},
    )
    finalize: bool = Field(
        default=False,
        description="Ask for nothing: only put the data set's manifest, if all rows are in.",
        json_schema_extra={"content": False},
    )
    retry_rejects: bool = Field(
        default=False, description="Try the rows again that earlier runs gave up.", json_schema_extra={"content": False}
    )
    fill: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Once the plan's rows are in, add rows for each fact that fewer answers state, until so many do.",
        json_schema_extra={"content": False},
    )
    preview: int | None = Field(
        default=None,
        ge=1,
        le=50,
        description="Make and show so many rows of the plan that differ from one another, and what the whole will "
        "cost; they are kept, and the run that follows goes on from them.",
        json_schema_extra={"content": False},
    )
    html: str | None = Field(
        default=None,
        description="With --preview: also write what is shown as a page: its file or object, tried before the work.",
        json_schema_extra={"content": False},
    )
    dry_run: bool = Field(
        default=False,
        description="Print coverage, first prompts, estimated tokens and dollars by the endpoint's price list, and ask "
        "no model.",
        json_schema_extra={"content": False},
    )

    provider: Provider = Field(
        default="openrouter",
        description="Who writes: openrouter (or any endpoint given by --base-url), local (the packaged small model), "
        "or offline (facts of the knowledge base put into sentences, without any model).",
        json_schema_extra={"group": "Who writes"},
    )
    model: Models = Field(default=(DEFAULT_MODEL,), description=MODEL_HELP)
    fallback_models: tuple[str, ...] = Field(
        default=(), description="Models asked in order when the one before fails for good; may be repeated."
    )
    base_url: str = Field(
        default="https://openrouter.ai/api/v1",
        description="OpenAI-compatible endpoint, without /chat/completions.",
        json_schema_extra={"content": False},
    )
    openrouter_fields: bool | None = Field(
        default=None,
        description="Send OpenRouter's own fields, for a proxy in front of it (default: only to openrouter.ai).",
        json_schema_extra={"content": False},
    )
    openrouter_api_key: SecretStr | None = Field(
        default=None,
        description="Key of the endpoint.",
        json_schema_extra={"content": False, "env": "OPENROUTER_API_KEY"},
    )
    temperature: float = Field(default=1.0, ge=0.0, le=2.0, description="Sampling temperature of the model.")
    max_tokens: int = Field(
        default=2048,
        ge=16,
        description="Longest answer, in tokens; of a talk of more than 20 messages more, in proportion.",
    )
    reasoning: Reasoning = Field(
        default="off",
        description="How much a model that can reason does so before it answers, which is paid for like its answer: "
        "off (its least, where it cannot be switched off), or an effort.",
        json_schema_extra={"content": False},
    )

    concurrency: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Most rows in flight; fewer after HTTP 429 and time-outs.",
        json_schema_extra={"group": "Pace and patience", "content": False},
    )
    requests_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Most requests a minute (default: no limit).",
        json_schema_extra={"content": False},
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Most tokens a minute (default: no limit).",
        json_schema_extra={"content": False},
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds until a connection must stand.", json_schema_extra={"content": False}
    )
    read_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds without a byte after which an answer is lost.",
        json_schema_extra={"content": False},
    )
    row_timeout_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds for one row, all its attempts and waits together.",
        json_schema_extra={"content": False},
    )
    max_retries: int = Field(
        default=8,
        ge=0,
        description="Retries of a request that failed for a reason that may pass.",
        json_schema_extra={"content": False},
    )
    stop_grace_s: float = Field(
        default=10.0,
        ge=0,
        description="Seconds that answers in flight get after SIGTERM.",
        json_schema_extra={"content": False},
    )

    mode: Mode = Field(
        default="sync",
        description="How rows are asked for, and their scores: sync, one by one; batch, through the endpoint's batch "
        "service, which often costs half and may take a day; or auto, whichever costs less for this plan.",
        json_schema_extra={"group": "Batches", "content": False},
    )
    batch_size: int = Field(
        default=1000,
        ge=1,
        le=5000,
        description="Most rows of one batch.",
        json_schema_extra={"content": False},
    )
    batch_rest: int = Field(
        default=20,
        ge=0,
        description="So few refused rows, or fewer, are asked for, or scored, one by one in place of a last batch.",
        json_schema_extra={"content": False},
    )
    batch_poll_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds between two looks at the batches that are with the provider.",
        json_schema_extra={"content": False},
    )
    wait: bool = Field(
        default=True,
        description="Wait for batches; --no-wait leaves with exit code 75 once they are sent, and the same command "
        "takes their results later.",
        json_schema_extra={"content": False},
    )

    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="Most US dollars for the whole data set, all shards and runs together (default: no limit).",
        json_schema_extra={"group": "Money", "content": False},
    )
    prompt_price_usd: float | None = Field(
        default=None,
        ge=0,
        description="Dollars per million prompt tokens, for estimates and where the endpoint states no cost (default: "
        "as its list of models tells).",
        json_schema_extra={"content": False},
    )
    completion_price_usd: float | None = Field(
        default=None,
        ge=0,
        description="Dollars per million tokens of the answer, as --prompt-price-usd.",
        json_schema_extra={"content": False},
    )

    max_attempts: int = Field(
        default=3,
        ge=1,
        le=50,
        description="Answers per prompt of a row; after as many with another prompt it is given up.",
        json_schema_extra={"group": "What is accepted", "content": False},
    )
    skip_gates: SkippedGates = Field(default=(), description=SKIPPED_GATES_HELP)
    strict_grounding: bool = Field(
        default=False, description="Refuse proper names that the knowledge base does not hold."
    )
    ascii: Literal["keep", "fold", "reject"] = Field(
        default="fold", description="Non-ASCII text: keep it, fold what has an ASCII form, or reject the conversation."
    )
    min_chars: int = Field(default=1, ge=0, description="Characters that an answer has at least.")
    max_chars: int = Field(default=20_000, ge=1, description="Characters that a message has at most.")
    banned_phrases: tuple[str, ...] = Field(
        default=(), description="Phrases that no answer may hold, beside the built-in ones; may be repeated."
    )
    tokenizer: str | None = Field(
        default=None,
        description="URI of a nanochat base whose tokenizer must render each conversation (default: none).",
    )
    max_context_tokens: int | None = Field(
        default=None, ge=1, description="With --tokenizer: longest conversation, in tokens (default: no limit)."
    )
    near_duplicate_threshold: float = Field(
        default=0.7, gt=0, le=1, description="Similarity from which two conversations are near-duplicates."
    )

    judge_model: str | None = Field(
        default=None, min_length=1, description=JUDGE_MODEL_HELP, json_schema_extra={"group": "A judge"}
    )
    judge_share: float = Field(default=1.0, gt=0, le=1, description=JUDGE_SHARE_HELP)
    min_score: int | None = Field(default=None, ge=1, le=5, description=MIN_SCORE_HELP)
    judge_prompt_price_usd: float | None = Field(
        default=None, ge=0, description=JUDGE_PRICE_HELP, json_schema_extra={"content": False}
    )
    judge_completion_price_usd: float | None = Field(
        default=None, ge=0, description=JUDGE_ANSWER_PRICE_HELP, json_schema_extra={"content": False}
    )

    flush_rows: int = Field(
        default=500,
        ge=1,
        description="Rows after which a part is flushed.",
        json_schema_extra={"group": "Saving and reporting", "content": False},
    )
    flush_s: float = Field(
        default=30.0, gt=0, description="Seconds after which a part is flushed.", json_schema_extra={"content": False}
    )
    json_output: bool = Field(
        default=False,
        description="Print a JSON summary to standard output.",
        json_schema_extra={"content": False, "flag": "--json"},
    )

    @property
    def model_shares(self) -> dict[str, int]:
        """Whole shares of the rows by the slug of the model that writes them."""
        return split_models(self.model)

    @property
    def language_shares(self) -> dict[str, int]:
        """Whole shares of the rows by language."""
        return split_languages(self.languages)

    @model_validator(mode="after")
    def _check_shard(self) -> "GenerateSettings":
        if self.shard_index >= self.num_shards and not self.finalize:
            raise ValueError(
                f"--shard-index {self.shard_index} must be below --num-shards {self.num_shards} "
                "(the index defaults to $JOB_COMPLETION_INDEX)"
            )
        if self.provider == "offline" and set(self.language_shares) != {"en"}:
            raise ValueError("--languages: --provider offline writes English alone: ask a model for other languages")
        if self.budget_usd is not None and not math.isfinite(self.budget_usd):
            raise ValueError("--budget-usd must be finite")
        if self.examples is not None and self.provider == "offline":
            raise ValueError("--examples are for a model that reads prompts: --provider offline reads none")
        if self.preview is not None and (self.num_shards > 1 or self.finalize):
            raise ValueError("--preview makes rows of the whole plan: give it without --num-shards and --finalize")
        if self.html is not None and self.preview is None:
            raise ValueError("--html shows what --preview makes: give both, or `nanosft inspect --html` of the set")
        check_min_score(self.min_score, self.judge_model)
        return self
