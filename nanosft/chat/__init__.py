"""Talk to a finetuned model."""
