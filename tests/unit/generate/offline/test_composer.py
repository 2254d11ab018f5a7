"""Conversations composed offline are true, well formed, varied, and say what they are."""

import random
import re
from collections import Counter
from operator import add, mul, sub
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosft.conversation import Conversation, Message, Part, parse_line, role_problem, to_line
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.generate.offline import Composer
from nanosft.generate.offline.explaining import Explainer
from nanosft.generate.offline.fact_index import FactIndex
from nanosft.generate.offline.first_person import to_first_person
from nanosft.generate.offline.fit import decide
from nanosft.generate.offline.intents import asks_how_it_is, find_intent, is_greeting
from nanosft.generate.offline.phrases import load_phrases
from nanosft.generate.offline.quiz import introduce
from nanosft.generate.offline.retelling import Reteller
from nanosft.generate.offline.speaker import Speaker
from nanosft.generate.planning import make_plan, plan_row, read_dimensions
from nanosft.knowledge import StatedFacts, parse_knowledge, read_knowledge
from nanosft.knowledge.text import split_sentences
from nanosft.quality.gates import Context, Gates, check
from nanosft.quality.grounding import make_reference

BASE = Path(__file__).parents[4] / "knowledge" / "self_knowledge.md"
PLAN = make_plan(read_dimensions(), read_knowledge(str(BASE)), seed=0)
COMPOSER = Composer(PLAN)
NUM_ROWS = 1000

OTHER = """\
# FooBot

FooBot is a chat assistant for gardeners. It was written by Jane Doe in 2024.

## Skills
- FooBot identifies plants by description.
- FooBot cannot see pictures.

## Install
Install it with one command. Python 3.10 or newer is needed.
"""


@pytest.fixture(scope="module")
def composed() -> list[Conversation]:
    return [COMPOSER.compose(plan_row(PLAN, number)) for number in range(NUM_ROWS)]


def test_every_row_passes_every_gate(composed):
    context = Context(Gates(ascii_policy="reject", strict_grounding=True), reference=make_reference(PLAN.knowledge))
    refused = Counter[str]()
    for number, conversation in enumerate(composed):
        row = plan_row(PLAN, number)
        verdict = check(conversation, context, num_messages=row.num_messages, names_itself=row.topic.names_itself)
        refused.update(f"{defect.gate}: {defect.detail}" for defect in verdict.defects if defect.refuses)
    assert sum(refused.values()) <= 0.012 * NUM_ROWS, refused.most_common(5)


def test_few_are_near_duplicates(composed):
    index = NearDuplicateIndex()
    num_kept = 0
    for conversation in composed:
        text = normalize_text(conversation)
        if index.query(text) is None:
            index.add(text)
            num_kept += 1
    assert num_kept >= 0.95 * NUM_ROWS


def test_conversations_follow_the_row(composed):
    for number, conversation in enumerate(composed):
        row = plan_row(PLAN, number)
        assert conversation.messages[0].content == row.first_message
        assert len(conversation.messages) == row.num_messages
        assert role_problem(conversation.messages) is None


def test_meta_says_that_no_model_wrote_it(composed):
    meta = composed[17].meta
    assert meta["row"] == 17
    assert meta["cell"] == plan_row(PLAN, 17).cell
    assert meta["source"] == "offline"
    assert parse_line(to_line(composed[17]), where="x") == composed[17]


def test_asked_for_its_name_it_gives_it(composed):
    asked = Counter[bool]()
    for conversation in composed:
        for question, answer in zip(conversation.messages[::2], conversation.messages[1::2], strict=True):
            if re.search(r"\b(?:who are you(?! meant)|what is your name|what's your name)\b", question.text.lower()):
                asked["nanochat" in answer.text] += 1
    assert asked[False] == 0
    assert asked[True] > 80  # in these words; there are many others


def test_asked_for_its_maker_it_names_him(composed):
    answers = [
        answer.text
        for conversation in composed
        for question, answer in zip(conversation.messages[::2], conversation.messages[1::2], strict=True)
        if find_intent(question.text) == "made"
    ]
    assert len(answers) > 50
    assert all("Andrej Karpathy" in answer for answer in answers)


