"""An export to the Hugging Face Hub, through its own client. The token is HF_TOKEN's, and is never shown."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from nanosft.errors import ConfigError, StoreError

TOKEN_VARIABLE: Final = "HF_TOKEN"  # noqa: S105 - its name
_FIRST_SERVER_ERROR: Final = 500
_TOO_MANY_REQUESTS: Final = 429


def find_token() -> str:
    """The token.

    Raises:
        ConfigError: HF_TOKEN is not set.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ConfigError(f"--push needs {TOKEN_VARIABLE}: a token that may write to the repository")
    return token


def push(repo: str, kind: Literal["model", "dataset"], files: Mapping[str, Path], *, token: str, private: bool) -> str:
    """Upload files as one commit, making the repository where there is none; returns its URL.

    Args:
        repo: `owner/name`.
        kind: What the repository holds.
        files: Local files by their path in the repository.
        token: See `find_token`.
        private: Whether a repository that is made is private.

    Raises:
        ConfigError: The Hub refuses the token, the name or the files.
        StoreError: It is not reached, or has an error of its own: another try may do.
    """
    api = HfApi(token=token, library_name="nanosft")
    try:
        url = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=key, path_or_fileobj=path) for key, path in files.items()]
        api.create_commit(repo, operations, commit_message="Upload what nanosft exported", repo_type=kind)
    except HfHubHTTPError as exc:
        code = exc.response.status_code
        reason = _first_line(exc, token)
        if code >= _FIRST_SERVER_ERROR or code == _TOO_MANY_REQUESTS:
            raise StoreError(f"{repo}: the Hub answered {code}: {reason}: try again") from exc
        raise ConfigError(f"{repo}: the Hub refuses ({code}): {reason}") from exc
    except ValueError as exc:  # a name of no repository, among others
        raise ConfigError(f"{repo}: {_first_line(exc, token)}") from exc
    except Exception as exc:  # of its HTTP client, which says "no connection" in several ways
        raise StoreError(f"{repo}: the Hub is not reached: {_first_line(exc, token)}") from exc
    return str(url)


def _first_line(exc: Exception, token: str) -> str:
    text = str(exc).strip() or type(exc).__name__
    return text.splitlines()[0].replace(token, "…")
