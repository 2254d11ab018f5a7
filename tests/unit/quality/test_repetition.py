from nanosft.conversation import Conversation, Message
from nanosft.quality.prose import read_prose
from nanosft.quality.repetition import find_repetition_defects

LONG = "I was built by Andrej Karpathy in October 2025."


def reasons(*texts: str) -> list[str]:
    messages = tuple(Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts))
    return [defect.reason for defect in find_repetition_defects(read_prose(Conversation(messages)))]


def test_an_answer_given_twice():
    assert reasons("Who made you?", LONG, "Who?", LONG.upper()) == ["repeated_answer"]
    assert reasons("Hi", "Thank you!", "Bye", "Thank you!") == []


def test_a_question_asked_twice():
    question = "And how much did it cost to train you, nanochat?"
    assert reasons(question, "It was cheap.", question, "About $800.") == ["repeated_question"]
    assert reasons("Who made you?", "A person.", "Who made you?", LONG) == []


def test_a_sentence_said_twice_in_one_answer():
    assert reasons("Hi", f"{LONG} That is all there is. {LONG}") == ["repeated_sentence"]


def test_a_sentence_said_three_times_in_a_conversation():
    assert reasons("A", f"One. {LONG}", "B", f"Two. {LONG}") == []
    assert reasons("A", f"One. {LONG}", "B", f"Two. {LONG}", "C", f"Three. {LONG}") == ["repeated_sentence"]


def test_loops():
    assert "loop" in reasons("Hi", "I am nanochat and you can train me you can train me you can train me")
    assert reasons("Hi", "ha ha ha ha ha ha ha ha ha ha ha ha") == []
    assert reasons("Hi", "Row, row, row your boat, gently down the stream.") == []


def test_code_may_repeat_itself():
    code = "```\nx = x + 1 and some more\nx = x + 1 and some more\n```"
    assert reasons("Hi", f"Look:\n{code}\nDone.") == []
