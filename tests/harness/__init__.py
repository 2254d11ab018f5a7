"""Does lm-evaluation-harness, over `nanosft serve`, get the accuracy that `nanosft eval` gets? `make harness`."""
