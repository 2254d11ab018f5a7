"""Quality gates and near-duplicate search, used by generate, mix and audit. Pure: no I/O, no clock, no torch."""
