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
from nanosft.generate.offline.intents import find_intent
from nanosft.generate.offline.phrases import Intent, Phrases, Pool, load_phrases
from nanosft.generate.offline.quiz import Quiz
from nanosft.generate.offline.retelling import Reteller
from nanosft.generate.offline.speaker import Speaker, find_proper_words, join
from nanosft.generate.planning import Move, Plan, PlanRow, Topic, rewrite_message

SOURCE: Final = "offline"
_REACTION_SHARE: Final = 0.6
_CLOSER_SHARE: Final = 0.2
_SUPPORT_SHARE: Final = 0.7
_REASON_SHARE: Final = 0.3
_QUIZ_SHARE: Final = 0.7
_WHO_SHARE: Final = 0.2
_UNKNOWN_SHARE: Final = 0.07
_NEAR_SHARE: Final = 0.3
_SECTION_SHARE: Final = 0.25
_INTRODUCTION_SHARE: Final = 0.15
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
        self._phrases = load_phrases()
        self._facts = FactIndex(plan.knowledge, self._phrases.concepts)
        proper = find_proper_words(plan.knowledge)
        self._quiz = Quiz(plan.knowledge, self._phrases, keep=proper)
        self._reteller = Reteller(plan.knowledge, self._phrases, keep=proper)

    def compose(self, row: PlanRow) -> Conversation:
        """The conversation of a plan row: the dynamic's number of messages, beginning with the row's first message."""
        dialogue = _Dialogue(self._plan, self._facts, self._phrases, self._quiz, self._reteller, row)
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

    def __init__(
        self, plan: Plan, facts: FactIndex, phrases: Phrases, quiz: Quiz, reteller: Reteller, row: PlanRow
    ) -> None:
        self.messages: list[Message] = []
        self._plan, self._row, self._topic = plan, row, row.topic
        self._facts, self._phrases, self._quiz = facts, phrases, quiz
        self._rng = random.Random(row.seed)  # noqa: S311 - not for secrets
        self._speaker = Speaker(
            plan.knowledge,
            facts,
            phrases,
            reteller,
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
        speaker, phrases = self._speaker, self._phrases
        match move:
            case "ask":
                self._ask()
            case "more" | "related":
                self._ask_next(is_related=move == "related")
            case "who":
                self._ask_who()
            case "wrong":
                claim = speaker.pick(phrases.ask_wrong)
                fact = speaker.support(_WORDS_ON_OTHERS, self._facts.sections, 0.5)
                self._say(claim, join(speaker.identify("other"), fact))
            case "doubt":
                doubt = speaker.pick(phrases.ask_doubt)
                self._say(doubt, speaker.stand_by(_SUPPORT_SHARE))
            case "simpler":
                self._say(speaker.pick(phrases.ask_simpler), speaker.simplify())
            case "unknown":
                has_maker = bool(self._plan.knowledge.maker)
                question = speaker.pick([text for text in phrases.ask_unknown if has_maker or "{maker}" not in text])
                speaker.forget_last()
                reason = speaker.support(_WORDS_ON_NOT_KNOWING, self._facts.sections, _REASON_SHARE)
                answer = join(speaker.pick(phrases.do_not_know), reason or speaker.pick(phrases.why_unknown))
                self._say(question, answer)
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
        if self._rng.random() < _QUIZ_SHARE and self._ask_for_fact(is_related=is_related):
            return
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

    def _ask_who(self) -> None:
        """Who it is, what it is called or who made it."""
        intents: list[tuple[Intent, Pool]] = [("who", self._phrases.ask_who), ("name", self._phrases.ask_name)]
        if self._plan.knowledge.maker:
            intents += [("made", self._phrases.ask_made)] * 2
        intent, pool = self._rng.choice(intents)
        self._say(self._introduce(self._speaker.pick(pool)), self._speaker.identify(intent))

    def _ask_for_fact(self, *, is_related: bool) -> bool:
        """A question for one fact not told yet, for a section, for who it is, or what none answers; False without."""
        speaker, knowledge = self._speaker, self._plan.knowledge
        own = [fact for fact in knowledge.facts if fact.topic in self._topic.sections]
        is_near = not is_related and self._rng.random() < _NEAR_SHARE
        untold = (speaker.untold(own) if is_near else []) or speaker.untold(knowledge.facts)
        draw = self._rng.random()
        if draw < _WHO_SHARE:
            self._ask_who()
            return True
        if draw < _WHO_SHARE + _UNKNOWN_SHARE:
            self.take_turn("unknown")
            return True
        if not untold:
            return False
        fact = self._rng.choice(untold)
        if self._rng.random() < _SECTION_SHARE:
            question = self._quiz.ask_for_section(fact.topic, self._rng)
            answer = speaker.tell_section([other for other in untold if other.topic == fact.topic])
        else:
            question = self._quiz.ask(fact, self._rng)
            answer = speaker.tell(fact, question.reply)
        self._say(self._introduce(question.text), answer)
        return True

    def _introduce(self, question: str) -> str:
        """The question, at times with words on who asks it."""
        if self._rng.random() >= _INTRODUCTION_SHARE:
            return question
        template = self._rng.choice(self._phrases.introductions)
        return template.replace("{persona}", self._row.persona.description).replace("{text}", question)

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
        user = rewrite_message(user, self._row.style, self._rng, self._plan.knowledge.name)
        self.messages += [Message("user", user), Message("assistant", assistant)]
