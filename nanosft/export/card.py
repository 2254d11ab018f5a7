"""The cards of a model and of a data set: `README.md` with the Hub's metadata, made from manifests. Pure.

Text from data enters as text: escaped for Markdown in the body, as JSON (which YAML reads) in the metadata. A card says
what a set is called and its manifest's hash, and not where it lies: buckets and paths are nobody else's business.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined

from nanosft.lineage import Ancestor
from nanosft.manifest import Manifest
from nanosft.nanochat import Checkpoint
from nanosft.settings.export import ExportSettings

if TYPE_CHECKING:
    from nanosft.export.check import CheckResult  # it loads transformers

_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$&:@])")
_SPACE: Final = re.compile(r"\s+")


def make_model_card(
    settings: ExportSettings,
    checkpoint: Checkpoint,
    lineage: Ancestor | None,
    evaluation: Mapping[str, Any] | None,
    result: "CheckResult",
    *,
    is_native: bool,
) -> str:
    """`README.md` of a model.

    Args:
        settings: What the user asked for.
        checkpoint: The model.
        lineage: What it was made from; None for a model without a manifest.
        evaluation: What `find_evaluation` found.
        result: What the export's own check found.
        is_native: Whether transformers' own class loads it.
    """
    ancestors = list(lineage.walk()) if lineage else []
    own = lineage.manifest if lineage else None
    generated = [item.manifest for item in ancestors if item.manifest and item.manifest.kind == "generated"]
    costs = [manifest.cost_usd for manifest in generated if manifest.cost_usd is not None]
    figures = sorted(evaluation["figures"].items()) if evaluation else []
    return _render(
        "model.md.j2",
        settings=settings,
        title=settings.title or _title(own, checkpoint.tag),
        checkpoint=checkpoint,
        config=checkpoint.model.config,
        num_parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
        is_native=is_native,
        ancestors=ancestors,
        manifest=own,
        generated=generated,
        cost_usd=sum(costs) if costs else None,
        figures=figures,
        result=result,
    )


def make_data_card(settings: ExportSettings, lineage: Ancestor | None, counts: Mapping[str, int]) -> str:
    """`README.md` of a data set.

    Args:
        settings: What the user asked for.
        lineage: What it was made from; None for data without a manifest.
        counts: Conversations of each split.
    """
    own = lineage.manifest if lineage else None
    return _render(
        "data.md.j2",
        settings=settings,
        title=settings.title or _title(own, "Conversations"),
        splits=counts,
        size=_size_category(sum(counts.values())),
        ancestors=list(lineage.walk()) if lineage else [],
        manifest=own,
        counts=list(_flatten(own.counts)) if own else [],
    )


def _title(manifest: Manifest | None, otherwise: str) -> str:
    return manifest.name if manifest else otherwise


def _render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=PackageLoader("nanosft.export", "cards"),
        autoescape=False,  # noqa: S701 - Markdown, not HTML: the filters escape
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": _escape_markdown, "yaml": _to_yaml}
    return environment.get_template(template).render(**context)


def _escape_markdown(value: object) -> str:
    """Text of one line that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", _SPACE.sub(" ", str(value)).strip())


def _to_yaml(value: object) -> str:
    """A value on one line of YAML."""
    return orjson.dumps(value).decode()


def _flatten(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sorted(table.items()):
        if isinstance(value, dict):
            yield from _flatten(value, f"{before}{key}: ")
        elif value not in (None, 0, []):
            yield f"{before}{key}", value


def _size_category(num_rows: int) -> str:
    """The Hub's word for how many rows there are."""
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if num_rows < bound:
            return name
    return "1M<n<10M"
