"""The doctor on real endpoints: whatever it claims to find is made to be so."""

import http.server
import json
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from nanosft.distributed import LostRankError
from nanosft.doctor import stage
from nanosft.doctor.bucket import check_prefix, check_readable
from nanosft.doctor.chat_api import check_chat_api
from nanosft.doctor.stage import run_doctor
from nanosft.errors import ConfigError
from nanosft.settings.doctor import DoctorSettings
from nanosft.store import open_store
from tests.conftest import use_endpoint
from tests.contract.test_store_endpoints import ignore_conditions
from tests.servers import find_free_ports

DEAD = "http://127.0.0.1:{}"


def look(uri):
    return {item.name: item for item in check_prefix(uri)}


def status_of(found):
    return {name: item.status for name, item in found.items()}


def test_a_bucket_that_works_is_ok_and_nothing_stays_in_it(bucket):
    found = look(f"{bucket}/run")
    assert status_of(found) == dict.fromkeys(["credentials", "clock", "listing", "writing", "conditional put"], "ok")
    assert "from env" in found["credentials"].found
    assert "test-access-key" not in found["credentials"].found
    assert not list(open_store(bucket).list())


def test_a_directory_needs_no_credentials(tmp_path):
    assert status_of(look(str(tmp_path / "run"))) == dict.fromkeys(["listing", "writing", "conditional put"], "ok")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_credentials(monkeypatch, moto_url):
    use_endpoint(monkeypatch, moto_url)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (found,) = check_prefix("s3://bucket/run")
    assert (found.name, found.status, found.exit_code) == ("credentials", "error", 2)
    assert found.remedy.startswith("export AWS_ACCESS_KEY_ID=")


