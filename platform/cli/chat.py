"""`hekla chat`: a conversation with a model, or one answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hekla.platform.base.errors import HeklaError
from hekla.platform.cli.options import client_of
from hekla.platform.cli.output import progress, warn

if TYPE_CHECKING:
    from openai import OpenAI

HISTORY_MESSAGES_MAX = 200
"""Older messages leave the conversation; the system message stays."""

HELP = "/reset forgets the conversation, /exit or Ctrl-D ends it."


def chat(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model, as requests name it.")],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Ask this and end; - reads it from standard input.")
    ] = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 always answers the same.")] = None,
) -> None:
    """Talk to a model. With a prompt: one answer. Without: a conversation."""
    with client_of(context) as client:
        conversation = Conversation(client.openai(), model, system)
    if max_tokens is not None:
        conversation.options["max_tokens"] = max_tokens
    if temperature is not None:
        conversation.options["temperature"] = temperature
    if prompt is not None:
        _say(conversation, sys.stdin.read() if prompt == "-" else prompt)
    else:
        _converse(conversation)


@dataclass
class Conversation:
    """Messages so far; `ask` adds a question and its answer, or, when it fails, nothing."""

    client: OpenAI
    model: str
    system: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, question: str) -> Iterator[str]:
        """The answer's pieces as they come. Raises HeklaError saying why there is none."""
        from openai import OpenAIError

        asked = [*self.messages, {"role": "user", "content": question}]
        head = [{"role": "system", "content": self.system}] if self.system else []
        pieces: list[str] = []
        try:
            messages: Any = [*head, *asked]
            stream: Any = self.client.chat.completions.create(
                model=self.model, messages=messages, stream=True, **self.options
            )
            for chunk in stream:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if text:
                    pieces.append(text)
                    yield text
        except OpenAIError as error:
            raise HeklaError(why(error, str(self.client.base_url))) from error
        self.messages = [*asked, {"role": "assistant", "content": "".join(pieces)}][-HISTORY_MESSAGES_MAX:]


def why(error: Exception, url: str) -> str:
    """An OpenAI client's error in one line."""
    from openai import APIConnectionError, APIStatusError

    if isinstance(error, APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        return f"the model can't be asked (HTTP {error.status_code}): {body.get('message') or error.message}"
    if isinstance(error, APIConnectionError):
        return f"can't reach hekla at {url} ({error}); is it up? try: hekla up"
    return f"the answer broke off: {error}"


def _say(conversation: Conversation, question: str) -> None:
    for text in conversation.ask(question):
        typer.echo(text, nl=False)
    typer.echo()


def _converse(conversation: Conversation) -> None:
    try:
        import readline  # noqa: F401  (input() then edits lines and remembers them)
    except ImportError:
        pass
    progress(f"{conversation.model}: {HELP}")
    while (question := _next_question()) is not None:
        if question in ("/exit", "/quit"):
            return
        if question == "/reset":
            conversation.messages = []
            progress("forgotten")
        elif question:
            _answer(conversation, question)


def _answer(conversation: Conversation, question: str) -> None:
    """One turn. A failed or interrupted one leaves the conversation as it was."""
    try:
        _say(conversation, question)
    except HeklaError as error:
        warn(str(error))
    except KeyboardInterrupt:
        typer.echo()


def _next_question() -> str | None:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None
