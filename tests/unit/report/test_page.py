"""Pages: every section falls back to who makes it, everything is escaped, and nothing comes from elsewhere."""

import base64
import html
import logging
import re
import zlib
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest

from nanosft.cli import app, main
from nanosft.conversation import Conversation, Message
from nanosft.data import list_data_objects
from nanosft.errors import ConfigError
from nanosft.nanochat import save_tokenizer
from nanosft.nanochat.tokenizer import read_tokenizer, train_tokenizer
from nanosft.report import pages
from nanosft.report.blocks import Page, Section, Text
from nanosft.report.browser import add_tokens, mark_clusters, mark_packed, render_tokens
from nanosft.report.collect import collect
from nanosft.report.figures import Line, draw_lines, thin
from nanosft.report.page import render_page
from nanosft.report.pages import make_page
from nanosft.report.stage import run_report, write_beside
from nanosft.report.wording import say_duration, say_money, say_number, say_size
from nanosft.settings.report import ReportSettings
from nanosft.store import join_uri, open_store
from nanosft.train.data import plan_steps
from nanosft.train.data.tokens import read_lines, tokenize
from tests.reporting import NASTY, make_rows, put_generated, put_lines, put_mixture, put_road, put_run, talk


def write(tmp_path: Path, *uris: str, **changes: Any) -> str:
    out = tmp_path / "page.html"
    run_report(ReportSettings(uris=uris, out=str(out), **changes))
    text = out.read_text(encoding="utf-8")
    assert "Not shown: a value" not in text  # else a defect of ours would be taken for somebody else's data
    return text


def sections_of(page: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', page)


def rows_of(page: str) -> list[dict[str, Any]]:
    chunks = re.findall(r'class="chunk">([\w+/=]*)<', page)
    return [row for chunk in chunks for row in orjson.loads(zlib.decompress(base64.b64decode(chunk)))]


def test_the_page_of_a_run_has_every_section(tmp_path: Path) -> None:
    run = put_road(str(tmp_path))
    page = write(tmp_path, run.uri)
    assert sections_of(page) == [
        "overview", "training", "samples", "evaluation", "answers", "generate", "mix", "data", "asked", "ancestry",
        "next", "problems", "conversations",
    ]  # fmt: skip
    assert page.count("<figure>") == 8
    assert "0.750 [0.500, 1.000]" in page
    assert f"nanosft chat --model {run.uri}" in page
    assert len(rows_of(page)) == 7
    problems = re.findall(r'<p class="warning">(.*?)</p>', page)
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["no tokens are shown", where] for where in ("file:///absent/base", run.uri)
    ]


def test_nothing_in_a_page_is_markup_of_the_data(tmp_path: Path) -> None:
    page = write(tmp_path, put_road(str(tmp_path)).uri)
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<script>") == 1


def test_nothing_in_a_page_is_fetched(tmp_path: Path) -> None:
    page = write(tmp_path, put_road(str(tmp_path)).uri)
    assert re.findall(r"(?:src|href)=\"(?!#|data:)", page) == []
    assert "default-src 'none'" in html.unescape(page)
    assert not re.search(r"<[^>]* style=", page.split("</style>")[1].split("<script")[0])


def test_a_run_killed_in_the_middle_says_so_and_what_is_missing(tmp_path: Path) -> None:
    mixture = put_mixture(str(tmp_path / "mixture"), put_generated(str(tmp_path / "generated")))
    put_run(str(tmp_path / "run"), mixture, finished=False)
    page = write(tmp_path, str(tmp_path / "run"))
    assert "The run is not finished, or it failed" in page
    assert "The newest saved state is of step 2" in page
    assert "Not evaluated yet" in page
    assert "The run has no model yet" in page


def test_a_directory_of_metrics_alone_makes_a_page(tmp_path: Path) -> None:
    open_store(str(tmp_path / "run")).write("metrics.jsonl", b'{"step": 1, "loss": 2.0}\n')
    page = write(tmp_path, str(tmp_path / "run"))
    assert "No state is saved yet" in page
    assert "What was asked is not there" in page


