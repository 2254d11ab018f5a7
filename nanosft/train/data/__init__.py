"""Conversations into micro-batches.

`dataset` finds them, `tokens` renders them, `packing` puts them into rows, `plan` deals rows to steps.
"""
