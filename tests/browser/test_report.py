"""A person looks at a report: nothing of the data is markup, nothing is fetched, and conversations are found."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from nanosft.conversation import parse_line, to_line
from nanosft.nanochat import save_tokenizer, train_tokenizer
from nanosft.report.stage import run_report
from nanosft.settings.report import ReportSettings
from nanosft.store import join_uri
from tests.browser.driver import Browser, shoot
from tests.reporting import NASTY, make_rows, put_lines, put_road, talk

LONG = "A very long answer. " * 5000
RTL = "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("report")
    base = join_uri(str(folder), "base")
    save_tokenizer(base, train_tokenizer(["This is said twice, in one long sentence. I am nanochat."] * 5, 300))
    run = put_road(join_uri(str(folder), "road"))
    same = "This is said twice, in one long sentence with hardly a word that differs between both of its two forms"
    rows = [*make_rows(30), talk("Markup?", NASTY), talk(RTL, RTL), talk("Long?", LONG)]
    rows += [talk("Twice?", same), talk("Twice?", f"{same} so")]
    put_lines(join_uri(str(folder), "set"), "rows.jsonl", rows)
    found = {}
    for name, uri in (("run", run.uri), ("set", join_uri(str(folder), "set"))):
        found[name] = str(folder / f"{name}.html")
        run_report(ReportSettings(uris=(uri,), out=found[name], tokenizer=base, max_seq_len=512))
    return found


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    chromium.resize(1200, 900)
    chromium.open("about:blank")
    chromium.read_log("browser")
    chromium.requested_urls()
    yield chromium
    assert chromium.read_log("browser") == []
    assert {url for url in chromium.requested_urls() if not url.startswith(("file:", "data:"))} == set()


def look(browser: Browser, page: str) -> None:
    browser.open(Path(page).as_uri())
    browser.wait(lambda: browser.run("return isRead"))


def found(browser: Browser) -> str:
    return browser.text("#found")


def search(browser: Browser, words: str) -> None:
    browser.run("byId('search').value = arguments[0]; refilter()", words)


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        "const s = byId('filter-' + arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        name,
        value,
    )


def test_the_page_of_a_run_is_readable_at_any_width_and_asks_nothing(browser: Browser, pages: dict[str, str]) -> None:
    for width, scheme in ((1200, "light"), (390, "dark")):
        browser.prefer(scheme)
        browser.resize(width, 900)
        look(browser, pages["run"])
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run("return [...document.querySelectorAll('figure > svg')].every(s => s.ariaLabel)")
        shoot(browser, f"report-{width}-{scheme}")
    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0


def test_conversations_are_searched_filtered_and_paged_and_rejects_have_their_reason(
    browser: Browser, pages: dict[str, str]
) -> None:
    look(browser, pages["run"])
    assert found(browser) == "7 of 7"
    choose(browser, "verdict", "rejected")
    assert found(browser) == "1 of 7"
    assert "identity/other_name: it claims to be ChatGPT" in browser.text("#rows .why")
    assert "I am ChatGPT. <script>alert(1)</script>" in browser.text("#rows .raw")
    look(browser, pages["set"])
    assert browser.text("#pages") == "of 2"
    browser.click("#next")
    assert len(browser.run("return [...document.querySelectorAll('.row')]")) == 15
    search(browser, "NUMBER 1")
    assert found(browser) == "11 of 35"
    assert browser.text("mark").split("|")[0] == "number 1"
    choose(browser, "persona", "joker")
    assert found(browser) == "5 of 35"


def test_a_seed_gives_one_order_and_rows_copy_as_the_lines_they_were(browser: Browser, pages: dict[str, str]) -> None:
    look(browser, pages["set"])
    orders = []
    for seed in (1, 1, 2):
        browser.run("byId('seed').value = arguments[0]; byId('draw').click()", seed)
        orders.append(browser.text(".row h3 code"))
    assert orders[0] == orders[1] != orders[2]
    lines = browser.run("return rows.map(toLine)")
    read = [to_line(parse_line(line, where="copied")) for line in lines]
    path = Path(pages["set"]).parent / "set" / "rows.jsonl"
    assert sorted(read) == sorted(path.read_bytes().splitlines(keepends=True))


def test_markup_right_to_left_nul_and_long_texts_are_shown_as_text(browser: Browser, pages: dict[str, str]) -> None:
    look(browser, pages["set"])
    search(browser, "<script>")
    assert '<script>alert(1)</script> & "quoted"' in browser.text(".message.assistant")
    assert "\u2400" in browser.text(".message.assistant")  # a NUL, made visible
    assert "[U+202E]" in browser.text(".message.assistant")  # it would turn what follows around
    search(browser, RTL)
    assert browser.run("return getComputedStyle(document.querySelector('.message')).unicodeBidi") == "plaintext"
    search(browser, "very long")
    assert browser.run("return document.querySelector('.message.assistant').textContent.length") < 5000
    browser.run("document.querySelector('.message button').click()")
    assert browser.run("return document.querySelector('.message.assistant').textContent.length") > 99_000


def test_tokens_are_coloured_by_the_loss_mask_and_near_duplicates_stand_side_by_side(
    browser: Browser, pages: dict[str, str]
) -> None:
    look(browser, pages["set"])
    search(browser, "Twice?")
    browser.click("#show-tokens")
    supervised = browser.run(
        "return [...document.querySelector('.tokens').querySelectorAll('.t1')].map(e => e.textContent).join('')"
    )
    assert supervised.startswith("This is said twice")
    assert supervised.endswith("<|assistant_end|>")
    shoot(browser, "report-tokens")
    browser.click("#show-tokens")
    browser.click(".near")
    assert found(browser) == "2 conversations that nearly equal one another"
    assert browser.run("return document.getElementById('rows').className") == "side"
    browser.click("#back")
    assert found(browser) == "2 of 35"


def test_a_conversation_shows_the_packed_row_that_it_shares(browser: Browser, pages: dict[str, str]) -> None:
    look(browser, pages["set"])
    about = orjson.loads(browser.text("#about"))
    assert (about["rows"], about["capacity"]) == (35, 513)
    assert "; 1 have no place in a row" in browser.text("#conversations > p")
    browser.click("#show-tokens")
    assert f"of {about['packed']}, packed with" in browser.text(".row .note .near")
    browser.click(".row .note .near")
    lengths = browser.run("return group.rows.map(row => row.tokens.sizes.length)")
    assert found(browser) == (
        f"Row {browser.run('return group.rows[0].packed[0]') + 1} of the first epoch: {len(lengths)} conversations, "
        f"{sum(lengths)} of 513 tokens"
    )
    assert len(browser.run("return [...document.querySelectorAll('#rows.packed .row .tokens')]")) == len(lengths)
    assert len(set(browser.run("return [...document.querySelectorAll('.packed .row')].map(e => e.className)"))) > 1
    shoot(browser, "report-packed")
    browser.click("#back")
    assert found(browser) == "35 of 35"