def test_taken_for_another_it_says_who_it_is(composed):
    answers = [
        conversation.messages[3].text
        for number, conversation in enumerate(composed)
        if plan_row(PLAN, number).dynamic.id == "mix-up" and plan_row(PLAN, number).opening.asks_at_once
    ]
    assert len(answers) > 30
    assert all("nanochat" in answer for answer in answers)


def test_each_fact_of_the_demo_is_asked_for_in_three_ways_at_least():
    knowledge = read_knowledge(str(BASE.with_name("demo.md")))
    plan = make_plan(read_dimensions(), knowledge, seed=0)
    composer = Composer(plan)
    questions: dict[str, set[str]] = {fact.id: set() for fact in knowledge.facts}
    stated = StatedFacts(knowledge)
    for number in range(600):
        messages = composer.compose(plan_row(plan, number)).messages
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            for fact in stated.find(answer.text):
                questions[fact.id].add(question.text)
    assert min(map(len, questions.values())) >= 6, {key: len(texts) for key, texts in questions.items()}


def test_a_doubt_is_met_with_what_was_said_before(composed):
    phrases, stated = load_phrases(), StatedFacts(PLAN.knowledge)
    stand_by = (*phrases.stand_by, *phrases.stand_by_not_knowing, *phrases.stand_by_it)
    for number, conversation in enumerate(composed):
        if plan_row(PLAN, number).dynamic.id == "doubt":
            *_, before, _, after = conversation.messages
            assert after.text.startswith(stand_by)
            assert {fact.id for fact in stated.find(after.text)} <= {fact.id for fact in stated.find(before.text)}


def test_a_doubt_is_not_met_with_the_same_words_around_the_fact(composed):
    frames = tuple(frame.partition("{clause}")[0] for frame in load_phrases().frames if "{clause}" in frame)
    for number, conversation in enumerate(composed):
        if plan_row(PLAN, number).dynamic.id in {"doubt", "insist"}:
            told = conversation.messages[-1].text.partition(": ")[2]
            assert not told.startswith(frames)


def test_plainer_words_are_a_whole_sentence(composed):
    texts = [message.text for conversation in composed for message in conversation.messages[1::2]]
    assert not [text for text in texts if re.search(r": The \w+\.", text)]


def test_most_answers_hold_a_fact_of_the_topic(composed):
    with_fact = 0
    stated = StatedFacts(PLAN.knowledge)
    for number, conversation in enumerate(composed):
        sections = plan_row(PLAN, number).topic.sections
        text = " ".join(message.text for message in conversation.messages if message.role == "assistant")
        with_fact += any(fact.topic in sections for fact in stated.find(text))
    assert with_fact > 0.95 * NUM_ROWS


def test_no_answer_announces_what_does_not_come(composed):
    texts = [message.text for conversation in composed for message in conversation.messages]
    assert not [text for text in texts if text.rstrip().endswith((":", ","))]


@pytest.mark.parametrize(
    ("question", "statement", "wanted"),
    [
        ("Can you do math?", "Zed can do math and sums.", "Yes."),
        ("Do you have a body?", "Zed has no voice and no body.", "No."),
        ("Is your code public?", "The code is public at a site.", "Yes."),
        ("Do your layers have biases?", "The layers have no biases, and the heads share nothing.", "No."),
        ("Do all layers see the context?", "Some layers see a window, and the last one sees the context.", ""),
        ("Can I tell you a secret?", "Who hosts Zed reads all, so secrets do not belong in a chat.", ""),
        ("Are your answers reliable?", "Answers should be checked with a reliable source.", ""),
        ("Should I check your answers?", "Answers should be checked with a reliable source.", "Yes."),
        ("Are you old?", "Zed can sing.", ""),
    ],
)
def test_yes_and_no_stand_where_the_fact_decides(question, statement, wanted):
    knowledge = parse_knowledge(f"# Zed\n## A\n- {statement}\n- Zed can sing.\n", where="k")
    assert decide(question, statement, FactIndex(knowledge), "Zed") == wanted


def test_answers_differ(composed):
    answers = Counter(
        message.text for conversation in composed for message in conversation.messages if message.role == "assistant"
    )
    assert len(answers) > 0.6 * sum(answers.values())


def test_engineers_hear_more_than_children(composed):
    lengths: dict[str, list[int]] = {"simple": [], "technical": [], "plain": []}
    for number, conversation in enumerate(composed):
        row = plan_row(PLAN, number)
        if row.num_messages == 2:
            lengths[row.persona.level].append(len(conversation.messages[1].text))
    means = {level: sum(found) / len(found) for level, found in lengths.items()}
    assert means["simple"] < means["plain"] < means["technical"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 5))
