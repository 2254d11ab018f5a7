"""Conversations put together from the knowledge base's facts, without any model. Pure, and deterministic by plan row.

`composer` and `dialogue` follow a row's moves for the user; `speaker` answers for the assistant, with the facts that
`fact_index` finds for a question, put into the first person by `first_person` and into other words by `retelling`;
`fit` tells how such a fact answers it, and `explaining` puts it plainly; `intents` tells questions for its identity.
`phrases` reads the wordings of both sides, which stand in `phrases.toml`.
"""

from nanosft.generate.offline.composer import SOURCE, Composer

__all__ = ["SOURCE", "Composer"]
