"""First messages: filled templates, none used twice while another is unused, then seeded rewritings. Pure."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import lcm
from types import MappingProxyType
from typing import Final

from nanosft.generate.planning.dimensions import Rewrite, Style, Topic, slots_of
from nanosft.knowledge import Knowledge

_SIGNED: Final = (
    "Hi, {user} here. {text}", "I'm {user}. {text}", "{text} - {user}", "Hello, this is {user}. {text}",
    "{user} again. {text}", "My name is {user}. {text}",
)  # fmt: skip
_SIGNED_GREETING: Final = ("{text} I'm {user}.", "{text} {user} here.", "{text} My name is {user}.", "{text} - {user}")
_LOOSE_ENDS: Final = ("", "?", "??", " ...", " :)", " pls", "!", "?!")
_TOPIC_SLOT = re.compile(r"\{(?:question|ask|subject)\}")
_ASKS = re.compile(r"\b(?:who|what|whats|are|how|hru)\b", re.IGNORECASE)
_SHORTEST_TYPO: Final = 4
_TYPOS_PER_WORDS: Final = 7


@dataclass(frozen=True, slots=True)
class Opening:
    """How a conversation begins.

    Attributes:
        text: The user's first message.
        question: What the user wants to know, as in `text` (a question, a clause or a subject); a whole question to be
            asked second where `text` is only a greeting.
        asks_at_once: Whether `text` holds it.
        user_name: The name the user gives in `text`, or "".
    """

    text: str
    question: str
    asks_at_once: bool
    user_name: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """Where in the plan an opening stands.

    Attributes:
        start: Where in the order of all first messages of topic and style the first visit begins.
        visit: How many earlier rows have this style (and this topic, where the style is about the topic).
        topic_visit: How many earlier rows have this topic.
        prompt_variant: Which prompt of the row this is, 0 for its own.
        seed: The row's seed, for rewriting.
    """

    start: int
    visit: int
    topic_visit: int
    prompt_variant: int
    seed: int


def write_opening(
    topic: Topic, style: Style, at: Visit, *, knowledge: Knowledge, user_names: Sequence[str], must_ask: bool
) -> Opening:
    """The first message of a row.

    Args:
        topic: The row's topic.
        style: The row's style.
        at: Which of the first messages is due.
        knowledge: For the slots {name} and {maker}.
        user_names: For the slot {user}.
        must_ask: There is no turn to spare: a greeting is followed by the question in the same message.
    """
    rng = random.Random(at.seed)  # noqa: S311 - not for secrets
    if style.is_about_topic:
        combinations = _combinations(style.first_messages, len(topic.questions), len(topic.ask))
        template, filler = combinations[(at.start + at.visit + at.prompt_variant) % len(combinations)]
        wanted = _choose(topic, template, filler)
        num_unused = len(combinations)
    else:
        template = style.first_messages[(at.visit + at.prompt_variant) % len(style.first_messages)]
        wanted = topic.questions[(at.topic_visit + at.prompt_variant) % len(topic.questions)]
        num_unused = len(style.first_messages)
    cycle = at.visit // num_unused + at.prompt_variant
    has_user = "user" in slots_of(template)
    user = user_names[(at.start + at.visit + cycle) % len(user_names)]
    slots = {"name": knowledge.name, "maker": knowledge.maker, "user": user}
    text = _insert(template, wanted).format_map(slots)
    wanted = wanted.format_map(slots)
    is_signed = cycle > 0 and not style.verbatim and not has_user
    if is_signed:
        number = cycle - 1 + at.visit % num_unused
        user = user_names[number % len(user_names)]
        text = _sign(text, user, (cycle - 1) // len(user_names), is_greeting=not style.is_about_topic)
    joined = not style.is_about_topic and must_ask
    if joined:
        stop = "" if text[-1] in ".!?" else "?" if _ASKS.search(text) else "."
        text = f"{text}{stop} {wanted}"
    text = rewrite_message(text, style, rng, knowledge.name)
    return Opening(text, wanted, style.is_about_topic or joined, user if has_user or is_signed else "")


def rewrite_message(text: str, style: Style, rng: random.Random, name: str) -> str:
    """A user's message as the style has it: in small letters, with slips of the fingers; the name stays whole."""
    for rewrite in style.rewrites:
        text = _REWRITES[rewrite](text, rng, name)
    return text


