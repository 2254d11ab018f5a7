"""`nanosft chat`: one answer, or a conversation, streamed as the model writes it."""

import io
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from nanosft.conversation import Message
from nanosft.errors import NanosftError
from nanosft.nanochat import Checkpoint, Engine, load_checkpoint, resolve_device
from nanosft.progress import console
from nanosft.settings.chat import ChatSettings

_HELP = "/clear starts a new conversation, /quit (or end of file) leaves."


@dataclass
class Chat:
    """A conversation with a loaded model.

    Attributes:
        checkpoint: The model and its tokenizer.
        settings: How answers are sampled.
        messages: What was said so far.
    """

    checkpoint: Checkpoint
    settings: ChatSettings
    messages: list[Message] = field(default_factory=list)

    def answer(self, text: str) -> Iterator[str]:
        """Put a message to the model and yield its answer in pieces as they come.

        The oldest turns are left out of what the model reads when the conversation outgrows its context.

        Raises:
            ConfigError: The message alone leaves no room for an answer in the context.
        """
        tokenizer, context_len = self.checkpoint.tokenizer, self.checkpoint.context_len
        room = max(context_len - self.settings.max_tokens, context_len // 2)
        ids = tokenizer.render_prompt([*self.messages, Message("user", text)], max_len=room)
        tokens = Engine(self.checkpoint.model, tokenizer, context_len=context_len).generate(
            ids,
            max_tokens=self.settings.max_tokens,
            temperature=self.settings.temperature,
            top_k=self.settings.top_k,
            seed=self.settings.seed + len(self.messages) // 2,
        )
        pieces: list[str] = []
        try:
            for piece in tokenizer.decode_stream(tokens):
                pieces.append(piece)
                yield piece
        finally:  # an answer that the user broke off is still what was said
            self.messages += [Message("user", text), Message("assistant", "".join(pieces))]


def run_chat(settings: ChatSettings) -> None:
    """Answer `settings.prompt`, or hold a conversation on the terminal.

    Raises:
        DataError: There is no checkpoint under the URI.
        ConfigError: The prompt is longer than the model's context, or there is no such device, tag or step.
    """
    chat = Chat(load_chat_model(settings), settings)
    if settings.prompt is not None:
        _answer_once(chat, settings)
    else:
        _converse(chat)


def load_chat_model(settings: ChatSettings) -> Checkpoint:
    """The checkpoint that the settings name, on their device, ready to generate."""
    device = resolve_device(settings.device)
    return load_checkpoint(settings.model, source=settings.source, tag=settings.tag, step=settings.step, device=device)


def _answer_once(chat: Chat, settings: ChatSettings) -> None:
    # What the shell gave that is no UTF-8 came as lone surrogates.
    prompt = (settings.prompt or "").encode(errors="surrogateescape").decode(errors="replace")
    pieces = chat.answer(prompt)
    if settings.json_output:
        checkpoint = chat.checkpoint
        record = {
            "prompt": prompt,
            "answer": "".join(pieces),
            "model": {"tag": checkpoint.tag, "step": checkpoint.step, "source": checkpoint.source},
        }
        sys.stdout.write(orjson.dumps(record).decode() + "\n")
        return
    _write(pieces)


def _converse(chat: Chat) -> None:
    checkpoint = chat.checkpoint
    title = f"{checkpoint.source} model {checkpoint.tag}, step {checkpoint.step}. {_HELP}"
    console.print(title, markup=False, highlight=False)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    while True:
        try:
            text = _ask().strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if text == "/quit":
            return
        if text == "/clear":
            chat.messages.clear()
        elif text.startswith("/"):
            console.print(_HELP, highlight=False)
        elif text:
            try:
                _write(chat.answer(text))
            except KeyboardInterrupt:
                console.print("(broken off)", style="dim", highlight=False)
            except NanosftError as exc:  # a message that is too long is no reason to lose those before it
                console.print(str(exc), style="red", markup=False, highlight=False)


def _ask() -> str:
    """One line of the user, edited and with history on a terminal; a redirected standard output gets no prompt."""
    prompt = "\nyou> "
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):  # not every Python has it
            import readline  # noqa: F401, PLC0415 - from its import on, `input` edits lines
        return input(prompt)
    console.print(prompt, end="")
    return input()


def _write(pieces: Iterator[str]) -> None:
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    sys.stdout.flush()
