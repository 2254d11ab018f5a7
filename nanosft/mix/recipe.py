"""A recipe: what the finetuning set shall be, as TOML. Pure.

    seed = 0
    synthetic_share = 0.3

    [[sources]]
    name = "identity"
    uri = "s3://bucket/generated"
    synthetic = true

    [[sources]]
    name = "chitchat"
    uri = "s3://bucket/chitchat/*.jsonl.gz"

What a source adds is said by one of `ratio`, `epochs` and `rest`; without any of them a source counts by its size.
`recipe.example.toml` beside this module shows every key.
"""

from collections import Counter
from fractions import Fraction
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from nanosft.conversation import Format
from nanosft.dedup import DEFAULT_THRESHOLD
from nanosft.errors import ConfigError
from nanosft.foreign import parse_toml
from nanosft.settings.gates import WIDER_GATES, GateName

Unit = Literal["rows", "tokens", "supervised_tokens"]


def _refuse_wider(name: GateName) -> GateName:
    if name in WIDER_GATES:
        raise PydanticCustomError("gate", "{name} needs more than a row: it is no filter", {"name": repr(name)})
    return name


Gate = Annotated[GateName, AfterValidator(_refuse_wider)]
"""A quality gate that needs nothing but the row (and, for tokens, the tokenizer)."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _refuse_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not all(value):
        raise PydanticCustomError("empty", "must name at least one URI")
    return value


MAX_EPOCHS: Final = 10_000
_MAX_TOKENS: Final = 1 << 50
_MAX_ROWS: Final = 1 << 40
"""Of any number of rows, turns or characters: beyond it is a slip, and far below what 64 bits hold."""
Count = Annotated[int, Field(ge=1, le=_MAX_ROWS)]
URIs = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), AfterValidator(_refuse_empty)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Filter(_Table):
    """Which rows are wanted. A key that is not set lets everything pass.

    Attributes:
        min_turns: Fewest user and assistant pairs.
        max_turns: Most user and assistant pairs.
        min_chars: Fewest characters in all messages together.
        max_chars: Most characters in all messages together.
        max_tokens: Most tokens as rendered; needs the recipe's `tokenizer`.
        gates: Quality gates that a row must pass, those of `nanosft audit`; none where the list is empty.
    """

    min_turns: Count | None = None
    max_turns: Count | None = None
    min_chars: int | None = Field(default=None, ge=0, le=_MAX_ROWS)
    max_chars: Count | None = None
    max_tokens: Count | None = None
    gates: tuple[Gate, ...] = ()

    def over(self, base: "Filter") -> "Filter":
        """This filter where it says something, `base` elsewhere."""
        return Filter.model_validate({**base.model_dump(exclude_unset=True), **self.model_dump(exclude_unset=True)})


class Source(_Table):
    """One source of conversations.

    Attributes:
        name: Written to each row's `meta.source`.
        uri: An object, a prefix, or a pattern with `*` and `?`, or a list of them. JSONL (also .gz, .zst) or Parquet.
        format: The rows' format; "auto" tells it by the keys.
        fields: Our names to the source's: `{messages = "dialog", role = "speaker", content = "text"}`.
        roles: The source's role names to ours: `{customer = "user", agent = "assistant"}`.
        ratio: Share of the mixture, relative to the others' ratios (absolute where another source takes the rest).
        epochs: How often the whole source is taken; fractions take a part.
        rest: Whether it fills what the others leave of the total; it is never repeated.
        max_rows: Most distinct train rows taken from it.
        synthetic: Whether it belongs to the synthetic side of `synthetic_share`.
        val_share: Its validation share, instead of `split.val_share`.
        val_rows: Its number of validation rows, instead of a share.
        filter: Its filter's keys, over those of the recipe's `filter`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    uri: URIs
    format: Format = "auto"
    fields: dict[str, str] = Field(default_factory=dict)
    roles: dict[str, Literal["system", "user", "assistant"]] = Field(default_factory=dict)
    ratio: float | None = Field(default=None, gt=0)
    epochs: float | None = Field(default=None, gt=0, le=MAX_EPOCHS)
    rest: bool = False
    max_rows: Count | None = None
    synthetic: bool = False
    val_share: float | None = Field(default=None, ge=0, lt=1)
    val_rows: int | None = Field(default=None, ge=0, le=_MAX_ROWS)
    filter: Filter = Filter()

    @model_validator(mode="after")
    def _say_one_thing(self) -> Self:
        given = [key for key in ("ratio", "epochs") if getattr(self, key) is not None] + ["rest"] * self.rest
        if len(given) > 1:
            raise _problem(given[1], f"cannot stand beside {given[0]!r}: a source has one of ratio, epochs and rest")
        if self.val_share is not None and self.val_rows is not None:
            raise _problem("val_rows", "cannot stand beside 'val_share'")
        return self


