"""The stage over its own store: what lies there after runs that end well, early, twice, and with other settings."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.conversation import to_line
from nanosft.data import read_conversations, read_manifest
from nanosft.errors import ConfigError, CreditError, DataError, ProviderError
from nanosft.generate.records import parts
from nanosft.generate.stage import run_generate
from nanosft.manifest import Manifest
from nanosft.settings.generate import GenerateSettings
from nanosft.store import Store, open_store
from tests.batching import manifest_of, rows_of
from tests.stub_provider import KNOWLEDGE, PRICE_USD, RunningStub, run_stub

NUM = 40


@pytest.fixture(scope="module")
def stub() -> Iterator[RunningStub]:
    with run_stub(num=200) as running:
        yield running


@pytest.fixture(scope="module")
def broken() -> Iterator[RunningStub]:
    """A stub whose every answer is broken JSON."""
    with run_stub(num=20, broken_json=1.0) as running:
        yield running


def settings(out: str, **changes: Any) -> GenerateSettings:
    values = {"out": out, "knowledge": KNOWLEDGE, "num": NUM, "provider": "offline", **changes}
    return GenerateSettings(**values)


def ask_stub(running: RunningStub, **changes: Any) -> dict[str, Any]:
    return {"provider": "openrouter", "base_url": running.base_url, "model": "stub", "concurrency": 8, **changes}


def rejects_of(out: str) -> list[dict[str, Any]]:
    store = open_store(out)
    return [orjson.loads(line) for info in store.list("rejects/") for line in store.read(info.key).splitlines()]


def snapshot(out: str) -> dict[str, bytes]:
    store = open_store(out)
    return {info.key: store.read(info.key) for info in store.list()}


def test_a_run_makes_every_row_once_and_puts_both_manifests(out):
    summary = run_generate(settings(out))
    assert (summary.num_accepted, summary.num_given_up, summary.num_made) == (NUM, 0, NUM)
    assert rows_of(out) == list(range(NUM))
    keys = sorted(snapshot(out))
    assert keys[:3] == ["manifest.json", f"plan/{NUM:08d}.json", keys[2]]
    assert keys[2].startswith("rows/00000-")
    assert keys[3:] == ["shards/1/00000.json"]
    manifest = manifest_of(out)
    assert [item.key for item in manifest.objects] == [keys[2]]
    assert manifest.counts["rows"]["accepted"] == NUM
    assert manifest.cost_usd == 0


def test_a_finished_prefix_is_left_untouched_at_once(out, stub):
    options = ask_stub(stub)
    run_generate(settings(out, **options))
    before, num_asked = snapshot(out), len(stub.read_bill()["asked"])
    assert run_generate(settings(out, **options)).num_made == 0
    assert snapshot(out) == before
    assert len(stub.read_bill()["asked"]) == num_asked


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, "seed=0, now seed=1"),
        ({"tone": "grave"}, "tone='', now tone='grave'"),
        ({"skip_gates": ("style",)}, "gates="),
        ({"num": NUM - 1}, f"num={NUM}, now num={NUM - 1}"),
    ],
)
def test_another_plan_on_the_same_prefix_is_refused_by_its_first_difference(out, changes, difference):
    run_generate(settings(out))
    before = snapshot(out)
    with pytest.raises(ConfigError, match=difference):
        run_generate(settings(out, **changes))
    assert snapshot(out) == before


def test_a_copied_set_without_its_plans_record_is_not_taken_for_another(out):
    run_generate(settings(out))
    shutil.rmtree(Path(out, "plan"))
    with pytest.raises(ConfigError, match="seed=0, now seed=1"):
        run_generate(settings(out, seed=1))
    assert run_generate(settings(out)).num_made == 0


def test_a_prefix_with_another_stages_set_is_refused(out):
    open_store(out).write("manifest.json", Manifest(kind="mixture", name="m", objects=()).to_bytes())
    with pytest.raises(ConfigError, match="holds a mixture set"):
        run_generate(settings(out))


def test_a_larger_num_keeps_the_rows_there_are(out):
    run_generate(settings(out))
    before = snapshot(out)
    summary = run_generate(settings(out, num=NUM + 10))
    assert (summary.num_accepted, summary.num_made) == (NUM + 10, 10)
    assert rows_of(out) == list(range(NUM + 10))
    after = snapshot(out)
    assert all(after[key] == data for key, data in before.items() if key.startswith("rows/"))


def test_shards_share_the_plan_and_the_last_one_puts_the_manifest(out):
    for index in (2, 0, 1):
        summary = run_generate(settings(out, num_shards=3, shard_index=index))
        assert (summary.manifest is not None) == (index == 1)
        if index != 1:
            with pytest.raises(DataError, match="unfinished"):
                next(read_conversations(out))
    assert rows_of(out) == list(range(NUM))
    assert {key for key in snapshot(out) if key.startswith("shards/")} == {f"shards/3/0000{i}.json" for i in range(3)}


def test_another_number_of_shards_neither_doubles_nor_loses_a_row(out):
    run_generate(settings(out, num_shards=4, shard_index=1))
    run_generate(settings(out, num_shards=4, shard_index=2))
    for index in range(7):
        run_generate(settings(out, num_shards=7, shard_index=index))
    assert rows_of(out) == list(range(NUM))
    assert manifest_of(out).counts["rows"]["superseded"] == 0


def test_the_manifests_bytes_depend_on_the_parts_alone(out):
    for index in range(3):
        run_generate(settings(out, num_shards=3, shard_index=index))
    store = open_store(out)
    data = store.read("manifest.json")
    store.delete("manifest.json")
    run_generate(settings(out, num_shards=2, shard_index=0, finalize=True))
    assert store.read("manifest.json") == data


def test_two_pods_on_one_index_do_no_harm(tmp_path):
    """Both make every row, as neither sees the other's parts: of two versions the smallest key wins."""
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    run_generate(settings(first))
    run_generate(settings(second))
    shutil.copytree(Path(second, "rows"), Path(first, "rows"), dirs_exist_ok=True)
    Path(first, "manifest.json").unlink()
    run_generate(settings(first, finalize=True))
    assert rows_of(first) == list(range(NUM))
    manifest = manifest_of(first)
    assert manifest.counts["rows"]["superseded"] == NUM
    assert [item.key for item in manifest.objects] == [min(key for key in snapshot(first) if key.startswith("rows/"))]


