"""What the settings of a judge have in common: `generate` and `audit` score conversations, and `eval` answers."""

from typing import Final

LOCAL_JUDGE: Final = "local"
"""As `--judge-model`: the packaged small model."""
JUDGE_MODEL_HELP: Final = (
    "Slug of a second model that scores what the gates have accepted, or local for the packaged one (default: none)."
)
JUDGE_SHARE_HELP: Final = "Share of the rows that the judge scores, drawn by row number and seed."
MIN_SCORE_HELP: Final = "Refuse a conversation with a lower score, of 1 to 5, in anything (default: none is)."
JUDGE_PRICE_HELP: Final = "Dollars per million prompt tokens of the judge, where the endpoint states no cost."
JUDGE_URL_HELP: Final = "OpenAI-compatible endpoint of the judge, without /chat/completions."
JUDGE_KEY_HELP: Final = "Key of the judge's endpoint."
OWN_PRICE_HELP: Final = (
    "Dollars per million prompt tokens, where the endpoint states no cost (default: as its list of models tells)."
)
OWN_ANSWER_PRICE_HELP: Final = "Dollars per million tokens of the judge's answer, as --prompt-price-usd."
JUDGE_ANSWER_PRICE_HELP: Final = "Dollars per million tokens of the judge's answer, as --judge-prompt-price-usd."


def is_paid_judge(judge_model: str | None) -> bool:
    """Whether a judge is asked who may cost something."""
    return judge_model not in (None, LOCAL_JUDGE)


def check_min_score(min_score: int | None, judge_model: str | None) -> None:
    """Refuse a lowest score that nobody gives.

    Raises:
        ValueError: There is no judge.
    """
    if min_score is not None and judge_model is None:
        raise ValueError("--min-score needs --judge-model: nobody scores")
