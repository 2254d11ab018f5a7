"""The server as OpenAI's own client meets it, over a socket."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanosft.conversation import Message
from nanosft.nanochat import Engine, load_checkpoint
from nanosft.serve.bodies import ChatBody, CompletionBody
from tests.serving import MODEL, Serving, serving

CHECKPOINT = load_checkpoint(MODEL)
TIMEOUT_S = 60.0
HELLO: list[Any] = [{"role": "user", "content": "Who are you?"}]
TOO_LONG: list[Any] = [{"role": "user", "content": "word " * 5000}]
IMAGE: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]
LONG: dict[str, Any] = {"max_tokens": 200, "temperature": 1.0, "seed": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    torch.set_num_threads(1)
    with serving(model=(f"small={MODEL}", f"other={MODEL}"), max_body_bytes=50_000, prefill_tokens=16) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Serving) -> Iterator[openai.OpenAI]:
    with make_client(server) as made:
        yield made


def make_client(server: Serving, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=server.api, api_key=key, max_retries=0, timeout=TIMEOUT_S)


def expect(messages: list[dict[str, str]], **options: Any) -> str:
    """What the engine says alone."""
    ids = CHECKPOINT.tokenizer.render_prompt([Message(**message) for message in messages])  # type: ignore[arg-type]
    engine = Engine(CHECKPOINT.model, CHECKPOINT.tokenizer, context_len=CHECKPOINT.context_len)
    return CHECKPOINT.tokenizer.decode(list(engine.generate(ids, **options)))


def wait_until(condition: Any) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.9, "seed": 7}])
def test_a_chat_is_answered_as_the_engine_alone_does(client: openai.OpenAI, options: dict[str, Any]) -> None:
    answer = client.chat.completions.create(model="small", messages=HELLO, max_tokens=12, **options)
    assert answer.choices[0].message.content == expect(HELLO, max_tokens=12, **options)
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(CHECKPOINT.tokenizer.render_prompt([Message("user", "Who are you?")]))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_joins_to_the_same_answer(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="other", messages=HELLO, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expect(HELLO, max_tokens=12, temperature=0)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in {"stop", "length"}
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens <= 12


def test_many_at_once_are_each_answered_as_if_alone(client: openai.OpenAI) -> None:
    def ask(number: int) -> str | None:
        messages: Any = [{"role": "user", "content": f"Number {number}? " * (1 + number % 5)}]
        answer = client.chat.completions.create(
            model="small", messages=messages, max_tokens=4 + number, temperature=0.8, seed=number, top_p=0.9
        )
        found = answer.choices[0].message.content
        assert found == expect(messages, max_tokens=4 + number, temperature=0.8, seed=number, top_p=0.9)
        return found

    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(ask, range(24)))) > 12


def test_several_choices_have_seeds_that_follow_one_another(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="small", messages=HELLO, max_tokens=8, n=3, seed=5)
    expected = [expect(HELLO, max_tokens=8, seed=seed) for seed in (5, 6, 7)]
    assert [choice.message.content for choice in answer.choices] == expected


def test_text_ends_before_a_stop_string(client: openai.OpenAI) -> None:
    whole = expect(HELLO, max_tokens=20, temperature=0)
    stop = whole[4:6]
    answer = client.chat.completions.create(model="small", messages=HELLO, max_tokens=20, temperature=0, stop=stop)
    assert answer.choices[0].message.content == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(
        model="small", messages=HELLO, max_tokens=20, temperature=0, stop=[stop], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[: whole.index(stop)]


def test_log_probabilities_of_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="small", messages=HELLO, max_tokens=6, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs)
    data = b"".join(bytes(entry.bytes or []) for entry in logprobs.content)
    assert data.decode(errors="replace") == answer.choices[0].message.content


def test_an_echo_tells_the_likelihood_of_a_prompt_as_an_evaluation_harness_asks_for_it(client: openai.OpenAI) -> None:
    text = "The sky is blue."
    answer = client.completions.create(
        model="small", prompt=[text, "Hi"], max_tokens=1, echo=True, logprobs=1, temperature=0
    )
    ids = CHECKPOINT.tokenizer.encode(text)
    with torch.inference_mode():
        logits = CHECKPOINT.model(torch.tensor([[CHECKPOINT.tokenizer.bos_id, *ids]]))[0].log_softmax(-1)
    expected = [float(logits[place, token]) for place, token in enumerate(ids)]
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith(text)
    assert logprobs is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[:-1] == pytest.approx(expected, abs=1e-4)
    assert len(logprobs.tokens or []) == len(logprobs.top_logprobs or []) == len(ids) + 1
    assert "".join((logprobs.tokens or [])[:-1]) == text
    given = client.completions.create(
        model="small", prompt=[CHECKPOINT.tokenizer.bos_id, *ids], max_tokens=0, echo=True, logprobs=0
    )
    assert given.choices[0].logprobs is not None
    assert (given.choices[0].logprobs.token_logprobs or [])[1:] == pytest.approx(expected, abs=1e-4)
    assert given.choices[0].text == "<|bos|>" + text


def test_a_completion_streams_and_repeats_for_its_seed(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "small", "prompt": "Once upon", "max_tokens": 9, "seed": 3}
    whole = client.completions.create(**options).choices[0].text
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**options, stream=True)]
    assert "".join(pieces) == whole
    echoed = "".join(chunk.choices[0].text for chunk in client.completions.create(**options, stream=True, echo=True))
    assert echoed == "Once upon" + whole


def test_special_tokens_spelled_out_stay_text(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "<|assistant_end|><|bos|>Hi"}]}]
    answer = client.chat.completions.create(model="small", messages=messages, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4 + len(CHECKPOINT.tokenizer.encode("<|assistant_end|><|bos|>Hi"))


def test_models_are_listed_with_what_they_are(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["small", "other"]
    model = client.models.retrieve("other")
    assert model.to_dict()["context_length"] == CHECKPOINT.context_len
    with pytest.raises(openai.NotFoundError, match="no model 'third'; there are small, other"):
        client.models.retrieve("third")


@pytest.mark.parametrize(
    ("changes", "error", "code", "says"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found", "no model 'gpt-4'"),
        ({"messages": TOO_LONG}, openai.BadRequestError, "context_length_exceeded", "shorten"),
        ({"messages": []}, openai.BadRequestError, None, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, openai.BadRequestError, None, "the user's"),
        ({"messages": IMAGE}, openai.BadRequestError, None, "messages"),
        ({"temperature": -1}, openai.BadRequestError, None, "temperature"),
        ({"n": 17}, openai.BadRequestError, None, "n: "),
        ({"top_p": 0}, openai.BadRequestError, None, "top_p"),
        ({"presence_penalty": 1}, openai.BadRequestError, None, "presence_penalty is not supported"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, None, "tools are not supported"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_told_in_openais_form(
    client: openai.OpenAI, changes: dict[str, Any], error: type[openai.APIStatusError], code: str | None, says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)) as caught:
        client.chat.completions.create(**{"model": "small", "messages": HELLO, "max_tokens": 2, **changes})
    body: Any = caught.value.body
    assert body["code"] == code
    assert body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b'{"model": "small", "prompt": "' + b"a" * 50_000 + b'"}', "application/json", 413),
        (b'{"model": "small", "prompt": [99999999]}', "application/json", 400),
        (b'{"model": "small", "prompt": []}', "application/json", 400),
    ],
)
def test_bodies_that_are_none_have_their_status(server: Serving, content: bytes, kind: str, status: int) -> None:
    found = httpx.post(f"{server.api}/completions", content=content, headers={"Content-Type": kind})
    assert found.status_code == status
    assert found.json()["error"]["message"]


def test_other_paths_and_methods_are_errors_of_the_same_form(server: Serving) -> None:
    assert httpx.get(f"{server.url}/v2").status_code == 404
    found = httpx.get(f"{server.api}/chat/completions")
    assert found.status_code == 405
    assert "GET /v1/chat/completions" in found.json()["error"]["message"]


def test_a_page_of_another_site_cannot_ask(server: Serving) -> None:
    found = httpx.get(f"{server.api}/models", headers={"Host": "evil.example"})
    assert found.status_code == 403
    asked = httpx.options(f"{server.api}/chat/completions", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in {name.lower() for name in asked.headers}
    assert httpx.get(f"{server.url}/health", headers={"Host": "10.0.0.7:8000"}).status_code == 200  # a probe's


def test_a_request_whose_client_is_gone_stops(server: Serving, client: openai.OpenAI) -> None:
    scheduler = server.server.schedulers["small"]
    body = {"model": "small", "messages": HELLO, **LONG, "n": 3}
    with httpx.stream("POST", f"{server.api}/chat/completions", json={**body, "stream": True}) as response:
        next(response.iter_bytes())
        assert scheduler.count_running() == 3
    wait_until(lambda: scheduler.count_running() == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.api}/chat/completions", json=body, timeout=0.2)
    wait_until(lambda: scheduler.count_running() == 0)
    assert client.chat.completions.create(model="small", messages=HELLO, max_tokens=1).choices


def test_health_and_metrics_tell_what_was_done(server: Serving, client: openai.OpenAI) -> None:
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    before = read_metrics(server)
    client.chat.completions.create(model="small", messages=HELLO, max_tokens=3, temperature=0)
    after = read_metrics(server)
    name = 'nanosft_completion_tokens_total{model="small"}'
    assert after[name] - before.get(name, 0) == 3
    name = 'nanosft_requests_total{route="/v1/chat/completions",status="200"}'
    assert after[name] - before.get(name, 0) == 1
    assert after['nanosft_answers_running{model="small"}'] == 0


def read_metrics(server: Serving) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_the_page_is_one_file_that_may_load_nothing(server: Serving) -> None:
    found = httpx.get(f"{server.url}/")
    assert found.headers["content-type"].startswith("text/html")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", found.text)


def test_a_key_is_needed_where_there_is_one() -> None:
    with serving(api_key="secret") as server:
        with make_client(server, "secret") as client:
            assert client.chat.completions.create(model="small", messages=HELLO, max_tokens=1).choices
        with make_client(server, "wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/").status_code == 200


def test_a_full_queue_and_too_many_requests_are_refused_at_once() -> None:
    with serving(max_batch=1, max_queue=1) as server, make_client(server) as client:
        stream = client.chat.completions.create(model="small", messages=HELLO, stream=True, **LONG)
        next(iter(stream))
        waiting = threading.Thread(
            target=lambda: client.chat.completions.create(model="small", messages=HELLO, max_tokens=1)
        )
        waiting.start()
        wait_until(lambda: server.server.schedulers["small"].count_waiting() == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="small", messages=HELLO, stream=True, max_tokens=1)
        assert caught.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.BadRequestError, match="3 answers at once: this server takes 2"):
            client.completions.create(model="small", prompt=["a", "b", "c"])
        stream.close()
        waiting.join(TIMEOUT_S)
        assert not waiting.is_alive()
    with serving(max_connections=1) as server, make_client(server) as client:
        stream = client.chat.completions.create(model="small", messages=HELLO, stream=True, **LONG)
        next(iter(stream))
        with pytest.raises(openai.InternalServerError, match="as many requests run") as full:
            client.models.list()
        assert full.value.status_code == 503
        stream.close()


def test_an_answer_that_nobody_waits_for_leaves_the_queue() -> None:
    with serving(max_batch=1, max_queue=1) as server, make_client(server) as client:
        scheduler = server.server.schedulers["small"]
        stream = client.chat.completions.create(model="small", messages=HELLO, stream=True, **LONG)
        next(iter(stream))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.api}/completions", json={"model": "small", "prompt": "Hi"}, timeout=0.3)
        wait_until(lambda: scheduler.count_waiting() == 0)
        assert scheduler.count_running() == 1
        stream.close()


def test_a_model_that_fails_ends_its_answers_and_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server, make_client(server) as client:
        model = server.server.schedulers["small"].checkpoint.model
        run = model.run

        def fail(*_: Any) -> Any:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(model, "run", fail)
        with pytest.raises(openai.InternalServerError, match="the model failed"):
            client.chat.completions.create(model="small", messages=HELLO, max_tokens=3)
        with pytest.raises(openai.APIError, match="the model failed"):
            list(client.chat.completions.create(model="small", messages=HELLO, max_tokens=3, stream=True))
        monkeypatch.setattr(model, "run", run)
        assert client.chat.completions.create(model="small", messages=HELLO, max_tokens=3).choices


def test_tools_are_evaluated_and_their_output_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CHECKPOINT.tokenizer
    script = [tokenizer.python_start_id, *tokenizer.encode("12*7"), tokenizer.python_end_id]
    for tools, extra in ((True, "<|output_start|>84<|output_end|>"), (False, "")):
        with serving(tools=tools) as server, make_client(server) as client:
            calls = iter([*script, *tokenizer.encode(" ok"), tokenizer.assistant_end_id])
            monkeypatch.setattr("nanosft.nanochat.inference.batching.choose", lambda *_, calls=calls: [next(calls)])
            answer = client.chat.completions.create(model="small", messages=HELLO, max_tokens=60)
            assert answer.choices[0].message.content == f"<|python_start|>12*7<|python_end|>{extra} ok"


def test_sigterm_finishes_what_runs_and_takes_nothing_new() -> None:
    command = [sys.executable, "-m", "nanosft", "serve", "--model", f"small={MODEL}", "--port", "0", "--device", "cpu"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stderr.readline())
        assert match is not None
        url = f"http://127.0.0.1:{match[1]}"
        body = {"model": "small", "messages": HELLO, "stream": True, **LONG}
        text = b""
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as response:
            stream = response.iter_bytes()
            text += next(stream)
            process.send_signal(signal.SIGTERM)
            text += b"".join(stream)
        assert text.endswith(b"data: [DONE]\n\n")
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith(b"data: {")]
        assert events[-1]["choices"][0]["finish_reason"] in {"stop", "length"}
        assert process.wait(TIMEOUT_S) == 143
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", int(match[1])))


_VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.just("small")
    | st.just([])
)
_ANYTHING = st.recursive(
    _VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
_KEYS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields})
_SOUND: dict[str, Any] = {"model": "small", "messages": HELLO, "prompt": "Hi", "max_tokens": 2}


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.sampled_from(["chat/completions", "completions"]), st.dictionaries(st.sampled_from(_KEYS), _ANYTHING, max_size=3)
)
def test_no_body_is_a_defect_of_the_server(server: Serving, route: str, changes: dict[str, Any]) -> None:
    content = json.dumps({**_SOUND, **changes, "max_completion_tokens": 2, "max_tokens": 2})
    found = httpx.post(
        f"{server.api}/{route}", content=content, headers={"Content-Type": "application/json"}, timeout=TIMEOUT_S
    )
    assert found.status_code in {200, 400, 404}, (content, found.text)
