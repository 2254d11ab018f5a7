"""Data sets: Parquet with a card, nanochat's lists, and the push, against a fake of the Hub's API on loopback."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import huggingface_hub.constants
import orjson
import pyarrow.parquet as pq
import pytest
import yaml

from nanosft.conversation import Conversation, Message, Part, to_line
from nanosft.data import list_data_objects, put_manifest, read_conversations, read_manifest
from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.export.dataset import write_parquet
from nanosft.export.stage import export, run_export
from nanosft.manifest import Manifest, ManifestObject
from nanosft.settings.export import ExportSettings
from nanosft.store import open_store

TOKEN = "hf_secretsecretsecret"
PLAIN = [
    Conversation((Message("system", "Be brief."), Message("user", "Hi <|bos|>"), Message("assistant", "Hi")), {"n": 1}),
    *(Conversation((Message("user", f"Say {n}"), Message("assistant", f"It is {n}."))) for n in range(4)),
]
CALLING = Conversation(
    (Message("user", "2+2?"), Message("assistant", (Part("python", "2+2"), Part("python_output", "4"))))
)


def write_set(folder, train, val=()):
    """A mixture of one train and one val object, with a manifest that no gate of Markdown or YAML would let through."""
    store = open_store(str(folder))
    objects = []
    for name, rows in (("train-00000.jsonl", train), ("val-00000.jsonl", val)):
        if rows:
            written = store.write(name, b"".join(map(to_line, rows)))
            objects.append(
                ManifestObject(key=name, size_bytes=written.size_bytes, sha256=written.sha256, num_rows=len(rows))
            )
    counts = {"rejects": {"style: *bold* | <b>": 7, "none": 0}}
    name = "mine: [x](y)\n# not a heading"
    put_manifest(store, Manifest(kind="mixture", name=name, objects=tuple(objects), counts=counts, cost_usd=0.125))
    return str(folder)


def test_parquet_holds_every_conversation_by_split_and_is_read_back(tmp_path):
    data = write_set(tmp_path / "data", PLAIN[:3], PLAIN[3:])
    manifest = export(ExportSettings(data=data, out=str(tmp_path / "out"), license="cc-by-4.0"))

    assert manifest.counts["rows"] == {"train": 3, "validation": 2}
    rows = pq.read_table(tmp_path / "out" / "data" / "train-00000.parquet").to_pylist()
    assert rows[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <|bos|>"},
        {"role": "assistant", "content": "Hi"},
    ]
    assert rows[0]["id"] == PLAIN[0].id
    assert orjson.loads(rows[0]["meta"]) == {"n": 1}
    assert [item.messages for item in read_conversations(str(tmp_path / "out"))] == [item.messages for item in PLAIN]
    parent = read_manifest(open_store(data))
    assert parent is not None
    assert manifest.parents[0].sha256 == parent.sha256
    assert export(ExportSettings(data=data, out=str(tmp_path / "out"), license="cc-by-4.0")) == manifest


def test_the_cards_metadata_is_yaml_and_text_from_data_stays_text(tmp_path):
    data = write_set(tmp_path / "data", PLAIN)
    export(ExportSettings(data=data, out=str(tmp_path / "out"), license='mit"\nprivate: "yes'))
    card = (tmp_path / "out" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)

    metadata = yaml.safe_load(head)
    assert metadata["license"] == 'mit"\nprivate: "yes'
    assert metadata["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}
    ]
    assert metadata["size_categories"] == ["n<1K"]
    assert "# mine\\: \\[x\\]\\(y\\) \\# not a heading\n" in body
    assert "| rejects\\: style\\: \\*bold\\* \\| \\<b\\> | 7 |" in body
    assert "none" not in body.partition("## Counts")[2]
    assert "0.12 US dollars" in body
    assert str(tmp_path) not in card


def test_shards_are_cut_at_their_rows_and_python_calls_become_parts_for_all(tmp_path):
    rows = [*PLAIN, CALLING]
    data = write_set(tmp_path / "data", rows)
    objects = list(write_parquet(open_store(str(tmp_path / "out")), list_data_objects(data), shard_rows=4))

    assert [(item.key, item.num_rows) for item in objects] == [
        ("data/train-00000.parquet", 4),
        ("data/train-00001.parquet", 2),
    ]
    tables = [pq.read_table(tmp_path / "out" / item.key).to_pylist() for item in objects]
    assert tables[1][1]["messages"][1]["content"] == [
        {"type": "python", "text": "2+2"},
        {"type": "python_output", "text": "4"},
    ]
    assert tables[0][1]["messages"][1]["content"] == [{"type": "text", "text": "It is 0."}]
    assert [row["id"] for table in tables for row in table] == [item.id for item in rows]


def test_nanochats_lists_join_the_system_message_and_leave_out_python_calls_with_a_count(tmp_path):
    data = write_set(tmp_path / "data", [PLAIN[0], CALLING], PLAIN[1:2])
    manifest = export(ExportSettings(data=data, to="nanochat", out=str(tmp_path / "out")))

    assert manifest.counts == {"left_out_with_python_calls": 1}
    lines = (tmp_path / "out" / "train.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line) for line in lines] == [
        [{"role": "user", "content": "Be brief.\n\nHi <|bos|>"}, {"role": "assistant", "content": "Hi"}]
    ]
    with pytest.raises(DataError, match="no conversation to export"):
        export(ExportSettings(data=write_set(tmp_path / "other", [CALLING]), to="nanochat", out=str(tmp_path / "no")))


class FakeHub(BaseHTTPRequestHandler):
    """What the Hub's client needs of it to make a repository and commit small files."""

    status = 200
    seen: ClassVar[list[tuple[str, str | None, Any]]] = []
    files: ClassVar[dict[str, bytes]] = {}

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._read_chunks()
        self.seen.append((self.path, self.headers.get("Authorization"), body))
        answer: dict[str, Any]
        if self.path == "/api/repos/create":
            answer = {"url": f"http://{self.headers['Host']}/datasets/me/set", "name": "me/set"}
        elif "/preupload/" in self.path:
            named = json.loads(body)["files"]
            answer = {
                "files": [{"path": item["path"], "uploadMode": "regular", "shouldIgnore": False} for item in named]
            }
        elif self.path == "/api/validate-yaml":
            answer = {"warnings": [], "errors": []}
        else:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            url = f"http://{self.headers['Host']}/datasets/me/set/commit/1"
            answer = {"commitUrl": url, "commitOid": "1", "success": True}
        data = json.dumps(answer if self.status == 200 else {"error": f"no, {TOKEN} may not"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _read_chunks(self):
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    handler = type("Handler", (FakeHub,), {"seen": [], "files": {}})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_push_uploads_what_the_manifest_names_and_shows_no_token(tmp_path, hub, capsys):
    data = write_set(tmp_path / "data", PLAIN)
    settings = ExportSettings(data=data, out=str(tmp_path / "out"), push="me/set")
    run_export(settings)

    created = json.loads(hub.seen[0][2])
    assert (created["name"], created["organization"]) == ("set", "me")
    assert (created["type"], created["visibility"]) == ("dataset", "private")
    assert {authorization for _, authorization, _ in hub.seen} == {f"Bearer {TOKEN}"}
    assert hub.files == {
        name: (tmp_path / "out" / name).read_bytes() for name in ("README.md", "data/train-00000.parquet")
    }
    shown = "".join(capsys.readouterr())
    assert "pushed to" in shown
    assert TOKEN not in shown
    num_requests = len(hub.seen)
    run_export(settings)  # finished before: pushed again
    assert len(hub.seen) > num_requests


@pytest.mark.parametrize(("status", "kind"), [(403, ConfigError), (401, ConfigError), (500, StoreError)])
def test_what_the_hub_answers_is_one_line_without_the_token(tmp_path, hub, status, kind):
    hub.status = status
    data = write_set(tmp_path / "data", PLAIN)
    with pytest.raises(kind, match="me/set") as caught:
        run_export(ExportSettings(data=data, out=str(tmp_path / "out"), push="me/set"))
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("hub")
def test_a_push_without_a_token_or_a_hub_says_so_before_or_after_the_work(tmp_path, monkeypatch):
    data = write_set(tmp_path / "data", PLAIN)
    settings = ExportSettings(data=data, out=str(tmp_path / "out"), push="me/set")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="the Hub is not reached"):
        run_export(settings)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ConfigError, match="HF_TOKEN"):
        run_export(settings)


