"""Real conversations from installed packages, as JSONL: `chitchat-dataset` and `chatterbot-corpus`."""

from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import yaml

Messages = list[dict[str, str]]

REAL_RECIPE = """
synthetic_share = 0.3
by = "supervised_tokens"
tokenizer = "{shared}/nanochat_base"
[[sources]]
name = "identity"
uri = "{shared}/data/identity_?.jsonl"
synthetic = true
[[sources]]
name = "chitchat"
uri = "{folder}/chitchat.jsonl"
[[sources]]
name = "chatterbot"
uri = "{folder}/chatterbot.jsonl"
"""
"""Of the three real sources with 30 % synthetic; slots are `shared` and `folder`, where the two JSONL files lie."""


def read_chitchat() -> list[Messages]:
    """Chats of two people: what one says in a row is one message; those that alternate from a first to a second."""
    data = orjson.loads(resources.files("chitchat_dataset").joinpath("dataset.json").read_bytes())
    chats = []
    for record in data.values():
        said = [item for group in record["messages"] for item in group if item["text"].strip()]
        turns = [
            " ".join(item["text"] for item in items) for _, items in groupby(said, key=lambda item: item["sender"])
        ]
        if len({item["sender"] for item in said}) == 2 and len(turns) >= 2:
            chats.append(alternate(turns))
    return chats


def read_chatterbot() -> list[Messages]:
    """Questions and answers in 28 languages."""
    chats = []
    root = resources.files("chatterbot_corpus").joinpath("data")
    for folder in sorted(root.iterdir(), key=lambda item: item.name):
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir(), key=lambda item: item.name):
            if file.name.endswith(".yml"):
                turns: list[Any] = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)["conversations"]
                chats += [alternate([str(text) for text in item]) for item in turns if len(item) >= 2]
    return chats


def alternate(turns: list[str]) -> Messages:
    """Texts as messages of user and assistant, ending on an answer."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns[: len(turns) // 2 * 2])]


def write_jsonl(path: Path, chats: list[Messages]) -> Path:
    """One bare list a line."""
    path.write_bytes(b"".join(orjson.dumps(chat, option=orjson.OPT_APPEND_NEWLINE) for chat in chats))
    return path
