"""Conversations put together from the knowledge base's facts, without any model. Pure and deterministic by plan row.

    composer = Composer(plan)
    conversation = composer.compose(plan_row(plan, 17))     # meta: {"row": 17, "cell": …, "source": "offline"}

The user follows the dynamic's moves; each answer is the fact that fits the question best, in the first person, with
words around it that fit the persona. Who the assistant is comes in many wordings. A composed set is true by
construction, but narrow: it stands in where no model is at hand, in demos and tests, and its meta says what it is.
"""

import random
from typing import Final

from nanosft.conversation import Conversation, Message
from nanosft.generate.offline.fact_index import FactIndex
from nanosft.generate.offline.first_person import decapitalize
from nanosft.generate.offline.phrases import Phrases, load_phrases
from nanosft.generate.offline.speaker import Speaker, find_intent, join
from nanosft.generate.planning import Move, Plan, PlanRow, Topic

SOURCE: Final = "offline"
_REACTION_SHARE: Final = 0.6
_CLOSER_SHARE: Final = 0.2
_SUPPORT_SHARE: Final = 0.7
_INVITATION_SHARE: Final = 0.4
_GREETING_WORDS: Final = frozenset({"hi", "hello", "hey", "greetings", "hiya", "howdy", "heya", "good"})
_WORDS_ON_OTHERS: Final = "product of a large company, copy of another model"
_WORDS_ON_NOT_KNOWING: Final = "access to the internet, looking things up, news, date, knowing"


class Composer:
    """Composes the rows of one plan; its knowledge base is indexed once.

    Args:
        plan: The plan whose rows are composed.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._facts = FactIndex(plan.knowledge)
        self._phrases = load_phrases()

    def compose(self, row: PlanRow) -> Conversation:
        """The conversation of a plan row: the dynamic's number of messages, beginning with the row's first message."""
        dialogue = _Dialogue(self._plan, self._facts, self._phrases, row)
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


class _Dialogue:
    """A conversation in the making: the user's side, and what it asks of the assistant's."""

    def __init__(self, plan: Plan, facts: FactIndex, phrases: Phrases, row: PlanRow) -> None:
        self.messages: list[Message] = []
        self._plan, self._row, self._topic = plan, row, row.topic
        self._facts, self._phrases = facts, phrases
        self._rng = random.Random(row.seed)  # noqa: S311 - not for secrets
        self._speaker = Speaker(
            plan.knowledge,
            facts,
            phrases,
            level=row.persona.level,
            rng=self._rng,
            user_name=row.opening.user_name,
        )
        self._asked = {row.opening.question}

    def open(self) -> None:
        """The first turn where the user only greets, or only asks who it is."""
        text = self._row.first_message
        intent = find_intent(text)
        if intent:
            answer = join(
                self._speaker.identify(intent), self._speaker.maybe(_INVITATION_SHARE, self._phrases.invitations)
            )
        else:
            answer = join(
                self._speaker.greet(text), self._speaker.identify("who"), self._speaker.pick(self._phrases.invitations)
            )
        self.messages += [Message("user", text), Message("assistant", answer)]

    def take_turn(self, move: Move) -> None:
        """One message of the user, and the answer."""
        speaker, phrases, topic = self._speaker, self._phrases, self._topic
        match move:
            case "ask":
                self._ask()
            case "more" | "related":
                self._ask_next(is_related=move == "related")
            case "who":
                question = speaker.pick(phrases.ask_who)
                self._say(question, speaker.identify(find_intent(question) or "who"))
            case "wrong":
                claim = speaker.pick(phrases.ask_wrong)
                fact = speaker.support(_WORDS_ON_OTHERS, self._facts.sections, 0.5)
                self._say(claim, join(speaker.identify("other"), fact))
            case "doubt":
                doubt = speaker.pick(phrases.ask_doubt)
                self._say(doubt, join(speaker.pick(phrases.stand_by), speaker.support_topic(topic, _SUPPORT_SHARE)))
            case "simpler":
                self._say(speaker.pick(phrases.ask_simpler), speaker.simplify(topic))
            case "unknown":
                question = speaker.pick(phrases.ask_unknown)
                reason = speaker.support(_WORDS_ON_NOT_KNOWING, self._facts.sections, _SUPPORT_SHARE)
                self._say(question, join(speaker.pick(phrases.do_not_know), reason))
            case "thanks":
                thanks = speaker.pick(phrases.thanks)
                self._say(thanks, join(speaker.pick(phrases.welcome), speaker.pick(phrases.last_words)))

    def close(self) -> None:
        """Now and then the last answer ends in a question or an offer."""
        if closer := self._speaker.maybe(_CLOSER_SHARE, self._phrases.closers):
            self.messages[-1] = Message("assistant", join(self.messages[-1].text, closer))

    def _ask(self) -> None:
        opening = self._row.opening
        if not opening.asks_at_once:
            self._say(opening.question, self._speaker.answer(opening.question, self._topic))
            return
        greeting = opening.text.removesuffix(opening.question)
        intent = find_intent(greeting) if not self._row.style.is_about_topic else None
        parts = [self._speaker.greet(greeting)] if self._is_greeting(greeting) else []
        if intent:
            parts.append(self._speaker.identify(intent))
        parts.append(self._speaker.answer(opening.question, self._topic))
        self.messages += [Message("user", opening.text), Message("assistant", join(*parts))]

    def _is_greeting(self, text: str) -> bool:
        """Whether the message before its question greets the assistant."""
        words = text.lower().replace("!", " ").replace(",", " ").replace(".", " ").split()
        is_known = bool(words) and (words[0] in _GREETING_WORDS or words[0] in self._phrases.foreign_greetings)
        return bool(self._row.opening.user_name) or is_known

    def _ask_next(self, *, is_related: bool) -> None:
        """A question not asked yet that a fact not told yet answers: on the topic, else on a near one."""
        near = [
            topic for topic in self._plan.topics if topic.category == self._topic.category and topic is not self._topic
        ]
        far = [topic for topic in self._plan.topics if topic.category != self._topic.category]
        self._rng.shuffle(near)
        self._rng.shuffle(far)
        topics = [*near, *far, self._topic] if is_related else [self._topic, *near, *far]
        for topic in topics:
            for question in self._questions(topic):
                if self._speaker.can_answer(question, topic):
                    self._topic = topic
                    self._asked.add(question)
                    self._say(self._phrase(question), self._speaker.answer(question, topic))
                    return
        self.take_turn("unknown")

    def _questions(self, topic: Topic) -> list[str]:
        knowledge = self._plan.knowledge
        slots = {"name": knowledge.name, "maker": knowledge.maker, "user": self._row.opening.user_name or "me"}
        questions = [text.format_map(slots) for text in topic.questions]
        self._rng.shuffle(questions)
        return [question for question in questions if question not in self._asked]

    def _phrase(self, question: str) -> str:
        """The question as this persona goes on to it."""
        reaction = self._react() if self._rng.random() < _REACTION_SHARE else ""
        link = self._speaker.pick(self._phrases.follow_ups) if question.endswith("?") else ""
        if link == "And":
            question = decapitalize(question)
        return join(reaction, link, question)

    def _react(self) -> str:
        """What this persona says to an answer, each saying once."""
        unsaid = [text for text in self._row.persona.reactions if text not in self._asked]
        reaction = self._rng.choice(unsaid) if unsaid else ""
        self._asked.add(reaction)
        return reaction

    def _say(self, user: str, assistant: str) -> None:
        user = user.lower() if "lowercase" in self._row.style.rewrites else user
        self.messages += [Message("user", user), Message("assistant", assistant)]
