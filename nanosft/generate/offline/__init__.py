"""Conversations without a model: put together from the knowledge base's facts. Pure.

`composer` follows the plan's row; `speaker` answers as the assistant, with the fact that `fact_index` finds for a
question, in the words of `first_person` and `phrases`.
"""
