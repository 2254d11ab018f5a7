r"""nanochat's tokenizer as transformers reads it: its JSON files and the chat template. Pure.

In nanochat a special token that is spelled out in what somebody says stays plain text. transformers splits special
tokens off the rendered text first of all, so the template writes such text with a noncharacter of Unicode inside
(`<U+FDD0|`, which no special token matches), and the tokenizer's normalizer, which runs after that split, takes it out
again. U+FDD0 itself is written with U+FDD1 behind it, so that nothing said is ever changed.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from nanosft.nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

_GUARD: Final = "\ufdd0"
_GUARDED_GUARD: Final = "\ufdd0\ufdd1"
_OPENING: Final = "<|"
_GUARDED_OPENING: Final = "<\ufdd0|"

CHAT_TEMPLATE: Final = (
    """\
{%- macro text(said) -%}
{%- set plain = said if said is string else said | map(attribute="text") | join -%}
{{ plain | replace("GUARD", "GUARDED_GUARD") | replace("<|", "GUARDED_OPENING") }}
{%- endmacro -%}
{{- "<|bos|>" -}}
{%- set ns = namespace(system="", turns=messages) -%}
{%- if messages and messages[0].role == "system" -%}
    {%- set ns.system = text(messages[0].content) + "\\n\\n" -%}
    {%- set ns.turns = messages[1:] -%}
{%- endif -%}
{%- if not ns.turns -%}
    {{- raise_exception("there is no user message") -}}
{%- endif -%}
{%- for message in ns.turns -%}
    {%- if message.role != ["user", "assistant"][loop.index0 % 2] -%}
        {{- raise_exception("after an optional system message, user and assistant take turns, the user first") -}}
    {%- endif -%}
    {%- if message.role == "user" -%}
        {{- "<|user_start|>" + (ns.system if loop.first else "") + text(message.content) + "<|user_end|>" -}}
    {%- else -%}
        {{- "<|assistant_start|>" -}}
        {%- if message.content is string -%}
            {%- generation -%}
                {{- text(message.content) -}}
            {%- endgeneration -%}
        {%- else -%}
            {%- for part in message.content -%}
                {%- if part.type == "python_output" -%}
                    {{- "<|output_start|>" + text(part.text) + "<|output_end|>" -}}
                {%- else -%}
                    {%- generation -%}
                        {%- if part.type == "python" -%}
                            {{- "<|python_start|>" + text(part.text) + "<|python_end|>" -}}
                        {%- else -%}
                            {{- text(part.text) -}}
                        {%- endif -%}
                    {%- endgeneration -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
        {%- generation -%}
            {{- "<|assistant_end|>" -}}
        {%- endgeneration -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- "<|assistant_start|>" -}}
{%- endif -%}
""".replace("GUARDED_GUARD", _GUARDED_GUARD)
    .replace("GUARDED_OPENING", _GUARDED_OPENING)
    .replace("GUARD", _GUARD)
)
"""Renders what `Tokenizer.render` renders; `{% generation %}` marks what is supervised."""


def to_tokenizer_json(tokenizer: Tokenizer) -> bytes:
    """`tokenizer.json`: a fast tokenizer with the same ids for every text, special tokens apart."""
    encoding = tokenizer.encoding
    ranks = _read_ranks(tokenizer)
    names = _name_bytes()
    special = [(encoding.encode_single_token(name), name) for name in encoding.special_tokens_set]
    bos = SPECIAL_TOKENS[0]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,  # matched before the normalizer runs
                "special": True,
            }
            for token, name in sorted(special)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Replace", "pattern": {"String": guarded}, "content": plain}
                for guarded, plain in ((_GUARDED_OPENING, _OPENING), (_GUARDED_GUARD, _GUARD))
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": encoding._pat_str},  # noqa: SLF001 - tiktoken has no other name for it
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": bos, "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,  # as tiktoken takes a whole word that is a token
            "vocab": {_name(token, names): rank for token, rank in ranks.items()},
            "merges": [[_name(left, names), _name(right, names)] for left, right in _find_merges(ranks)],
        },
    }
    return orjson.dumps(content)


def make_tokenizer_config(*, context_len: int) -> dict[str, Any]:
    """The content of `tokenizer_config.json`.

    Padding is on the left, as generation wants it, and by `<|bos|>`, because nanochat has no token for it.
    """
    bos, assistant_end = SPECIAL_TOKENS[0], SPECIAL_TOKENS[4]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": assistant_end,
        "pad_token": bos,
        "additional_special_tokens": [name for name in SPECIAL_TOKENS if name not in {bos, assistant_end}],
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_len,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _read_ranks(tokenizer: Tokenizer) -> dict[bytes, int]:
    ranks = tokenizer.encoding._mergeable_ranks  # noqa: SLF001 - tiktoken has no other name for it
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def _find_merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of tokens that make a token, in the order in which byte-pair encoding makes them."""
    for token in ranks:
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in pairs if left in ranks and right in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _name_bytes() -> dict[int, str]:
    """The sign that stands for each byte in a `tokenizer.json`: its own where it prints, else one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return {byte: chr(byte if byte in printable else next(others)) for byte in range(0x100)}


def _name(token: bytes, names: dict[int, str]) -> str:
    return "".join(names[byte] for byte in token)