def test_any_row_composes_alike_twice(number, variant):
    row = plan_row(PLAN, number, variant)
    assert COMPOSER.compose(row) == COMPOSER.compose(row)
    assert len(COMPOSER.compose(row).messages) == row.num_messages


def test_another_prompt_variant_is_another_conversation():
    assert all(
        COMPOSER.compose(plan_row(PLAN, number)).id != COMPOSER.compose(plan_row(PLAN, number, 1)).id
        for number in range(100)
    )


@pytest.mark.parametrize("text", [OTHER, OTHER.replace("It was written by Jane Doe in 2024.", "")])
def test_any_other_assistant_is_composed_as_well(text):
    knowledge = parse_knowledge(text, where="README.md")
    plan = make_plan(read_dimensions(), knowledge, seed=3)
    context = Context(Gates(), reference=make_reference(knowledge))
    verdicts = []
    composer = Composer(plan)
    for number in range(200):
        row = plan_row(plan, number)
        conversation = composer.compose(row)
        assert "nanochat" not in conversation.messages[1].text
        assert "{" not in " ".join(message.text for message in conversation.messages)
        verdicts.append(check(conversation, context, num_messages=row.num_messages))
    assert sum(verdict.accepted for verdict in verdicts) >= 190


def test_a_question_no_fact_answers_is_met_with_honesty():
    knowledge = parse_knowledge("# Zed\n## Skills\n- Zed sings old songs.\n", where="k")
    plan = make_plan(read_dimensions(), knowledge, seed=0)
    texts = []
    for number in range(400):
        row = plan_row(plan, number)
        if row.opening.question == "Can you do math?" and row.opening.asks_at_once:
            texts.append(Composer(plan).compose(row).messages[1].text)
    assert texts
    assert all(re.search(r"not (?:know|certain|have an exact)|cannot say|beyond what I know", text) for text in texts)


def test_answers_are_said_in_many_ways(composed):
    """A fact was said in one sentence, used again in 84 % of all; of the long ones it is 46 % in a thousand rows."""
    sentences = Counter(
        sentence
        for conversation in composed
        for message in conversation.messages[1::2]
        for sentence in split_sentences(message.text)
        if len(sentence.split()) >= 15
    )
    assert sum(count for count in sentences.values() if count > 1) < 0.55 * sum(sentences.values())


@pytest.mark.parametrize(
    ("statement", "rest"),
    [
        ("Zed was published on May 3, 2024.", "{On May 3, 2024, I was published}"),
        ("In 2024 a tier cost about $100.", "{A tier cost about $100 in 2024}"),
        ("Zed is a helper that people like since 2024.", "{I am a helper that people like since 2024}"),
    ],
)
def test_the_time_of_a_fact_changes_places(statement, rest):
    knowledge = parse_knowledge(
        f"# Zed\n## A\n- {statement}\n- The large language model is at https://large.org.\n", where="k"
    )
    reteller = Reteller(knowledge, load_phrases(), keep=frozenset({"Zed"}))
    spoken = to_first_person(statement, "Zed")
    rng = random.Random(0)
    told = {reteller.retell(knowledge.facts[0], spoken, rng, framed=False).rstrip(".") for _ in range(60)}
    wanted = rest.strip("{}")
    assert any(text.replace("released", "published").replace("around", "about") == wanted for text in told), told
    links = {reteller.retell(knowledge.facts[1], knowledge.facts[1].statement, rng, framed=False) for _ in range(60)}
    assert links == {knowledge.facts[1].statement}


@pytest.mark.parametrize(
    ("statement", "question", "wanted"),
    [
        ("The context length of Zed is 2,048 tokens.", "How long is your context?", "2,048 tokens"),
        ("The context length of Zed is 2,048 tokens.", "How many tokens fit in?", "2,048 tokens"),
        ("The context length of Zed is 2,048 tokens.", "Why is your context like that?", ""),
        ("Training took 168 hours and cost $43.", "How much did it cost to train?", ""),
        ("Training took 168 hours and cost $43.", "How many hours did it take?", "168 hours"),
        ("A $1000 tier would train for a day.", "What would 1000 dollars buy?", ""),
    ],
)
def test_what_is_put_simply_is_the_number_that_was_asked_for(statement, question, wanted):
    knowledge = parse_knowledge(f"# Zed\n## Context\n- {statement}\n", where="k")
    phrases = load_phrases()
    explainer = Explainer(phrases, Reteller(knowledge, phrases, keep=frozenset()))
    found = explainer.boil_down(knowledge.facts[0], question, random.Random(0))
    assert wanted in found
    assert bool(wanted) == bool(found)


