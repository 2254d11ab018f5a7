"""Style examples: a few conversations that show the wanted voice, for the part of the prompt that does not vary."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from nanosft.conversation import Conversation, Message
from nanosft.data import find_origins_of_data, iter_lines, list_data_objects, parse_trainable, pin_objects
from nanosft.errors import ConfigError, DataError
from nanosft.knowledge import estimate_tokens
from nanosft.manifest import Parent

_MAX_TOKENS: Final = 8000
"""Of all examples together: every prompt carries them."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Conversations chosen to show a voice.

    Attributes:
        conversations: In the order in which prompts show them; without system messages, all content as text.
        num: How many were asked for.
        parents: What they were read from, by SHA-256.
    """

    conversations: tuple[Conversation, ...] = ()
    num: int = 0
    parents: tuple[Parent, ...] = ()

    @property
    def sha256(self) -> str:
        """Of what they were read from, all of it."""
        if len(self.parents) == 1:
            return self.parents[0].sha256
        return hashlib.sha256("\0".join(parent.sha256 for parent in self.parents).encode()).hexdigest()

    def plan_settings(self) -> dict[str, Any]:
        """What a plan's manifests state of them; nothing where there are none, so that plans without them go on."""
        return {"examples": self.sha256, "num_examples": self.num} if self.conversations else {}


def read_examples(uri: str | None, *, num: int, seed: int) -> Examples:
    """Read a set of conversations, and choose `num` different ones by the seed and what they say; none of no URI.

    Raises:
        DataError: Nothing is there, or a line is no conversation that could be trained on.
        ConfigError: Those chosen are too long.
    """
    if uri is None:
        return Examples()
    objects = pin_objects(list_data_objects(uri))
    drawn: dict[str, Conversation] = {}  # by what its seed and content draw: an equal one is the same entry
    for item in objects:
        for number, line in iter_lines(item):
            conversation = _take_words(parse_trainable(line, where=item.place(number)))
            draw = hashlib.sha256(f"example/{seed}/{conversation.id}".encode()).hexdigest()
            drawn[draw] = conversation
            if len(drawn) > num:
                del drawn[max(drawn)]
    chosen = tuple(drawn[draw] for draw in sorted(drawn))
    if not chosen:
        raise DataError(f"{uri}: holds no conversation: give --examples a set that shows the wanted voice")
    num_tokens = estimate_tokens("\n".join(message.text for item in chosen for message in item.messages))
    if num_tokens > _MAX_TOKENS:
        raise ConfigError(
            f"{uri}: the {len(chosen)} examples have about {num_tokens:,} tokens, which every prompt would carry: "
            f"choose shorter ones, or fewer by --num-examples; at most {_MAX_TOKENS:,} fit"
        )
    return Examples(chosen, num, tuple(origin.to_parent() for origin in find_origins_of_data(uri, objects)))


def _take_words(conversation: Conversation) -> Conversation:
    """What user and assistant say, as text."""
    return Conversation(
        tuple(Message(message.role, message.text) for message in conversation.messages if message.role != "system")
    )
