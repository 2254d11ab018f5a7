import pytest

from nanosft.conversation import Conversation, Message
from nanosft.quality.completeness import find_completeness_defects, infer_full_stops
from nanosft.quality.prose import read_prose

WRITTEN = ["I'm nanochat, a small model.", "It was trained for about $800!", "Ask me anything you like."]


def reasons(
    answer: str, *, question: str = "Tell me more", others: list[str] | None = None, full_stops: bool | None = None
):
    texts = [*(WRITTEN if others is None else others), answer]
    messages = [m for text in texts for m in (Message("user", question), Message("assistant", text))]
    found = find_completeness_defects(read_prose(Conversation(tuple(messages))), full_stops=full_stops)
    return [defect.reason for defect in found]


@pytest.mark.parametrize(
    "answer",
    [
        "You can find all my code at https://github.com/karpathy/nanochat",  # all of these stand in real sets
        "Sure thing :)",
        "Totally (:",
        "That was long ago D:",
        "(That's just for fun, of course.)",
        'He designed me to be "the best ChatGPT that $100 can buy."',
        "Run `python -m scripts.chat_web`",
        "```python\nprint('hi')\n```",
        "Here are the versions:\n\n- d20: The $100 version\n- d26: A bigger one",
        "1. Clone the repo\n2. Run the script",
        "With thirty-two layers deep inside\nI answer all you ask with pride\nAnd every token that I write\nIs new",
        "| tier | cost |\n|---|---|\n| d20 | $100 |",
        "The 8 shards of **FineWeb** are enough.",
        "2**3 is 8, and **that** is bold.",
        "See [the repo](https://github.com/karpathy/nanochat)",
        "A list:\n1. one\n2. two\n\n**Note:** done!",
        "Best,\nnanochat",
        "Paris",
        "Ciao \U0001f600",
        "A",
        "The site uses HTTPS.",
        # Greek with its own question mark, and with the semicolon that Unicode makes of it.
        "\u0398\u03ad\u03bb\u03b5\u03b9\u03c2 \u03bd\u03b1 \u03bc\u03ac\u03b8\u03b5\u03b9\u03c2\u037e",
        "\u0398\u03ad\u03bb\u03b5\u03b9\u03c2 \u03bd\u03b1 \u03bc\u03ac\u03b8\u03b5\u03b9\u03c2;",
    ],
)
def test_whole_answers_are_let_through(answer):
    assert reasons(answer, full_stops=True) == []
    assert reasons(answer) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I was trained on 38 billion tokens and then finetuned with the", "cut_off"),
        ("You can run the speedrun.sh script, which trains a model in", "cut_off"),
        ("My name is nanochat, and I was built by Andrej Karpathy,", "cut_off"),
        ("I am open source. If you'd like to train me on your own machine you'", "cut_off"),
        ("I come in two sizes, and these are:", "cut_off"),
        ("Run this:\n\n", "cut_off"),
        ("Steps to take:\n\n1. Clone the repository.\n2.", "open_list"),
        ("Try this:\n```bash\nbash speedrun.sh", "open_code"),
        ("The best part is the **hackable", "open_markup"),
        ("Run `python -m scripts", "open_markup"),
        ("See [the repo](https://github.com/karp", "open_markup"),
    ],
)
def test_cut_answers_are_seen_without_knowing_the_set(answer, reason):
    assert reasons(answer) == [reason]


def test_a_missing_stop_is_a_cut_where_the_set_has_stops():
    cut = "I am ChibuChat, a Large Language Model. I was created by Chibuzor"
    assert reasons(cut, others=[], full_stops=True) == ["cut_off"]
    assert reasons(cut, others=[]) == []
    assert reasons(cut, others=["hm ok", "no idea"], full_stops=False) == []


def test_people_who_chat_are_not_cut_off():
    chat = ["yeah i think so", "haha that is what he is like", "I have class at 9 so i gotta go to"]
    assert reasons("We talked. It was fun and then we went to the store and bought some", others=chat) == []


def test_full_stops_are_learned_from_the_set():
    def conversation(text):
        return read_prose(Conversation((Message("user", "hi there"), Message("assistant", text))))

    assert infer_full_stops([conversation("I am a small model.")] * 50)
    assert infer_full_stops([conversation("i am a small model")] * 2 + [conversation("I am a model.")] * 50) is None
    assert infer_full_stops([conversation("i am a small model")] * 50) is False
    assert infer_full_stops([]) is False


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"role": "assistant", "content": "Hello there!"}', "stray_json"),
        ('I am nanochat!"}]}', "stray_json"),
        ("Sure.\\n\\nI am nanochat.", "stray_json"),
        ("Hi {name}, nice to meet you!", "template"),
        ("Hello {{user_name}}!", "template"),
        ("I was made by [INSERT CREATOR NAME].", "template"),
        ("My name is [Your Name].", "template"),
        ("I am nanochat.<|assistant_end|>", "template"),
        ("I am nanochat.\nUser: and who made you?", "speaker_label"),
    ],
)
def test_text_that_is_no_answer(answer, reason):
    assert reason in reasons(answer)


@pytest.mark.parametrize(
    "answer",
    [
        'Use a JSON line: `{"role": "user", "content": "hi"}` for each message.',
        '```json\n{"messages": []}\n```',
        "An f-string is written as `f'{name}'`.",
        "In sets, {1, 2, 3} is fine.",
        "It costs ${100}.",
        'Write "hi" and press Enter.',
        'The path is C:\\new and "it works".',
        "See [1] and [the docs](https://github.com/karpathy/nanochat).",
    ],
)
def test_code_and_brackets_that_belong_there(answer):
    assert reasons(answer) == []


def test_scripts_that_were_asked_for_may_have_speakers():
    answer = "User: Hi!\nAssistant: Hello!"
    assert reasons(answer) == ["speaker_label"]
    assert reasons(answer, question="Write a short dialogue") == []


def test_users_have_templates_too():
    found = find_completeness_defects(
        read_prose(Conversation((Message("user", "I am {name}"), Message("assistant", "Hello!"))))
    )
    assert [(defect.reason, defect.index) for defect in found] == [("template", 0)]


def test_an_answer_that_ends_on_a_colon_announces_what_is_missing():
    assert reasons("Here are the sizes:", others=[]) == ["cut_off"]
    assert reasons("so the thing is:", others=["lol", "no idea", "ok bye"], full_stops=False) == ["cut_off"]
    assert reasons("Run it so:\n```\nbash speedrun.sh\n```", others=[]) == []


@pytest.mark.parametrize(
    "answer", ["The", "and the", "The code is on GitHub at https.", "Look here: https://", "Go to www."]
)
def test_stubs_are_cut_off_by_themselves(answer):
    """They were let pass, whatever the answers around them."""
    assert reasons(answer) == ["cut_off"]
    assert reasons(answer, others=[]) == ["cut_off"]
