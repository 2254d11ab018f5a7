"""`nanosft describe`: a finished set, and all it was made from, as text or JSON."""

import re
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

import orjson

from nanosft.lineage import Ancestor, find_evaluation, read_lineage
from nanosft.manifest import Manifest
from nanosft.nanochat.layout import best_and_last
from nanosft.progress import write_json, write_result
from nanosft.settings.run import DescribeSettings

_LONGEST_VALUE = 80
_LEAST_WIDTH = 80
_INDENT = "    "
_DIGEST = re.compile("[0-9a-f]{64}")
_SHORT_DIGEST = 12
_SHOWN_FIGURES = ("identity", "claims another name", "claims another maker", "ended", "bits per byte: plain text")


def run_describe(settings: DescribeSettings) -> None:
    """Print what lies at the URI and its ancestry.

    Raises:
        DataError: No manifest lies there.
    """
    lineage = read_lineage(settings.uri)
    evaluation = find_evaluation(lineage.uri)
    if settings.json_output:
        table = _as_json(lineage) | ({"evaluation": evaluation} if evaluation else {})
        write_json(table, indent=True)
        return
    width = max(_LEAST_WIDTH, shutil.get_terminal_size().columns)
    for line in _draw(lineage, width):
        write_result(line + "\n")
    if evaluation:
        figures = evaluation["figures"]
        said = [f"{name} {_show(figures[name])}" for name in _SHOWN_FIGURES if name in figures]
        write_result(f"newest evaluation {evaluation['uri']}: {', '.join(said)}\n")


def _draw(ancestor: Ancestor, width: int, indent: str = "") -> Iterator[str]:
    yield f"{indent}{ancestor.uri}" + ("" if ancestor.state == "as recorded" else f"  ({ancestor.state})")
    if ancestor.manifest is not None:
        for line in _facts(ancestor.manifest):
            yield from textwrap.wrap(
                line, width, initial_indent=f"{indent}  ", subsequent_indent=f"{indent}    ", break_on_hyphens=False
            )
    for parent in ancestor.parents:
        yield from _draw(parent, width, indent + _INDENT)


def _facts(manifest: Manifest) -> Iterator[str]:
    size_bytes = sum(item.size_bytes for item in manifest.objects)
    yield f"{manifest.kind} {manifest.name!r}, nanosft {manifest.nanosft_version}, manifest {manifest.sha256[:12]}"
    if not manifest.complete:
        yield "unfinished: rows are missing"
    yield f"{len(manifest.objects)} objects, {size_bytes:,} bytes, {manifest.num_rows:,} rows"
    if manifest.cost_usd is not None:
        yield f"cost {manifest.cost_usd:.6f} USD"
    yield from _name_steps(manifest)
    for name, table in (("counts", manifest.counts), ("settings", manifest.settings)):
        if said := "; ".join(_say(table)):
            yield f"{name}: {said}"


def _say(table: dict[str, Any], above: str = "") -> Iterator[str]:
    """Each value with its name, as people read them; tables in tables with their names before; what is empty not."""
    for key, value in sorted(table.items()):
        name = f"{above}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _say(value, f"{name} ")
        elif value is not None and value not in ("", []):
            yield f"{name} {_shorten(_value(value))}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, str):
        return value[:_SHORT_DIGEST] if _DIGEST.fullmatch(value) else value
    return orjson.dumps(value).decode()


def _name_steps(manifest: Manifest) -> Iterator[str]:
    """The best and the last step of a run of train, with their validation losses where there are any."""
    steps = best_and_last(manifest)
    if steps is None:
        return
    losses = [manifest.counts.get(name) for name in ("best_val_loss", "val_loss")]
    said = [f" (validation loss {loss:.4f})" if isinstance(loss, float) else "" for loss in losses]
    yield f"best step {steps[0]}{said[0]}, last step {steps[1]}{said[1]}"


def _show(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _as_json(ancestor: Ancestor) -> dict[str, object]:
    return {
        "uri": ancestor.uri,
        "state": ancestor.state,
        "manifest": ancestor.manifest.model_dump(mode="json") if ancestor.manifest else None,
        "parents": [_as_json(parent) for parent in ancestor.parents],
    }
