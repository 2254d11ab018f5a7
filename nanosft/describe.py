"""`nanosft describe`: a finished set, and all it was made from, as text or JSON."""

import sys
from collections.abc import Iterator

import orjson

from nanosft.lineage import Ancestor, find_evaluation, read_lineage
from nanosft.manifest import Manifest
from nanosft.settings.run import DescribeSettings

_LONGEST_VALUE = 80
_INDENT = "    "
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
        sys.stdout.write(orjson.dumps(table, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    for line in _draw(lineage):
        sys.stdout.write(line + "\n")
    if evaluation:
        figures = evaluation["figures"]
        said = [f"{name} {_show(figures[name])}" for name in _SHOWN_FIGURES if name in figures]
        sys.stdout.write(f"newest evaluation {evaluation['uri']}: {', '.join(said)}\n")


def _draw(ancestor: Ancestor, indent: str = "") -> Iterator[str]:
    yield f"{indent}{ancestor.uri}" + ("" if ancestor.state == "as recorded" else f"  ({ancestor.state})")
    if ancestor.manifest is not None:
        for line in _facts(ancestor.manifest):
            yield f"{indent}  {line}"
    for parent in ancestor.parents:
        yield from _draw(parent, indent + _INDENT)


def _facts(manifest: Manifest) -> Iterator[str]:
    size_bytes = sum(item.size_bytes for item in manifest.objects)
    yield f"{manifest.kind} {manifest.name!r}, nanosft {manifest.nanosft_version}, manifest {manifest.sha256[:12]}"
    if not manifest.complete:
        yield "unfinished: rows are missing"
    yield f"{len(manifest.objects)} objects, {size_bytes:,} bytes, {manifest.num_rows:,} rows"
    if manifest.cost_usd is not None:
        yield f"cost {manifest.cost_usd:.6f} USD"
    for name, table in (("counts", manifest.counts), ("settings", manifest.settings)):
        said = [f"{key}={_shorten(value)}" for key, value in sorted(table.items()) if value is not None]
        if said:
            yield f"{name} {', '.join(said)}"


def _show(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _shorten(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _as_json(ancestor: Ancestor) -> dict[str, object]:
    return {
        "uri": ancestor.uri,
        "state": ancestor.state,
        "manifest": ancestor.manifest.model_dump(mode="json") if ancestor.manifest else None,
        "parents": [_as_json(parent) for parent in ancestor.parents],
    }
