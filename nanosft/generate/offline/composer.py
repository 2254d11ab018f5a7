"""Conversations put together from the knowledge base's facts, without any model. Pure and deterministic by plan row.

    composer = Composer(plan)
    conversation = composer.compose(plan_row(plan, 17))     # meta: {"row": 17, "cell": …, "source": "offline"}

The user follows the dynamic's moves; each answer is the fact that fits the question best, in the first person, with
words around it that fit the persona. Who the assistant is comes in many wordings. A composed set is true by
construction, but narrow: it stands in where no model is at hand, in demos and tests, and its meta says what it is.
"""

from typing import Final

from nanosft.conversation import Conversation
from nanosft.generate.offline.dialogue import Dialogue
from nanosft.generate.offline.fact_index import FactIndex
from nanosft.generate.offline.first_person import find_proper_words
from nanosft.generate.offline.phrases import load_phrases
from nanosft.generate.offline.quiz import Quiz
from nanosft.generate.offline.retelling import Reteller
from nanosft.generate.planning import Move, Plan, PlanRow

SOURCE: Final = "offline"


class Composer:
    """Composes the rows of one plan; its knowledge base is indexed once.

    Args:
        plan: The plan whose rows are composed.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._phrases = load_phrases()
        self._facts = FactIndex(plan.knowledge, self._phrases.concepts, self._phrases.asks)
        proper = find_proper_words(plan.knowledge)
        self._quiz = Quiz(plan.knowledge, self._phrases, keep=proper)
        self._reteller = Reteller(plan.knowledge, self._phrases, keep=proper)

    def compose(self, row: PlanRow) -> Conversation:
        """The conversation of a plan row: the dynamic's number of messages, beginning with the row's first message."""
        dialogue = Dialogue(self._plan, self._facts, self._phrases, self._quiz, self._reteller, row)
        moves: list[Move] = list(row.dynamic.moves)
        if not row.opening.asks_at_once:
            dialogue.open()
            spare = [place for place, move in enumerate(moves) if move in {"more", "related"}] or [len(moves) - 1]
            del moves[spare[-1]]
        for move in moves:
            dialogue.take_turn(move)
        if moves[-1] in {"ask", "more", "related"}:
            dialogue.close()
        meta = {"row": row.row, "cell": row.cell, "source": SOURCE}
        return Conversation(tuple(dialogue.messages), meta)
