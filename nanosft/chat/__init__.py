"""Talk to a finetuned model, or to two side by side.

stage      loads the models and chooses: one answer, messages from a pipe, or a terminal
dialogue   a conversation with one model
session    what a line means: a message to all models, or a command
scripted   lines in, answers out, as text or JSON
terminal   a line with history, answers as they come, columns, colours
"""

from nanosft.chat.dialogue import Chat

__all__ = ["Chat"]
