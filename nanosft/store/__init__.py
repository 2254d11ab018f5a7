"""Object storage behind one small protocol: S3 and anything that speaks it, or a local directory.

    store = open_store("s3://bucket/runs/1")          # or file:///data/runs/1, or a path
    store.write("manifest.json", data)

Credentials, region and endpoint of S3 come from the standard `AWS_…` variables and files.
"""

import os
import secrets
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from nanosft.errors import ConfigError
from nanosft.store.base import Directory, MissingObjectError, NoConditionalPutError, ObjectInfo, Store, Writer, Written
from nanosft.store.local import LocalStore

__all__ = [
    "Directory",
    "MissingObjectError",
    "NoConditionalPutError",
    "ObjectInfo",
    "Store",
    "Writer",
    "Written",
    "check_writable",
    "find_credentials",
    "find_local_path",
    "is_remote",
    "join_uri",
    "measure_clock_skew_s",
    "open_object",
    "open_store",
    "unquote_name",
]

_S3 = "s3://"
_FILE = "file://"
_SCHEMES = frozenset({"s3", "file", "gs", "http", "https"})


def open_store(uri: str) -> Store:
    """The store under a URI: `s3://bucket/prefix`, `file:///…`, or a local path. Sends no request and makes nothing.

    Raises:
        ConfigError: The URI has no bucket, or a scheme that no store reads.
    """
    if "\0" in uri:
        raise ConfigError(f"{uri!r} names nothing: a name has no NUL")
    if uri.startswith(_S3):
        from nanosft.store.s3 import S3Store  # noqa: PLC0415 - boto3 takes 0.2 s that local runs need not pay

        bucket, _, prefix = uri.removeprefix(_S3).partition("/")
        if not bucket:
            raise ConfigError(f"{uri!r} names no bucket: write s3://bucket/prefix")
        return S3Store(bucket, prefix.strip("/"))
    return LocalStore(_local_path(uri))


def open_object(uri: str) -> tuple[Store, str]:
    """The store of the prefix above one object, and the object's key in it.

    Raises:
        ConfigError: The URI names no object.
    """
    if "\0" in uri:
        raise ConfigError(f"{uri!r} names nothing: a name has no NUL")
    if uri.startswith(_S3):
        parent, _, name = uri.rstrip("/").rpartition("/")
        if f"{parent}/" == _S3:
            raise ConfigError(f"{uri!r} is a bucket: write s3://bucket/key to name an object")
        return open_store(parent), name
    path = _local_path(uri)
    if not path.name:
        raise ConfigError(f"{uri!r} names no file")
    return LocalStore(path.parent), path.name


def is_remote(uri: str) -> bool:
    """Whether the URI is of S3."""
    return uri.startswith(_S3)


def find_credentials() -> str:
    """Where S3's credentials come from. Raises ConfigError where there are none."""
    from nanosft.store import s3_probe  # noqa: PLC0415 - boto3, as above

    return s3_probe.find_credentials()


def measure_clock_skew_s(uri: str) -> float | None:
    """Seconds by which the clock of an S3 endpoint is ahead of ours; None where it does not tell its time."""
    from nanosft.store import s3_probe  # noqa: PLC0415 - boto3, as above

    return s3_probe.measure_clock_skew_s(uri.removeprefix(_S3).partition("/")[0])


def join_uri(uri: str, *parts: str) -> str:
    """The URI with keys appended, one slash between each; of a path, a path. A file URI's keys are percent-encoded."""
    tail = "/".join(stripped for part in parts if (stripped := part.strip("/")))
    head = uri.rstrip("/")
    if not head or head.endswith(":"):  # the root, `/` or `file:///`, is nothing but its slashes
        head = uri.removesuffix("/")
    return f"{head}/{quote(tail) if uri.startswith(_FILE) else tail}" if tail else head or uri


def check_writable(store: Store, name: str) -> None:
    """Put, read and delete an object whose name begins so.

    Raises:
        ConfigError: What is read is not what was written, or a file cannot be written there.
        StoreError: The store refuses.
    """
    key = f"{name}-{secrets.token_hex(4)}"
    store.write(key, b"nanosft")
    try:
        if store.read(key) != b"nanosft":
            raise ConfigError(f"{store.uri_of(key)}: what is read is not what was written")
    finally:
        store.delete(key)


def find_local_path(uri: str) -> Path | None:
    """The path that a URI of this machine's files names; None of one in S3.

    Raises:
        ConfigError: It has a scheme that no store reads.
    """
    return None if is_remote(uri) else _local_path(uri)


def unquote_name(text: str) -> str:
    """A file URI's text with its percent-encoded bytes as Python has a file's name, which may be no UTF-8."""
    return os.fsdecode(unquote_to_bytes(text))


def _local_path(uri: str) -> Path:
    if uri.startswith(_FILE):
        host, slash, path = uri.removeprefix(_FILE).partition("/")
        if host not in {"", "localhost"} or not slash:
            raise ConfigError(f"{uri!r} is no file URI of this machine: write file:///directory")
        if "%00" in path:
            raise ConfigError(f"{uri!r} names no file: a name has no NUL")
        return Path("/" + unquote_name(path))
    scheme, found, _ = uri.partition("://")
    if found:
        raise ConfigError(f"{uri!r}: no store for {scheme}://; use s3://bucket/prefix, file:///directory or a path")
    scheme, found, _ = uri.partition(":/")
    if found and scheme in _SCHEMES:
        raise ConfigError(f"{uri!r}: write {scheme}:// with two slashes; for a folder of that name write ./{uri}")
    if not uri:
        raise ConfigError("an empty URI names no store: use s3://bucket/prefix, file:///directory or a path")
    # The shell does not expand the tilde of --out=~/run.
    return Path.home() / uri[2:] if uri == "~" or uri.startswith("~/") else Path(uri)
