"""Which question about its identity a text asks the assistant. Pure."""

import re
from collections.abc import Collection
from typing import Final

from nanosft.generate.offline.phrases import Intent

_OTHER = (
    r"^(?!.*\b(?:compare|better|good as|capable|differ\w*|sets you|page like)\b)"
    r".*\b(?:chatgpt|claude|gemini|openai|siri|alexa|google)\b"
)
_MADE = (
    r"\bwho(?:'s| is| has| have)? (?:made|created|built|developed|behind|your (?:creator|maker))"
    r"|company built you|who do you come from|(?<!why )(?<!how )(?<!when )\bwere you (?:made|created|built|developed)\b"
)
_NAME = r"(?:what(?:'s|s| is)|know) your name|what your name is|(?:have a|real) name|call you\b|you are called"
_WHO = (
    r"\bwho (?:are|r) (?:you|u)\b(?! meant)|who you are(?! meant)|who (?:am i|i am) talking|who is this"
    r"|introduce yourself|about yourself|what are you\W*$|kind of thing you|describe yourself|you are\?$|sum yourself"
)
_INTENTS: Final[tuple[tuple[Intent, re.Pattern[str]], ...]] = (
    ("other", re.compile(_OTHER, re.IGNORECASE)),
    ("made", re.compile(_MADE, re.IGNORECASE)),
    ("name", re.compile(_NAME, re.IGNORECASE)),
    ("machine", re.compile(r"\b(?:human|(?:a|the) person)\b", re.IGNORECASE)),
    ("ai", re.compile(r"\b(?:an ai|a bot|computer program)\b", re.IGNORECASE)),
    ("model", re.compile(r"\b(?:which|what) (?:model|assistant)\b", re.IGNORECASE)),
    ("who", re.compile(_WHO, re.IGNORECASE)),
)
_GREETINGS: Final = frozenset({"hi", "hello", "hey", "greetings", "hiya", "howdy", "heya", "good"})
_ABILITIES: Final = re.compile(
    r"\bwhat (?:else |all )?(?:can (?:you|u)|(?:you|u) can|are (?:you|u) able to) do\b(?! not)"
    r"|\bwhat (?:can i|i can) ask|\bwhat (?:are (?:you|u)|(?:you|u) are) good at\b|\byour (?:skills|abilities)\b"
    r"|\bhow (?:you can|can you) help me\b",
    re.IGNORECASE,
)

_HOW_IT_IS: Final = re.compile(
    r"\bhow (?:are|r) (?:you|u)(?: today| doing)?\W*$|\bhow is it going\b|\bhru\b|\b(?:was)?sup\b|\bwhat'?s up\b",
    re.IGNORECASE,
)


def is_greeting(text: str, foreign: Collection[str]) -> bool:
    """Whether a text begins with a greeting, in English or in one of these words or pairs of words."""
    words = text.lower().replace("!", " ").replace(",", " ").replace(".", " ").split()
    return bool(words) and (words[0] in _GREETINGS or words[0] in foreign or " ".join(words[:2]) in foreign)


def asks_how_it_is(text: str) -> bool:
    """Whether a greeting asks how the assistant is."""
    return _HOW_IT_IS.search(text) is not None


def asks_for_abilities(text: str) -> bool:
    """Whether a text asks what the assistant can do."""
    return _ABILITIES.search(text) is not None


def find_intent(text: str) -> Intent | None:
    """Which question about its identity a text asks the assistant, if one."""
    return next((intent for intent, pattern in _INTENTS if pattern.search(text)), None)
