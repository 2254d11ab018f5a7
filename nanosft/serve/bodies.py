"""What a request's JSON may hold. OpenAI's names; what we do not do is refused rather than passed over.

`response_format` is taken and not enforced: a client that asks for JSON has to check what it gets. Unknown keys are
passed over, as OpenAI's own clients send more with every version.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nanosft.nanochat import Sampling

MAX_CHOICES: Final = 16
_MAX_TOP: Final = 20
_Stop = Annotated[str, Field(max_length=256)]


class StreamOptions(BaseModel):
    """`stream_options`."""

    include_usage: bool | None = False


class Body(BaseModel):
    """What both kinds of request have."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)
    prompt_key: ClassVar[str]
    """The key that holds what is to be answered."""

    model: str
    max_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: _Stop | Annotated[list[_Stop], Field(max_length=16)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = 0
    presence_penalty: float | None = 0
    logit_bias: dict[str, float] | None = None

    @model_validator(mode="after")
    def _refuse(self) -> "Body":
        for name in ("frequency_penalty", "presence_penalty", "logit_bias"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported; repetition_penalty is")
        return self

    @property
    def limit(self) -> int | None:
        """Most tokens of an answer, where the request says so."""
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """See `Sampling.num_logprobs`."""
        raise NotImplementedError

    @property
    def echoes(self) -> bool:
        """Whether the prompt comes before its answer."""
        return False

    @property
    def stops(self) -> list[str]:
        """Stop strings, empty ones left out."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    def sampling(self, *, seed: int, index: int, num_logprobs: int | None) -> Sampling:
        """How the choice with this number is sampled. top_k 0 and -1 stand for none, as elsewhere.

        Args:
            seed: Where the request names none.
            index: Choices of one request have seeds that follow one another.
            num_logprobs: See `Sampling`.
        """
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            top_p=self.top_p or 1.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            seed=(seed if self.seed is None else self.seed) + index,
            num_logprobs=num_logprobs,
        )


class ContentPart(BaseModel):
    """A part of a message; `python` and `python_output` are nanochat's, in an assistant's message."""

    type: Literal["text", "python", "python_output"]
    text: str


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class ChatBody(Body):
    """Body of `/v1/chat/completions`."""

    prompt_key: ClassVar[str] = "messages"

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=0)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=_MAX_TOP)
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    @model_validator(mode="after")
    def _refuse_tools(self) -> "ChatBody":
        if self.tools or self.functions:
            raise ValueError("tools are not supported: the model has those that the server was started with")
        return self

    @property
    def limit(self) -> int | None:
        """`max_completion_tokens`, or its older name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_logprobs(self) -> int | None:
        """`top_logprobs`, where log-probabilities are asked for."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Body):
    """Body of `/v1/completions`. A prompt is text or token ids, or a list of either."""

    prompt_key: ClassVar[str] = "prompt"

    prompt: str | list[int] | list[str] | list[list[int]]
    echo: bool | None = False
    logprobs: int | None = Field(default=None, ge=0, le=_MAX_TOP)
    suffix: str | None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def _refuse_others(self) -> "CompletionBody":
        if self.suffix:
            raise ValueError("suffix is not supported")
        if self.best_of not in (None, 1, self.n):
            raise ValueError("best_of is not supported")
        return self

    @property
    def num_logprobs(self) -> int | None:
        """`logprobs`."""
        return self.logprobs

    @property
    def echoes(self) -> bool:
        """`echo`."""
        return bool(self.echo)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and all(isinstance(item, int) for item in self.prompt):
            return [[item for item in self.prompt if isinstance(item, int)]]
        return [item for item in self.prompt if not isinstance(item, int)]