def test_settings_name_one_thing_and_a_form_that_goes_with_it():
    cases: list[dict[str, Any]] = [
        {},
        {"model": "a", "data": "b"},
        {"model": "a", "to": "nanochat", "dtype": "bfloat16"},
    ]
    for wrong in cases:
        with pytest.raises(ValueError, match=r"--model or --data|--dtype"):
            ExportSettings(out="out", **wrong)
    with pytest.raises(ValueError, match="--push"):
        ExportSettings(data="b", to="nanochat", out="out", push="me/set")


def test_data_are_listed_once_and_only_what_was_hashed_is_exported(tmp_path, monkeypatch):
    """They were listed for their parents and again for their rows: what came between was exported and in no parent."""
    path = tmp_path / "data" / "a.jsonl"
    path.parent.mkdir()
    path.write_bytes(b"".join(map(to_line, PLAIN[:3])))
    listed = []

    def list_and_add(uri: str) -> Any:
        listed.append(uri)
        items = list_data_objects(uri)
        (path.parent / f"{len(listed)}.jsonl").write_bytes(to_line(PLAIN[3]))
        return items

    monkeypatch.setattr("nanosft.export.stage.list_data_objects", list_and_add)
    manifest = export(ExportSettings(data=str(path.parent), out=str(tmp_path / "out")))
    assert listed == [str(path.parent)]
    assert [parent.uri for parent in manifest.parents] == [path.as_uri()]
    assert manifest.counts["rows"] == {"train": 3}
