"""Sends a session to one engine for as long as that engine is there: 1 for it, 0 for the others.

The engine is found by rendezvous hashing (Thaler and Ravishankar), so every ingress replica finds the same one without
being told, and an engine that comes or goes moves only the sessions it wins or had. Requests without a session score 1
everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.interface import Candidate, RequestView

_Words = NDArray[np.uint64]
_MIX_A, _MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""The multipliers of splitmix64."""


class SessionAffinity:
    name = "session-affinity"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        if not request.session:
            return np.ones(len(candidates))
        among = Candidates.of(candidates)
        words = among.pool.keep("key-hashes", _key_words)[among.positions]
        scores = np.zeros(len(among))
        scores[int(np.argmax(_mixed(words ^ _word(request.session))))] = 1.0
        return scores


def _key_words(pool: Pool) -> _Words:
    return np.array([_word(key) for key in pool.keys], dtype=np.uint64)


def _word(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))


def _mixed(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * _MIX_A
    words = (words ^ (words >> np.uint64(27))) * _MIX_B
    return words ^ (words >> np.uint64(31))