def test_the_page_of_a_data_set_has_its_rejects_and_what_they_were_rejected_for(tmp_path: Path) -> None:
    put_generated(str(tmp_path / "set"))
    page = write(tmp_path, str(tmp_path / "set"))
    assert sections_of(page) == ["data", "generate", "asked", "ancestry", "conversations"]
    rejected = [row for row in rows_of(page) if row["part"] == "rejected"]
    assert [(row["reasons"], row["raw"]) for row in rejected] == [(["identity/other_name"], f"I am ChatGPT. {NASTY}")]
    assert "identity/other_name" in page


def test_more_conversations_than_have_room_are_a_sample_that_says_so(tmp_path: Path) -> None:
    put_generated(str(tmp_path / "set"))
    page = write(tmp_path, str(tmp_path / "set"), max_data_mib=0.0005)
    assert "A sample: " in page
    assert 0 < len(rows_of(page)) < 7
    assert '<section id="conversations"' not in write(tmp_path, str(tmp_path / "set"), max_data_mib=0)


def test_runs_are_laid_over_each_other(tmp_path: Path) -> None:
    one, two = put_road(str(tmp_path / "one")), put_road(str(tmp_path / "two"))
    page = write(tmp_path, "compare", one.uri, two.uri)
    assert sections_of(page) == ["overview", "settings", "training", "evaluation", "samples"]
    assert page.count("<figure>") == 5
    assert re.search(r'<th scope="row">data</th><td>\S+one/mixture</td><td>\S+two/mixture</td>', page)


def test_a_watched_page_reloads_itself_until_the_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = put_mixture(str(tmp_path / "mixture"), put_generated(str(tmp_path / "generated")))
    uri, out = str(tmp_path / "run"), tmp_path / "page.html"
    put_run(uri, mixture, finished=False)
    seen = []

    def sleep(interval_s: float) -> None:
        seen.append((interval_s, 'http-equiv="refresh" content="5"' in out.read_text()))
        put_run(uri, mixture)

    monkeypatch.setattr("nanosft.report.stage.time.sleep", sleep)
    assert "refresh" not in re.sub(r"<script.*", "", write(tmp_path, uri, watch=True, interval_s=5.0), flags=re.DOTALL)
    assert seen == [(5.0, True)]


def test_a_page_beside_the_model_never_fails_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = put_road(str(tmp_path))
    uri = write_beside(run.uri, made=run.uri)
    assert uri is not None
    assert uri.endswith("/run/report.html")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    monkeypatch.setattr("nanosft.report.stage.make_page", lambda *_: 1 / 0)
    assert write_beside(run.uri, made=run.uri) is None


def test_no_page_is_written_beside_what_is_not_finished_or_by_another_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = put_road(str(tmp_path))
    assert write_beside(run.uri, made=str(tmp_path / "absent")) is None
    monkeypatch.setenv("RANK", "1")
    assert write_beside(run.uri, made=run.uri) is None
    assert not (tmp_path / "run" / "report.html").exists()


def test_no_page_replaces_what_is_no_page(tmp_path: Path) -> None:
    """`report rows.jsonl --out rows.jsonl` made a page of the rows where the rows had been."""
    put_lines(str(tmp_path), "rows.jsonl", make_rows())
    rows = tmp_path / "rows.jsonl"
    before = rows.read_bytes()
    with pytest.raises(ConfigError, match="is there already and is no page"):
        run_report(ReportSettings(uris=(str(rows),), out=f"{tmp_path}/./rows.jsonl"))
    assert rows.read_bytes() == before
    for _ in range(2):
        run_report(ReportSettings(uris=(str(rows),), out=f"{tmp_path}/page.html"))


def test_a_run_whose_data_is_elsewhere_has_its_page_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was copied from its bucket had none: its parents' bucket was asked for, without credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    run = Path(__file__).parents[2] / "golden/begun/run"
    settings = ReportSettings(uris=(str(run),))
    record = collect(str(run), settings)
    assert any(problem.startswith("s3://begun/data.jsonl: no AWS credentials") for problem in record.problems)
    text = render_page(make_page(record, settings))
    assert "no AWS credentials" in text
    assert "Not shown: a value" not in text


