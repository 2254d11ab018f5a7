"""Models from a bucket, kept on disk: fetched once, checked whenever they are used, and within their size."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from nanosft.chat.dialogue import open_chats
from nanosft.errors import DataError, NanosftError, StoreError
from nanosft.manifest import MANIFEST_KEY, Manifest, ManifestObject
from nanosft.nanochat import load_checkpoint, open_cached
from nanosft.settings.chat import ChatSettings
from nanosft.store import Store, open_store
from tests.s3_proxy import S3Proxy

MODEL = Path(__file__).parents[1] / "golden" / "nanochat" / "g5"
FILES = ("tokenizer/tokenizer.pkl", "base_checkpoints/d4/meta_000007.json", "base_checkpoints/d4/model_000007.pt")
SIZE_BYTES = sum((MODEL / key).stat().st_size for key in FILES)
MODEL_KEY = FILES[2]


def put_model(uri: str, *, with_manifest: bool, meta: bytes = b"") -> Store:
    store = open_store(uri)
    written = [store.write(key, (MODEL / key).read_bytes() + (meta if "meta" in key else b"")) for key in FILES]
    if with_manifest:
        objects = tuple(
            ManifestObject(key=item.key, size_bytes=item.size_bytes, sha256=item.sha256) for item in written
        )
        store.write(MANIFEST_KEY, Manifest(kind="model", name="run", objects=objects).to_bytes())
    return store


def fetch(uri: str, directory: Path, limit_bytes: int = 1 << 40) -> str:
    with open_cached(uri, None, None, None, directory=directory, limit_bytes=limit_bytes) as place:
        assert load_checkpoint(place).step == 7
        return place


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was logged since the last call."""
    logger = logging.getLogger("nanosft")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, "nanosft")

    def take() -> list[str]:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return messages

    return take


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_model_is_fetched_once(
    bucket: str,
    proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    told: Callable[[], list[str]],
    *,
    with_manifest: bool,
) -> None:
    put_model(f"{bucket}/run", with_manifest=with_manifest)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    place = fetch(f"{bucket}/run", tmp_path)
    assert "cache miss: fetched" in told()[0]
    assert sorted(str(path.relative_to(place)) for path in Path(place).rglob("*") if path.is_file()) == sorted(
        ["files.json", *FILES]
    )
    proxy.count()
    assert fetch(f"{bucket}/run", tmp_path) == place
    assert "cache hit: " in told()[0]
    assert proxy.count()["GET"] == 1  # the manifest, or that there is none
    assert [path.name for path in tmp_path.iterdir()] == [Path(place).name]


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_model_that_was_replaced_is_another_one(bucket: str, tmp_path: Path, *, with_manifest: bool) -> None:
    put_model(f"{bucket}/run", with_manifest=with_manifest)
    first = fetch(f"{bucket}/run", tmp_path)
    put_model(f"{bucket}/run", with_manifest=with_manifest, meta=b"\n")
    assert fetch(f"{bucket}/run", tmp_path) != first


def test_bytes_that_the_manifest_does_not_name_are_refused(bucket: str, tmp_path: Path) -> None:
    store = put_model(f"{bucket}/run", with_manifest=True)
    store.write(MODEL_KEY, (MODEL / MODEL_KEY).read_bytes() + b"x")
    with pytest.raises(DataError, match="the manifest has"):
        fetch(f"{bucket}/run", tmp_path)
    assert list(tmp_path.iterdir()) == []
    store.delete(MANIFEST_KEY)
    store.delete(FILES[0])
    with pytest.raises(DataError, match=r"no tokenizer: looked for tokenizer/tokenizer\.pkl"):
        fetch(f"{bucket}/run", tmp_path)


