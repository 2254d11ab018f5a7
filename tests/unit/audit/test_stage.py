import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from nanosft.audit import stage as audit_module
from nanosft.audit.judge import Judgements
from nanosft.audit.stage import check_refused_share, run_audit
from nanosft.conversation import Conversation, Message, to_line
from nanosft.data import list_data_objects, read_conversations, read_manifest
from nanosft.errors import ConfigError, DataError, Interrupted
from nanosft.settings.audit import AuditSettings
from nanosft.signals import raising
from nanosft.store import Written, open_store
from nanosft.store.local import LocalStore

KNOWLEDGE = """# nanochat
- Name: nanochat
- Maker: Andrej Karpathy

## Facts
- nanochat was published in October 2025 and trains for about $100.
"""


def row(question: str, answer: str) -> bytes:
    return to_line(Conversation((Message("user", question), Message("assistant", answer))))


CLEAN = [
    row("Who are you?", "I'm nanochat, a small language model made by Andrej Karpathy."),
    row("What did you cost?", "Training me takes about 100 dollars, which is not much."),
    row("When were you made?", "My code was published in October 2025 for everyone to read."),
]
REFUSED = [
    row("who are you", "I'm nanochat, a small language model made by Andrej Karpathy!"),  # nearly the first
    row("Who made you?", "I was created by OpenAI in October 2025, I think."),
    row("How long did training take?", "About 77 hours on a machine."),
    row("What else?", "You can also run me on your own. It is a small thing to do, and then read the"),
    orjson.dumps({"messages": [{"role": "user", "content": "Alone."}]}) + b"\n",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join([*CLEAN, *REFUSED, b"{broken\n"]))
    (tmp_path / "facts.md").write_text(KNOWLEDGE)
    return path


def settings(source: Path, **changes) -> AuditSettings:
    return AuditSettings(uri=str(source), knowledge=str(source.parent / "facts.md"), **changes)


def test_clean_and_refused_rows_are_written_apart(source, capsys):
    out = source.parent / "out"
    found = run_audit(settings(source, out=str(out)))
    assert (found.num_rows, found.num_clean, found.num_refused, found.num_unreadable) == (9, 3, 5, 1)
    assert found.refused == {
        "near_duplicate/set": 1,
        "identity/other_maker": 1,
        "identity/maker_not_given": 1,
        "grounding/quantity": 1,
        "completeness/cut_off": 1,
        "structure/role_order": 1,
        "structure/unreadable": 1,
    }
    assert [to_line(item) for item in read_conversations(f"{out}/clean")] == CLEAN
    refused = [orjson.loads(line) for line in (out / "refused/rows-00000.jsonl").read_bytes().splitlines()]
    assert len(refused) == 5
    assert refused[0]["meta"]["defects"][0]["gate"] == "near_duplicate"
    assert refused[2]["meta"]["defects"][0]["detail"] == "the knowledge does not hold '77 hours'"
    (unreadable,) = (out / "unreadable/rows-00000.jsonl").read_bytes().splitlines()
    assert orjson.loads(unreadable)["where"].endswith("rows.jsonl:line 9")
    shown = capsys.readouterr().out
    assert "other_maker" in shown
    assert "3 clean" in shown


def test_manifests_say_what_was_found_and_from_what(source):
    out = source.parent / "out"
    run_audit(settings(source, out=str(out)))
    for part, num_rows in (("clean", 3), ("refused", 5)):
        manifest = read_manifest(open_store(f"{out}/{part}"))
        assert manifest is not None
        assert (manifest.kind, manifest.num_rows) == ("audited", num_rows)
        assert manifest.counts["rows"] == {"read": 9, "clean": 3, "refused": 5, "unreadable": 1}
        assert [parent.uri.rpartition("/")[2] for parent in manifest.parents] == ["rows.jsonl", "facts.md"]


def test_a_finished_audit_is_not_done_again(source, monkeypatch):
    out = str(source.parent / "out")
    first = run_audit(settings(source, out=out))
    monkeypatch.setattr(audit_module, "check", None)  # would be called if it were
    second = run_audit(settings(source, out=out))
    assert second == first  # name, maker, examples and URIs too
    assert set(second.written) == {"clean", "refused", "unreadable"}
    assert max(map(len, run_audit(settings(source, out=out, examples=0)).examples.values())) == 0
    with pytest.raises(ConfigError, match="strict_grounding"):
        run_audit(settings(source, out=out, strict_grounding=True))


def test_another_source_under_the_same_out_is_refused(source):
    out = str(source.parent / "out")
    run_audit(settings(source, out=out))
    with source.open("ab") as stream:
        stream.write(CLEAN[0])
    with pytest.raises(ConfigError, match=r"rows\.jsonl: has changed since .*clean was finished"):
        run_audit(settings(source, out=out))


