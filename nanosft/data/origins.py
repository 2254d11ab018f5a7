"""What a set is made from, as it is now: what its manifest will name as parents, and whether those are still the same.

An input with a manifest is told by the manifest's hash, any other by the SHA-256 of its bytes. Beside that hash a
parent on S3 keeps the ETag and the size: as long as they are the same, nobody needs to read it again.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from nanosft.data.hashing import sha256_of
from nanosft.data.objects import DataObject
from nanosft.data.prefix import read_manifest
from nanosft.errors import ConfigError, DataError, NanosftError
from nanosft.manifest import Manifest, Parent
from nanosft.store import is_remote, open_store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """An input.

    Attributes:
        uri: As parents name it.
        find_sha256: Its hash; reads all of it where it has no manifest.
        etag: Other bytes have another one; None where nothing tells.
    """

    uri: str
    find_sha256: Callable[[], str]
    etag: str | None = None

    @classmethod
    def known(cls, uri: str, sha256: str) -> Self:
        """What is told by a hash that is known: a manifest's, a knowledge base's."""
        return cls(uri, lambda: sha256)

    @classmethod
    def of_objects(cls, uri: str, objects: Sequence[DataObject], find_sha256: Callable[[], str] | None = None) -> Self:
        """Objects that no manifest names; by default their one object's own hash."""
        return cls(uri, find_sha256 or partial(sha256_of, objects[0]), _join_etags(objects))

    def to_parent(self) -> Parent:
        """What a manifest names. The time of change, a local file's ETag, is nothing to keep."""
        return Parent(uri=self.uri, sha256=self.find_sha256(), etag=self.etag if is_remote(self.uri) else None)

    def is_same(self, parent: Parent) -> bool:
        """Whether it is what a manifest names."""
        return (parent.etag is not None and parent.etag == self.etag) or parent.sha256 == self.find_sha256()


def find_origins_of_data(uri: str, objects: Sequence[DataObject]) -> tuple[Origin, ...]:
    """The manifest that a URI of data was found by, or each of its objects.

    Args:
        uri: The URI, as parents name it.
        objects: What it means, at least one (`list_data_objects`).
    """
    if objects[0].sha256 is not None and (manifest := read_manifest(open_store(uri))) is not None:
        return (Origin.known(uri, manifest.sha256),)
    return tuple(Origin.of_objects(item.uri, [item]) for item in objects)


def check_same_origins(
    finished: Manifest, origins: Iterable[Origin], *, out: str, error: type[NanosftError] = ConfigError
) -> None:
    """Refuse to call a set finished where an input has become another one since.

    Args:
        finished: The set's manifest.
        origins: All that it would be made from now.
        out: The set's URI.
        error: The command's error for it.

    Raises:
        NanosftError: An input has changed, has come or has gone since; the message names the first.
    """
    before = {parent.uri: parent for parent in finished.parents}
    now = {origin.uri: origin for origin in origins}
    remedy = f"since {out} was finished: choose another --out, or give the inputs that it was made from"
    for uri, origin in now.items():
        if uri not in before:
            raise error(f"{uri}: has come as an input {remedy}")
        if not origin.is_same(before[uri]):
            raise error(f"{uri}: has changed {remedy}")
    for uri in before:
        if uri not in now:
            raise error(f"{uri}: is an input no more {remedy}")


def check_what_is_there(
    finished: Manifest, find: Callable[[], Iterable[Origin]], *, out: str, error: type[NanosftError] = ConfigError
) -> None:
    """As `check_same_origins`, of what `find` finds; where it meets a DataError, nothing is compared, with a warning.

    For sets that do not need their inputs any more: what is gone cannot be compared.
    """
    try:
        origins = tuple(find())
    except DataError as exc:
        _log.warning("%s is finished, and is not compared with what it was made from: %s", out, exc)
        return
    check_same_origins(finished, origins, out=out, error=error)


def _join_etags(objects: Sequence[DataObject]) -> str | None:
    """One object's ETag and size; of several, a hash of all."""
    told = []
    for item in objects:
        if item.etag is None:
            return None
        told.append(f"{item.size_bytes} {item.etag}")
    if len(told) == 1:
        return told[0]
    lines = [f"{item.key} {one}\n" for item, one in zip(objects, told, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
