import pytest

from nanosft.conversation import Conversation, Message, Part
from nanosft.errors import DataError
from nanosft.quality.structure import find_structure_defects, find_token_defects

HELLO = (Message("user", "Hi"), Message("assistant", "Hello!"))


def reasons(*messages: Message, num_messages: int | None = None) -> list[str]:
    return [defect.reason for defect in find_structure_defects(Conversation(messages), num_messages=num_messages)]


def test_a_right_conversation_has_no_defect():
    assert reasons(*HELLO) == []
    assert reasons(Message("system", "Be brief."), *HELLO, num_messages=2) == []


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((Message("user", "Hi"), Message("assistant", " \n")), "empty_message"),
        ((*HELLO, Message("user", "Bye")), "ends_on_user"),
        ((Message("assistant", "Hi"), Message("user", "Hello")), "role_order"),
        ((), "role_order"),
        ((Message("user", "Hi"), Message("assistant", ())), "empty_message"),
    ],
)
def test_defects(messages, reason):
    assert reason in reasons(*messages)


def test_the_dynamic_decides_the_number_of_messages():
    assert reasons(*HELLO, num_messages=4) == ["message_count"]


class Tokenizer:
    """Counts letters: one id each, 0 at the assistant's end."""

    assistant_end_id = 0

    def __init__(self, *, mask: int = 1, end: int = 0) -> None:
        self.mask, self.end = mask, end

    def render(self, conversation: Conversation) -> tuple[list[int], list[int]]:
        if conversation.messages[-1].text == "refuse":
            raise DataError("no")
        ids = [1 for message in conversation.messages for _ in message.text] + [self.end]
        return ids, [self.mask] * len(ids)


def token_reasons(tokenizer: Tokenizer, *messages: Message, max_tokens: int | None = None) -> list[str]:
    found = find_token_defects(Conversation(messages), tokenizer, max_tokens=max_tokens)
    return [defect.reason for defect in found]


def test_the_tokenizers_view():
    assert token_reasons(Tokenizer(), *HELLO, max_tokens=9) == []
    assert token_reasons(Tokenizer(), *HELLO, max_tokens=8) == ["overlong"]
    assert token_reasons(Tokenizer(mask=0), *HELLO) == ["nothing_supervised"]
    assert token_reasons(Tokenizer(end=5), *HELLO) == ["no_assistant_end"]
    assert token_reasons(Tokenizer(), HELLO[0], Message("assistant", "refuse")) == ["does_not_render"]


def test_parts_count_as_text():
    assert reasons(Message("user", "2+2?"), Message("assistant", (Part("python", "2+2"), Part("text", "4.")))) == []
