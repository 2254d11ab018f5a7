"""nanosft gives a nanochat base model its own voice.

It writes synthetic conversations from a knowledge base, mixes them with other conversation data and
supervised-finetunes the model on them. The stages meet only in the store; see ARCHITECTURE.md.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`__version__`, looked up when it is asked for: importlib.metadata takes 30 ms that the help need not pay."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - as above

    return version("nanosft")
