"""What a response's JSON looks like, whole and in pieces: OpenAI's forms."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from nanosft.nanochat import Tokenizer, TokenLogprob
from nanosft.serve.scheduler import Job, Piece

Kind = Literal["chat", "text"]


class ApiError(Exception):
    """A request that gets no answer.

    Args:
        status: HTTP status.
        message: What is wrong, and what to do.
        kind: OpenAI's `type`.
        code: OpenAI's `code`, for programs.
        param: Which key of the body it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "invalid_request_error",
        *,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"error": {"message": message, "type": kind, "param": param, "code": code}}


MODEL_FAILED = ApiError(500, "the model failed; the server's log tells why", "server_error", code="model_failed")


@dataclass
class Choice:
    """One answer of a response, as it grows.

    Attributes:
        job: What writes it.
        prompt: Text that comes before it, where the prompt is echoed.
        prompt_entries: Log-probabilities of that prompt; None where there is none, as for the very first token.
    """

    job: Job
    prompt: str = ""
    text: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end_logprob: TokenLogprob | None = None
    finish_reason: str | None = None

    def take(self, piece: Piece) -> None:
        """Add what is new."""
        self.text.append(piece.text)
        self.logprobs += piece.logprobs
        self.end_logprob = piece.end_logprob or self.end_logprob
        self.finish_reason = piece.finish_reason or self.finish_reason


class Format:
    """The form of one response.

    Args:
        kind: Of a chat or of a completion.
        model: The name that was asked for.
        tokenizer: Spells the tokens of log-probabilities.
        choices: Its answers.
        want_logprobs: Whether they are told.
        echo: Prompts come before answers.
    """

    def __init__(
        self,
        kind: Kind,
        model: str,
        tokenizer: Tokenizer,
        choices: Sequence[Choice],
        *,
        want_logprobs: bool,
        echo: bool = False,
    ) -> None:
        self.kind, self.choices, self.echo = kind, choices, echo
        self._tokenizer, self._want_logprobs = tokenizer, want_logprobs
        prefix = "chatcmpl" if kind == "chat" else "cmpl"
        self._head = {"id": f"{prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written. A prompt that several answers share counts once."""
        prompts = {id(choice.job.request.ids): len(choice.job.request.ids) for choice in self.choices}
        num_prompt, num_written = sum(prompts.values()), sum(choice.job.num_written for choice in self.choices)
        return {"prompt_tokens": num_prompt, "completion_tokens": num_written, "total_tokens": num_prompt + num_written}

    def whole(self) -> dict[str, Any]:
        """The response when all answers are finished."""
        choices = []
        for index, choice in enumerate(self.choices):
            text = "".join(choice.text)
            content: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text, "refusal": None}}
                if self.kind == "chat"
                else {"text": choice.prompt + text}
            )
            entries = [*self._prompt_entries(choice), *choice.logprobs]
            if self.kind == "text" and choice.end_logprob is not None:
                entries.append(choice.end_logprob)
            logprobs = self._logprobs(entries) if self._want_logprobs else None
            choices.append({"index": index, **content, "logprobs": logprobs, "finish_reason": choice.finish_reason})
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {**self._head, "object": name, "choices": choices, "usage": self.usage}

    def first(self, index: int) -> bytes | None:
        """The event that begins an answer, where there is one."""
        if self.kind == "chat":
            return self._event(index, {"delta": {"role": "assistant", "content": ""}}, None, None)
        if not self.echo:
            return None
        entries = self._prompt_entries(self.choices[index])
        return self._event(index, {"text": self.choices[index].prompt}, entries, None)

    def piece(self, index: int, piece: Piece) -> bytes | None:
        """The event that tells a piece; None where it has nothing to tell yet."""
        if not (piece.text or piece.logprobs or piece.finish_reason):
            return None
        entries: list[TokenLogprob | None] = [*piece.logprobs]
        if self.kind == "text" and piece.end_logprob is not None:
            entries.append(piece.end_logprob)
        delta = {"content": piece.text} if piece.text or piece.logprobs else {}
        content: dict[str, Any] = {"delta": delta} if self.kind == "chat" else {"text": piece.text}
        return self._event(index, content, entries, piece.finish_reason)

    def total(self) -> bytes:
        """The event with the usage."""
        return encode_event({**self._head, "object": self._chunk_name, "choices": [], "usage": self.usage})

    @property
    def _chunk_name(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat" else "text_completion"

    def _event(
        self, index: int, content: Mapping[str, Any], entries: Sequence[TokenLogprob | None] | None, finish: str | None
    ) -> bytes:
        logprobs = self._logprobs(entries) if self._want_logprobs and entries else None
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        return encode_event({**self._head, "object": self._chunk_name, "choices": [choice]})

    def _prompt_entries(self, choice: Choice) -> list[TokenLogprob | None]:
        """One a token of the echoed prompt; the <|bos|> that was put before it is not among them."""
        if not self.echo or choice.job.row is None:
            return []
        entries: list[TokenLogprob | None] = [*choice.job.row.prompt_logprobs]
        if choice.prompt.startswith("<|bos|>"):
            entries.insert(0, None)
        return entries

    def _logprobs(self, entries: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        return self._chat_logprobs(entries) if self.kind == "chat" else self._text_logprobs(entries)

    def _chat_logprobs(self, entries: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        content = [
            {
                **self._spell(entry.token, entry.logprob),
                "top_logprobs": [self._spell(token, logprob) for token, logprob in entry.top],
            }
            for entry in entries
            if entry is not None
        ]
        return {"content": content, "refusal": None}

    def _text_logprobs(self, entries: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        tokens = [self._text(self._tokenizer.bos_id if entry is None else entry.token) for entry in entries]
        offsets, offset = [], 0
        for text in tokens:
            offsets.append(offset)
            offset += len(text)
        top = [
            None
            if entry is None
            else {self._text(token): logprob for token, logprob in [*entry.top, (entry.token, entry.logprob)]}
            for entry in entries
        ]
        logprobs = [None if entry is None else entry.logprob for entry in entries]
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}

    def _spell(self, token: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.encoding.decode_single_token_bytes(token)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    def _text(self, token: int) -> str:
        return self._tokenizer.encoding.decode_single_token_bytes(token).decode(errors="replace")


def encode_event(content: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"
