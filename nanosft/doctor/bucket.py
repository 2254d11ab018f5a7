"""The store: credentials, reading, writing, the conditional put, and the other side's clock."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from nanosft.doctor.finding import Finding, look
from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.store import (
    NoConditionalPutError,
    Store,
    find_credentials,
    is_remote,
    measure_clock_skew_s,
    open_object,
    open_store,
)

_CREDENTIALS: Final = "export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…, or AWS_PROFILE=…, or a role"
_BUCKET: Final = "aws s3 mb s3://BUCKET, or correct the URI, AWS_REGION and AWS_ENDPOINT_URL"
_GRANTS: Final = (
    "grant s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject (infra/terraform/roles.tf has them)"
)
_NETWORK: Final = "correct AWS_ENDPOINT_URL (curl -sI $AWS_ENDPOINT_URL tells who answers), or try again later"
_CLOCK: Final = "sudo timedatectl set-ntp true (or chronyc makestep)"
_TOLERABLE_SKEW_S: Final = 60.0
_REFUSED_SKEW_S: Final = 900.0
"""S3 refuses requests whose clock is further off."""


def check_prefix(uri: str) -> Iterator[Finding]:
    """Each thing that a command does with the prefix it writes to, in the order in which they build on one another."""
    if is_remote(uri):
        credentials = look("credentials", _CREDENTIALS, find_credentials)
        yield credentials
        if credentials.status == "error":
            return
        with suppress(NanosftError):  # which listing meets too, and tells
            yield _check_clock(uri)
    store = open_store(uri)
    listing = look("listing", _GRANTS, lambda: _check_listing(store))
    if listing.status == "error":
        listing = replace(listing, remedy=_choose_remedy(listing))
    yield listing
    if listing.status == "error":
        return
    key = f"doctor-{secrets.token_hex(8)}"
    writing = look("writing", _GRANTS, lambda: _check_writing(store, key))
    yield writing
    if writing.status == "ok":
        yield look("conditional put", _GRANTS, lambda: _check_condition(store, f"{key}-once"))


def check_readable(uri: str) -> Finding:
    """Whether something lies at the URI, and its bytes come."""
    return look("reading", f"correct the URI, or grant reading: nanosft inspect {uri}", lambda: _read_any(uri))


def _check_clock(uri: str) -> Finding:
    skew_s = measure_clock_skew_s(uri)
    if skew_s is None:
        return Finding("clock", "ok", "the endpoint does not tell its time")
    found = f"{abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead of'} the endpoint's"
    if abs(skew_s) >= _REFUSED_SKEW_S:
        return Finding("clock", "error", f"{found}: requests are refused", _CLOCK, ConfigError.exit_code)
    return (
        Finding("clock", "ok", found) if abs(skew_s) < _TOLERABLE_SKEW_S else Finding("clock", "warning", found, _CLOCK)
    )


def _choose_remedy(listing: Finding) -> str:
    if listing.exit_code == StoreError.exit_code:
        return _NETWORK
    if "does not exist" in listing.found or "another region" in listing.found:
        return _BUCKET
    return _CREDENTIALS if "does not accept the credentials" in listing.found else _GRANTS


def _check_listing(store: Store) -> str:
    directory = store.list_directory()
    return f"{store.uri}: {len(directory.objects)} objects and {len(directory.names)} prefixes"


def _check_writing(store: Store, key: str) -> str:
    data = secrets.token_bytes(1024)
    store.write(key, data)
    try:
        if store.read(key) != data:
            raise ConfigError(f"{store.uri_of(key)}: what is read is not what was written")
        if key not in [item.key for item in store.list_directory().objects]:
            raise ConfigError(f"{store.uri}: a listing does not show what was just put: another endpoint is needed")
    finally:
        store.delete(key)
    if store.exists(key):
        raise ConfigError(f"{store.uri_of(key)}: is still there after its deletion")
    return f"{store.uri}: put, read, listed and deleted an object"


def _check_condition(store: Store, key: str) -> Finding | str:
    try:
        first, second = store.write_if_absent(key, b"first"), store.write_if_absent(key, b"second")
        if not first or second or store.read(key) != b"first":
            raise ConfigError(f"{store.uri_of(key)}: a conditional put replaced another's object")
    except NoConditionalPutError as exc:
        remedy = "another endpoint for --budget-usd; everything else works"
        return Finding("conditional put", "warning", str(exc), remedy)
    finally:
        store.delete(key)
    return "of two writers the first one wins"


def _read_any(uri: str) -> str:
    store, key = open_object(uri)
    info = store.stat(key)
    if info is None:
        store = open_store(uri)
        directory = store.list_directory()
        if directory.names and not directory.objects:
            return f"{uri}: {len(directory.names)} prefixes"
        info = next(iter(directory.objects), None)
    if info is None:
        raise DataError(f"{uri}: nothing is there")
    if info.size_bytes:
        store.read_range(info.key, 0, 1)
    return f"{store.uri_of(info.key)}: readable"
