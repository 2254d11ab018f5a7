"""Inference: prompts in, tokens out, many at once.

`cache` holds keys and values; `sampling` chooses a token; `batching` lets requests join and leave a running batch at
every step; `engine` is the simple face of it, `text_stream` turns tokens into text as they come, and `tools` answers
models that put a sum in python tags.
"""
