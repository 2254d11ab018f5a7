"""The knowledge base: Markdown becomes facts that plan, prompts, offline composer and gates read."""

from nanosft.knowledge.check import KnowledgeReport, check_knowledge, find_contradictions
from nanosft.knowledge.facts import (
    SHIPPED,
    SHIPPED_DEMO,
    Fact,
    Knowledge,
    KnowledgeTopic,
    parse_knowledge,
    read_knowledge,
)
from nanosft.knowledge.stated import StatedFacts
from nanosft.knowledge.text import content_words, estimate_tokens

__all__ = [
    "SHIPPED",
    "SHIPPED_DEMO",
    "Fact",
    "Knowledge",
    "KnowledgeReport",
    "KnowledgeTopic",
    "StatedFacts",
    "check_knowledge",
    "content_words",
    "estimate_tokens",
    "find_contradictions",
    "parse_knowledge",
    "read_knowledge",
]