def test_near_duplicates_between_shards_are_dropped_and_counted(out):
    for index in range(2):
        run_generate(settings(out, num_shards=2, shard_index=index))
    store = open_store(out)
    first, second = [info.key for info in store.list("rows/")]
    lines = store.read(second).splitlines(keepends=True)
    copied, replaced = orjson.loads(store.read(first).splitlines()[0]), orjson.loads(lines[0])
    store.write(second, orjson.dumps({**copied, "meta": replaced["meta"]}) + b"\n" + b"".join(lines[1:]))
    store.delete("manifest.json")
    summary = run_generate(settings(out, finalize=True))
    assert (summary.num_accepted, summary.num_planned) == (NUM - 1, NUM)
    assert manifest_of(out).counts["rows"]["near_duplicates_dropped"] == 1
    assert rows_of(out) == [row for row in range(NUM) if row != replaced["meta"]["row"]]


def test_finalizing_another_number_of_rows_leaves_the_plan_as_it_is(out):
    """It had put a record of the larger plan, which nobody could take back."""
    run_generate(settings(out))
    before = snapshot(out)
    with pytest.raises(ConfigError, match=f"give --num {NUM}"):
        run_generate(settings(out, num=NUM + 1, finalize=True))
    assert snapshot(out) == before


def test_finalizing_what_is_not_there_writes_nothing(out):
    with pytest.raises(ConfigError, match="has no plan yet"):
        run_generate(settings(out, finalize=True))
    assert not Path(out).exists()


