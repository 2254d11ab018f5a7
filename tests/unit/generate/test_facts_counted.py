"""The manifest says how many answers state each fact."""

from pathlib import Path

from nanosft.data import read_conversations, read_manifest
from nanosft.generate.stage import run_generate
from nanosft.knowledge import StatedFacts, read_knowledge
from nanosft.settings.generate import GenerateSettings
from nanosft.store import open_store


def test_the_manifest_counts_the_answers_that_state_a_fact(tmp_path: Path) -> None:
    out = str(tmp_path / "set")
    run_generate(GenerateSettings(out=out, provider="offline", num=12))
    manifest = read_manifest(open_store(out))
    assert manifest is not None
    answers = [
        message.text
        for conversation in read_conversations(out)
        for message in conversation.messages
        if message.role == "assistant"
    ]
    assert manifest.counts["facts"] == StatedFacts(read_knowledge(None)).count(answers)
    assert sum(manifest.counts["facts"].values()) > 12
