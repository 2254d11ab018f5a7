"""What only the local directory store does: temporary names, disks that are full, rights that are missing."""

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanosft.errors import ConfigError, NanosftError, StoreError
from nanosft.store import MissingObjectError, join_uri, open_object, open_store
from nanosft.store.local_streams import to_error


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


def test_what_killed_writers_left_in_folders_is_discarded_and_a_live_writers_file_is_not(tmp_path: Path) -> None:
    """`.nanosft-tmp-…` in folders and empty `state/step_…/` stayed for ever."""
    store = open_store(str(tmp_path))
    store.write("state/kept", b"x")
    (tmp_path / "state/step_000007-abc").mkdir()
    dead = tmp_path / "rows/deep/.nanosft-tmp-0123"
    dead.parent.mkdir(parents=True)
    dead.write_bytes(b"half")
    with store.open_write("rows/alive") as writer:
        writer.write(b"whole")
        store.discard_unfinished()
        assert len(list_files(tmp_path / "rows")) == 1
    assert store.read("rows/alive") == b"whole"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["alive", "kept", "rows", "state"]


def test_a_temporary_file_taken_for_a_dead_ones_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path))
    real, num_locks = fcntl.flock, 0

    def flock(descriptor: int, kind: int) -> None:
        nonlocal num_locks
        num_locks += 1
        if num_locks == 1:
            store.discard_unfinished()  # another process, at the worst moment
        real(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    store.write("a/key", b"x")
    assert num_locks > 2
    assert store.read("a/key") == b"x"
    assert list_files(tmp_path / "a") == ["key"]


def test_without_locks_a_temporary_file_is_left_alone_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    store = open_store(str(tmp_path))
    store.write("key", b"x")
    left = tmp_path / ".nanosft-tmp-0123"
    left.write_bytes(b"half")
    store.discard_unfinished()
    assert left.exists()
    os.utime(left, (0, 0))
    store.discard_unfinished()
    assert not left.exists()
    assert not store.delete_unheld("key")


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
        (errno.ELOOP, ConfigError, "symbolic links"),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_errors_say_what_to_do(number: int, kind: type[NanosftError], says: str) -> None:
    error = to_error(OSError(number, os.strerror(number)), "file:///data/key")
    assert type(error) is kind
    assert str(error).startswith("file:///data/key: ")
    assert says in str(error)


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A folder that every user may enter, which those that pytest makes are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """The folder is closed, and we are not root, who may enter it all the same."""
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


def test_a_directory_without_rights_is_a_config_error(everyones: Path) -> None:
    folder = everyones / "closed"
    folder.mkdir()
    store = open_store(str(folder))
    with without_rights(folder):
        for use in (lambda: store.write("key", b"x"), lambda: store.read("key"), lambda: list(store.list())):
            with pytest.raises(ConfigError, match="access"):
                use()


def test_a_name_that_is_too_long_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        open_store(str(tmp_path)).write("x" * 300, b"")


@pytest.mark.parametrize("key", ["a/b", "a/b/c"])
def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path, key: str) -> None:
    store = open_store(str(tmp_path))
    store.write("a", b"x")
    for write in (store.write, store.write_if_absent):
        with pytest.raises(ConfigError, match=f"/{key}: {tmp_path}/a is a file, where a directory must be"):
            write(key, b"y")
    assert list_files(tmp_path) == ["a"]


def test_a_folder_in_the_way_of_a_file_is_told(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("key/below", b"x")
    for write in (store.write, store.write_if_absent):
        with pytest.raises(ConfigError, match="/key: is a directory, where a file must be"):
            write("key", b"y")
    assert list_files(tmp_path) == ["key"]


def test_a_read_that_breaks_midway_is_a_store_error() -> None:
    store = open_store("/proc/self")  # whose memory cannot be read at address 0
    with store.open_read("mem") as stream:
        for read in (lambda: stream.read(10), stream.read, stream.readline):
            with pytest.raises(StoreError, match="/proc/self/mem: Input/output error"):
                read()


def test_a_folder_without_rights_among_others_is_no_error(everyones: Path) -> None:
    store = open_store(str(everyones))
    store.write("a.jsonl", b"x")
    store.write("lost+found/lost", b"x")  # every ext4 volume has one, of root alone
    with without_rights(everyones / "lost+found"):
        found = store.list_directory()
    assert [info.key for info in found.objects] == ["a.jsonl"]
    assert found.names == ("lost+found",)


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
        assert open_store("~").uri == tmp_path.as_uri()

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
        "uri", ["", "s3://", "s3:///key", "gs://bucket/x", "http://host/x", "file://host/x", "file://", "file:///a%00b"]
    )
    def test_others_are_refused(self, uri: str) -> None:
        with pytest.raises(ConfigError):
            open_store(uri)

    @pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "/", "file:///", "."])
    def test_what_names_no_object_is_refused(self, uri: str) -> None:
        with pytest.raises(ConfigError):
            open_object(uri)

    @pytest.mark.parametrize(
        ("uri", "parts", "joined"),
        [
            ("s3://bucket", ("a", "b.toml"), "s3://bucket/a/b.toml"),
            ("s3://bucket/run/", ("/a/", "", "b"), "s3://bucket/run/a/b"),
            ("run", ("a b%25",), "run/a b%25"),
            ("run/", (), "run"),
            ("/", ("a",), "/a"),
            ("/", (), "/"),
            ("file:///", ("a",), "file:///a"),
            ("file:///a%20b", ("50%25 é",), "file:///a%20b/50%2525%20%C3%A9"),
        ],
    )
    def test_keys_are_joined_to_them(self, uri: str, parts: tuple[str, ...], joined: str) -> None:
        assert join_uri(uri, *parts) == joined

    def test_a_name_of_any_bytes_has_one(self, tmp_path: Path) -> None:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        open_store(str(folder)).write("key", b"x")
        assert open_store(folder.as_uri()).read("key") == b"x"

    def test_making_one_needs_no_boto3(self) -> None:
        program = "import sys; from nanosft.store import open_store; open_store('x'); sys.exit('boto3' in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("uri", ["s3:/bucket/x", "gs:/bucket/x", "file:/data/x"])
def test_a_scheme_with_one_slash_is_no_folder(uri: str) -> None:
    """`--out s3:/bucket/x` wrote into a local folder `s3:`."""
    with pytest.raises(ConfigError, match="two slashes"):
        open_store(uri)
    assert open_store(f"./{uri}").uri.startswith("file:///")
