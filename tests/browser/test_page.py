"""A person talks on the page: types, reads, stops, edits, compares. Nothing comes from elsewhere; markup is text."""

from collections.abc import Iterator

import orjson
import pytest
import torch

from tests.browser.driver import Browser, shoot
from tests.serving import MODEL, Serving, serving

NASTY = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> **bold** \x1b[31mred\x1b[0m &amp; 🎉\n<|python_start|> "
    "\u202eend\x9b"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    torch.set_num_threads(1)
    with serving(model=(f"small={MODEL}", f"other={MODEL}"), tools=True) as running:
        yield running


@pytest.fixture
def browser(chromium: Browser, server: Serving) -> Iterator[Browser]:
    chromium.resize(1200, 800)
    chromium.open(server.url)
    chromium.wait(lambda: chromium.run("return models.length") == 2)
    yield chromium
    errors = [entry for entry in chromium.read_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []
    foreign = {url for url in chromium.requested_urls() if not url.startswith((server.url, "data:"))}
    assert foreign == set()


def say(browser: Browser, text: str, *, tokens: int = 12, seed: int = 1) -> None:
    browser.run("document.getElementById('max-tokens').value = arguments[0]", str(tokens))
    browser.run("document.getElementById('seed').value = arguments[0]", str(seed))
    browser.type("#message", text + "\ue007")  # Enter


def script_answer(monkeypatch: pytest.MonkeyPatch, server: Serving, ids: list[int]) -> None:
    tokenizer = server.server.schedulers["small"].checkpoint.tokenizer
    calls = iter([*ids, tokenizer.assistant_end_id])
    monkeypatch.setattr("nanosft.nanochat.inference.batching.choose", lambda *_: [next(calls)])


def test_a_question_is_answered_and_the_next_one_knows_it(browser: Browser) -> None:
    shoot(browser, "empty")
    say(browser, "Who are you?")
    browser.wait_idle()
    first = browser.text(".turn:nth-child(1) .text")
    assert first
    say(browser, "And who made you?")
    browser.wait_idle()
    assert browser.text(".bubble") == "Who are you?|And who made you?"
    lines = [orjson.loads(line) for line in browser.run("return toJsonl()").splitlines()]
    assert [message["role"] for message in lines[0]["messages"]] == ["user", "assistant"] * 2
    assert lines[0]["messages"][1]["content"] == browser.run("return turns[0].answers[0].text")
    assert first in browser.run("return document.getElementById('turns').innerText")
    assert browser.run("return document.activeElement.id") == "message"
    shoot(browser, "desktop")


def test_an_answer_can_be_stopped_and_asked_again(browser: Browser, server: Serving) -> None:
    say(browser, "Tell me a long story.", tokens=400)
    browser.wait(lambda: browser.text(".text"))
    browser.click("#stop")
    browser.wait_idle()
    browser.wait(lambda: server.server.schedulers["small"].count_running() == 0)
    assert "Stopped." in browser.text(".note")
    browser.run("document.getElementById('max-tokens').value = '5'")
    browser.run("[...document.querySelectorAll('.actions button')].find(b => b.textContent === 'Retry').click()")
    browser.wait_idle()
    assert "as long as it may be" in browser.text(".note")


def test_a_message_can_be_edited(browser: Browser) -> None:
    say(browser, "Who are you?")
    browser.wait_idle()
    say(browser, "Second")
    browser.wait_idle()
    browser.run("document.querySelector('.actions button').click()")
    browser.run("document.querySelector('.edit').value = 'Where are you?'")
    browser.run("[...document.querySelectorAll('.actions button')].find(b => b.textContent === 'Ask again').click()")
    browser.wait_idle()
    assert browser.text(".bubble") == "Where are you?"


def test_equal_seeds_repeat_and_two_models_stand_side_by_side(browser: Browser) -> None:
    browser.click("#compare")
    say(browser, "Who are you?", seed=5)
    browser.wait_idle()
    left, right = browser.run("return turns[0].answers.map(a => a.text)")
    assert left == right  # one model under two names
    assert browser.text(".answer h3") == "small, seed 5|other, seed 5"
    shoot(browser, "two")


def test_tokens_are_colored_by_probability_on_demand(browser: Browser) -> None:
    say(browser, "Who are you?")
    browser.wait_idle()
    color = "return getComputedStyle(document.querySelector('.tok')).backgroundColor"
    assert browser.run(color) == "rgba(0, 0, 0, 0)"
    browser.click("#color")
    assert browser.run(color) != "rgba(0, 0, 0, 0)"
    assert "%" in browser.run("return document.querySelector('.tok').title")
    shoot(browser, "probabilities")


def test_markup_and_control_codes_in_an_answer_are_text(
    browser: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = server.server.schedulers["small"].checkpoint.tokenizer
    script_answer(monkeypatch, server, tokenizer.encode(NASTY))
    say(browser, "<b>Bold?</b>", tokens=300)
    browser.wait_idle()
    shown = browser.text(".text")
    assert shown == NASTY.replace("\x1b", "\u241b").replace("\u202e", "\ufffd").replace("\x9b", "\ufffd")
    assert browser.text(".bubble") == "<b>Bold?</b>"
    assert browser.run("return document.querySelectorAll('#turns script, #turns img, #turns b').length") == 0
    shoot(browser, "markup")


def test_a_tools_call_and_its_output_are_told_apart(
    browser: Browser, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = server.server.schedulers["small"].checkpoint.tokenizer
    ids = [
        tokenizer.python_start_id,
        *tokenizer.encode("12*7"),
        tokenizer.python_end_id,
        *tokenizer.encode(" It is 84."),
    ]
    script_answer(monkeypatch, server, ids)
    say(browser, "What is 12 times 7?", tokens=100)
    browser.wait_idle()
    assert browser.text(".tool") == "12*7|84"
    assert browser.text(".text") == "12*784 It is 84."


def test_a_phone_shows_it_without_scrolling_sideways(browser: Browser) -> None:
    browser.resize(390, 844)
    browser.prefer("dark")
    shoot(browser, "phone-empty")
    say(browser, "Who are you? " * 12, tokens=40)
    browser.wait_idle()
    browser.click("#toggle")
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
    shoot(browser, "phone-settings")
    browser.click("#toggle")
    shoot(browser, "phone-dark")
    browser.prefer("light")
    shoot(browser, "phone-light")


def test_everything_has_a_name_for_a_screen_reader_and_a_place_for_the_keyboard(browser: Browser) -> None:
    say(browser, "Who are you?")
    browser.wait_idle()
    nameless = browser.run(
        "const labels = e => [e, ...(e.labels || [])].map(l => l.textContent + (l.getAttribute('aria-label') || ''));"
        "const all = [...document.querySelectorAll('button, input, select, textarea')];"
        "return all.filter(e => !labels(e).join('').trim()).map(e => e.outerHTML)"
    )
    assert nameless == []
    order = "return [...document.querySelectorAll('[tabindex]')].map(e => e.tabIndex).filter(i => i > 0)"
    assert browser.run(order) == []  # the order of the document is that of the keyboard
    assert browser.text("#spoken").startswith("small: ")


def test_a_busy_server_and_one_that_is_gone_are_told(chromium: Browser) -> None:
    with serving(max_batch=1, max_queue=0) as server:
        chromium.open(server.url)
        chromium.wait(lambda: chromium.run("return models.length") == 1)
        ask = (
            "const headers = {'Content-Type': 'application/json'};"
            "fetch('/v1/chat/completions', {method: 'POST', headers, body: arguments[0]})"
        )
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400, "stream": True}
        chromium.run(ask, orjson.dumps(body).decode())
        chromium.wait(lambda: server.server.schedulers["small"].count_running() == 1)
        say(chromium, "Hello")
        chromium.wait_idle()
        assert "busy" in chromium.text("#status")
    say(chromium, "Still there?")
    chromium.wait_idle()
    assert "gone" in chromium.text("#status")
    chromium.read_log("browser")  # the failed requests are this test's own
