"""What a line means: a message to every model, or a command."""

import math
import shlex
from collections.abc import Callable
from typing import Final, NamedTuple

from rich.text import Text

from nanosft.chat.dialogue import Answer, Chat, open_chats
from nanosft.chat.session import Session, describe_model
from nanosft.conversation import Conversation, parse_line, role_problem, to_line
from nanosft.errors import ConfigError, DataError, Interrupted, NanosftError
from nanosft.foreign import printable
from nanosft.settings.models import name_models
from nanosft.store import MissingObjectError, open_object

_MAX_MODELS: Final = 2
_MAX_SEED: Final = 1 << 63
_MAX_TEMPERATURE: Final = 100.0
_SHADES: Final = ((0.9, "green"), (0.5, "yellow"), (0.1, "dark_orange"), (0.0, "red"))
_NUM_UNLIKELY: Final = 5
_OFF: Final = frozenset({"off", "none", "-"})


class Command(NamedTuple):
    """A command of a conversation."""

    argument: str
    help: str
    run: Callable[[Session, str], None]


class _Leave(Exception):  # noqa: N818 - no error: the user has had enough
    pass


def converse(session: Session) -> None:
    """Take lines until there are no more, or the user leaves."""
    while True:
        try:
            take(session, session.front.ask(session).strip())
        except (EOFError, _Leave):
            return
        except Interrupted:
            raise
        except NanosftError as exc:  # a message that is too long is no reason to lose those before it
            session.front.tell(str(exc), "red")


def take(session: Session, line: str) -> None:
    """Do what one line asks for.

    Raises:
        NanosftError: It cannot be done; the conversation is as it was.
    """
    if not line:
        return
    if not line.startswith("/") or line.startswith("//"):
        session.put(line.removeprefix("/") if line.startswith("//") else line)
        return
    name, _, argument = line.partition(" ")
    if name not in COMMANDS:
        raise ConfigError(f"{name}: no such command; /help lists them, and //… begins a message with a slash")
    COMMANDS[name].run(session, argument.strip())


def _reset(session: Session, _: str) -> None:
    for chat in session.chats:
        chat.messages = chat.messages[: chat.system is not None]
        chat.last = None
    session.front.tell(
        "a new conversation" + (", with the system message as it was" if session.chats[0].system else "")
    )


def _system(session: Session, text: str) -> None:
    if text:
        for chat in session.chats:
            chat.set_system(None if text in _OFF else text)
    system = session.chats[0].system
    session.front.tell(f"system message: {system}" if system else "no system message; /system TEXT gives one")


def _retry(session: Session, _: str) -> None:
    if not session.chats[0].turns:
        raise ConfigError("/retry: nothing was said yet")
    if session.chats[0].settings.temperature == 0:
        session.front.tell("at temperature 0 the answer is the same; /temperature 0.6 changes that", "dim")
    session.retry()


def _save(session: Session, uri: str) -> None:
    if not uri:
        raise ConfigError("/save FILE: where to?")
    if not session.chats[0].turns:
        raise ConfigError("/save: nothing was said yet")
    store, key = open_object(uri)
    try:
        data = store.read(key)
    except MissingObjectError:
        data = b""
    if data and not data.endswith(b"\n"):
        data += b"\n"
    store.write(key, data + b"".join(to_line(_to_conversation(chat)) for chat in session.chats))
    lines = "line" if len(session.chats) == 1 else "lines"
    session.front.tell(f"{len(session.chats)} {lines} of JSON added to {store.uri_of(key)}")


def _load(session: Session, uri: str) -> None:
    if not uri:
        raise ConfigError("/load FILE: where from?")
    store, key = open_object(uri)
    where = store.uri_of(key)
    lines = [(number, line) for number, line in enumerate(store.read(key).splitlines(), 1) if line.strip()]
    found = [parse_line(line, where=f"{where}:line {number}") for number, line in lines]
    if not found:
        raise DataError(f"{where}: holds no conversation")
    chosen = []
    for chat in session.chats:
        conversation = next((item for item in reversed(found) if item.meta.get("model") == chat.name), found[-1])
        if problem := role_problem(conversation.messages):
            raise DataError(f"{where}: {problem}")
        messages = list(conversation.messages)
        chosen.append(messages if messages[-1].role == "assistant" else messages[:-1])
    for chat, messages in zip(session.chats, chosen, strict=True):
        chat.messages, chat.last = messages, None
    for message in session.chats[0].turns[-2:]:
        session.front.tell(f"{message.role}> {message.text}", "dim")
    session.front.tell(f"{len(session.chats[0].messages)} messages from {where}; go on")


