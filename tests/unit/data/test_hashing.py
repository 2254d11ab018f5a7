"""The SHA-256 of an object is that of its bytes as they are stored."""

import gzip
import hashlib

import pytest

from nanosft.data import DataObject, hash_object
from nanosft.store import MissingObjectError, open_store


def test_compressed_bytes_are_hashed_as_they_are(tmp_path):
    data = gzip.compress(b"tea" * 3_000_000)
    (tmp_path / "x.gz").write_bytes(data)
    assert hash_object(DataObject(open_store(str(tmp_path)), "x.gz", 0)) == hashlib.sha256(data).hexdigest()


def test_an_object_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(MissingObjectError):
        hash_object(DataObject(open_store(str(tmp_path)), "x", 0))