class Deduplicate(_Table):
    """Which rows are the same.

    Attributes:
        exact: Drop rows whose text is equal up to case, punctuation and white space.
        near: "drop" keeps one row of each near-duplicate cluster, "group" keeps all on one side of the split,
            "off" does not look.
        threshold: Jaccard similarity of word pairs from which two rows are near duplicates.
        across: Whether rows of different sources are compared for dropping, or only those of one source.
        priority: Source names, best first: whose row is kept. Sources not named follow in the recipe's order.
    """

    exact: bool = True
    near: Literal["drop", "group", "off"] = "drop"
    threshold: float = Field(default=DEFAULT_THRESHOLD, ge=0.5, le=1.0)
    across: bool = True
    priority: tuple[str, ...] = ()

    @property
    def leaves_texts_distinct(self) -> bool:
        """Whether no two rows are left whose normalized texts are equal."""
        return self.exact and self.across


class Decontaminate(_Table):
    """Which held-out sets no row may repeat.

    Attributes:
        uri: Held-out sets: conversations in any accepted format.
        ngram: Words in an n-gram. A shorter conversation is one n-gram as a whole.
        max_overlap: A row is dropped when it holds more than this share of a held-out conversation's n-grams, or when
            more than this share of its own is held by one held-out conversation.
    """

    uri: URIs
    ngram: int = Field(default=8, ge=2, le=64)
    max_overlap: float = Field(default=0.5, ge=0, lt=1)


class Split(_Table):
    """How much of each source is kept for validation.

    Attributes:
        val_share: Share of each source's rows.
    """

    val_share: float = Field(default=0.02, ge=0, lt=1)