def _tokens(session: Session, _: str) -> None:
    for chat in session.chats:
        head = f"{chat.name}: " if len(session.chats) > 1 else ""
        session.front.tell(f"{head}{chat.count_context():,} of {chat.checkpoint.context_len:,} tokens of context")
        if chat.last is not None and chat.last.tokens:
            session.front.tell(_colour(chat, chat.last))


def _model(session: Session, argument: str) -> None:
    if argument:
        models = _name_models(argument)
        fresh = open_chats(session.chats[0].settings, models)
        for index, chat in enumerate(fresh):
            chat.messages = list(session.chats[min(index, len(session.chats) - 1)].messages)
        session.chats = fresh
    for chat in session.chats:
        session.front.tell(describe_model(chat))


def _name_models(argument: str) -> dict[str, str]:
    try:
        uris = shlex.split(argument)
        models = name_models(uris)
    except ValueError as exc:
        raise ConfigError(f"/model: {exc}") from exc
    if len(models) > _MAX_MODELS:
        raise ConfigError(f"/model: {_MAX_MODELS} models at the most")
    return models


def _seed(session: Session, text: str) -> None:
    if text:
        if not text.isdecimal() or int(text) >= _MAX_SEED:
            raise ConfigError(f"/seed {text}: a whole number below 2^63 is needed")
        _set(session, seed=int(text))
    session.front.tell(f"seed {session.chats[0].settings.seed}")


def _temperature(session: Session, text: str) -> None:
    if text:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= _MAX_TEMPERATURE:
            raise ConfigError(f"/temperature {text}: a number from 0 to 100 is needed")
        _set(session, temperature=value)
    session.front.tell(f"temperature {session.chats[0].settings.temperature:g}")


def _set(session: Session, **changes: float) -> None:
    for chat in session.chats:
        chat.settings = chat.settings.model_copy(update=changes)


def _help(session: Session, _: str) -> None:
    width = max(len(f"{name} {command.argument}") for name, command in COMMANDS.items())
    for name, command in COMMANDS.items():
        session.front.tell(f"{f'{name} {command.argument}':<{width}}  {command.help}")
    session.front.tell("A message goes on in the next line after \\ at a line's end. //… begins one with a slash.")


def _quit(_session: Session, _: str) -> None:
    raise _Leave


COMMANDS: Final = {
    "/help": Command("", "this list", _help),
    "/reset": Command("", "begin a new conversation", _reset),
    "/retry": Command("", "take the last answer back and have another", _retry),
    "/system": Command("[TEXT|off]", "show, set or remove the system message", _system),
    "/seed": Command("[N]", "show or set the seed", _seed),
    "/temperature": Command("[T]", "show or set the temperature; 0: the likeliest token", _temperature),
    "/tokens": Command("", "the context's size, and the last answer coloured by probability", _tokens),
    "/model": Command("[URI [URI]]", "show the models, or go on with others", _model),
    "/save": Command("FILE", "add the conversation to a file, as a line of JSON", _save),
    "/load": Command("FILE", "go on with the last conversation of a file", _load),
    "/quit": Command("", "leave, as the end of file does", _quit),
}


def _to_conversation(chat: Chat) -> Conversation:
    checkpoint, settings = chat.checkpoint, chat.settings
    meta = {
        "model": chat.name,
        "checkpoint": {"tag": checkpoint.tag, "step": checkpoint.step, "source": checkpoint.source, "uri": chat.uri},
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "seed": settings.seed,
    }
    return Conversation(tuple(chat.messages), meta)


def _colour(chat: Chat, answer: Answer) -> Text:
    """The answer, each token in the colour of its probability, with a legend and the least likely ones in words."""
    encoding = chat.checkpoint.tokenizer.encoding
    text = Text()
    spelled = []
    for token, logprob, _ in answer.tokens:
        probability = math.exp(logprob)
        shown = printable(encoding.decode_single_token_bytes(token).decode(errors="replace"))
        text.append(shown, next(colour for least, colour in _SHADES if probability >= least))
        spelled.append((probability, shown))
    text.append(f"\n{len(spelled)} tokens by probability:", "dim")
    for least, colour in _SHADES:
        text.append(f" {least:g}+" if least else " less", colour)
    unlikely = ", ".join(f"{shown!r} {probability:.2g}" for probability, shown in sorted(spelled)[:_NUM_UNLIKELY])
    text.append(f"; least likely: {unlikely}", "dim")
    return text