def test_plainer_words_say_what_hard_ones_mean():
    knowledge = parse_knowledge("# Zed\n## A\n- Zed reads 9 tokens at once.\n- Zed often sings.\n", where="k")
    phrases = load_phrases()
    explainer = Explainer(phrases, Reteller(knowledge, phrases, keep=frozenset()))
    first, second = (
        explainer.explain(fact, to_first_person(fact.statement, "Zed"), "", "", random.Random(0))
        for fact in knowledge.facts
    )
    assert first.endswith(phrases.meanings["tokens?"])
    assert re.search(r"\bI (?:often|frequently) sing\.$", second)


def find_answer(statements: list[str], question: str) -> str:
    """The fact that a small knowledge base of these answers a question with."""
    knowledge = parse_knowledge("# Zed\n## A\n" + "".join(f"- {text}\n" for text in statements), where="k")
    phrases = load_phrases()
    index = FactIndex(knowledge, phrases.concepts, phrases.asks)
    return index.find(question, index.sections)[0].fact.statement


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Which script trains you?", "The script go.sh runs everything."),
        ("How big are you?", "The small model has 5 million parameters."),
        ("How many layers do you have?", "The small model has 7 layers."),
        ("Are you conscious?", "Zed has no consciousness."),
        ("How can I contribute?", "Contributors send patches."),
    ],
)
def test_a_question_gets_the_kind_of_answer_that_it_asks_for(question, wanted):
    statements = [
        "The depth is the single dial that sets the size of the model.",
        "On many machines the scripts train with torchrun.",
        "The small model has 5 million parameters.",
        "The small model has 7 layers.",
        "The script go.sh runs everything.",
        "Zed has no consciousness.",
        "Contributors send patches.",
    ]
    assert find_answer(statements, question) == wanted


def test_what_people_learn_with_it_and_why_it_matters_are_no_questions_for_the_next_best_fact():
    statements = [
        "Zed shows the whole way from text to model.",
        "The goal of the project is models that people can work with.",
        "Zed is meant for students who want to learn how models are made.",
    ]
    assert find_answer(statements, "What do people learn with Zed?") == statements[2]
    assert find_answer(statements, "Let us see if you know why you matter.") in statements[:2]


def test_a_question_that_begins_with_so_is_not_introduced_by_so():
    composer = Composer(PLAN)
    composer._phrases = load_phrases().model_copy(update={"introductions": ("{says} So: {text}",)})
    asked = [
        message.text
        for number in range(600)
        for message in composer.compose(plan_row(PLAN, number)).messages
        if message.role == "user" and isinstance(message.content, str)
    ]
    assert sum(" So: " in text for text in asked) > 2
    assert sum(bool(re.search(r"[.!] So \w", text)) for text in asked) > 0
    assert not [text for text in asked if "So: So " in text]


def test_the_word_else_of_a_question_makes_no_fact_its_answer():
    statements = [
        "A copy at home sends words nowhere else.",
        "Who hosts Zed for other people decides what is stored here.",
    ]
    assert find_answer(statements, "What happens when someone else hosts you?") == statements[1]


@pytest.mark.parametrize(
    ("template", "saying", "question", "wanted"),
    [
        (
            "{says} So: {text}",
            "I have little time.",
            "By the way, who are you?",
            "I have little time. By the way, who are you?",
        ),
        ("{says} So: {text}", "I have little time.", "Who made you?", "I have little time. So: Who made you?"),
        (
            "You should know: {says} {text}",
            "Please use easy words.",
            "Who are you?",
            "Please use easy words. Who are you?",
        ),
        ("You should know: {says} {text}", "I am ten.", "Who are you?", "You should know: I am ten. Who are you?"),
    ],
)
def test_an_introduction_fits_what_it_introduces(template, saying, question, wanted):
    assert introduce(template, saying, question) == wanted


