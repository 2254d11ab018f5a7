"""Facts out of Markdown. Pure but for `read_knowledge`.

Any Markdown is knowledge, a project's README too. A section is a topic; each list item, sentence of a paragraph and
table row is a fact; code blocks and images are none. Bullets above the first section say who speaks:

    # nanochat
    - Name: nanochat
    - Maker: Andrej Karpathy

    ## Cost
    - The $100 tier trained for about 4 hours on 8 H100 GPUs.

Without them the name is the title, and the maker whoever a sentence says something was made by.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from nanosft.errors import DataError
from nanosft.knowledge.markdown import MarkdownBlock, parse_blocks
from nanosft.knowledge.text import FUNCTION_WORDS, split_sentences
from nanosft.shipped import find_shipped
from nanosft.store import open_object

SHIPPED: Final = "knowledge/self_knowledge.md"
"""The knowledge base that comes with nanosft; manifests name it by this path."""
SHIPPED_DEMO: Final = "knowledge/demo.md"
"""The small one, of the demo's model."""
_MAX_NAME_WORDS: Final = 4
_MIN_FACT_WORDS: Final = 3
_SETTING = re.compile(r"^(Name|Maker|Author|Tone)\s*:\s*(.+)$", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>()\[\]\"'`]*[^\s<>()\[\]\"'`.,;:!?]")
_NAME = re.compile(r"\b(?:[A-Z][\w.+-]*\w|[a-z]+[A-Z]\w*)(?:\s+[A-Z][\w.+-]*\w)*")
_MADE_BY = re.compile(
    r"\b(?:made|created|built|written|developed|designed|authored|maintained) by (?:the )?"
    r"([A-Z][\w.'-]*\w(?: (?:[A-Z][\w.'-]*\w|de|van|von)\b)*)"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement of the knowledge base.

    Attributes:
        id: `<topic id>.<6 hex digits of the statement's SHA-256>`: stable when facts around it come and go.
        topic: Id of its topic.
        statement: Plain text on one line.
        names: Proper names in it.
    """

    id: str
    topic: str
    statement: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnowledgeTopic:
    """A section: `id` is the slug of its heading, `title` the heading."""

    id: str
    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Knowledge:
    """A parsed knowledge base.

    Attributes:
        name: The assistant's name.
        maker: Who made it; empty where the text does not say.
        topics: In the order of the text, those without facts too.
        text: The text it was parsed from, unchanged.
        where: Its URI.
        tone: How the assistant speaks, in a few words; empty where the text does not say.
    """

    name: str
    maker: str
    topics: tuple[KnowledgeTopic, ...]
    text: str = field(repr=False)
    where: str
    tone: str = ""

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """All facts, in the order of the text."""
        return tuple(fact for topic in self.topics for fact in topic.facts)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_knowledge(uri: str | None = None) -> Knowledge:
    """Read and parse the knowledge base at a URI, or the shipped one.

    Raises:
        DataError: It is not there, is not text, or holds no fact.
        StoreError: The store fails.
    """
    if uri is None:
        return parse_knowledge(find_shipped(SHIPPED).read_text(encoding="utf-8"), where=SHIPPED)
    store, key = open_object(uri)
    try:
        data = store.read(key)
    except DataError as exc:
        raise DataError(
            f"{uri}: no knowledge base to read: write one (Markdown: '- Name: …' and '- Maker: …' at the top, then "
            "facts as bullets under '## Topic' headings), or draft one: "
            f"nanosft knowledge draft --from README.md --out {uri}"
        ) from exc
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{uri}: not UTF-8 text: {exc.reason} at byte {exc.start}") from exc
    return parse_knowledge(text, where=uri)


def parse_knowledge(text: str, *, where: str) -> Knowledge:
    """Parse Markdown into facts.

    Args:
        text: The Markdown.
        where: Its URI, for errors.

    Raises:
        DataError: There is no fact in it, or nothing to take the assistant's name from.
    """
    title = ""
    settings: dict[str, str] = {}
    sections: list[tuple[str, list[str]]] = [("", [])]
    for block in parse_blocks(text):
        setting = _SETTING.match(block.text) if len(sections) == 1 and block.kind == "bullet" else None
        if block.kind == "heading" and block.level == 1 and not title:
            title = block.text
        elif block.kind == "heading":
            sections.append((block.text, []))
        elif setting:
            settings[setting[1].lower()] = setting[2].strip()
        else:
            sections[-1][1].extend(_statements(block))
    topics = _topics(sections, title)
    statements = [fact.statement for topic in topics for fact in topic.facts]
    if not statements:
        raise DataError(f"{where}: no fact in it: write one fact a bullet, under '## Topic' headings")
    name = settings.get("name") or _name_of_title(title)
    if not name:
        raise DataError(f"{where}: does not say the assistant's name: put '- Name: …' above the first '## Topic'")
    maker = settings.get("maker") or settings.get("author") or _find_maker(statements)
    return Knowledge(name, maker, topics, text, where, settings.get("tone", ""))


def _statements(block: MarkdownBlock) -> list[str]:
    """What the block says, a statement a sentence; a list item or a row of a table is one."""
    return split_sentences(block.text) if block.kind == "paragraph" else [block.text]


def _topics(sections: Iterable[tuple[str, list[str]]], title: str) -> tuple[KnowledgeTopic, ...]:
    topics: list[KnowledgeTopic] = []
    taken: Counter[str] = Counter()
    for heading, statements in sections:
        if not heading and not statements:
            continue
        slug = re.sub(r"[^a-z0-9]+", "-", (heading or title or "overview").lower()).strip("-") or "topic"
        taken[slug] += 1
        topic_id = slug if taken[slug] == 1 else f"{slug}-{taken[slug]}"
        unique = dict.fromkeys(_complete(statement, heading) for statement in statements)
        facts = tuple(_fact(topic_id, statement) for statement in unique)
        topics.append(KnowledgeTopic(topic_id, heading or title or "Overview", facts))
    return tuple(topics)


def _complete(statement: str, heading: str) -> str:
    """The statement; a word or two say nothing by themselves, and get their heading, as in `License: MIT`."""
    is_whole = len(statement.split()) >= _MIN_FACT_WORDS or not heading
    return statement if is_whole else f"{heading}: {statement}"


def _fact(topic_id: str, statement: str) -> Fact:
    names = tuple(dict.fromkeys(filter(None, map(_name, _NAME.finditer(_URL.sub(" ", statement))))))
    digest = hashlib.sha256(statement.encode()).hexdigest()[:6]
    return Fact(f"{topic_id}.{digest}", topic_id, statement, names)


def _name(match: re.Match[str]) -> str:
    """A proper name; empty for a plain word whose capital only begins a sentence."""
    before = match.string[: match.start()].rstrip()
    first, _, rest = match[0].partition(" ")
    begins_sentence = not before or before[-1] in ".!?:"
    if begins_sentence and first.isalpha() and first[1:].islower():
        return rest if first.lower() in FUNCTION_WORDS else match[0] if rest else ""
    return match[0]


def _name_of_title(title: str) -> str:
    """A title's name: what stands before a colon, bar or dash, if that is short."""
    head = re.split(r"\s*[:|\u2013\u2014]\s*|\s+-\s+", title, maxsplit=1)[0].strip()
    return head if 0 < len(head.split()) <= _MAX_NAME_WORDS else ""


def _find_maker(statements: Iterable[str]) -> str:
    return next((match[1] for statement in statements if (match := _MADE_BY.search(statement))), "")
