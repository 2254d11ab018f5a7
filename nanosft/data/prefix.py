"""A stage's output prefix: is it finished with these settings, begin it, and commit it with the manifest last of all.

    prefix = OutputPrefix(open_store(uri), command="mix", settings=settings.content())
    if prefix.find_finished() is None:
        with prefix.writing(parents) as finished:
            if finished is None:
                ...
                prefix.commit(manifest, is_own=...)

Readers believe manifests, and take a prefix without one but with `state/` for unfinished: nothing half-written is ever
read as whole. Who writes claims the prefix for settings and parents; others are refused until it ends. In a local
directory the claim of a process killed on this machine is taken over; on S3, and where another machine made it, nothing
tells that, and it stays until it is deleted. Processes with the same claim put the same bytes under the same keys, so a
process that was held and goes on when another has finished changes nothing. Nothing is deleted before a manifest is
there, and then only what it does not name.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.foreign import quote
from nanosft.manifest import MANIFEST_KEY, Manifest, Parent, check_same_settings, json_values, parse_manifest
from nanosft.store import MissingObjectError, NoConditionalPutError, Store, find_local_path, is_remote, open_store

_log = logging.getLogger(__name__)
_CLAIM_KEY: Final = "state/claim.json"
_MAX_TRIES: Final = 16
_NUM_LOOKED_AT: Final = 16
"""Objects that are looked at one by one; more are listed."""


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
            DataError: It cannot be read, or an object that it names is not there as it says.
        """
        manifest = read_manifest(self.store)
        if manifest is not None:
            check_same_settings(manifest, dict(self.settings), where=self.store.uri_of(MANIFEST_KEY))
            check_objects(self.store, manifest)
            if left := [key for key in (self._mark_key, _CLAIM_KEY) if self.store.exists(key)]:
                self.store.discard_unfinished()  # as the process killed right behind its manifest would have
                for key in left:
                    self.store.delete(key)
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

    def check_other(self, uris: Iterable[str]) -> None:
        """Refuse to write to the prefix that is read, by whatever way it is named.

        Raises:
            ConfigError: One of the URIs is the prefix itself.
        """
        for uri in uris:
            if is_same(uri, self.store.uri):
                raise ConfigError(f"{uri}: is --out {self.store.uri} itself: choose another --out")

    def check_free(self, *, is_own: Callable[[str], bool]) -> None:
        """Refuse a prefix that holds anything but what a killed run of this command has left.

        Raises:
            ConfigError: It does.
        """
        has_begun = self.store.exists(self._mark_key) or self.store.exists(_CLAIM_KEY)
        for info in self.store.list():
            if not has_begun or not (is_own(info.key) or info.key in (self._mark_key, _CLAIM_KEY)):
                raise ConfigError(f"{self.store.uri_of(info.key)}: --out is not empty: choose another --out")

    @contextmanager
    def writing(self, parents: Sequence[Parent]) -> Iterator[Manifest | None]:
        """Mark the prefix as unfinished and claim it, while the context is open; an error gives the claim up.

        Args:
            parents: What it is made from.

        Yields:
            What another process has finished meanwhile, of the same settings and parents; None: it is to be made.

        Raises:
            ConfigError: It is claimed for other settings or parents, or such have been finished meanwhile.
        """
        stack = ExitStack()
        claim = {
            "command": self.command,
            "settings": json_values(dict(self.settings)),
            "parents": [{"uri": parent.uri, "sha256": parent.sha256} for parent in parents],
        }
        is_ours = self._claim(claim, stack)
        try:
            finished = self.find_finished()  # after the claim: from now on nobody finishes anything else
            if finished is None:
                mark = orjson.dumps({"command": self.command}, option=orjson.OPT_APPEND_NEWLINE)
                self.store.write(self._mark_key, mark)
            else:
                self._check_same_parents(finished, parents)
            yield finished
        except BaseException:
            if is_ours:
                with suppress(NanosftError):  # the reason for the end matters more
                    self.store.delete(_CLAIM_KEY)
            raise
        finally:
            stack.close()

    def commit(self, manifest: Manifest, *, is_own: Callable[[str], bool] = lambda _key: False) -> None:
        """Put the manifest, when all that it names is up, unless an equal one is; then take mark and claim away.

        A process killed between the two leaves them, which the manifest outweighs.

        Args:
            manifest: The manifest.
            is_own: Whether a key is of the form that this command writes: what killed runs have left of that form, and
                the manifest does not name, is deleted; all others are left alone.

        Raises:
            ConfigError: Another process has finished something else meanwhile.
        """
        try:
            is_put = self.store.write_if_absent(MANIFEST_KEY, manifest.to_bytes())
        except NoConditionalPutError:
            is_put = read_manifest(self.store) is None
            if is_put:
                put_manifest(self.store, manifest)
        if not is_put and (finished := self.find_finished()) is not None:
            self._check_same_parents(finished, manifest.parents)
            manifest = finished
        named = {item.key for item in manifest.objects}
        for info in list(self.store.list()):
            if is_own(info.key) and info.key not in named and info.key != MANIFEST_KEY:
                self.store.delete(info.key)
        self.store.discard_unfinished()
        for key in (self._mark_key, _CLAIM_KEY):
            self.store.delete(key)

    def _claim(self, claim: Mapping[str, Any], stack: ExitStack) -> bool:
        """Claim the prefix, and hold the claim until the stack is closed; whether this process is the first to do so.

        A claim of something else stays, unless it was made on this machine, where the kernel tells that no process
        holds it any more.
        """
        host = None if is_remote(self.store.uri) else _find_host()
        own = _to_claim(claim, host)
        for _ in range(_MAX_TRIES):
            is_first = self._put_claim(own)
            holding = ExitStack()
            with holding:
                found = holding.enter_context(self.store.hold(_CLAIM_KEY))
                before, other_host = _from_claim(found)
                if found is not None and before == json_values(dict(claim)):
                    if not is_first and other_host not in (None, host):
                        self.store.write(_CLAIM_KEY, _to_claim(claim, None))  # on two machines: no kernel knows of both
                    stack.push(holding.pop_all())
                    return is_first
            if found is None:  # it was given up in between
                continue
            difference = _describe_difference(before, claim)
            if host is not None and other_host == host and self.store.delete_unheld(_CLAIM_KEY):
                _log.warning("%s: a run with %s was killed here: this one begins", self.store.uri, difference)
                continue
            raise ConfigError(
                f"{self.store.uri_of(_CLAIM_KEY)}: a run with {difference} is under way here, or was killed: choose "
                "another --out, or, where no such run is alive on any machine, delete this object"
            )
        raise StoreError(f"{self.store.uri_of(_CLAIM_KEY)}: others keep claiming it: run the same command again")

    def _put_claim(self, claim: bytes) -> bool:
        """Put the claim unless one is there."""
        try:
            return self.store.write_if_absent(_CLAIM_KEY, claim)
        except NoConditionalPutError:
            is_first = not self.store.exists(_CLAIM_KEY)
            if is_first:
                self.store.write(_CLAIM_KEY, claim)
            return is_first

    def _check_same_parents(self, found: Manifest, parents: Sequence[Parent]) -> None:
        if {item.sha256 for item in found.parents} != {item.sha256 for item in parents}:
            raise ConfigError(
                f"{self.store.uri}: another process has finished it from other inputs: choose another --out"
            )

    @property
    def _mark_key(self) -> str:
        return f"state/{self.command}.json"


