"""The boto3 client of S3: how it is set up, and what its errors mean here.

Requests are retried in botocore alone (its standard mode; `AWS_RETRY_MODE` and `AWS_MAX_ATTEMPTS` are respected); a
body that breaks while it is read is resumed in `s3_read`.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config
from urllib3.exceptions import HTTPError

from nanosft import __version__
from nanosft.errors import ConfigError, DataError, NanosftError, StoreError
from nanosft.store.base import MissingObjectError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECT_TIMEOUT_S: Final = 10
_READ_TIMEOUT_S: Final = 60
_MAX_ATTEMPTS: Final = 8
"""Of one request. Seven waits of random length, at most 20 s each, double from one to the next: about a minute."""
_MAX_CONNECTIONS: Final = 16

CREDENTIALS_REMEDY: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN too if they are temporary), or AWS_PROFILE, "
    "or run under a role"
)
_BAD_CREDENTIALS: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
_WRONG_REGION: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "307"}
)
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_DAMAGED_ON_THE_WAY: Final = frozenset(
    {"BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}
)
_MAY_PASS_STATUS: Final = frozenset({408, 409, 412, 425, 429})
_BROKEN_TRANSPORT: Final = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.CredentialRetrievalError,
    HTTPError,
)
_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.TokenRetrievalError,
    boto.SSOError,
)


def make_client() -> "S3Client":
    """A client set up from the standard `AWS_…` variables and files. Raises botocore's errors, and ValueError."""
    core = botocore.session.get_session()
    endpoint = _custom_endpoint(core)
    if endpoint and "@" in urlsplit(endpoint).netloc:
        raise ConfigError("AWS_ENDPOINT_URL holds a user or password, which no endpoint of S3 reads: give it without")
    profile: dict[str, Any] = core.get_scoped_config() if _profile_exists(core) else {}
    s3_options = profile.get("s3")
    style = s3_options.get("addressing_style") if isinstance(s3_options, dict) else None
    # boto3 reads AWS_DEFAULT_REGION alone; the other SDKs, and what EKS injects, say AWS_REGION.
    region = core.get_config_variable("region") or os.environ.get("AWS_REGION")
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=_MAX_CONNECTIONS,
        retries={
            "mode": "adaptive" if core.get_config_variable("retry_mode") == "adaptive" else "standard",
            "total_max_attempts": core.get_config_variable("max_attempts") or _MAX_ATTEMPTS,
        },
        tcp_keepalive=True,
        # The default appends a checksum as a trailer of a chunked body, which many gateways store as data or refuse.
        request_checksum_calculation="when_required",
        s3={"addressing_style": style or ("path" if endpoint else "auto")},
        user_agent_extra=f"nanosft/{__version__}",
    )
    session = boto3.session.Session(botocore_session=core)
    client = session.client("s3", region_name=region or ("us-east-1" if endpoint else None), config=config)
    client.meta.events.register_first("needs-retry.s3", _fail_at_once)
    return client


def _fail_at_once(caught_exception: Exception | None = None, **_: object) -> None:
    """Spare a bad certificate the minute of retries that botocore gives every broken connection."""
    if isinstance(caught_exception, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(caught_exception):
        raise caught_exception


def _profile_exists(core: botocore.session.Session) -> bool:
    return core.get_config_variable("profile") is None or core.profile in core.full_config.get("profiles", {})


def _custom_endpoint(core: botocore.session.Session) -> str | None:
    """The endpoint that is not AWS's own: of MinIO, SeaweedFS or any other gateway."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(variable):
            return os.environ[variable]
    profile = core.get_scoped_config() if _profile_exists(core) else {}
    services = core.full_config.get("services", {}).get(profile.get("services"), {})
    found = services.get("s3", {}).get("endpoint_url") or profile.get("endpoint_url")
    return str(found) if found else None


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn boto3's errors into ours, naming the object.

    Raises:
        NanosftError: For every error of botocore, of urllib3, which comes where the body of an error breaks, and of
            what an answer's values are parsed with.
    """
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError, HTTPError) as exc:
        raise to_error(exc, uri) from exc
    except ValueError as exc:  # of a date or number in an answer that was damaged on its way
        raise StoreError(f"{uri}: an answer that cannot be read ({one_line(exc)}): run the same command again") from exc