def test_the_last_part_stands_in_the_shards_manifest_however_it_was_flushed(out):
    """The last row of a full part sets off a flush: the end of the run had cut it off."""
    run_generate(settings(out, flush_rows=NUM))
    shard = json.loads(snapshot(out)["shards/1/00000.json"])
    assert sum(item["num_rows"] for item in shard["objects"]) == NUM


def test_own_dimensions_are_a_parent_of_the_set(out, tmp_path):
    dimensions = tmp_path / "own.toml"
    dimensions.write_bytes(files("nanosft.generate.planning").joinpath("dimensions.toml").read_bytes())
    run_generate(settings(out, dimensions=str(dimensions)))
    assert [parent.uri for parent in manifest_of(out).parents] == [KNOWLEDGE, str(dimensions)]


@pytest.mark.parametrize("key", ["rows/00000-a-00000.jsonl", "rejects/00000-a-00000.jsonl"])
def test_a_line_that_nanosft_did_not_write_is_named(out, key):
    open_store(out).write(key, b'{"row": 3}\n')
    with pytest.raises(DataError, match=f"{key}:line 1"):
        run_generate(settings(out))


def test_finalizing_an_unfinished_plan_says_so(out):
    run_generate(settings(out, num_shards=2, shard_index=0))
    with pytest.raises(DataError, match="rows of the plan are missing"):
        run_generate(settings(out, finalize=True))


def test_a_row_that_is_refused_again_and_again_is_given_up_and_counted_and_can_be_retried(out, broken, stub):
    summary = run_generate(settings(out, num=5, max_attempts=2, **ask_stub(broken)))
    assert (summary.num_accepted, summary.num_given_up) == (0, 5)
    rejects = rejects_of(out)
    assert Counter(record["row"] for record in rejects) == dict.fromkeys(range(5), 4)  # two prompts of two answers
    assert Counter((record["fresh"], record["attempt"]) for record in rejects) == {
        (0, 0): 5, (0, 1): 5, (1, 0): 5, (1, 1): 5,
    }  # fmt: skip
    assert sorted(record["row"] for record in rejects if record["given_up"]) == list(range(5))
    assert {record["reason"] for record in rejects} == {"json_invalid"}
    assert all(record["raw"] and record["cost_usd"] == PRICE_USD for record in rejects)
    assert manifest_of(out).cost_usd == pytest.approx(20 * PRICE_USD)
    again = settings(out, num=5, max_attempts=2, **ask_stub(stub))
    assert run_generate(again).num_made == 0
    retried = run_generate(again.model_copy(update={"retry_rejects": True}))
    assert (retried.num_accepted, retried.num_given_up) == (5, 0)
    assert {conversation.meta["fresh"] for conversation in read_conversations(out)} == {2}


def test_at_the_limit_of_the_budget_all_is_flushed_and_a_larger_one_goes_on(out, stub):
    num_before = stub.read_bill()["num_billed"]
    options = ask_stub(stub, num=100, budget_usd=30 * PRICE_USD, openrouter_fields=True)
    with pytest.raises(CreditError, match="the budget is reached"):
        run_generate(settings(out, **options))
    num_paid = stub.read_bill()["num_billed"] - num_before
    assert 22 <= num_paid <= 30  # the mean of what is in flight is kept back
    shard = json.loads(snapshot(out)["shards/1/00000.json"])
    assert (shard["complete"], shard["counts"]["rows"]["accepted"]) == (False, num_paid)
    assert shard["cost_usd"] == pytest.approx(num_paid * PRICE_USD)
    assert read_manifest(open_store(out)) is None
    summary = run_generate(settings(out, **{**options, "budget_usd": 1.0}))
    assert (summary.num_accepted, summary.num_made) == (100, 100 - num_paid)
    assert summary.cost_usd == pytest.approx(100 * PRICE_USD)
    assert stub.read_bill()["num_billed"] - num_before == 100


