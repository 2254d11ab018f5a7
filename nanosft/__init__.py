"""nanosft gives a nanochat base model its own voice.

It writes synthetic conversations from a knowledge base, mixes them with other conversation data and
supervised-finetunes the model on them. The stages meet only in the store; see ARCHITECTURE.md.
"""

from importlib.metadata import version

__version__ = version("nanosft")