def test_one_who_asks_how_it_is_is_told(composed):
    well = load_phrases().well
    asked = set()
    for number, conversation in enumerate(composed):
        opening = plan_row(PLAN, number).opening
        if not opening.asks_at_once:
            answer = next(message.text for message in conversation.messages if message.role == "assistant")
            assert any(text in answer for text in well) == asks_how_it_is(opening.text), opening.text
            asked |= {opening.text} if asks_how_it_is(opening.text) else set()
    assert len(asked) > 2
    assert not asks_how_it_is("How are you trained?")
    assert not asks_how_it_is("Who are you?")


def test_what_there_is_to_say_of_a_section_begins_with_what_it_is_about(monkeypatch):
    """One who asked for something about the cost heard how many hours it took: the rest of the section."""
    first, told = {topic.id: topic.facts[0] for topic in PLAN.knowledge.topics if topic.facts}, []
    tell = Speaker.tell_section

    def record(speaker, facts):
        told.append(facts[0])
        return tell(speaker, facts)

    monkeypatch.setattr(Speaker, "tell_section", record)
    for number in range(600):
        COMPOSER.compose(plan_row(PLAN, number))
    assert len(told) > 20
    assert [fact.statement for fact in told if fact != first[fact.topic]] == []


def test_no_answer_that_it_does_not_know_ends_in_the_hope_that_it_helps(composed):
    phrases = load_phrases()
    last = [conversation.messages[-1].text for conversation in composed]
    unknown = [text for text in last if text.startswith(tuple(phrases.do_not_know))]
    assert len(unknown) > 5
    assert not [text for text in unknown if text.endswith(tuple(phrases.closers))]


@pytest.mark.parametrize("text", ["Ni hao!", "Hola, what is this?", "Good morning", "hey"])
def test_a_greeting_of_one_word_or_two_is_known_as_one(text):
    assert is_greeting(text, load_phrases().foreign_greetings)


@pytest.mark.parametrize("text", ["", "What is new?", "ni", "Say ni hao to me."])
def test_what_greets_nobody_is_no_greeting(text):
    assert not is_greeting(text, load_phrases().foreign_greetings)


def test_what_can_you_do_is_met_with_what_it_can_do():
    topic = next(topic for topic in PLAN.topics if topic.id == "skills")
    for question in ("What can you do?", "what you are good at", "What can I ask you?", "How can you help me?"):
        speaker = Speaker(
            PLAN.knowledge,
            COMPOSER._facts,
            load_phrases(),
            COMPOSER._reteller,
            level="simple",
            rng=random.Random(0),
            user_name="",
        )
        assert speaker.answer(question, topic).count("I can ") >= 3


def answers_to(move: str, composed: list[Conversation]) -> list[tuple[str, Message]]:
    """What the user says in all turns of a move, and the answers."""
    found = []
    for number, conversation in enumerate(composed):
        row = plan_row(PLAN, number)
        if row.opening.asks_at_once and move in row.dynamic.moves:
            turn = row.dynamic.moves.index(move)
            question, answer = conversation.messages[2 * turn : 2 * turn + 2]
            found.append((question.text, answer))
    return found


def test_a_false_premise_is_corrected_and_a_right_one_confirmed(composed):
    phrases = load_phrases()
    for move, leads in (("false", phrases.correct), ("true", phrases.confirm)):
        answers = answers_to(move, composed)
        assert len(answers) > 20
        assert all(answer.text.startswith(tuple(leads)) for _, answer in answers)


def test_it_stays_itself_under_pressure(composed):
    phrases = load_phrases()
    assert all(answer.text.startswith(tuple(phrases.hold)) for _, answer in answers_to("insist", composed))
    for move in ("inject", "role"):
        assert all("nanochat" in answer.text for _, answer in answers_to(move, composed))


def test_sums_are_computed_by_us_in_parts(composed):
    answers = answers_to("sum", composed)
    assert len(answers) > 20
    for question, answer in answers:
        parts = [part for part in answer.content if isinstance(part, Part)]
        assert [part.type for part in parts] == ["text", "python", "python_output", "text"]
        expression, value = parts[1].text, parts[2].text
        left, sign, right = expression.split()
        assert expression in question
        assert int(value) == {"+": add, "-": sub, "*": mul}[sign](int(left), int(right))
        assert value in parts[3].text
