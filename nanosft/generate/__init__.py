"""Generate: synthetic conversations from a knowledge base.

`planning` says what each row of a run is about; `provider` asks a chat API for it, or `offline` composes it without a
model, and `writers` chooses between them; `rows` checks answers and runs many rows at once under a budget; `records`
keeps what came of them in the store. `stage` does all of it in this order, `estimate` says beforehand what it will take
and `summary` afterwards what it took; `authoring` helps to write the knowledge base.
"""
