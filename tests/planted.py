"""Copies planted among real conversations, of every kind that mix promises to find, and how many it finds."""

import random
from pathlib import Path
from typing import NamedTuple

from nanosft.dedup import normalize_words
from nanosft.mix.stage import make_mixture
from nanosft.settings.mix import MixSettings
from tests.real_sets import Messages, read_chatterbot, read_chitchat, write_jsonl

_NUM_PLANTED = 300
_RECIPE = """
[[sources]]
name = "clean"
uri = "{directory}/clean.jsonl"
[[sources]]
name = "planted"
uri = "{directory}/{name}.jsonl"
[split]
val_share = 0.0
[deduplicate]
exact = true
near = "{near}"
"""


class Found(NamedTuple):
    """How many rows of each kind were planted, and how many of them mix dropped for what they are."""

    num_exact: int
    num_exact_found: int
    num_near: int
    num_near_found: int
    num_held_out: int
    num_held_out_found: int


def find_planted(directory: Path) -> Found:
    """Plant exact copies (another case, other punctuation), near copies (one changed word) and held-out rows."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    chats = [chat for chat in read_chitchat() + read_chatterbot() if sum(map(_count_words, chat)) >= 8]
    rng.shuffle(chats)
    clean, held_out = chats[:-_NUM_PLANTED], chats[-_NUM_PLANTED:]
    originals = clean[:_NUM_PLANTED]
    write_jsonl(directory / "clean.jsonl", clean)
    write_jsonl(directory / "held.jsonl", held_out)
    write_jsonl(directory / "exact.jsonl", [_shout(chat) if rng.random() < 0.5 else chat for chat in originals])
    write_jsonl(directory / "near.jsonl", [_change_word(chat, rng) for chat in originals])
    more = [*held_out[0], *held_out[-1]]  # one hidden in a longer conversation
    write_jsonl(directory / "hidden.jsonl", [more, *held_out[1:-1]])
    exact = _mix(directory, "exact", near="off")
    near = _mix(directory, "near", near="drop")
    hidden = _mix(directory, "hidden", near="off", more=f'[decontaminate]\nuri = "{directory}/held.jsonl"\n')
    return Found(
        len(originals),
        exact["exact_duplicates"],
        len(originals),
        near["exact_duplicates"] + near["near_duplicates"],
        len(held_out) - 1,
        hidden["contaminated"] + hidden["exact_duplicates"],
    )


def _mix(directory: Path, name: str, *, near: str, more: str = "") -> dict[str, int]:
    recipe = directory / f"{name}.toml"
    recipe.write_text(_RECIPE.format(directory=directory, name=name, near=near) + more)
    report = make_mixture(MixSettings(recipe=str(recipe), dry_run=True, workers=1, work_dir=str(directory / "work")))
    assert report is not None
    counts: dict[str, int] = report.to_counts()["sources"]["planted"]
    return counts


def _count_words(message: dict[str, str]) -> int:
    return sum(word.isalpha() for word in message["content"].split(" "))


def _shout(chat: Messages) -> Messages:
    """Another case, layout and punctuation, but not for messages of signs alone, which are told apart by them."""
    return [
        {**item, "content": f"  {item['content'].upper().replace(' ', '  ')} !!"}
        if normalize_words(item["content"])
        else item
        for item in chat
    ]


def _change_word(chat: Messages, rng: random.Random) -> Messages:
    """One word of letters replaced by another that no row has."""
    words = [item["content"].split(" ") for item in chat]
    place, word = rng.choice(
        [(i, j) for i, found in enumerate(words) for j, word in enumerate(found) if word.isalpha()]
    )
    words[place][word] = "quxly"
    return [{**item, "content": " ".join(found)} for item, found in zip(chat, words, strict=True)]