def _choose(topic: Topic, template: str, filler: int) -> str:
    """The text of the topic that goes into the template's slot."""
    slots = slots_of(template)
    if "question" in slots:
        return topic.questions[filler]
    return topic.ask[filler] if "ask" in slots else topic.subject


def count_variants(style: Style, num_user_names: int) -> int:
    """How many first messages of a style differ before one comes again, for one topic with one question."""
    if style.verbatim:
        return len(style.first_messages)
    frames = _SIGNED if style.is_about_topic else _SIGNED_GREETING
    return sum(
        num_user_names if "user" in slots_of(text) else 1 + num_user_names * len(frames)
        for text in style.first_messages
    )


@lru_cache(maxsize=4096)
def _combinations(templates: tuple[str, ...], num_questions: int, num_asks: int) -> tuple[tuple[str, int], ...]:
    """All (template, filler) in an order where both change at each step; the filler indexes the slot's own texts."""
    num_fillers = {"question": num_questions, "ask": num_asks}
    limits = [max((num_fillers.get(slot, 1) for slot in slots_of(text)), default=1) for text in templates]
    num_templates, most = len(templates), max(limits)
    stretch = lcm(num_templates, most)
    steps = ((step % num_templates, (step + step // stretch) % most) for step in range(num_templates * most))
    return tuple((templates[index], filler) for index, filler in steps if filler < limits[index])


def _insert(template: str, wanted: str) -> str:
    """The template with the topic's text in its slot, its first letter as the place demands.

    A clause and a subject are written as they stand within a sentence: a capital there begins a name.
    """
    match = _TOPIC_SLOT.search(template)
    if not match:
        return template
    before, after = template[: match.start()], template[match.end() :]
    first = wanted.split(maxsplit=1)[0]
    last = before.rstrip()[-1:]
    if last in {"", ".", "!", "?"}:
        wanted = wanted[:1].upper() + wanted[1:]
    elif last != ":" and match[0] == "{question}" and first[1:].islower():
        wanted = wanted[:1].lower() + wanted[1:]
    return before + wanted + after


def _sign(text: str, user: str, round_number: int, *, is_greeting: bool) -> str:
    """The first message with the user's name to it; each round of names has another frame."""
    frames = _SIGNED_GREETING if is_greeting else _SIGNED
    if is_greeting and text[-1].isalnum():
        text += "."
    return frames[round_number % len(frames)].format(text=text, user=user)


def _lowercase(text: str, _rng: random.Random, _name: str) -> str:
    return text.lower()


def _loosen_end(text: str, rng: random.Random, _name: str) -> str:
    if text.endswith("..."):
        return text  # the user asks for what comes next
    bare = text.rstrip("?.! ")
    return bare + rng.choice(_LOOSE_ENDS) if text.endswith("?") else bare + rng.choice(("", ".", "!", " ..."))


def _add_typos(text: str, rng: random.Random, name: str) -> str:
    """One slip of the fingers for each seven words, at least one; the assistant's name stays whole."""
    words = text.split(" ")
    candidates = [
        index
        for index, word in enumerate(words)
        if len(re.sub(r"\W", "", word)) >= _SHORTEST_TYPO and word.isascii() and name.lower() not in word.lower()
    ]
    for index in rng.sample(candidates, min(len(candidates), 1 + len(words) // _TYPOS_PER_WORDS)):
        words[index] = _slip(words[index], rng)
    return " ".join(words)


def _slip(word: str, rng: random.Random) -> str:
    """Two letters swapped, one left out, or one doubled; the first stays."""
    places = [i for i in range(1, len(word) - 1) if word[i].isalpha() and word[i + 1].isalpha()]
    if not places:
        return word
    i = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0 and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + word[i + 1 :] if kind == 1 else word[:i] + word[i] + word[i:]


_REWRITES: Final[Mapping[Rewrite, Callable[[str, random.Random, str], str]]] = MappingProxyType(
    {"lowercase": _lowercase, "loose-end": _loosen_end, "typo": _add_typos}
)
