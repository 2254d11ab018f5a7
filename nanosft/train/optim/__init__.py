"""What moves the weights.

`hyperparameters` of a run, the `schedule`, the `optimizer`, and its `warm_start` from pretraining.
"""
