"""The chat API: prompts in, answers out.

`prompts` writes what is asked; `client` asks, within `limits`, over `http`; `answers` tells what came back; `local`
serves the packaged small model to the same client.
"""
