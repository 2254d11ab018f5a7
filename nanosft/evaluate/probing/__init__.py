"""What a model is asked about itself. Pure but for reading files.

`questions` says what of a fact can be asked for, `probes` and `wordings.toml` how, and `leaks` what of it stands in the
training data.
"""