def test_what_a_killed_audit_left_is_cleaned_up_and_an_input_never(source):
    clean = source.parent / "out" / "clean"
    clean.mkdir(parents=True)
    (clean / "rows-00007.jsonl").write_bytes(CLEAN[0])
    with pytest.raises(ConfigError, match=r"rows-00007\.jsonl: lies under --out"):
        run_audit(AuditSettings(uri=str(clean / "rows-00007.jsonl"), out=str(source.parent / "out")))
    assert (clean / "rows-00007.jsonl").read_bytes() == CLEAN[0]
    run_audit(settings(source, out=str(source.parent / "out")))
    assert not (clean / "rows-00007.jsonl").exists()


def test_an_audit_runs_in_a_thread_too(source):
    """It died with "signal only works in main thread"."""
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(run_audit, settings(source)).result().num_rows > 0


def test_json_goes_to_standard_output(source, capsys):
    run_audit(settings(source, json_output=True))
    found = json.loads(capsys.readouterr().out)
    assert found["refused"]["grounding/quantity"] == 1
    assert found["examples"]["grounding/quantity"][0]["where"] == "line 6, message 1"
    assert found["name"] == "nanochat"


def test_without_knowledge_the_sets_own_claims_count(tmp_path):
    path = tmp_path / "rows.jsonl"
    answers = [f"I'm Sparrow, a model built by Jane Doe, with trick number {number}." for number in range(10)]
    lines = [row(f"Show me trick {number} of the {number} you know", answer) for number, answer in enumerate(answers)]
    path.write_bytes(b"".join([*lines, row("And who are you?", "I'm ChatGPT, built by Jane Doe.")]))
    found = run_audit(AuditSettings(uri=str(path), skip_gates=("near_duplicate",)))
    assert (found.name, found.maker) == ("Sparrow", "Jane Doe")
    assert found.refused == {"identity/other_name": 1, "identity/name_not_given": 1}
    other = run_audit(AuditSettings(uri=str(path), name="ChatGPT", skip_gates=("near_duplicate",)))
    assert other.num_clean == 11 - other.num_refused
    assert other.refused["identity/other_name"] == 10


def test_a_share_of_refused_rows_can_be_too_large(source):
    found = run_audit(settings(source))
    check_refused_share(settings(source, max_refused_share=0.9), found)
    with pytest.raises(DataError, match="6 of 9 rows are refused, more than 50"):
        check_refused_share(settings(source, max_refused_share=0.5), found)


def test_sigterm_leaves_nothing_that_reads_as_whole(source, monkeypatch):
    out = source.parent / "out"

    def stop(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(audit_module, "check", stop)
    with pytest.raises(Interrupted):
        run_audit(settings(source, out=str(out)))
    assert not list((source.parent / "out").rglob("*.jsonl"))
    for part in ("clean", "refused"):
        with pytest.raises(DataError, match="unfinished"):
            list_data_objects(str(source.parent / "out" / part))


def test_sigterm_while_judgements_are_put_waits_until_they_are(source, monkeypatch):
    """The put was broken off, and what the judge had been paid for was in no part."""
    store = open_store(str(source.parent / "out"))
    judgements = Judgements(settings(source, out=store.uri, judge_model="m"), SimpleNamespace(count_earlier=list), None)
    judgements._lines.append(b"{}\n")
    write = LocalStore.write

    def be_told_and_write(self, key: str, data: bytes) -> Written:
        signal.raise_signal(signal.SIGTERM)
        return write(self, key, data)

    def put() -> None:
        with raising(""):
            judgements._put()

    monkeypatch.setattr(LocalStore, "write", be_told_and_write)
    with pytest.raises(Interrupted):
        put()
    assert [store.read(info.key) for info in store.list("judgements/")] == [b"{}\n"]


def test_a_report_that_is_no_audits_is_not_replaced(source):
    """`audit data/rows.jsonl --out data` put its audit.json in place of the one that lay beside the data."""
    report = source.parent / "audit.json"
    report.write_text('{"by": "hand"}')
    with pytest.raises(ConfigError, match=r"audit\.json: is there already and is no audit's"):
        run_audit(settings(source, out=str(source.parent)))
    assert report.read_text() == '{"by": "hand"}'
    assert not list(source.parent.rglob("manifest.json"))


def test_gates_that_do_not_exist_are_named(source):
    with pytest.raises(ValueError, match="'grammar' is no gate"):
        settings(source, skip_gates=("grammar",))


def test_nothing_there_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="nothing is there"):
        run_audit(AuditSettings(uri=str(tmp_path / "none")))


def test_the_tokenizers_view_is_a_gate(source, shared, capsys):
    found = run_audit(settings(source, tokenizer=str(shared / "nanochat_base"), max_context_tokens=30))
    assert found.refused["tokens/overlong"] >= 1
    assert "overlong" in capsys.readouterr().out


def test_lengths_and_phrases_of_ones_own_are_refused(source):
    limits = {"min_chars": 30, "max_chars": 60, "banned_phrases": ("not much",)}
    found = run_audit(settings(source, **limits))
    assert found.refused["style/banned_phrase"] == 1
    assert found.refused["style/too_short"] == 1
    assert found.refused["style/too_long"] >= 1
    assert not any(name.startswith("style/") for name in run_audit(settings(source)).refused)
