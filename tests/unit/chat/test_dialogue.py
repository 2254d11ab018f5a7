"""A conversation with one model: what it reads, what it says, and how an answer ends."""

import pytest
import torch

from nanosft.chat import Chat
from nanosft.conversation import Message
from nanosft.errors import ConfigError
from nanosft.nanochat import Checkpoint
from tests.unit.chat.chats import make_settings, open_chat, say


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return open_chat().checkpoint


def test_an_answer_is_what_the_cacheless_model_says(checkpoint: Checkpoint) -> None:
    """Greedy, token by token, by whole forward passes over the prompt that the tokenizer renders."""
    tokenizer = checkpoint.tokenizer
    ids = tokenizer.render_prompt([Message("user", "Who are you?")])
    prompt_len = len(ids)
    with torch.inference_mode():
        while len(ids) < prompt_len + 8:
            token = int(checkpoint.model(torch.tensor([ids]))[0, -1].argmax())
            if token in {tokenizer.assistant_end_id, tokenizer.bos_id}:
                break
            ids.append(token)
    answer = say(Chat(checkpoint, make_settings()), "Who are you?")
    assert answer == tokenizer.decode(ids[prompt_len:])
    assert answer


def test_the_model_reads_what_was_said_before(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    first = say(chat, "Who are you?")
    second = say(chat, "And who made you?")
    assert chat.messages == [
        Message("user", "Who are you?"),
        Message("assistant", first),
        Message("user", "And who made you?"),
        Message("assistant", second),
    ]
    assert second != say(Chat(checkpoint, make_settings()), "And who made you?")


def test_equal_seeds_give_equal_answers_and_others_do_not(checkpoint: Checkpoint) -> None:
    def sample(seed: int) -> str:
        return say(Chat(checkpoint, make_settings(temperature=1.0, max_tokens=16, seed=seed)), "Hello")

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_the_oldest_turns_leave_a_context_that_is_full(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings(max_tokens=4))
    for number in range(checkpoint.context_len // 20):  # 40 ids a turn: twice the context
        say(chat, f"{number}: " + "word " * 30)
    assert len(chat.messages) == 2 * (checkpoint.context_len // 20)
    fresh = Chat(checkpoint, make_settings(max_tokens=4), messages=chat.messages[-6:])
    assert say(chat, "Hello") == say(fresh, "Hello")


def test_a_message_longer_than_the_context_is_refused_and_not_remembered(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    with pytest.raises(ConfigError, match="shorten it"):
        say(chat, "word " * checkpoint.context_len)
    assert chat.messages == []
    assert say(chat, "Hello")


def test_an_answer_that_is_broken_off_is_what_was_said(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    pieces = chat.answer("Hello")
    first = next(pieces)
    pieces.close()
    assert chat.messages == [Message("user", "Hello"), Message("assistant", first)]
    assert chat.last is not None
    assert chat.last.end == "interrupted"


def test_an_answer_tells_why_it_ended(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings(max_tokens=4))
    say(chat, "Hello")
    assert chat.last is not None
    assert (chat.last.end, len(chat.last.tokens)) == ("limit", 4)
    for seed in range(5):  # until one does not end of itself
        cut = Chat(checkpoint, make_settings(max_tokens=100_000, temperature=1.0, seed=seed))
        say(cut, "word " * 55)
        assert cut.last is not None
        if cut.last.end == "context":
            assert cut.last.num_prompt + len(cut.last.tokens) == checkpoint.context_len
            break
        assert cut.last.end == "stop"
    else:
        pytest.fail("no answer filled the context")


def test_what_a_full_context_leaves_out_is_counted(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings(max_tokens=4))
    num_forgotten = []
    for number in range(8):
        say(chat, f"{number}: " + "word " * 30)
        assert chat.last is not None
        num_forgotten.append(chat.last.num_forgotten)
        read = checkpoint.tokenizer.render_prompt(chat.messages[:-1], max_len=checkpoint.context_len - 4)
        assert read == checkpoint.tokenizer.render_prompt(chat.messages[num_forgotten[-1] : -1])
    assert num_forgotten[0] == 0
    assert num_forgotten[-1] >= 4
    assert num_forgotten == sorted(num_forgotten)


def test_another_answer_replaces_the_last_and_has_a_seed_of_its_own(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings(temperature=1.0))
    first = say(chat, "Hello")
    second = "".join(chat.retry())
    third = "".join(chat.retry())
    assert len({first, second, third}) == 3
    assert chat.messages == [Message("user", "Hello"), Message("assistant", third)]
    again = Chat(checkpoint, make_settings(temperature=1.0))
    assert [say(again, "Hello"), "".join(again.retry())] == [first, second]


def test_a_system_message_stands_first_and_can_be_changed(checkpoint: Checkpoint) -> None:
    chat = Chat(checkpoint, make_settings())
    plain = say(chat, "Hello")
    chat.set_system("Answer in rhymes.")
    assert chat.messages[0] == Message("system", "Answer in rhymes.")
    assert [message.role for message in chat.turns] == ["user", "assistant"]
    chat.messages = chat.messages[:1]
    assert say(chat, "Hello") != plain
    chat.set_system(None)
    chat.messages = []
    assert say(chat, "Hello") == plain