def test_a_shard_reads_no_part_of_another_and_only_the_last_one_reads_them_all(out, monkeypatch):
    read: list[str] = []

    def noting(read_it: Callable[[Store, str], Any]) -> Callable[[Store, str], Any]:
        def note(store: Store, key: str) -> Any:
            read.append(key)
            return read_it(store, key)

        return note

    monkeypatch.setattr(parts, "read_metas", noting(parts.read_metas))
    monkeypatch.setattr(parts, "read_part", noting(parts.read_part))
    monkeypatch.setattr("nanosft.generate.records.finalize.read_part", noting(parts.read_part))
    for index in range(4):
        run_generate(settings(out, num_shards=4, shard_index=index))
        if index < 3:
            assert read == []
    assert len(set(read)) == 4
    assert rows_of(out) == list(range(NUM))
    read.clear()
    run_generate(settings(out, num=NUM + 4, num_shards=4, shard_index=2))
    assert {key.split("/")[1].split("-")[0] for key in read[:1]} == {"00002"}


def test_answers_that_are_billed_and_lost_do_not_pass_the_budget(out):
    """A bill of 4 times the budget was seen: the client's resends were not admitted."""
    budget_usd = 30 * PRICE_USD
    with run_stub(num=100, dropped=0.5) as losing:
        options = ask_stub(losing, num=100, budget_usd=budget_usd, openrouter_fields=True)
        with pytest.raises(CreditError, match="the budget is reached"):
            run_generate(settings(out, **options))
        billed_usd = losing.read_bill()["billed_usd"]
    assert 0.9 * budget_usd < billed_usd <= 1.01 * budget_usd + 8 * PRICE_USD


def test_a_budget_that_nothing_could_be_held_against_is_refused_before_anything_is_written(out, stub):
    with pytest.raises(ConfigError, match="may state no cost"):
        run_generate(settings(out, budget_usd=1.0, **ask_stub(stub, model="unlisted")))
    assert not Path(out).exists()


def test_a_provider_that_is_down_ends_the_run_with_an_error_that_may_pass(out):
    options = {"provider": "openrouter", "base_url": "http://127.0.0.1:9/v1", "model": "m", "max_retries": 0}
    with pytest.raises(ProviderError, match="rows in a row got no answer"):
        run_generate(settings(out, **options))
    assert json.loads(snapshot(out)["shards/1/00000.json"])["complete"] is False


def test_without_a_key_openrouter_is_refused_before_anything_is_written(out):
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        run_generate(settings(out, provider="openrouter"))
    assert not Path(out).exists()


def test_a_dry_run_tells_tokens_and_dollars_by_the_price_list_and_asks_and_writes_nothing(out, stub, capfd):
    num_asked = len(stub.read_bill()["asked"])
    asked = settings(out, dry_run=True, json_output=True, **ask_stub(stub, num=300))
    summary = run_generate(asked)
    printed = capfd.readouterr()
    estimate = json.loads(printed.out)["counts"]["estimate"]
    assert estimate == summary.counts["estimate"]
    assert estimate["fixed_tokens"] > 300 * 1000
    tokens = estimate["fixed_tokens"] + estimate["varying_tokens"]
    assert estimate["cost_usd"] == pytest.approx(tokens * 3e-7 + estimate["completion_tokens"] * 2.5e-6)
    saved_usd = estimate["fixed_tokens"] * 292 / 300 * (3e-7 - 3e-8)  # the first 8 are in flight before any is cached
    assert estimate["cached_cost_usd"] == pytest.approx(estimate["cost_usd"] - saved_usd)
    assert estimate["batch_cost_usd"] < estimate["cached_cost_usd"]
    assert "stub/other" in printed.err
    assert "stub/free" not in printed.err
    assert len(stub.read_bill()["asked"]) == num_asked
    assert not Path(out).exists()


def test_a_dry_run_tells_what_auto_comes_to(out, stub, caplog):
    with caplog.at_level("INFO", "nanosft"):
        run_generate(settings(out, dry_run=True, mode="auto", **ask_stub(stub)))
    assert "--mode auto: batch: about $" in caplog.text