def error_code(exc: boto.ClientError) -> str:
    """The S3 error code, such as `NoSuchKey`, or the HTTP status where the answer has no body (HEAD)."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def http_status(exc: boto.ClientError) -> int:
    """The HTTP status of the answer."""
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def num_retries(response: Any) -> int:
    """How often botocore repeated the request before it got this answer."""
    return int(response.get("ResponseMetadata", {}).get("RetryAttempts", 0))


def is_absent(exc: boto.ClientError) -> bool:
    """Whether the answer says that the object is not there."""
    return error_code(exc) in _ABSENT


def to_error(exc: boto.ClientError | boto.BotoCoreError | HTTPError, uri: str) -> NanosftError:
    """Our error for one of boto3's: what, which object, what to do."""
    if isinstance(exc, boto.ClientError):
        return _answer_to_error(exc, uri)
    if isinstance(exc, _NO_CREDENTIALS):
        return ConfigError(f"{uri}: no AWS credentials: {CREDENTIALS_REMEDY} ({one_line(exc)})")
    if isinstance(exc, boto.SSLError):
        return ConfigError(f"{uri}: {one_line(exc)}: name the endpoint's CA file in AWS_CA_BUNDLE")
    if isinstance(exc, (boto.FlexibleChecksumError, boto.ChecksumError)):
        return DataError(f"{uri}: not what its checksum says: {one_line(exc)}")
    if isinstance(exc, _BROKEN_TRANSPORT):
        return StoreError(f"{uri}: {one_line(exc)}: check AWS_ENDPOINT_URL and the network, or try again later")
    return ConfigError(f"{uri}: {one_line(exc)}")


def _answer_to_error(exc: boto.ClientError, uri: str) -> NanosftError:  # noqa: PLR0911 - a table, row by row
    code, status = error_code(exc), http_status(exc)
    bucket = uri.removeprefix("s3://").partition("/")[0]
    said = exc.response.get("Error", {}).get("Message") or "no further word"
    answer = f"{code}: {said}" if not code.isdigit() else f"HTTP {code}"
    if code == "NoSuchBucket":
        return ConfigError(
            f"{uri}: bucket {bucket!r} does not exist: create it, or correct the URI or AWS_ENDPOINT_URL"
        )
    if is_absent(exc):
        return MissingObjectError(f"{uri}: no such object")
    if code in _BAD_CREDENTIALS:
        return ConfigError(f"{uri}: the endpoint does not accept the credentials ({answer}): {CREDENTIALS_REMEDY}")
    if code in _WRONG_REGION:
        return ConfigError(f"{uri}: bucket {bucket!r} is in another region ({answer}): set AWS_REGION to its own")
    if code == "RequestTimeTooSkewed":
        return ConfigError(f"{uri}: {answer}: set this machine's clock")
    if code in {"AccessDenied", "AllAccessDisabled", "AccountProblem"} or status in {401, 403}:
        # Without s3:ListBucket, S3 says 403 of an object that is not there.
        hint = " and s3:ListBucket" if exc.operation_name in {"GetObject", "HeadObject"} else ""
        return ConfigError(
            f"{uri}: these credentials may not do {exc.operation_name} in bucket {bucket!r} ({answer}): "
            f"grant it{hint}, or use others: {CREDENTIALS_REMEDY}"
        )
    may_pass = status in _MAY_PASS_STATUS or code in _DAMAGED_ON_THE_WAY or code == "RequestTimeout"
    if status >= 500 or may_pass:  # noqa: PLR2004 - HTTP's server errors
        return StoreError(f"{uri}: the endpoint answered {answer} to {exc.operation_name}: try again later")
    return ConfigError(f"{uri}: the endpoint refused {exc.operation_name} ({answer})")


def one_line(exc: Exception) -> str:
    """The error's text without line ends and full stop."""
    return re.sub(r"\s+", " ", str(exc)).strip().rstrip(".")
