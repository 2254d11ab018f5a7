"""The identity gate: who the assistant says it is, and who made it. Pure.

What it claims (`nanosft.quality.claims`) is compared with what is so, and with what it was asked.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nanosft.quality.claims import find_likely_names, find_maker_claims, find_name_claims
from nanosft.quality.prose import Prose
from nanosft.quality.verdict import Defect, excerpt_of

_TITLES: Final = frozenset(
    {"king", "queen", "dr", "mr", "ms", "mrs", "prof", "professor", "sir", "lord"}
    | {"the", "a", "an", "of", "and", "at", "&", "de", "van", "von"}
)

_ASKS_NAME: Final = re.compile(
    r"\b(?:what(?:'?s| is|\u2019s) (?:your|ur|yr) name|whats (?:your|ur) name|do you have a name|"
    r"what (?:should|can|do|may) (?:i|we) call you|(?:tell me|give me) your name|"
    r"who (?:are|r) (?:you|u)(?=\s*(?:$|[?!.,]|exactly|again|really|then|anyway)))",
    re.IGNORECASE,
)
_ASKS_MAKER: Final = re.compile(
    r"\bwho (?:(?:has |have )?(?:made|created|built|developed|trained|designed|programmed|invented|coded) (?:you|u)\b|"
    r"(?:is|was|are) (?:your|ur) (?:creator|maker|developer|author|builder|inventor)s?\b)|"
    r"\bwho'?s your (?:creator|maker|developer)",
    re.IGNORECASE,
)
_NON_WORD: Final = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the assistant is.

    Attributes:
        name: Its name.
        maker: Who made it; empty where nobody is known, and then no maker is wrong.
        also: Other names that it may go by, and other makers that it may name.
    """

    name: str
    maker: str = ""
    also: tuple[str, ...] = ()


def find_identity_defects(messages: Sequence[Prose], identity: Identity | None) -> Iterator[Defect]:
    """Claims of another name or maker, and questions for them that are not answered.

    Args:
        messages: The conversation's prose.
        identity: Who the assistant is. None: only two different claims within the conversation are a defect.
    """
    answers = [message for message in messages if message.role == "assistant"]
    if identity is None:
        yield from _find_inconsistency(answers)
        return
    question = ""
    for message in messages:
        if message.role != "assistant":
            question = message.plain
            continue
        yield from _find_wrong_claims(message, identity)
        names = (identity.name, *identity.also)
        if _asks_name(question) and not _mentions(message.text, *names) and not _quotes_other(question):
            detail = f"asked for its name, the assistant does not say that it is {identity.name}"
            yield Defect("identity", "name_not_given", detail, " ".join(message.text[:100].split()), message.index)
        if identity.maker and _asks_maker(question) and not _names_maker(message.text, identity):
            detail = f"asked who made it, the assistant does not name {identity.maker}"
            yield Defect("identity", "maker_not_given", detail, " ".join(message.text[:100].split()), message.index)


def find_missing_name(messages: Sequence[Prose], identity: Identity | None) -> Iterator[Defect]:
    """A conversation that has to name the assistant, and never does: for the rows of a plan that ask for it."""
    if identity is None:
        return
    answers = (message.text for message in messages if message.role == "assistant")
    if not any(_mentions(text, identity.name, *identity.also) for text in answers):
        yield Defect("naming", "unnamed", f"the assistant never says that it is {identity.name}")


def infer_identity(conversations: Iterable[Sequence[Prose]], *, min_share: float = 0.3) -> Identity | None:
    """The identity that a set's assistants claim, if one name is claimed in at least `min_share` of conversations.

    Claims of a name in lower case ("I'm nanochat") count here as well, when words of a name's place are no adjective.
    """
    names: Counter[str] = Counter()
    makers: Counter[str] = Counter()
    num_rows = 0
    for messages in conversations:
        num_rows += 1
        answers = [message for message in messages if message.role == "assistant"]
        names.update({name for message in answers for name in find_likely_names(message.plain)})
        makers.update({_trim(claim) for message in answers for claim, _ in find_maker_claims(message.plain)})
    if not names:
        return None
    name, count = names.most_common(1)[0]
    if count < min_share * num_rows:
        return None
    maker = makers.most_common(1)[0][0] if makers else ""
    return Identity(name, maker)


def _asks_name(question: str) -> bool:
    # What all of the pattern's forms hold: most questions have none of it.
    lower = question.lower()
    is_likely = "who" in lower or "name" in lower or "call you" in lower
    return is_likely and _ASKS_NAME.search(question) is not None


def _asks_maker(question: str) -> bool:
    return "who" in question.lower() and _ASKS_MAKER.search(question) is not None


def _find_wrong_claims(message: Prose, identity: Identity) -> Iterator[Defect]:
    for name, at in find_name_claims(message.plain):
        if not _is_expected(name, identity):
            detail = f"the assistant calls itself {name}; it is {identity.name}"
            yield Defect("identity", "other_name", detail, excerpt_of(message.text, at, at + len(name)), message.index)
    if identity.maker:
        for maker, at in find_maker_claims(message.plain):
            if not _is_maker(maker, identity):
                detail = f"the assistant says it was made by {maker}; its maker is {identity.maker}"
                excerpt = excerpt_of(message.text, at, at + len(maker))
                yield Defect("identity", "other_maker", detail, excerpt, message.index)


def _find_inconsistency(answers: Sequence[Prose]) -> Iterator[Defect]:
    """Two names claimed in one conversation: of models that are known, or in words that leave no doubt."""
    first = ""
    for message in answers:
        for name, at in find_name_claims(message.plain):
            if not first:
                first = name
            elif not _same(first, name):
                detail = f"the assistant calls itself {first} and {name}"
                excerpt = excerpt_of(message.text, at, at + len(name))
                yield Defect("identity", "two_names", detail, excerpt, message.index)
                return


def _is_expected(name: str, identity: Identity) -> bool:
    return any(_same(name, expected) for expected in (identity.name, *identity.also, identity.maker) if expected)


def _same(first: str, second: str) -> bool:
    """Whether one name begins with the other, letter case and punctuation apart."""
    left, right = _NON_WORD.sub("", first).casefold(), _NON_WORD.sub("", second).casefold()
    return bool(left and right) and (left.startswith(right) or right.startswith(left))


def _is_maker(claim: str, identity: Identity) -> bool:
    words = _name_words(claim)
    return any(
        words & _name_words(expected) for expected in (identity.maker, *identity.also, identity.name) if expected
    )


def _names_maker(text: str, identity: Identity) -> bool:
    return any(word in text.casefold() for maker in (identity.maker, *identity.also) for word in _name_words(maker))


def _name_words(name: str) -> set[str]:
    words = {word.strip(".,'\u2019").removesuffix("'s").removesuffix("\u2019s") for word in name.casefold().split()}
    return words - _TITLES - {""}


def _trim(maker: str) -> str:
    words = maker.split()
    while words and words[-1].casefold() in _TITLES:
        words.pop()
    return " ".join(words).rstrip(".,")


def _mentions(text: str, *names: str) -> bool:
    folded = text.casefold()
    if any(name.casefold() in folded for name in names):
        return True
    squeezed = _NON_WORD.sub("", folded)  # "nano chat", "Nano-Chat"
    return any(_NON_WORD.sub("", name.casefold()) in squeezed for name in names)


def _quotes_other(question: str) -> bool:
    """Whether the question for a name may be about somebody else: it holds a quotation or a role to play."""
    return '"' in question or bool(
        re.search(r"\b(?:pretend|role ?play|imagine|act as|character)\b", question, re.IGNORECASE)
    )
