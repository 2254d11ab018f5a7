"""Generate: synthetic conversations from a knowledge base.

`planning` says what each row of a run is about; `provider` asks a chat API for it, or `offline` composes it without a
model, and `writers` chooses between them; `rows` checks answers and runs many rows at once under a budget; `records`
keeps what came of them in the store. `stage` does all of it in this order. `offers` reads what models cost and
can do; `estimate` and `dry_run` say beforehand what a plan will take, `offer_table` on which model, and `summary`
afterwards what it took; `authoring` helps to write the knowledge base.
"""
