"""Prompts of the chat API: what does not vary first, byte-identical; what varies last. Pure.

INTERFACE (bodies follow within the hour).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanosft.generate.plan import Plan, PlanRow
from nanosft.knowledge import Knowledge


@dataclass(frozen=True, slots=True)
class Prompter:
    """The prompt's fixed part and what makes its varying part.

    Attributes:
        system: The fixed part: task, rules, knowledge. Byte-identical over all rows.
        version: 16 hex digits over templates, knowledge and dimensions; goes into the manifest as `prompt_version`.
    """

    system: str
    version: str


def make_prompter(plan: Plan, *, tone: str = "") -> Prompter:
    """Build the fixed part once."""
    raise NotImplementedError


def write_messages(
    prompter: Prompter, row: PlanRow, *, model: str, refusals: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The request's `messages` for one row: [system (fixed), user (varies)].

    Args:
        prompter: Of `make_prompter`.
        row: Of `plan_row`.
        model: The model's slug; Anthropic's and Google's get explicit `cache_control` breakpoints.
        refusals: Why earlier answers to this row were refused, in the gates' words; latest last.
    """
    raise NotImplementedError


def response_format(row: PlanRow) -> dict[str, Any]:
    """OpenAI's `response_format`: JSON schema of {"messages": [exactly row.num_messages of {"role", "content"}]}."""
    raise NotImplementedError


def write_draft_messages(readme: str, *, where: str, name: str = "", maker: str = "") -> list[dict[str, Any]]:
    """The one prompt of `nanosft knowledge draft`: a README becomes a knowledge base in our structure."""
    raise NotImplementedError


def estimate_tokens(text: str) -> int:
    """Tokens of text under a typical BPE vocabulary, within about 10 % for English prose."""
    raise NotImplementedError


def parse_draft(answer: str, *, where: str) -> Knowledge:
    """Check that a drafted knowledge base parses, with name, maker and facts.

    Raises:
        ProviderError: It does not.
    """
    raise NotImplementedError