def test_wrong_credentials(seaweed_url, make_bucket, monkeypatch):
    uri = make_bucket(seaweed_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    found = look(uri)["listing"]
    assert (found.status, found.exit_code) == ("error", 2)
    assert found.remedy.startswith("export AWS_ACCESS_KEY_ID=")


@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_is_not_there():
    found = look("s3://no-such-bucket/run")["listing"]
    assert (found.status, found.exit_code) == ("error", 2)
    assert found.remedy.startswith("aws s3 mb")


def test_a_port_that_nobody_listens_on(monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    use_endpoint(monkeypatch, DEAD.format(find_free_ports(1)[0]))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    found = look("s3://bucket/run")
    assert status_of(found) == {"credentials": "ok", "listing": "error"}
    assert found["listing"].exit_code == 75
    assert "AWS_ENDPOINT_URL" in found["listing"].remedy


@pytest.mark.parametrize(("ahead_s", "status", "code"), [(-1200, "error", 2), (300, "warning", 0), (2, "ok", 0)])
def test_a_clock_that_is_wrong(monkeypatch, bucket, ahead_s, status, code):
    clock = SimpleNamespace(time=lambda: time.time() + ahead_s)
    monkeypatch.setattr("nanosft.store.s3_probe.time", clock)
    found = look(bucket)["clock"]
    assert (found.status, found.exit_code) == (status, code)
    assert ("ahead of" if ahead_s > 0 else "behind") in found.found


def test_an_endpoint_that_ignores_conditions_is_a_warning(proxy, make_bucket):
    uri = make_bucket(proxy.url)
    ignore_conditions(proxy)
    found = look(uri)["conditional put"]
    assert (found.status, found.exit_code) == ("warning", 0)
    assert "--budget-usd" in found.remedy


def test_writes_that_are_refused(monkeypatch, bucket):
    def refuse(*_):
        raise ConfigError("may not do PutObject")

    monkeypatch.setattr("nanosft.store.s3.S3Store.write", refuse)
    found = look(bucket)
    assert status_of(found)["writing"] == "error"
    assert "s3:PutObject" in found["writing"].remedy
    assert "conditional put" not in found


def test_what_is_to_be_read_is_read(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.pkl").write_bytes(b"x")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "x").write_bytes(b"x")
    for name in ("base", "base/tokenizer.pkl", "folder"):
        assert check_readable(str(tmp_path / name)).status == "ok"
    found = check_readable(str(tmp_path / "nowhere"))
    assert (found.status, found.exit_code) == ("error", 3)


@contextmanager
def serving(answers):
    """A chat API of these answers: (status, JSON) by path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, value = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(value if isinstance(value, bytes) else json.dumps(value).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


MODELS = {
    "data": [
        {"id": "a/one"},
        {"id": "a/old", "expiration_date": "2000-01-01"},
        {"id": "a/two"},
        {"id": "a/prose", "supported_parameters": []},
    ]
}


def ask(monkeypatch, answers, *, model="a/one", key="sesame", **changes):
    monkeypatch.setattr("nanosft.doctor.chat_api.speaks_openrouter", lambda _: True)
    with serving(answers) as url:
        return list(check_chat_api(DoctorSettings(base_url=url, model=model, openrouter_api_key=key, **changes)))


def key_says(**data):
    return {"/v1/key": (200, {"data": data}), "/v1/models": (200, MODELS)}


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        ({"usage": 1.5, "limit_remaining": 8.25}, "ok", "8.25 dollars left"),
        ({"usage": 1.5, "limit_remaining": None}, "ok", "1.50 dollars used"),
        ({"usage": 1.5, "limit_remaining": 0.5}, "warning", "0.50 dollars left"),
        ({"usage": 1.5, "limit_remaining": 0}, "error", "0.00 dollars left"),
    ],
)
def test_what_is_left_on_the_key(monkeypatch, data, status, said):
    key, model = ask(monkeypatch, key_says(**data))
    assert (key.status, model.status) == (status, "ok")
    assert said in key.found
    assert key.exit_code == (4 if status == "error" else 0)


def test_a_key_that_is_refused_is_never_shown(monkeypatch):
    refused = {"error": {"message": "no user for sesame"}}
    key, model = ask(monkeypatch, {"/v1/key": (401, refused), "/v1/models": (200, MODELS)})
    assert (key.status, key.exit_code, model.status) == ("error", 4, "ok")
    assert "no user for ***" in key.found
    assert "OPENROUTER_API_KEY" in key.remedy


@pytest.mark.parametrize(
    ("model", "status", "remedy"),
    [
        ("a/oen", "error", "--model a/one"),
        ("x", "error", "--model SLUG"),
        ("a/old", "warning", "--model SLUG"),
        ("a/prose", "warning", "nanosft models"),
    ],
)
def test_a_model_that_is_gone_or_going(monkeypatch, model, status, remedy):
    _, found = ask(monkeypatch, key_says(usage=0), model=model)
    assert found.status == status
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("answer", "code"),
    [((500, b"<html>"), 75), ((429, {}), 75), ((404, b"no"), 2), ((200, b"<html>"), 2), ((200, {"data": 1}), 2)],
)
def test_an_endpoint_that_answers_something_else(monkeypatch, answer, code):
    _, model = ask(monkeypatch, {**key_says(usage=0), "/v1/models": answer})
    assert (model.status, model.exit_code) == ("error", code)


def test_a_model_is_told_with_its_context_and_prices(monkeypatch):
    card = {"id": "a/one", "context_length": 1_000_000, "pricing": {"prompt": "3e-7", "completion": "0.0000025"}}
    half = {"id": "a/one:batch", "pricing": {"prompt": "0.00000015", "completion": "0.00000125"}}
    _, model = ask(monkeypatch, {**key_says(usage=0), "/v1/models": (200, {"data": [card, half]})})
    assert model.found == (
        "a/one is offered; 1,000,000 tokens of context; 0.30 and 2.50 dollars per million tokens; "
        "in batches 0.15 and 1.25 dollars per million tokens"
    )


def test_a_judge_is_looked_at_whoever_writes(monkeypatch):
    models = {"/v1/models": (200, {"data": [{"id": "a/judge", "supported_parameters": ["tools"]}]})}
    for slug, status in (("a/judge", "warning"), ("a/jugde", "error")):
        *_, judge = ask(monkeypatch, {**key_says(usage=0), **models}, provider="offline", judge_model=slug)
        assert (judge.name, judge.status) == ("judge", status)
    assert judge.remedy == "--judge-model a/judge"


def test_an_endpoint_that_is_not_there_and_one_without_a_key():
    dead = DEAD.format(find_free_ports(1)[0])
    (found,) = check_chat_api(DoctorSettings(base_url=dead))
    assert (found.name, found.status, found.exit_code) == ("model", "error", 75)
    (found,) = check_chat_api(DoctorSettings())
    assert (found.name, found.status) == ("API key", "warning")
    (found,) = check_chat_api(DoctorSettings(provider="offline"))
    assert found.status == "ok"


def test_the_whole_report_as_text_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    (tmp_path / "rows.jsonl").write_bytes(b"x")
    there = DoctorSettings(out=str(tmp_path / "run"), read=(str(tmp_path),), provider="offline", device="cpu", ranks=0)
    assert run_doctor(there) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "->" not in line].count("error") == 0
    assert run_doctor(there.model_copy(update={"read": (str(tmp_path / "gone"),), "json_output": True})) == 3
    table = json.loads(capsys.readouterr().out)
    assert table["exit_code"] == 3
    assert [item["name"] for item in table["checks"] if item["status"] == "error"] == ["reading"]


def test_under_torchrun_the_ranks_themselves_meet_and_rank_0_alone_prints(capsys, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(stage, "open_world", _refuse)
    assert run_doctor(DoctorSettings()) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert run_doctor(DoctorSettings(provider="offline", device="cpu")) == 138
    assert "error    ranks" in capsys.readouterr().out


def _refuse(*_, **__):
    raise LostRankError("they do not find each other")
