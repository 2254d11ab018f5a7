"""How long conversations are: what a bound leaves out, and long talks that go on beyond their dynamic. Pure.

Long talks are those rows whose dynamic has 20 messages or more. Where a bound allows it, each of them gets one of the
lengths 24, 36, 48, … up to the bound, in turn, so that counts of a dynamic's lengths differ by at most 1 at every
length of the plan; dynamic, topic and all else of a row stay as they are without a bound.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice
from typing import Final

from nanosft.errors import ConfigError
from nanosft.generate.planning.dimensions import Dynamic, Move
from nanosft.generate.planning.draws import draw

LONG_TALK: Final = 20
"""Messages from which a dynamic is a long talk, which may go on."""
TOKENS_PER_MESSAGE: Final = 45
"""An estimate: messages are of one to four sentences."""
_SHORTEST: Final = 24
_STEP: Final = 12
_REPEATED: Final[frozenset[Move]] = frozenset({"more", "related", "task", "unknown", "false", "true"})
"""What a user may do again and again in one talk, and nobody wonders."""


def bound_dynamics(dynamics: Iterable[Dynamic], max_messages: int | None) -> tuple[Dynamic, ...]:
    """Those that are no longer; all without a bound.

    Raises:
        ConfigError: None is left.
    """
    kept = tuple(item for item in dynamics if max_messages is None or item.num_messages <= max_messages)
    if not kept:
        raise ConfigError(f"--max-messages {max_messages}: every dynamic of the dimensions is longer")
    return kept


def stretch_dynamics(dynamics: Iterable[Dynamic], max_messages: int | None) -> dict[str, tuple[Dynamic, ...]]:
    """Each long talk at all its lengths within the bound, by its id; nothing where none may be longer than it is.

    Raises:
        ConfigError: The bound asks for longer talks than any dynamic begins.
    """
    if max_messages is None or max_messages < _SHORTEST:
        return {}
    lengths = sorted({*range(_SHORTEST, max_messages + 1, _STEP), max_messages})
    talks = [item for item in dynamics if item.num_messages >= LONG_TALK]
    if not talks:
        raise ConfigError(
            f"--max-messages {max_messages}: no dynamic of the dimensions is a long talk, of {LONG_TALK} messages or "
            "more, that could go on: add one, or give a bound below 24"
        )
    return {
        item.id: tuple(_stretch(item, length) for length in lengths if length >= item.num_messages) or (item,)
        for item in talks
    }


def pick_length(talks: Mapping[str, Sequence[Dynamic]], dynamic: Dynamic, *, visit: int, seed: int) -> Dynamic:
    """A row's dynamic at the length that is its turn.

    Args:
        talks: What `stretch_dynamics` returned.
        dynamic: The row's.
        visit: Rows of the dynamic before it.
        seed: Of the plan.
    """
    lengths = talks.get(dynamic.id)
    return dynamic if lengths is None else lengths[(visit + draw(seed, "length")) % len(lengths)]


def _stretch(dynamic: Dynamic, num_messages: int) -> Dynamic:
    """The dynamic with more turns before its last one, of what its user does that can be done again."""
    num_more = (num_messages - dynamic.num_messages) // 2
    first, last = dynamic.moves[:-1], dynamic.moves[-1:]
    again = [move for move in first[1:] if move in _REPEATED] or ["more", "related"]
    moves = (*first, *islice(cycle(again), num_more), *last)
    return dynamic.model_copy(update={"num_messages": num_messages, "moves": moves})
