"""The two ways of translating, each with its five parts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hekla.routing.translation.answers import chat_completion, message
from hekla.routing.translation.chat_request import messages_request, wants_usage
from hekla.routing.translation.chat_stream import MessageEvents
from hekla.routing.translation.errors import anthropic_error, openai_error, openai_status
from hekla.routing.translation.events import StreamTranslator
from hekla.routing.translation.messages_request import chat_request
from hekla.routing.translation.messages_stream import ChatChunks
from hekla.routing.translation.problems import Json
from hekla.routing.translation.settings import TranslationSettings

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


@dataclass(frozen=True)
class Translated:
    """A request in the other format, and how its answer comes back into the client's own."""

    request: Json
    path: str
    answer: Callable[[Json], Json]
    """Raises AnswerUntranslatable."""
    stream: Callable[[], StreamTranslator]
    error: Callable[[bytes, int], bytes]
    status: Callable[[int], int]


def translated(
    path: str, asked: Json, settings: TranslationSettings, *, now_s: float, event_bytes_max: int, for_engine: bool = False
) -> Translated:  # fmt: skip
    """Of a request to `path`, one of `CHAT` and `MESSAGES`. Raises Untranslatable."""
    if path == MESSAGES:
        return Translated(
            chat_request(asked, takes_top_k=for_engine), CHAT, message,
            lambda: MessageEvents(event_bytes_max=event_bytes_max), anthropic_error, int,
        )  # fmt: skip
    return Translated(
        messages_request(asked, max_tokens_default=settings.max_tokens_default), MESSAGES,
        lambda answer: chat_completion(answer, created_s=int(now_s)),
        lambda: ChatChunks(created_s=int(now_s), wants_usage=wants_usage(asked), event_bytes_max=event_bytes_max),
        openai_error, openai_status,
    )  # fmt: skip