def test_a_section_of_values_that_nobody_writes_says_so_and_the_others_stand(tmp_path: Path) -> None:
    put_road(str(tmp_path))
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_bytes(b'{"step": [], "val_bpb": "x", "loss": {}}\n')
    for path in (tmp_path / "run").glob("metrics-*.jsonl"):
        path.write_bytes(metrics.read_bytes())
    uri = str(tmp_path / "run")
    settings = ReportSettings(uris=(uri,))
    text = render_page(make_page(collect(uri, settings), settings))
    assert "Not shown: a value is not as nanosft writes it" in text
    assert {"overview", "training", "mix", "ancestry"} <= set(sections_of(text))


def test_what_cannot_be_drawn_is_logged_with_its_place_as_it_may_be_our_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(
        logging.getLogger("nanosft.report.pages"), "debug", lambda _text, exc_info: told.append(exc_info)
    )

    def draw() -> Section:
        raise IndexError("list index out of range")

    (section,) = pages._draw("mix", "Mix", draw)
    assert isinstance(section.blocks[0], Text)
    assert section.blocks[0].text.startswith("Not shown")
    assert [type(exc) for exc in told] == [IndexError]


@pytest.mark.parametrize("with_out", [False, True])
def test_an_audit_has_a_page_even_where_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, with_out: bool
) -> None:
    uri, out, page = str(tmp_path / "rows.jsonl"), str(tmp_path / "audited"), tmp_path / "audit.html"
    put_lines(str(tmp_path), "rows.jsonl", [*make_rows(), talk("Who are you?", "I am ChatGPT, made by OpenAI.")])
    options = ["--max-refused-share", "0.1", "--html", str(page), *(["--out", out] if with_out else [])]
    monkeypatch.setattr("sys.argv", ["nanosft", "audit", uri, "--name", "nanochat", *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    text = page.read_text(encoding="utf-8")
    assert sections_of(text)[0] == "audit"
    assert "identity/other_name" in text
    parts = {row["part"]: row for row in rows_of(text)}
    assert set(parts) == ({"clean", "refused"} if with_out else {"accepted"})
    if with_out:
        assert "identity/other_name" in parts["refused"]["reasons"]


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "absent.jsonl"],
        ["inspect", "absent.jsonl"],
        ["report", "absent.jsonl"],
        ["generate", "--out", "absent", "--provider", "offline", "--preview", "1"],
    ],
)
@pytest.mark.parametrize("page", ["notes.txt", "notes.txt/page.html", "folder"])
def test_where_a_page_is_to_go_is_tried_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], page: str
) -> None:
    """`audit --html notes.txt` was refused when all had been audited, and a judge had been paid for."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nanosft", *words, "--out" if words[0] == "report" else "--html", page])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "notes.txt"]


def test_an_inspection_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_lines(str(tmp_path), "rows.jsonl", make_rows())
    page = tmp_path / "set.html"
    monkeypatch.setattr("sys.argv", ["nanosft", "inspect", str(tmp_path / "rows.jsonl"), "--html", str(page)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert sections_of(page.read_text(encoding="utf-8"))[0] == "data"


def test_settings_that_make_no_sense_together_are_refused() -> None:
    for uris, watch in ((("compare", "a"), False), (("a", "b"), False), (("compare", "a", "b"), True)):
        with pytest.raises(ValueError, match=r"compare|comparison"):
            ReportSettings(uris=uris, watch=watch)
    assert "report" in {info.name for info in app.registered_commands}


def test_tokens_have_their_sizes_in_utf16_and_their_mask_in_runs() -> None:
    tokenizer = train_tokenizer(["Hello there, how are you? I am fine."] * 10, 300)
    conversation = Conversation((Message("user", "Hi 🎉"), Message("assistant", "é ok")))
    found = render_tokens(conversation, tokenizer)
    ids, mask = tokenizer.render(conversation)
    assert found["text"] == "<|bos|><|user_start|>Hi 🎉<|user_end|><|assistant_start|>é ok<|assistant_end|>"
    assert sum(found["sizes"]) == len(found["text"].encode("utf-16-le")) // 2
    assert len(found["sizes"]) == len(ids) == sum(found["mask"])
    assert sum(found["mask"][1::2]) == sum(mask)


@pytest.mark.parametrize("overlong", ["turns", "drop"])
def test_rows_are_told_as_train_packs_them(tmp_path: Path, overlong: Literal["turns", "drop"]) -> None:
    text = "Question number 1 of many, please? That is all that I can say of it just now."
    tokenizer = train_tokenizer([text] * 5, 300)
    turn = (Message("user", text), Message("assistant", text))
    several, endless = Conversation(turn * 9), Conversation((turn[0], Message("assistant", text * 20)))
    uri = join_uri(str(tmp_path), "set")
    put_lines(uri, "rows.jsonl", [*make_rows(20), several, endless, *make_rows(40)[20:]])
    packing: dict[str, Any] = {"capacity": 300, "seed": 3, "window": 16}
    record = collect(uri, ReportSettings(uris=(uri,)))
    add_tokens(record.rows, tokenizer, 1_000_000, capacity=300)
    num_packed = mark_packed(record.rows, **packing, keep_turns=overlong == "turns")

    save_tokenizer(str(tmp_path / "base"), tokenizer)
    pickle, _ = read_tokenizer(str(tmp_path / "base"))
    lines = read_lines(list_data_objects(uri))
    tokens = tokenize(lines, pickle, capacity=300, overlong=overlong, num_workers=1)
    rows = plan_steps(tokens, **packing, rows_per_step=1, epochs=1, max_steps=None).rows
    assert num_packed == len(rows) > 1
    kept = [row for row in record.rows if "packed" in row]
    assert [row["id"][:16] for row in kept] == [tokens.name_of(item) for item in range(len(tokens))]
    assert len(record.rows) - len(kept) == (1 if overlong == "turns" else 2)
    for place, row in enumerate(kept):
        number, within = row["packed"]
        assert rows.row(number)[within] == place


def test_near_duplicates_are_numbered_by_their_cluster() -> None:
    same = "This is one long sentence that is said twice, with hardly a word that differs between both of them, is it"
    texts = ["Something else.", same, "And a third thing.", same + " so?", "Something else."]
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": text}], "meta": {}}
        for text in texts
    ]
    assert mark_clusters([*rows, {"messages": [], "meta": {}}]) == 2
    assert [row.get("cluster") for row in rows] == [2, 1, None, 1, 2]


def test_a_chart_tells_in_words_what_it_shows() -> None:
    lines = [Line("one", [(step, 10.0**-step) for step in range(4)]), Line("none", []), Line("zero", [(1.0, 0.0)])]
    figure = draw_lines("Norms", lines, scale="log", marks={2: "resumed"})
    assert figure.names == ["one"]
    assert 'aria-label="Norms: one from 1 at 0 to 0.001 at 3, between 0.001 and 1; resumed at 2"' in figure.svg
    assert ">0.01<" in figure.svg
    assert len(figure.svg) < 4000
    assert "style" not in figure.svg


def test_thinning_keeps_every_spike() -> None:
    points = [(float(step), 100.0 if step == 777 else 1.0 + step % 2) for step in range(5000)]
    found = thin(points, 100)
    assert len(found) <= 110
    assert (777.0, 100.0) in found
    assert found == sorted(found)


def test_an_empty_chart_and_a_bare_page_are_drawn() -> None:
    assert "no points" in draw_lines("Nothing", []).svg
    assert "<h2" in render_page(Page("t", "s", [Section("a", "A", [Text("x")])]))


def test_figures_are_said_as_people_read_them() -> None:
    assert [say_number(value) for value in (None, 12345, 0.123456, 1234.5, 2.0)] == [
        "",
        "12,345",
        "0.1235",
        "1,234",
        "2",
    ]
    assert [say_money(value) for value in (0.0, 0.00012, 12.345)] == ["$0.00", "$0.00012", "$12.35"]
    assert [say_duration(value) for value in (5, 65, 3700)] == ["5 s", "1 min 5 s", "1 h 1 min"]
    assert [say_size(value) for value in (10, 2048, 5 << 30)] == ["10 B", "2 KiB", "5.0 GiB"]
