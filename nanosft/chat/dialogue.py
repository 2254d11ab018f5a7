"""A conversation with one model: what was said, and the next answer in pieces as they come."""

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from nanosft.conversation import Conversation, Message
from nanosft.nanochat import (
    Checkpoint,
    Engine,
    Request,
    Sampling,
    TextStream,
    TokenLogprob,
    load_checkpoint,
    open_cached,
    resolve_device,
)
from nanosft.settings.chat import ChatSettings
from nanosft.user_directories import find_cache_dir

_RETRY_STRIDE: Final = 1 << 32
"""Seeds of retries lie this far apart, those of turns by one."""
_S3: Final = "s3://"


@dataclass(slots=True)
class Answer:
    """An answer, as it is written and when it is finished.

    Attributes:
        text: All of it so far.
        end: Why it ended: of itself, at `max_tokens`, where the context was full, or because nobody read on.
        num_prompt: Tokens that the model read.
        num_forgotten: Messages that no longer fitted in the context.
        tokens: One entry for each token written.
        elapsed_s: From the question to the last token.
    """

    text: str = ""
    end: Literal["stop", "limit", "context", "interrupted"] = "interrupted"
    num_prompt: int = 0
    num_forgotten: int = 0
    tokens: list[TokenLogprob] = field(default_factory=list)
    elapsed_s: float = 0.0


@dataclass
class Chat:
    """A conversation with a loaded model.

    Attributes:
        checkpoint: The model and its tokenizer.
        settings: How answers are sampled.
        messages: What was said so far; a system message comes first.
        name: What the user calls the model.
        uri: Where the model came from.
        last: The newest answer.
    """

    checkpoint: Checkpoint
    settings: ChatSettings
    messages: list[Message] = field(default_factory=list)
    name: str = ""
    uri: str = ""
    last: Answer | None = None
    _num_retries: int = 0

    def check(self, text: str) -> None:
        """Refuse a message that cannot be answered.

        Raises:
            ConfigError: It alone leaves no room for an answer in the context.
        """
        self.checkpoint.tokenizer.render_prompt([*self.messages, Message("user", text)], max_len=self._room)

    def answer(self, text: str) -> Generator[str, None, None]:
        """Put a message to the model and yield its answer in pieces as they come.

        The oldest turns are left out of what the model reads when the conversation outgrows its context.

        Raises:
            ConfigError: The message alone leaves no room for an answer in the context.
        """
        self._num_retries = 0
        return self._write(text)

    def retry(self) -> Generator[str, None, None]:
        """Take the last answer back and yield another one, of a seed of its own."""
        question = self.messages[-2].text
        del self.messages[-2:]
        self._num_retries += 1
        return self._write(question)

    def count_context(self) -> int:
        """Tokens of what was said so far."""
        if not self.turns:
            return 0
        ids, _ = self.checkpoint.tokenizer.render(Conversation(tuple(self.messages)))
        return len(ids)

    @property
    def system(self) -> str | None:
        """The system message."""
        return self.messages[0].text if self.messages and self.messages[0].role == "system" else None

    @property
    def turns(self) -> list[Message]:
        """What was said without the system message."""
        return self.messages[self.system is not None :]

    def set_system(self, text: str | None) -> None:
        """Put another system message first, or none."""
        self.messages = [*([Message("system", text)] if text else []), *self.turns]

    def _write(self, text: str) -> Generator[str, None, None]:
        tokenizer, settings = self.checkpoint.tokenizer, self.settings
        messages = [*self.messages, Message("user", text)]
        context_len = self.checkpoint.context_len
        ids = tokenizer.render_prompt(messages, max_len=self._room)
        seed = settings.seed + len(self.messages) // 2 + self._num_retries * _RETRY_STRIDE
        sampling = Sampling(settings.temperature, settings.top_k, seed=seed, num_logprobs=0)
        batch = Engine(self.checkpoint.model, tokenizer, context_len=context_len).open_batch()
        row = batch.add(Request(ids, settings.max_tokens, sampling))
        answer = Answer(num_prompt=len(ids), num_forgotten=self._count_forgotten(messages))
        stream = TextStream(tokenizer)
        started_s = time.monotonic()
        try:
            while batch.rows:
                for written in batch.step():
                    if written.token is None or written.logprob is None:
                        continue
                    answer.tokens.append(written.logprob)
                    if piece := stream.feed(written.token):
                        answer.text += piece
                        yield piece
            if piece := stream.finish():
                answer.text += piece
                yield piece
            if row.finish_reason == "stop":
                answer.end = "stop"
            else:
                answer.end = "limit" if row.num_written >= settings.max_tokens else "context"
        finally:  # an answer that the user broke off is still what was said
            answer.elapsed_s = time.monotonic() - started_s
            self.last = answer
            self.messages += [Message("user", text), Message("assistant", answer.text)]

    @property
    def _room(self) -> int:
        """Tokens that a prompt may have."""
        context_len = self.checkpoint.context_len
        return max(context_len - self.settings.max_tokens, context_len // 2)

    def _count_forgotten(self, messages: list[Message]) -> int:
        """How many messages `render_prompt` leaves out to stay within the room."""
        render = self.checkpoint.tokenizer.render_prompt
        head, turns = messages[: len(messages) - len(self.turns) - 1], messages[len(messages) - len(self.turns) - 1 :]
        num_forgotten = 0
        while len(render([*head, *turns[num_forgotten:]])) > self._room:
            num_forgotten += 2
        return num_forgotten


def open_chats(settings: ChatSettings, models: dict[str, str] | None = None) -> list[Chat]:
    """A conversation with each model, on the settings' device; models from s3:// are kept on disk.

    Args:
        settings: How they are loaded and answer.
        models: URI by name, in place of the settings' own.

    Raises:
        DataError: There is no checkpoint under a URI.
        ConfigError: There is no such device, tag or step.
    """
    device = resolve_device(settings.device)
    items = (settings.models if models is None else models).items()
    return [Chat(_load(settings, uri, device), settings, name=name, uri=uri) for name, uri in items]


def _load(settings: ChatSettings, uri: str, device: str) -> Checkpoint:
    chosen = (settings.source, settings.tag, settings.step)
    base = find_cache_dir()
    directory = Path(settings.cache_dir).expanduser() if settings.cache_dir else base and base / "models"
    if not uri.startswith(_S3) or directory is None or not settings.cache_gib:
        return load_checkpoint(uri, *chosen, device=device)
    with open_cached(uri, *chosen, directory=directory, limit_bytes=int(settings.cache_gib * (1 << 30))) as cached:
        return load_checkpoint(cached, *chosen, device=device)
