"""How a fact fits a question: whether it answers it, gives the reason, and says yes or no. Pure."""

import re
from typing import Final, Literal

from nanosft.generate.offline.fact_index import FactIndex, ScoredFact
from nanosft.generate.offline.first_person import to_first_person
from nanosft.generate.planning import Topic

YES_NO: Final = re.compile(
    r"^(?:do|does|did|are|is|was|were|can|could|has|have|will|would|should|may|must)\b", re.IGNORECASE
)
REQUEST: Final = re.compile(
    r"^(?:can|could|would|will) you (?:please )?(?:describe|explain|tell|outline|introduce|sum|give|show|name|say)\b",
    re.IGNORECASE,
)
"""A question for yes or no in form alone."""
NEGATION: Final = re.compile(r"\b(?:no|not|never|cannot|nothing|none)\b|n't\b")
_QUANTIFIER: Final = re.compile(
    r"\b(?:all|every\w*|only|always|better|best|more|less|as|alone|still|enough|anything|or)\b", re.IGNORECASE
)
"""A fact that holds all other words of such a question may still deny it."""
_WORD: Final = re.compile(r"[\w.'-]*\w")


_ASKING: Final = "give facts sum worth knowing share explain say tour anything"
"""Words that ask, and are not asked for."""
_ASKS_WHEN: Final = re.compile(r"\b(?:when|how old)\b.*\b(?:you|u)\b", re.IGNORECASE)
_ASKS_WHY: Final = re.compile(r"^why (?:do|does|did|is|are|was|were|has|have)\b", re.IGNORECASE)
_REASON: Final = re.compile(
    r"\b(?:because|since|so that|took over|meant|goal|shows|teach\w*|works? best|comes? from)\b|;"
)
_NEAR: Final = 0.5
"""Share of a question's words that stand in its topic's, from which it asks for the topic as a whole."""

Fit = Literal["fits", "yes or no", "no reason", "beside"]


def judge_fit(question: str, topic: Topic, best: ScoredFact, facts: FactIndex, name: str) -> Fit:
    """How the best fact fits a question.

    Args:
        question: The question.
        topic: What it is about.
        best: The fact.
        facts: Knows which words are the same.
        name: The assistant's.
    """
    if _ASKS_WHY.match(question) and not _REASON.search(best.fact.statement):
        return "no reason"
    is_yes_no = YES_NO.match(question) is not None
    if best.is_answer:
        return "yes or no" if is_yes_no else "fits"
    words = facts.words_of(question)
    near = words & facts.words_of(f"{topic.subject} {topic.brief} {' '.join(topic.ask)}")
    words -= facts.words_of(_ASKING)
    is_own = to_first_person(best.fact.statement, name).startswith("I ")
    is_beside = (is_yes_no and not REQUEST.match(question)) or (_ASKS_WHEN.search(question) and not is_own)
    return "beside" if words and (is_beside or len(near) < _NEAR * len(words)) else "fits"


def decide(question: str, statement: str, facts: FactIndex, name: str) -> str:
    """Yes, no or nothing: all that is asked stands in the fact, the last of it on one side of a negation.

    Args:
        question: A question for yes or no.
        statement: The fact that answers it.
        facts: Knows which words are the same.
        name: The assistant's.
    """
    asked, words = facts.words_of(question), facts.words_of(statement)
    if NEGATION.search(question) or not asked:
        return ""
    if ("should" in statement.split()) != question.lower().startswith("should"):
        return ""
    is_own = to_first_person(statement, name).startswith("I ")
    negation = NEGATION.search(statement)
    if negation is None:
        return "Yes." if asked <= words and (is_own or not _QUANTIFIER.search(question)) else ""
    before, after = facts.words_of(statement[: negation.start()]), facts.words_of(statement[negation.end() :])
    if is_own and asked & after and not asked & before:
        return "No."
    last = next(word for word in reversed(_WORD.findall(question)) if facts.words_of(word))
    if asked <= before | after and facts.words_of(last) & (after - before):
        return "No."
    return "Yes." if is_own and asked <= before - after else ""
