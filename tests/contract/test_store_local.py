"""What only the local directory store does: temporary names, disks that are full, rights that are missing."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, NanosftError, StoreError
from nanosft.store import MissingObjectError, open_object, open_store
from nanosft.store.local import _to_error


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_where_its_key_says(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a/b.txt", b"x")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"x"
    assert store.uri_of("a/b.txt") == f"file://{tmp_path}/a/b.txt"


def test_only_the_object_is_left(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("key", b"x")
    assert store.write_if_absent("other", b"y")
    assert not store.write_if_absent("other", b"z")
    with pytest.raises(KeyboardInterrupt), store.open_write("third"):
        raise KeyboardInterrupt
    assert list_files(tmp_path) == ["key", "other"]


def test_a_killed_writer_leaves_nothing_that_is_seen(tmp_path: Path) -> None:
    program = """
import sys, time
from nanosft.store import open_store
with open_store(sys.argv[1]).open_write("key") as writer:
    writer.write(b"x" * (1 << 20))
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert len(list_files(tmp_path)) == 1
    store = open_store(str(tmp_path))
    assert list(store.list()) == []
    assert store.list_directory().objects == ()
    store.write("key", b"y")
    assert [info.key for info in store.list()] == ["key"]


def test_a_store_that_is_only_read_makes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"))
    assert list(store.list()) == []
    assert not store.exists("key")
    store.delete("key")
    assert not (tmp_path / "absent").exists()


def test_a_write_that_the_disk_cuts_short_puts_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("key", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # fails a write as a full disk does
    try:
        for write in (store.write, store.write_if_absent):
            with pytest.raises(StoreError, match="/key: File too large"):
                write("key", b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.read("key") == b"before"
    assert list_files(tmp_path) == ["key"]


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, StoreError, "free some space"),
        (errno.EDQUOT, StoreError, "free some space"),
        (errno.EACCES, ConfigError, "access"),
        (errno.EROFS, ConfigError, "access"),
        (errno.ENOENT, MissingObjectError, "no such object"),
        (errno.ENAMETOOLONG, ConfigError, "too long"),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_errors_say_what_to_do(number: int, kind: type[NanosftError], says: str) -> None:
    error = _to_error(OSError(number, os.strerror(number)), "file:///data/key")
    assert type(error) is kind
    assert str(error).startswith("file:///data/key: ")
    assert says in str(error)


def test_a_directory_without_rights_is_a_config_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere: be nobody for a moment
    try:
        with pytest.raises(ConfigError, match="access"):
            open_store(str(tmp_path)).write("key", b"x")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)


def test_a_name_that_is_too_long_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        open_store(str(tmp_path)).write("x" * 300, b"")


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("a", b"x")
    with pytest.raises(NanosftError, match="a/b"):
        store.write("a/b", b"y")


def test_a_link_to_nothing_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert list(open_store(str(tmp_path)).list()) == []


class TestUris:
    """What names a store or an object."""

    def test_paths_and_file_uris_are_the_same(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b%é"
        by_path, by_uri = open_store(str(folder)), open_store(folder.as_uri())
        by_path.write("key", b"x")
        assert by_uri.read("key") == b"x"
        assert by_path.uri == by_uri.uri == folder.as_uri()

    def test_relative_paths_are_those_of_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        store = open_store("run")
        monkeypatch.chdir("/")
        assert store.uri == (tmp_path / "run").as_uri()

    def test_the_tilde_is_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert open_store("~/run").uri == (tmp_path / "run").as_uri()

    def test_an_object_is_split_from_its_prefix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        found = {uri: open_object(uri) for uri in ("s3://bucket/a/b.toml", "s3://bucket/b.toml", "b.toml", "/b.toml")}
        assert {uri: (store.uri, key) for uri, (store, key) in found.items()} == {
            "s3://bucket/a/b.toml": ("s3://bucket/a", "b.toml"),
            "s3://bucket/b.toml": ("s3://bucket", "b.toml"),
            "b.toml": (tmp_path.as_uri(), "b.toml"),
            "/b.toml": ("file:///", "b.toml"),
        }

    @pytest.mark.parametrize(
        "uri", ["", "s3://", "s3:///key", "gs://bucket/x", "http://host/x", "file://host/x", "file://"]
    )
    def test_others_are_refused(self, uri: str) -> None:
        with pytest.raises(ConfigError):
            open_store(uri)

    @pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "/"])
    def test_what_names_no_object_is_refused(self, uri: str) -> None:
        with pytest.raises(ConfigError):
            open_object(uri)

    def test_making_one_needs_no_boto3(self) -> None:
        program = "import sys; from nanosft.store import open_store; open_store('x'); sys.exit('boto3' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)
