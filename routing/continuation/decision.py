"""How a broken stream goes on. Pure.

Three ways, the first that is right for the request:

*Close*: every choice had its last token and only usage or `[DONE]` was missing. No engine is needed.

*Extend*: another engine gets the prompt's token ids followed by those already delivered, as a completion, and its
tokens are appended. That is exact in tokens: text sent back as text (a partial assistant message, a longer prompt)
is tokenised anew, and the merges of a tokeniser do not keep to where the engine had cut, so the model would go on from a
state it never was in, and a chat template may trim or wrap what it is given. Ids have no such seam. vLLM tells them when
asked with `return_token_ids`, which the ingress adds unseen (`asking`) and takes out again. A chat is extended through
`/v1/completions` as well: its prompt's ids are the rendered template.

*Replay*: where ids are not enough — a grammar, a tool or reasoning parser, penalties that count earlier output are state of
the dead engine — the same request is asked again from its start, and what the client has already is compared and left
out. That is only right when the engine must say the same again: greedy or seeded requests, or when nothing of
the answer was told yet. An answer that differs ends the stream with an error; it never splices two texts.

Anything else raises `CannotContinue`: a clear end is better than an answer that is nearly right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hekla.routing.body import Body, MalformedBody
from hekla.routing.continuation.record import Choice, Delivered
from hekla.routing.prompt import is_one_sequence

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
CONTINUED_PATHS = frozenset({CHAT, COMPLETIONS})
"""Whose events carry token ids. `/v1/responses` and `/v1/messages` have no field for them."""

STATEFUL = (
    "frequency_penalty", "presence_penalty", "bad_words", "use_beam_search", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "structural_tag", "thinking_token_budget", "repetition_detection",
    "prompt_logprobs", "prompt_embeds", "suffix", "echo", "functions", "logprob_token_ids", "logits_processors",
)  # fmt: skip
"""Fields that make the next token or its form depend on more than the tokens before it."""


class CannotContinue(Exception):
    """No engine can go on where the lost one stopped; says why."""


@dataclass(frozen=True)
class Close:
    """All that is missing is the end."""


@dataclass(frozen=True)
class Extend:
    """From the ids up to `tokens`; `needs_text`: their text has to be asked for, because stop strings hold some back."""

    choice: int
    tokens: int
    needs_text: bool


@dataclass(frozen=True)
class Replay:
    """The whole request again."""


Way = Close | Extend | Replay


def way_of(path: str, body: Body, delivered: Delivered) -> Way:
    """Raises CannotContinue."""
    try:
        return _way_of(path, body, delivered)
    except MalformedBody as error:
        raise CannotContinue(f"the request could not be read: {error}") from error


def _way_of(path: str, body: Body, delivered: Delivered) -> Way:
    choices = delivered.choices
    expected = sequences(body)
    if expected and len(choices) == expected and all(one.finish for one in choices.values()):
        return Close()
    obstacle = _obstacle(path, body, delivered)
    if not obstacle:
        return _extension(body, choices)
    if repeats_itself(body) or all(one.is_empty for one in choices.values()):
        return Replay()
    raise CannotContinue(obstacle)


def _extension(body: Body, choices: Mapping[int, Choice]) -> Extend:
    ((index, choice),) = choices.items()
    longest = max(map(len, stops_of(body)), default=0)
    if longest > 1:
        return Extend(index, len(choice.tokens), needs_text=True)
    return Extend(index, choice.shown_tokens, needs_text=False)


def _obstacle(path: str, body: Body, delivered: Delivered) -> str:
    """Why the answer can't be extended; empty: it can."""
    if len(delivered.choices) != 1 or not is_one_sequence(body):
        return "it has several choices"
    (choice,) = delivered.choices.values()
    if choice.is_empty:
        return "nothing of it had been told"
    if not delivered.prompt or choice.untold or not choice.tokens:
        return "the engine did not tell its token ids"
    if choice.has_tools or set(choice.texts) - {"text", "content"}:
        return "it holds tool calls or reasoning, which only the lost engine's parser could go on reading"
    if path == CHAT and (found := _chat_obstacle(body)):
        return found
    for name in STATEFUL:
        if body.get(name):
            return f"`{name}` depends on what the lost engine knew"
    if is_shaped(body):
        return "`response_format` is a grammar whose state the lost engine had"
    if choice.shown_tokens < len(choice.tokens) and choice.logprobs:
        return "log-probabilities of tokens had been told whose text had not"
    return ""


def _chat_obstacle(body: Body) -> str:
    if body.get("tools") and body.get("tool_choice") != "none":
        return "it may call tools, which only a chat's parser reads"
    if body.get("logprobs"):
        return "log-probabilities of a chat have another form than a completion's"
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and any(not _is_text(part) for part in content):
            return "its prompt holds media"
    return ""


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and part.get("type") in ("text", "input_text"))


def is_shaped(body: Body) -> bool:
    form = body.get("response_format")
    return isinstance(form, dict) and form.get("type") not in (None, "text")


def repeats_itself(body: Body) -> bool:
    """The same request gives the same answer: it is greedy or seeded."""
    temperature, top_k = body.get("temperature"), body.get("top_k")
    return body.get("seed") is not None or temperature == 0 or top_k == 1


def sequences(body: Body) -> int:
    """How many choices the answer has; 0 when that can't be told."""
    n = body.get("n")
    n = 1 if n is None else n
    prompt = body.get("prompt") if "messages" not in body else None
    many = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    return (len(prompt) if many and isinstance(prompt, list) else 1) * n if isinstance(n, int) else 0


def stops_of(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    if isinstance(stop, str):
        return (stop,) if stop else ()
    return tuple(one for one in stop if isinstance(one, str) and one) if isinstance(stop, list) else ()