class Recipe(_Table):
    """What the finetuning set shall be.

    Attributes:
        sources: At least one.
        seed: Decides split, selection and order, together with the rows' ids.
        by: The unit of ratios, shares and totals.
        synthetic_share: Share of the sources marked `synthetic`; the others share what is left. In each of the two
            groups ratios are relative; without ratios the sources count by size.
        total_rows: Size of the train part in rows; only with `by = "rows"`.
        total_tokens: Size of the train part in tokens of the unit `by`.
        max_epochs: Without a total the mixture is as large as the scarcest source allows when repeated this often.
        warn_epochs: The report warns of a source that is repeated more often.
        tokenizer: URI of nanochat's base directory (or its tokenizer/): rows are counted in tokens.
        shard_rows: Most rows in one output object.
        output: Canonical lines, or nanochat's bare list form.
        compression: Of the output objects.
        filter: For all sources.
        deduplicate: Which rows are the same.
        decontaminate: Held-out sets; None looks for none.
        split: Validation shares.
    """

    sources: tuple[Source, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    by: Unit = "rows"
    synthetic_share: float | None = Field(default=None, gt=0, lt=1)
    total_rows: Count | None = None
    total_tokens: int | None = Field(default=None, ge=1, le=_MAX_TOKENS)
    max_epochs: float = Field(default=1.0, gt=0, le=MAX_EPOCHS)
    warn_epochs: float = Field(default=4.0, gt=0)
    tokenizer: str | None = None
    shard_rows: Count = 50_000
    output: Literal["canonical", "list"] = "canonical"
    compression: Literal["none", "gz", "zst"] = "none"
    filter: Filter = Filter()
    deduplicate: Deduplicate = Deduplicate()
    decontaminate: Decontaminate | None = None
    split: Split = Split()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name, count in Counter(source.name for source in self.sources).items():
            if count > 1:
                raise _problem("sources", f"{count} sources are named {name!r}: names must differ")
        names = {source.name for source in self.sources}
        for name in self.deduplicate.priority:
            if name not in names:
                raise _problem("deduplicate.priority", f"{name!r} is no source; there are {', '.join(sorted(names))}")
        self._check_units()
        self._check_shares()
        return self

    def _check_units(self) -> None:
        if self.by == "rows" and self.total_tokens is not None:
            raise _problem(
                "total_tokens", 'needs by = "tokens" or "supervised_tokens"; with by = "rows" set total_rows'
            )
        if self.by != "rows" and self.total_rows is not None:
            raise _problem("total_rows", f'needs by = "rows"; with by = "{self.by}" set total_tokens')
        if self.tokenizer is None:
            if self.by != "rows":
                raise _problem("tokenizer", f'by = "{self.by}" needs the URI of the base\'s tokenizer')
            for index, source in enumerate(self.sources):
                wanted = source.filter.over(self.filter)
                if wanted.max_tokens is not None:
                    key = "filter" if source.filter.max_tokens is None else f"sources[{index}].filter"
                    raise _problem(f"{key}.max_tokens", "needs 'tokenizer', the URI of the base's tokenizer")
                if "tokens" in wanted.gates:
                    key = f"sources[{index}].filter" if "tokens" in source.filter.gates else "filter"
                    raise _problem(f"{key}.gates", "'tokens' needs 'tokenizer', the URI of the base's tokenizer")

    def _check_shares(self) -> None:
        if self.synthetic_share is None:
            self._check_rest()
            return
        for side in (True, False):
            group = [(index, source) for index, source in enumerate(self.sources) if source.synthetic is side]
            if not group:
                word = "no source is" if side else "every source is"
                raise _problem("synthetic_share", f"{word} marked synthetic = true, so no share can be kept")
            for index, source in group:
                for key in ("epochs", "rest"):
                    if getattr(source, key):
                        raise _problem(f"sources[{index}].{key}", "cannot stand beside 'synthetic_share'; use ratio")
                if (source.ratio is None) != (group[0][1].ratio is None):
                    raise _problem(
                        f"sources[{index}].ratio", "all sources of one side of synthetic_share have it, or none"
                    )

    def _check_rest(self) -> None:
        takers = [source for source in self.sources if source.rest]
        ratios = [Fraction(repr(source.ratio)) for source in self.sources if source.ratio is not None]
        if takers and sum(ratios) >= 1:
            whole = float(sum(ratios))
            raise _problem("sources", f"ratios beside a source with rest = true must sum to less than 1, not {whole:g}")
        plain = [i for i, s in enumerate(self.sources) if s.ratio is None and s.epochs is None and not s.rest]
        if plain and ratios:
            raise _problem(
                f"sources[{plain[0]}].ratio", "is missing: other sources have one (or set epochs, or rest = true)"
            )
        if self.total is not None and not ratios and not takers and any(s.epochs for s in self.sources):
            raise _problem(
                "total_rows" if self.total_rows else "total_tokens",
                "cannot be met by epochs alone: give one source ratio or rest = true",
            )

    @property
    def total(self) -> int | None:
        """Size of the train part in the unit `by`; None is as much as the scarcest source allows."""
        return self.total_rows if self.by == "rows" else self.total_tokens

    @property
    def compares_texts(self) -> bool:
        """Whether any step of the work compares the rows' texts."""
        return self.deduplicate.exact or self.deduplicate.near != "off" or self.decontaminate is not None

    @property
    def ranks(self) -> tuple[int, ...]:
        """For each source its place in the order of priority, 0 the best."""
        listed = list(self.deduplicate.priority)
        order = listed + [source.name for source in self.sources if source.name not in listed]
        return tuple(order.index(source.name) for source in self.sources)


def parse_recipe(data: bytes, *, where: str) -> Recipe:
    """Parse a recipe's TOML.

    Raises:
        ConfigError: It is not TOML, or a key is unknown, missing or wrong; the message names the key.
    """
    table = parse_toml(data, where=where)
    try:
        return Recipe.model_validate(table)
    except ValidationError as exc:
        errors = exc.errors()
        # Where a source is wrong, pydantic says of the list of sources too that it is too short.
        inner = any(len(error["loc"]) > 1 for error in errors)
        shown = [error for error in errors if not (inner and error["type"] == "too_short")]
        raise ConfigError("; ".join(f"{where}: {_message(error)}" for error in shown)) from exc


def _problem(key: str, text: str) -> PydanticCustomError:
    return PydanticCustomError("recipe", "{text}", {"key": key, "text": text})


def _message(error: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    key = str(error.get("ctx", {}).get("key", ""))
    name = f"{path}.{key}".strip(".") if key else path.strip(".")
    text = {
        "extra_forbidden": "is no key of a recipe",
        "tuple_type": "must be a list; tables of a list stand under double brackets: [[sources]]",
    }.get(error["type"], error["msg"])
    return f"{name}: {text[0].lower()}{text[1:]}"
