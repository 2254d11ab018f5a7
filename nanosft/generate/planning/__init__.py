"""The prompt plan: topic, persona, dynamic and first message of each row. Pure.

`dimensions` reads what a plan is made of (`dimensions.toml`), `openings` writes first messages, `plan` deals them
out by row, and `coverage` counts what the first rows of a plan cover.
"""
