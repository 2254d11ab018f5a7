"""Statements about the assistant, put into its own mouth. Pure.

`nanochat keeps no memory` becomes `I keep no memory`. Where the grammar is not certain the statement stays as it is:
true in the third person is better than wrong in the first.
"""

import re
from typing import Final

from nanosft.knowledge import Knowledge
from nanosft.knowledge.text import FUNCTION_WORDS

_VERBS: Final = {"is": "am", "was": "was", "has": "have", "does": "do", "isn't": "am not", "doesn't": "don't"}
_MODALS: Final = frozenset({"can", "cannot", "could", "may", "might", "must", "should", "will", "would", "knew", "had"})
_SECOND_VERB = re.compile(
    r"(?:,|;|\band\b|\bor\b|\bbut\b) (?:it )?(?:\w+ly )?(is|has|does|says|runs|uses|makes|gives|needs)\b"
)
_ADVERBS: Final = frozenset({"also", "often", "never", "always", "sometimes", "only", "usually", "now", "still"})
_OF_PROJECT: Final = re.compile(
    r"is to |is part of |is an? [\w-]+ project\b|shows |covers |consists |is (?:designed|hosted) |thanks "
)
"""What is said of a project, not of the one who speaks."""
_PRONOUNS: Final = (
    (re.compile(r"\bits\b"), "my"),
    (re.compile(r"\bitself\b"), "myself"),
    (re.compile(r"\bit is\b"), "I am"),
)
_TO_USER: Final = (
    (re.compile(r"\bI am\b"), "you are"),
    (re.compile(r"\bI was\b"), "you were"),
    (re.compile(r"\bI\b(?! do not know)"), "you"),
    (re.compile(r"\b[Mm]y\b"), "your"),
    (re.compile(r"\bmyself\b"), "yourself"),
    (re.compile(r"\bme\b"), "you"),
)
_SECOND_WAS: Final = re.compile(r"\b(and|or|but) was\b")
"""The verb once more, of the same one."""
_SHORTEST_VERB: Final = 4
_WORD: Final = re.compile(r"[\w.-]*\w")


def to_first_person(statement: str, name: str) -> str:
    """The statement with the assistant as "I" where it begins with the assistant's name and a verb."""
    own = re.escape(name)
    statement = re.sub(rf"\b(made|use|uses|than|with|about|for|giving) {own}\b(?!['\w-])", r"\1 me", statement)
    statement = re.sub(rf"\b{own}'s\b", "my", statement)
    subject = re.match(rf"{own}\s+", statement)
    if not subject:
        return statement
    rest = statement[subject.end() :]
    if _OF_PROJECT.match(rest):
        return statement
    adverb, verb, rest = _split_verb(rest)
    stop = "." if verb.endswith(".") else ""
    first = _first_person(verb.removesuffix("."))
    if first is None or _SECOND_VERB.search(rest):
        return statement
    for pattern, pronoun in _PRONOUNS:
        rest = pattern.sub(pronoun, rest)
    return " ".join(filter(None, ["I", adverb, first + stop, rest]))


def to_second_person(statement: str, name: str) -> str:
    """The statement as a user says it to the assistant: "you" where the assistant says "I"."""
    spoken = to_first_person(statement, name)
    if spoken.startswith("I "):
        spoken = _SECOND_WAS.sub(r"\1 were", spoken)
    for pattern, pronoun in _TO_USER:
        spoken = pattern.sub(pronoun, spoken)
    return spoken[:1].upper() + spoken[1:]


def find_proper_words(knowledge: Knowledge) -> frozenset[str]:
    """Words of names, whose capital is no beginning of a sentence."""
    names = {word for fact in knowledge.facts for name in fact.names for word in name.split()}
    inside = {word for fact in knowledge.facts for word in _WORD.findall(fact.statement)[1:]}
    small = {word for word in inside if word.islower()}
    starts = {word for word in names if word not in inside and word.lower() in small}
    return frozenset({*names, knowledge.name}) - starts - frozenset(map(str.capitalize, FUNCTION_WORDS))


def decapitalize(text: str, *, keep: frozenset[str] = frozenset()) -> str:
    """The text as it continues a sentence: its first letter small, unless the word is a name, "I", or all capitals."""
    first = re.split(r"\W", text, maxsplit=1)[0]
    is_plain = first == "A" or (first[1:].islower() and first[0].isupper())
    if first in keep or not is_plain:
        return text
    return text[0].lower() + text[1:]


def _split_verb(rest: str) -> tuple[str, str, str]:
    word, _, tail = rest.partition(" ")
    if word in _ADVERBS:
        verb, _, tail = tail.partition(" ")
        return word, verb, tail
    return "", word, tail


def _first_person(verb: str) -> str | None:
    """The verb after "I"; None where it may be none."""
    if verb in _MODALS:
        return verb
    if verb in _VERBS:
        return _VERBS[verb]
    if len(verb) < _SHORTEST_VERB or not verb.endswith("s") or verb.endswith("ss") or not verb.islower():
        return None
    if verb.endswith("ies"):
        return verb.removesuffix("ies") + "y"
    return verb.removesuffix("es") if verb.endswith(("ches", "shes", "sses", "xes", "oes")) else verb.removesuffix("s")