def test_a_dry_run_without_a_network_says_that_it_knows_no_price(out, capfd):
    dead = {"provider": "openrouter", "base_url": "http://127.0.0.1:9/v1", "dry_run": True}
    summary = run_generate(settings(out, **dead))
    assert summary.counts["estimate"]["cost_usd"] is None
    assert summary.counts["estimate"]["fixed_tokens"] > NUM * 1000
    assert "no price list could be read" in " ".join(capfd.readouterr().out.split())
    told = settings(out, prompt_price_usd=0.3, completion_price_usd=2.5, **dead)
    assert run_generate(told).counts["estimate"]["cost_usd"] > 0


def test_the_manifest_keeps_what_the_models_were_said_to_cost(out, stub):
    run_generate(settings(out, num=5, **ask_stub(stub)))
    catalogue = manifest_of(out).counts["catalogue"]
    assert catalogue["models"]["stub"]["prices"]["completion"] == "0.0000025"
    assert catalogue["models"]["stub"]["batch_prices"]["completion"] == "0.00000125"
    assert len(catalogue["date"]) == 10
    shard = json.loads(snapshot(out)["shards/1/00000.json"])
    assert shard["counts"]["catalogue"] == catalogue


def test_the_same_on_s3(bucket, stub):
    out = f"{bucket}/set"
    for index in range(2):
        options = ask_stub(stub, budget_usd=1.0, openrouter_fields=True)
        run_generate(settings(out, num_shards=2, shard_index=index, **options))
    assert rows_of(out) == list(range(NUM))
    assert manifest_of(out).cost_usd == pytest.approx(NUM * PRICE_USD)


def test_examples_are_a_parent_and_answers_that_nearly_repeat_one_are_refused(tmp_path, out, stub):
    made = str(tmp_path / "made")
    run_generate(settings(made, **ask_stub(stub), num=2))
    wanted = tmp_path / "voice.jsonl"
    rows = [orjson.loads(to_line(conversation)) for conversation in read_conversations(made)]
    wanted.write_bytes(orjson.dumps(rows[0]["messages"]) + b"\n")
    options = ask_stub(stub, examples=str(wanted), num=2)
    summary = run_generate(settings(out, **options))
    assert summary.num_accepted == 2
    first = rows[0]["meta"]["row"]
    refused = [(record["row"], record["reason"]) for record in rejects_of(out)]
    assert set(refused) == {(first, "near_duplicate/example")}  # the stub would write it again, word for word
    manifest = manifest_of(out)
    assert manifest.settings["examples"] == hashlib.sha256(wanted.read_bytes()).hexdigest()
    assert manifest.parents[-1].sha256 == manifest.settings["examples"]
    wanted.write_bytes(orjson.dumps(rows[1]["messages"]) + b"\n")
    with pytest.raises(ConfigError, match="examples="):
        run_generate(settings(out, **options))


def test_rows_of_two_models_and_two_languages_are_dealt_and_counted_apart(out, stub):
    asked = ask_stub(stub, model=("stub=3", "stub/other=1"), languages=("en:0.75,de:0.25",))
    for index in (1, 0):
        summary = run_generate(settings(out, num_shards=2, shard_index=index, **asked))
    conversations = list(read_conversations(out))
    models = Counter(conversation.meta["model"] for conversation in conversations)
    assert models == {"stub": 30, "stub/other": 10}
    assert Counter(conversation.meta["language"] for conversation in conversations) == {"en": 30, "de": 10}
    told = summary.counts["models"]
    assert {name: found["answers"]["accepted"] for name, found in told.items()} == models
    assert sum(found["cost_usd"] for found in told.values()) == pytest.approx(summary.cost_usd)
    plan = manifest_of(out).settings
    assert (plan["model"], plan["languages"]) == ({"stub": 3, "stub/other": 1}, {"en": 3, "de": 1})
    run_generate(settings(f"{out}-larger", num=NUM + 20, **asked))
    larger = {item.meta["row"]: item.meta["model"] for item in read_conversations(f"{out}-larger")}
    assert all(larger[item.meta["row"]] == item.meta["model"] for item in conversations)
    with pytest.raises(ConfigError, match="model="):
        run_generate(settings(out, **ask_stub(stub, languages=asked["languages"])))
