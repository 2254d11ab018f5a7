"""Settings of `nanosft eval` and `nanosft eval compare`."""

import re
from typing import ClassVar, Final, Literal

from pydantic import Field, JsonValue, SecretStr, field_validator

from nanosft.settings.base import StageSettings, Step
from nanosft.settings.judge import JUDGE_KEY_HELP, JUDGE_URL_HELP, OWN_ANSWER_PRICE_HELP, OWN_PRICE_HELP

REQUIREMENT: Final = re.compile(r"\s*(?P<figure>[^<>=]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<number>-?\d+(?:\.\d+)?)\s*")
"""What `--require` takes: a figure, a sign and a number."""


_AROUND: Final[dict[str, JsonValue]] = {"content": False}


class EvalSettings(StageSettings):
    """What `nanosft eval` is told."""

    command: ClassVar[str] = "eval"

    model: str = Field(
        description="URI of the directory with chatsft_checkpoints/ (or base_checkpoints/).",
        json_schema_extra={"group": "Models and output"},
    )
    base: str | None = Field(
        default=None,
        description="URI of the base to compare with (default: the one that the model's manifest names; none: '').",
    )
    out: str | None = Field(
        default=None,
        description="Prefix for manifest, scores.json, answers.jsonl and documents.jsonl (default: none).",
        json_schema_extra={"content": False},
    )
    knowledge: str | None = Field(
        default=None,
        description="URI of the knowledge base that probes are made from (default: shipped).",
        json_schema_extra={"group": "What is asked"},
    )
    dimensions: str | None = Field(
        default=None, description="URI of the dimensions whose personas ask (default: the shipped ones)."
    )
    data: tuple[str, ...] = Field(
        default=(),
        description="URI of the training data: probes that stand in it are left out, and its val-… objects are the "
        "held-out conversations; may be repeated (default: the parents in the model's manifest).",
    )
    plain_text: str | None = Field(
        default=None, description="Text file, or prefix of .txt, .md and .rst files, of the base's own domain."
    )
    tasks_dir: str | None = Field(
        default=None,
        description="Prefix of JSONL or Parquet tasks, one problem a line: choices by letters, or answers by exact "
        "match, number or pattern. ARC-Easy, ARC-Challenge, MMLU, GSM8K and HumanEval as the Hub has them, in files or "
        "directories of these names, make ChatCORE.",
    )
    max_problems: int | None = Field(
        default=None, ge=1, description="Problems of each task at most: the first of nanochat's order (default: all)."
    )
    sandbox: Literal["bubblewrap"] | None = Field(
        default=None,
        description="Where programs of HumanEval run: bubblewrap (default: nowhere, they are counted and not scored).",
    )
    task_tokens: int = Field(default=512, ge=1, description="Longest answer to a problem of a task, in tokens.")
    num_probes: int = Field(
        default=400, ge=1, description="Probes at most, spread over the facts.", json_schema_extra={"group": "How much"}
    )
    num_documents: int = Field(default=128, ge=1, description="Rows of plain text, and conversations of a source.")
    num_sampled: int = Field(
        default=32, ge=0, description="Probes that are answered again, three times at temperature 0.6, for stability."
    )
    max_tokens: int = Field(default=64, ge=1, description="Longest answer, in tokens.")
    source: Literal["base", "mid", "chat", "rl"] | None = Field(
        default=None, description="Which checkpoint of --model: base, mid, chat or rl (default: chat if there is one)."
    )
    tag: str | None = Field(default=None, description="Model tag, such as d20 (default: the largest).")
    step: Step | None = Field(
        default=None, description="Checkpoint: best (by validation loss, the default), last, or a step's number."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the probes' manners and of sampling.")
    judge_model: str | None = Field(
        default=None,
        description="Slug of a model of the chat API that judges every answer to a probe as well (default: none).",
    )
    budget_usd: float | None = Field(
        default=None, gt=0, description="Most US dollars for the judge (default: no limit).", json_schema_extra=_AROUND
    )
    base_url: str = Field(
        default="https://openrouter.ai/api/v1",
        description=JUDGE_URL_HELP,
        json_schema_extra=_AROUND,
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
        json_schema_extra=_AROUND,
    )
    completion_price_usd: float | None = Field(
        default=None,
        ge=0,
        description=OWN_ANSWER_PRICE_HELP,
        json_schema_extra=_AROUND,
    )
    require: tuple[str, ...] = Field(
        default=(),
        description="Exit 3 unless the model's figure is as said, such as 'identity>=0.9'; may be repeated.",
        json_schema_extra={"group": "Verdict and output", "content": False},
    )
    device: str = Field(
        default="auto", description="Device: auto, cpu, cuda, cuda:1, …", json_schema_extra={"content": False}
    )
    report: bool = Field(
        default=True,
        description="With --out: at the end, write report.html beside the model.",
        json_schema_extra={"content": False},
    )
    num_worst: int = Field(default=20, ge=0, description="Worst answers to show.", json_schema_extra={"content": False})
    json_output: bool = Field(
        default=False,
        description="Print one JSON object.",
        json_schema_extra={"flag": "--json", "content": False},
    )

    @field_validator("require")
    @classmethod
    def _check_requirements(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            if REQUIREMENT.fullmatch(text) is None:
                raise ValueError(f"{text!r}: write a figure, a sign and a number, as in 'identity>=0.9'")
        return texts


class EvalCompareSettings(StageSettings):
    """What `nanosft eval compare` is told."""

    command: ClassVar[str] = "eval compare"

    evaluations: tuple[str, ...] = Field(
        min_length=2,
        description="Prefixes that were given as --out of eval; differences are to the first.",
        json_schema_extra={"argument": True},
    )
    json_output: bool = Field(default=False, description="Print one JSON object.", json_schema_extra={"flag": "--json"})
