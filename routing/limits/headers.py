"""What a client is told of its rate limits, in the headers that OpenAI's clients read. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hekla.routing.headers import RawHeaders
from hekla.routing.limits.limiter import Standing

NOUNS = {"requests": "requests", "input_tokens": "input-tokens", "output_tokens": "output-tokens"}


def standing_headers(standings: Iterable[Standing]) -> RawHeaders:
    """`x-ratelimit-{limit,remaining,reset}-{requests,tokens,input-tokens,output-tokens}`.

    Where several limits hold, that of which the least is left in proportion. `tokens` is the nearer of the two kinds of
    tokens. A reset is the time until all is back, in whole seconds.
    """
    nearest: dict[str, Standing] = {}
    for standing in standings:
        kind = standing.limit.kind
        for noun in (NOUNS[kind],) if kind == "requests" else (NOUNS[kind], "tokens"):
            before = nearest.get(noun)
            if before is None or _share_left(standing) < _share_left(before):
                nearest[noun] = standing
    headers: RawHeaders = []
    for noun, standing in nearest.items():
        told = (
            ("limit", str(standing.limit.amount)),
            ("remaining", str(max(0, math.floor(standing.left + 1e-6)))),
            ("reset", f"{math.ceil(standing.reset_s)}s"),
        )
        headers += [(f"x-ratelimit-{name}-{noun}".encode(), value.encode()) for name, value in told]
    return headers


def _share_left(standing: Standing) -> float:
    return standing.left / standing.capacity if standing.capacity else 0.0
