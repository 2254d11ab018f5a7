"""Rows in flight: asked for, judged, asked for again, under a budget.

`runner` keeps many rows going in one event loop; `row` is one row's way to a conversation; `judge` accepts or
rejects an answer; `budget` reserves money before it is spent.
"""
