"""Generate: synthetic conversations from a knowledge base."""
