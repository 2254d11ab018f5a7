"""A stage's output prefix: is it finished with these settings, begin it, and commit it with the manifest last of all.

    prefix = OutputPrefix(open_store(uri), command="mix", settings=settings.content())
    if prefix.find_finished() is None:
        prefix.begin(is_own=...)
        ...
        prefix.commit(manifest)

Readers believe manifests, and take a prefix without one but with `state/` for unfinished: nothing half-written is ever
read as whole.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from nanosft.errors import ConfigError
from nanosft.manifest import MANIFEST_KEY, Manifest, check_same_settings, parse_manifest
from nanosft.store import MissingObjectError, Store


@dataclass(frozen=True, slots=True)
class OutputPrefix:
    """Where a command puts what it makes.

    Attributes:
        store: The prefix.
        command: The command's name.
        settings: The settings that decide what comes out, as the manifest will state them.
    """

    store: Store
    command: str
    settings: Mapping[str, Any]

    def find_finished(self) -> Manifest | None:
        """The manifest of what is finished here, made with the same settings; None where nothing is.

        Raises:
            ConfigError: It was made with other settings; the message names the first that differs.
            DataError: It cannot be read.
        """
        manifest = read_manifest(self.store)
        if manifest is not None:
            check_same_settings(manifest, dict(self.settings), where=self.store.uri_of(MANIFEST_KEY))
        return manifest

    def check_apart(self, uris: Iterable[str]) -> None:
        """Refuse to write where an input lies: writing begins with deleting.

        Raises:
            ConfigError: An input lies under the prefix.
        """
        inside = f"{_locate(self.store.uri).rstrip('/')}/"
        for uri in uris:
            if _locate(uri).startswith(inside):
                raise ConfigError(f"{uri}: lies under --out {self.store.uri}, which is written: choose another --out")

    def check_free(self, *, is_own: Callable[[str], bool]) -> None:
        """Refuse a prefix that holds anything but what a killed run of this command has left.

        Raises:
            ConfigError: It does.
        """
        has_begun = self.store.exists(self._mark_key)
        for info in self.store.list():
            if not has_begun or not (is_own(info.key) or info.key == self._mark_key):
                raise ConfigError(f"{self.store.uri_of(info.key)}: --out is not empty: choose another --out")

    def begin(self, *, is_own: Callable[[str], bool]) -> None:
        """Mark the prefix as unfinished, and delete what a killed run has left.

        Args:
            is_own: Whether a key is of the form that this command writes; all others are left alone.
        """
        self.store.write(self._mark_key, orjson.dumps({"command": self.command}, option=orjson.OPT_APPEND_NEWLINE))
        for info in list(self.store.list()):
            if is_own(info.key):
                self.store.delete(info.key)
        self.store.discard_unfinished()

    def commit(self, manifest: Manifest) -> None:
        """Put the manifest, when all that it names is up, and take the mark away.

        A process killed between the two leaves the mark, which the manifest outweighs.
        """
        put_manifest(self.store, manifest)
        self.store.delete(self._mark_key)

    @property
    def _mark_key(self) -> str:
        return f"state/{self.command}.json"


def _locate(uri: str) -> str:
    """A URI by which two names of one file are the same."""
    return os.path.realpath(unquote(urlsplit(uri).path)) if uri.startswith("file:") else uri


def read_manifest(store: Store) -> Manifest | None:
    """The manifest at the store's root, or None when there is none.

    Raises:
        DataError: It cannot be read.
    """
    try:
        data = store.read(MANIFEST_KEY)
    except MissingObjectError:
        return None
    return parse_manifest(data, where=store.uri_of(MANIFEST_KEY))


def put_manifest(store: Store, manifest: Manifest) -> None:
    """Put the manifest at the store's root: last of all, when what it names is up."""
    store.write(MANIFEST_KEY, manifest.to_bytes())
