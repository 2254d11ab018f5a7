"""Hand a model or a data set on: to Hugging Face's libraries, or back to nanochat's own tools.

In the order in which data meets them: `convert` (tensors and `config.json`), `tokenizer` (the fast tokenizer and the
chat template), `remote/` (the model's code, which goes along), `texts` and `check` (is it what was read?), `card` and
`cards/` (what is told of it), then who puts them together: `huggingface` and `nanochat` for models, `dataset` for
conversations; `hub` (to a hub), `stage` (the order of work).
"""
