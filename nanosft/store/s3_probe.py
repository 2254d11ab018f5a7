"""What can be told of S3 without touching an object: which credentials there are, and how far apart the clocks are."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.session
from botocore.exceptions import ClientError

from nanosft.errors import ConfigError
from nanosft.store.s3_client import CREDENTIALS_REMEDY, translated
from nanosft.store.s3_endpoint import open_endpoint

_SHOWN_CHARS = 4


def find_credentials() -> str:
    """Where the credentials come from, and the end of the key's id.

    Raises:
        ConfigError: There are none.
    """
    with translated("s3://"):
        found = botocore.session.get_session().get_credentials()
        if found is None:
            raise ConfigError(f"no AWS credentials: {CREDENTIALS_REMEDY}")
        frozen = found.get_frozen_credentials()
    kind = "temporary key" if frozen.token else "key"
    return f"{kind} …{str(frozen.access_key)[-_SHOWN_CHARS:]} from {found.method}"


def measure_clock_skew_s(bucket: str) -> float | None:
    """Seconds by which the endpoint's clock is ahead of ours, to a second; None where it does not tell its time.

    A refused request tells the time as well as one that is answered.
    """
    started_s = time.time()
    with translated(f"s3://{bucket}"):
        try:
            response: Any = open_endpoint().client.list_objects_v2(Bucket=bucket, MaxKeys=1)
        except ClientError as exc:
            response = exc.response
    ours_s = (started_s + time.time()) / 2
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).timestamp() - ours_s if date else None
