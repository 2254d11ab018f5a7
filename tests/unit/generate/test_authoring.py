"""`nanosft knowledge check` prints what to mend; `nanosft knowledge draft` asks once and writes what came."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from nanosft.errors import ConfigError, DataError, ProviderError
from nanosft.generate.authoring import run_knowledge_check, run_knowledge_draft
from nanosft.settings.knowledge import KnowledgeCheckSettings, KnowledgeDraftSettings

DRAFT = "# Zed\n\n- Name: Zed\n- Maker: Ada\n\n## Identity\n- Zed is a helper for gardeners.\n"
FLAWED = "# Zed\n## A\n- Zed has 4 wheels.\n- Zed has 9 wheels.\n## B\n"


@contextmanager
def chat_api(text: str, finish_reason: str = "stop") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A chat API that gives this answer; its base URL, and the requests it gets."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            usage = {"prompt_tokens": 10, "completion_tokens": 10}
            body = orjson.dumps({"id": "1", "model": "m", "choices": [choice], "usage": usage})
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def draft(tmp_path: Path, base_url: str, **options: Any) -> KnowledgeDraftSettings:
    (tmp_path / "README.md").write_text("# Zed\nZed helps gardeners. Made by Ada.\n")
    uris = {"source": f"{tmp_path}/README.md", "out": f"{tmp_path}/k/self.md"}
    return KnowledgeDraftSettings.model_validate({**uris, "base_url": base_url, "max_retries": 0, **options})


def test_check_prints_what_to_mend(tmp_path, capsys):
    (tmp_path / "k.md").write_text(FLAWED)
    report = run_knowledge_check(KnowledgeCheckSettings(uri=f"{tmp_path}/k.md"))
    printed = capsys.readouterr().out
    assert not report.is_clean
    for words in ("contradiction", "4 wheels", "9 wheels", "no fact", "not told", "about"):
        assert words in printed


def test_check_prints_json(tmp_path, capsysbinary):
    (tmp_path / "k.md").write_text(DRAFT)
    run_knowledge_check(KnowledgeCheckSettings(uri=f"{tmp_path}/k.md", json_output=True))
    value = orjson.loads(capsysbinary.readouterr().out)
    assert (value["name"], value["maker"], value["num_facts"]) == ("Zed", "Ada", 1)


def test_strict_check_fails_where_there_is_something_to_mend(tmp_path):
    (tmp_path / "k.md").write_text(FLAWED)
    with pytest.raises(DataError, match="3 to mend"):
        run_knowledge_check(KnowledgeCheckSettings(uri=f"{tmp_path}/k.md", strict=True))
    (tmp_path / "k.md").write_text(DRAFT)
    run_knowledge_check(KnowledgeCheckSettings(uri=f"{tmp_path}/k.md", strict=True))


def test_a_draft_takes_one_prompt_and_is_written(tmp_path):
    with chat_api(f"```markdown\n{DRAFT}```") as (base_url, requests):
        knowledge = run_knowledge_draft(draft(tmp_path, base_url, name="Zed"))
    assert (tmp_path / "k" / "self.md").read_text() == DRAFT
    assert knowledge.maker == "Ada"
    (request,) = requests
    assert "Zed helps gardeners." in request["messages"][1]["content"]


def test_a_draft_replaces_nothing_unasked(tmp_path):
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "self.md").write_text("mine")
    with chat_api(DRAFT) as (base_url, requests):
        with pytest.raises(ConfigError, match="--overwrite"):
            run_knowledge_draft(draft(tmp_path, base_url))
        assert not requests
        run_knowledge_draft(draft(tmp_path, base_url, overwrite=True))
    assert (tmp_path / "k" / "self.md").read_text() == DRAFT


@pytest.mark.parametrize(("text", "reason"), [("I would rather not.", "stop"), (DRAFT, "length"), ("", "stop")])
def test_a_useless_draft_is_not_written(tmp_path, text, reason):
    with chat_api(text, reason) as (base_url, _), pytest.raises(ProviderError):
        run_knowledge_draft(draft(tmp_path, base_url))
    assert not (tmp_path / "k" / "self.md").exists()


def test_a_draft_cut_at_the_limit_says_which_option_to_raise(tmp_path):
    with (
        chat_api(DRAFT, "length") as (base_url, _),
        pytest.raises(ProviderError, match="300 tokens: raise --max-tokens"),
    ):
        run_knowledge_draft(draft(tmp_path, base_url, max_tokens=300))


def test_a_draft_needs_a_key_of_openrouter(tmp_path):
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        run_knowledge_draft(draft(tmp_path, "https://openrouter.ai/api/v1"))


def test_a_draft_needs_its_source(tmp_path):
    with pytest.raises(DataError), chat_api(DRAFT) as (base_url, _):
        run_knowledge_draft(draft(tmp_path, base_url, source=f"{tmp_path}/none.md"))
