"""Code that is exported with a model: it imports torch and transformers, and nothing of nanosft."""
