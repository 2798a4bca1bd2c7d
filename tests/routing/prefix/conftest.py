"""Requests, candidates, and indexes that a test fills by prompts."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hekla.routing.backend import Backend
from hekla.routing.body import Body
from hekla.routing.load import EngineLoad
from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.batch import Batch, Stored
from hekla.routing.prefix.exact import ExactIndex
from hekla.routing.prefix.hashing import BlockHasher, token_array
from hekla.routing.prefix.knowledge import CombinedKnowledge
from hekla.routing.prefix.settings import ApproximateSettings, ExactSettings
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.view import LazyView

BLOCK = 4
HASHER = BlockHasher("test")
SETTINGS = ExactSettings(credit_tokens=BLOCK)


class Lab:
    """A token is a letter here: four letters are a block of the exact index, eight one of the approximate index."""

    block, hasher = BLOCK, HASHER

    @staticmethod
    def request(prompt: str, *, model: str = "m", is_adapter: bool = False, tokenised: bool = True) -> LazyView:
        view = LazyView(
            Body.parse(json.dumps({"prompt": prompt}).encode()), "/v1/completions", [], model=model, chance=lambda: 0.5
        )
        view.is_adapter = is_adapter
        view.token_ids = array("I", map(ord, prompt)) if tokenised else None
        return view

    @staticmethod
    def candidates(*engines: str) -> list[Candidate]:
        return [Candidate(Backend(engine, "http://nowhere"), EngineLoad()) for engine in engines]

    @staticmethod
    def approximate(**settings: int) -> ApproximateIndex:
        return ApproximateIndex(ApproximateSettings(**{"block_bytes": 8, **settings}), HASHER)

    @staticmethod
    def exact(**settings: Any) -> ExactIndex:
        return ExactIndex(ExactSettings(**{"credit_tokens": BLOCK, **settings}), HASHER)

    @classmethod
    def stored(cls, prompt: str, *, first: int = 0, **fields: Any) -> Stored:
        """The blocks of a prompt from `first` on; an engine's name for a block is the prompt's text up to its end."""
        digests = HASHER.digests(token_array(list(map(ord, prompt))), BLOCK).tolist()
        names = cls.names(prompt)
        parent = names[first - 1] if first else None
        return Stored(names[first:], parent, digests[first:], BLOCK, **fields)

    @staticmethod
    def names(prompt: str) -> list[bytes]:
        return [prompt[:end].encode() for end in range(BLOCK, len(prompt) + 1, BLOCK)]

    @staticmethod
    def batch(*events: Any, at_s: float = 0.0, rank: int | None = None) -> Batch:
        return Batch(at_s, events, rank)


class Filled:
    """One index behind one way to fill it."""

    def __init__(self, name: str) -> None:
        self.exact, self.approximate = Lab.exact(), Lab.approximate(block_bytes=8)
        self.name = name
        self.index: Any = {
            "approximate": self.approximate,
            "exact": self.exact,
            "combined": CombinedKnowledge(self.approximate, self.exact),
        }[name]

    def holds(self, engine: str, prompt: str) -> None:
        """The engine's cache has the prompt."""
        if self.name == "approximate":
            request = Lab.request(prompt)
            self.index.routed(request, engine, 0.0)
            self.index.finished(request, engine, 1.0, succeeded=True)
        else:
            if engine not in self.exact.complete:
                self.exact.begin(engine, is_complete=True)
            self.exact.apply(engine, Lab.batch(Lab.stored(prompt)))

    def matched(self, prompt: str, engines: Sequence[str]) -> list[int]:
        found = self.index.matched_tokens(Lab.request(prompt), Lab.candidates(*engines))
        self.index.check()
        return list(found)


@pytest.fixture(scope="session")
def lab() -> type[Lab]:
    return Lab


@pytest.fixture(params=["approximate", "exact", "combined"])
def filled(request: pytest.FixtureRequest) -> Filled:
    return Filled(request.param)


@pytest.fixture
def fill() -> Callable[[str], Filled]:
    return Filled
