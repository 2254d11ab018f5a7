"""Statements change to the first person where that is certain, and stay as they are elsewhere."""

import pytest

from nanosft.generate.offline.first_person import decapitalize, to_first_person, to_second_person


@pytest.mark.parametrize(
    ("statement", "spoken"),
    [
        ("Zed is a small bot.", "I am a small bot."),
        ("Zed has no feelings of its own.", "I have no feelings of my own."),
        ("Zed does not guess.", "I do not guess."),
        ("Zed can write poems.", "I can write poems."),
        ("Zed may repeat itself.", "I may repeat myself."),
        ("Zed also knows English.", "I also know English."),
        ("Zed was published in 2025.", "I was published in 2025."),
        ("Zed tries hard.", "I try hard."),
        ("Zed watches birds.", "I watch birds."),
        ("Ada made Zed in 2025.", "Ada made me in 2025."),
        ("Others are larger than Zed.", "Others are larger than me."),
        ("Zed's code is public.", "my code is public."),
        ("The name Zed is short.", "The name Zed is short."),
        ("Zed-2 is another bot.", "Zed-2 is another bot."),
        ("Zed, a bot, is small.", "Zed, a bot, is small."),
        ("Zed is small, and runs anywhere.", "Zed is small, and runs anywhere."),
        ("Zed Inc builds robots.", "Zed Inc builds robots."),
        ("The model is small.", "The model is small."),
    ],
)
def test_first_person(statement, spoken):
    assert to_first_person(statement, "Zed") == spoken


@pytest.mark.parametrize(
    ("text", "continued"),
    [
        ("The code is public.", "the code is public."),
        ("I am here.", "I am here."),
        ("GPT-2 is old.", "GPT-2 is old."),
        ("Muon is fast.", "Muon is fast."),
        ("nanoGPT came first.", "nanoGPT came first."),
        ("A bot.", "a bot."),
    ],
)
def test_a_sentence_goes_on_with_a_small_letter_unless_it_begins_with_a_name(text, continued):
    assert decapitalize(text, keep=frozenset({"Muon"})) == continued


@pytest.mark.parametrize(
    ("statement", "spoken"),
    [
        ("nanochat has no voice of its own.", "You have no voice of your own."),
        ("nanochat is a program.", "You are a program."),
        ("nanochat was never a child.", "You were never a child."),
        ("nanochat has no birthday and was never a child.", "You have no birthday and were never a child."),
        ("Anyone may use nanochat.", "Anyone may use you."),
        ("The d20 model has 20 layers.", "The d20 model has 20 layers."),
    ],
)
def test_a_user_says_you(statement, spoken):
    assert to_second_person(statement, "nanochat") == spoken


def test_what_is_said_of_the_project_is_not_said_of_the_assistant():
    statement = "nanochat is to become the capstone project of LLM101n."
    assert to_first_person(statement, "nanochat") == statement
