"""What prompts say of languages. Pure."""

from typing import Final

from nanosft.generate.planning import Plan, PlanRow

_NAMES: Final = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
_ENGLISH: Final = """\
6. Language. The assistant answers in English, in plain ASCII characters: straight quotes, a hyphen for a dash, no \
emoji. If the user greets in another language, a word of it in return is welcome. Markdown is rare: a short list or \
a code span where it helps, no headings."""
_SEVERAL: Final = """\
6. Language. Each request names the language in which both sides write all of the conversation, as its native \
speakers do. In English the assistant writes plain ASCII characters: straight quotes, a hyphen for a dash. Names, \
numbers and URLs of the knowledge base stay as they are; no emoji. Markdown is rare: a short list or a code span \
where it helps, no headings."""
_COPIED: Final = "First message, to be copied letter for letter"


def language_rule(plan: Plan) -> str:
    """The rule on languages of a plan's fixed part."""
    return _ENGLISH if plan.languages is None else _SEVERAL


def in_language(template: str, row: PlanRow) -> str:
    """The template of a row's prompt, with what is to be done with its first message, which is in English."""
    if not row.language:
        return template
    name = language_name(row.language)
    is_copied = row.language.partition("-")[0] == "en"
    first = _COPIED if is_copied else f"First message, to be said in {name} as this user would write it"
    return template.replace(_COPIED, f"Language: {name}\n{first}")


def language_name(code: str) -> str:
    """A language's English name; its code where none is known here."""
    name = _NAMES.get(code.partition("-")[0])
    if name is None:
        return f"the language with the code {code}"
    return name if "-" not in code else f"{name} ({code})"