def test_a_model_replaced_while_it_is_fetched_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = put_model(f"{bucket}/run", with_manifest=False)
    read = type(store).open_read

    def replace_then_read(self: Store, key: str) -> object:
        if key == MODEL_KEY:
            store.write(key, (MODEL / MODEL_KEY).read_bytes() + b"x")
        return read(self, key)

    monkeypatch.setattr(type(store), "open_read", replace_then_read)
    with pytest.raises(StoreError, match="replaced while it was being read"):
        fetch(f"{bucket}/run", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_copy_is_fetched_anew(bucket: str, tmp_path: Path, told: Callable[[], list[str]]) -> None:
    put_model(f"{bucket}/run", with_manifest=True)
    place = Path(fetch(f"{bucket}/run", tmp_path))
    told()
    for key, data in ((MODEL_KEY, b"half"), (MODEL_KEY, None), ("files.json", b"{}"), ("files.json", None)):
        (place / key).unlink()
        if data is not None:
            (place / key).write_bytes(data)
        assert fetch(f"{bucket}/run", tmp_path) == str(place)
        assert any("cache miss" in line for line in told())
    assert fetch(f"{bucket}/run", tmp_path) == str(place)


def test_the_least_recently_used_model_leaves(bucket: str, tmp_path: Path) -> None:
    for name in "abc":
        put_model(f"{bucket}/{name}", with_manifest=False)
    limit_bytes = 2 * SIZE_BYTES + 10_000
    a = Path(fetch(f"{bucket}/a", tmp_path, limit_bytes))
    b = Path(fetch(f"{bucket}/b", tmp_path, limit_bytes))
    os.utime(a / "files.json", (1, 1))
    os.utime(b / "files.json", (2, 2))
    fetch(f"{bucket}/a", tmp_path, limit_bytes)  # b is the oldest now
    with open_cached(f"{bucket}/a", None, None, None, directory=tmp_path, limit_bytes=limit_bytes):
        os.utime(a / "files.json", (0, 0))
        c = Path(fetch(f"{bucket}/c", tmp_path, limit_bytes))
        assert {path for path in tmp_path.iterdir() if path in {a, b, c}} == {a, c}  # a is in use
    old = tmp_path / "tmp-killed"
    old.mkdir()
    os.utime(old, (1, 1))
    shutil.rmtree(c)
    fetch(f"{bucket}/c", tmp_path, limit_bytes)
    assert not old.exists()


def test_what_cannot_be_kept_is_read_from_the_bucket(
    bucket: str, tmp_path: Path, told: Callable[[], list[str]]
) -> None:
    put_model(f"{bucket}/run", with_manifest=False)
    assert fetch(f"{bucket}/run", tmp_path, SIZE_BYTES - 1) == f"{bucket}/run"
    assert "more than --cache-gib: not kept" in told()[0]
    (tmp_path / "file").write_text("")
    assert fetch(f"{bucket}/run", tmp_path / "file") == f"{bucket}/run"
    assert "cannot be used" in told()[0]
    with pytest.raises(NanosftError):
        fetch(f"{bucket}/nowhere", tmp_path)


def test_processes_that_fetch_at_once_keep_one_copy(bucket: str, tmp_path: Path) -> None:
    put_model(f"{bucket}/run", with_manifest=True)
    threads = [Thread(target=fetch, args=(f"{bucket}/run", tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1


def test_chat_keeps_models_where_it_is_told(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    put_model(f"{bucket}/run", with_manifest=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    uri = f"{bucket}/run"
    open_chats(ChatSettings(model=(uri,), device="cpu", cache_dir=str(tmp_path / "mine")))
    open_chats(ChatSettings(model=(uri,), device="cpu"))
    open_chats(ChatSettings(model=(uri,), device="cpu", cache_gib=0))
    (chat,) = open_chats(ChatSettings(model=(uri,), device="cpu"))
    assert [line.partition(":")[0] for line in told()] == ["cache miss", "cache miss", "cache hit"]
    assert len(list((tmp_path / "mine").iterdir())) == 1
    assert len(list((tmp_path / "xdg" / "nanosft" / "models").iterdir())) == 1
    assert chat.uri == uri