def is_same(one: str, other: str) -> bool:
    """Whether two URIs name one place, by whatever way."""
    return _locate(open_store(one).uri) == _locate(open_store(other).uri)


def _locate(uri: str) -> str:
    """A URI by which two names of one file are the same."""
    path = find_local_path(uri)
    return uri if path is None else os.path.realpath(path)


def check_objects(store: Store, manifest: Manifest) -> None:
    """See that what a manifest names is there, and of the size that it says.

    Raises:
        DataError: Something is not.
    """
    if len(manifest.objects) <= _NUM_LOOKED_AT:
        found = {item.key: info.size_bytes for item in manifest.objects if (info := store.stat(item.key)) is not None}
    else:
        found = {info.key: info.size_bytes for info in store.list()}
    for item in manifest.objects:
        if found.get(item.key) != item.size_bytes:
            problem = f"has {found[item.key]} bytes, not {item.size_bytes}" if item.key in found else "is not there"
            raise DataError(
                f"{store.uri_of(item.key)}: {problem}, as {MANIFEST_KEY} says: delete {store.uri_of(MANIFEST_KEY)} and "
                "run the same command again"
            )


def _find_host() -> str | None:
    """Names the running kernel, whose locks are known to its own processes alone; None where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _to_claim(claim: Mapping[str, Any], host: str | None) -> bytes:
    return orjson.dumps({**claim, "host": host} if host else dict(claim), option=orjson.OPT_SORT_KEYS)


def _from_claim(data: bytes | None) -> tuple[Any, str | None]:
    """What is claimed, and on which host, as far as it says; anything may lie there."""
    try:
        claim = orjson.loads(data or b"null")
    except ValueError:
        return None, None
    host = claim.pop("host", None) if isinstance(claim, dict) else None
    return claim, host if isinstance(host, str) else None


def _describe_difference(before: Any, now: Mapping[str, Any]) -> str:
    """What another claim has that this one has not, for a message."""
    try:
        if before["command"] != now["command"]:
            return f"command {quote(before['command'])}"
        settings = before["settings"], now["settings"]
        for key in sorted({*settings[0], *settings[1]}):
            if settings[0].get(key) != settings[1].get(key):
                return f"{key}={quote(settings[0].get(key))}, not {quote(settings[1].get(key))},"
    except (KeyError, TypeError, AttributeError):
        return "a claim of another form"
    return "other inputs"


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
