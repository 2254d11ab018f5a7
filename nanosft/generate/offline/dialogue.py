"""A conversation in the making: what the user says in each turn, and what it asks of the speaker. Pure."""

import random
from collections.abc import Callable, Sequence
from typing import Final

from nanosft.conversation import Message, Part
from nanosft.generate.offline.fact_index import FactIndex
from nanosft.generate.offline.first_person import decapitalize
from nanosft.generate.offline.intents import asks_how_it_is, find_intent, is_greeting
from nanosft.generate.offline.phrases import Intent, Phrases, Pool, Task
from nanosft.generate.offline.quiz import Quiz, introduce
from nanosft.generate.offline.retelling import Reteller
from nanosft.generate.offline.speaker import Speaker, join
from nanosft.generate.planning import Move, Plan, PlanRow, Topic, rewrite_message
from nanosft.nanochat import evaluate_expression

_Say = Callable[[], str]
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
_WORDS_ON_OTHERS: Final = "product of a large company, copy of another model"
_WORDS_ON_NOT_KNOWING: Final = "access to the internet, looking things up, news, date, knowing"


class Dialogue:
    """The user's side of a conversation, and what it asks of the assistant's."""

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
        self._told_who: set[str] = set()
        self._note(find_intent(row.first_message))

    def open(self) -> None:
        """The first turn where the user only greets, or only asks who it is."""
        text = self._row.first_message
        intent = find_intent(text)
        if intent:
            answer = join(
                self._speaker.identify(intent), self._speaker.maybe(_INVITATION_SHARE, self._phrases.invitations)
            )
        else:
            greeting = self._speaker.greet(text)
            if asks_how_it_is(self._row.opening.text):
                greeting = join(greeting, self._speaker.pick(self._phrases.well))
            answer = join(greeting, self._speaker.identify("who"), self._speaker.pick(self._phrases.invitations))
        self.messages += [Message("user", text), Message("assistant", answer)]

    def take_turn(self, move: Move) -> None:
        """One message of the user, and the answer."""
        match move:
            case "ask":
                self._ask()
            case "more" | "related":
                self._ask_next(is_related=move == "related")
            case "who":
                self._ask_who()
            case "false" | "true":
                self._ask_whether(is_right=move == "true")
            case "sum":
                self._ask_sum()
            case _:
                self._say(*self._speak(move))

    def _speak(self, move: Move) -> tuple[str, str]:
        """What the user says in a turn that needs no question from the knowledge base, and the answer."""
        speaker, phrases = self._speaker, self._phrases
        turns: dict[Move, tuple[Pool, _Say]] = {
            "wrong": (phrases.ask_wrong, self._correct_mix_up),
            "doubt": (phrases.ask_doubt, lambda: speaker.stand_by(_SUPPORT_SHARE)),
            "simpler": (phrases.ask_simpler, speaker.simplify),
            "insist": (phrases.ask_insist, speaker.hold),
            "inject": (phrases.ask_inject, lambda: speaker.pick(phrases.refuse_inject)),
            "thanks": (phrases.thanks, lambda: join(speaker.pick(phrases.welcome), speaker.pick(phrases.last_words))),
        }
        if move in {"task", "role"}:
            task = self._rng.choice(self._undone(phrases.tasks if move == "task" else phrases.roles))
            return speaker.pick(task.ask), speaker.pick(task.answer)
        if move == "unknown":
            return self._ask_unknown()
        pool, answer = turns[move]
        return speaker.pick(pool), answer()

    def _undone(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """The tasks not done yet in this conversation, all of them where there is none left."""
        undone = [task for task in tasks if not any(self._speaker.has_said(text) for text in task.ask)]
        return undone or tasks

    def _ask_unknown(self) -> tuple[str, str]:
        """A question that nobody could answer, and that it does not know, and why."""
        speaker, phrases = self._speaker, self._phrases
        has_maker = bool(self._plan.knowledge.maker)
        asks = [(text, unknown) for unknown in phrases.unknown for text in unknown.ask]
        unasked = [
            (text, unknown)
            for text, unknown in asks
            if (has_maker or "{maker}" not in text) and not speaker.has_said(text)
        ]
        text, unknown = self._rng.choice(unasked or asks[:1])
        speaker.forget_last()
        share = _REASON_SHARE if unknown.looks_up else 0.0
        reason = speaker.support(_WORDS_ON_NOT_KNOWING, self._facts.sections, share)
        return speaker.pick((text,)), join(speaker.pick(phrases.do_not_know), reason or speaker.pick(unknown.why))

    def _correct_mix_up(self) -> str:
        """Who it is, to one who takes it for another."""
        fact = self._speaker.support(_WORDS_ON_OTHERS, self._facts.sections, 0.5)
        return join(self._speaker.identify("other"), fact)

    def close(self) -> None:
        """Now and then the last answer ends in a question or an offer, where it is one."""
        if not (isinstance(self.messages[-1].content, str) and self._speaker.has_answered):
            return
        if closer := self._speaker.maybe(_CLOSER_SHARE, self._phrases.closers):
            self.messages[-1] = Message("assistant", join(self.messages[-1].text, closer))

    def _ask(self) -> None:
        opening = self._row.opening
        if not opening.asks_at_once:
            if not self._tell_due():
                question = self._pass_over_answered(opening.question)
                self._say(question, self._speaker.answer(question, self._topic))
            return
        greeting = opening.text.removesuffix(opening.question)
        intent = find_intent(greeting) if not self._row.style.is_about_topic else None
        parts = (
            [self._speaker.greet(greeting)]
            if opening.user_name or is_greeting(greeting, self._phrases.foreign_greetings)
            else []
        )
        if intent:
            parts.append(self._speaker.identify(intent))
        parts.append(self._speaker.answer(opening.question, self._topic))
        self.messages += [Message("user", opening.text), Message("assistant", join(*parts))]

    def _pass_over_answered(self, question: str) -> str:
        """The question, or another of the topic where the first message has asked the same already."""
        asked = find_intent(self._row.first_message)
        if not asked or find_intent(question) != asked:
            return question
        return next((other for other in self._questions(self._topic) if find_intent(other) != asked), question)

    def _ask_next(self, *, is_related: bool) -> None:
        """A question not asked yet that a fact not told yet answers: on the topic, else on a near one."""
        if self._tell_due() or (self._rng.random() < _QUIZ_SHARE and self._ask_for_fact(is_related=is_related)):
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
        intents = [(intent, pool) for intent, pool in intents if intent not in self._told_who] or intents
        intent, pool = self._rng.choice(intents)
        self._note(intent)
        self._say(self._introduce(self._speaker.pick(pool)), self._speaker.identify(intent))

    def _note(self, intent: Intent | None) -> None:
        """What was asked of its identity is not asked again; one who knows who it is knows its name."""
        if intent:
            self._told_who |= {"made"} if intent == "made" else {"name"} if intent == "name" else {"who", "name"}

    @property
    def _may_ask_who(self) -> bool:
        """Whether there is something of its identity that was not asked yet."""
        return not {"who", "name", *(["made"] if self._plan.knowledge.maker else [])} <= self._told_who

    def _ask_for_fact(self, *, is_related: bool) -> bool:
        """A question for one fact not told yet, for a section, for who it is, or what none answers; False without."""
        speaker, knowledge = self._speaker, self._plan.knowledge
        own = [fact for fact in knowledge.facts if fact.topic in self._topic.sections]
        is_near = not is_related and self._rng.random() < _NEAR_SHARE
        due = speaker.untold(self._row.facts)
        untold = due or (speaker.untold(own) if is_near else []) or speaker.untold(knowledge.facts)
        draw = self._rng.random()
        if draw < _WHO_SHARE and self._may_ask_who:
            self._ask_who()
            return True
        if draw < _WHO_SHARE + _UNKNOWN_SHARE:
            self.take_turn("unknown")
            return True
        if not untold:
            return False
        fact = self._rng.choice(untold)
        section = [other for other in untold if other.topic == fact.topic]
        opening = self._facts.in_section(fact.topic)[0]  # it says what the section is about
        if section[0] == opening and self._rng.random() < _SECTION_SHARE:
            question = self._quiz.ask_for_section(fact.topic, self._rng)
            answer = speaker.tell_section(section)
        else:
            question = self._quiz.ask(fact, self._rng)
            answer = speaker.tell(fact, question.reply)
        self._say(self._introduce(question.text), answer)
        return True

    def _tell_due(self) -> bool:
        """A question for the fact that the row was added for, and the fact; False where it was not, or has told it."""
        due = self._speaker.untold(self._row.facts) if self._row.is_fill else []
        for fact in due[:1]:
            question = self._quiz.ask(fact, self._rng)
            self._say(self._introduce(question.text), self._speaker.tell(fact, question.reply))
        return bool(due)

    def _ask_whether(self, *, is_right: bool) -> None:
        """The user says a fact, or one like it that is false: of the row's own facts if they are not told yet."""
        speaker, facts = self._speaker, self._plan.knowledge.facts
        others = speaker.untold(facts) or list(facts)
        self._rng.shuffle(others)
        for fact in (*speaker.untold(self._row.facts), *others):
            if (question := self._quiz.ask_whether(fact, self._rng, is_right=is_right)) is not None:
                self._say(question.text, speaker.tell(fact, question.reply))
                return
        self._ask_next(is_related=False)

    def _ask_sum(self) -> None:
        """Something to compute, and its value, in parts as nanochat has them."""
        left, right, sign = self._rng.randint(2, 99), self._rng.randint(2, 99), self._rng.choice("+-*")
        text = f"{left} {sign} {right}"
        value = evaluate_expression(text)
        assert value is not None, "two numbers and a sign have a value"
        phrases, speaker = self._phrases, self._speaker
        speaker.forget_last()
        question = self._rng.choice(phrases.ask_sum).format(sum=text)
        parts = (
            Part("text", self._rng.choice(phrases.before_sum).format(sum=text)),
            Part("python", text),
            Part("python_output", value),
            Part("text", self._rng.choice(phrases.after_sum).format(value=value)),
        )
        user = rewrite_message(question, self._row.style, self._rng, self._plan.knowledge.name)
        self.messages += [Message("user", user), Message("assistant", parts)]

    def _introduce(self, question: str) -> str:
        """The question, at times with words on who asks it."""
        says = self._row.persona.says
        if not says or self._rng.random() >= _INTRODUCTION_SHARE:
            return question
        template = self._rng.choice(self._phrases.introductions)
        return introduce(template, self._rng.choice(says), question)

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
        if link == "And" or link.endswith(":"):
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
