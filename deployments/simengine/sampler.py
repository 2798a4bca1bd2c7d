"""Which token comes next: a pure function of the model's name, everything before it, and the request's seed.

The state is a CRC-32 over the tokens so far, which C code computes for a whole prompt and one call extends by a token.
So replicas agree on greedy answers, and a request whose prompt ends with a partial answer goes on exactly where that
answer stopped. The end of a text is drawn at each token with the same small chance, hence is memoryless as well.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import product
from sys import byteorder
from zlib import crc32

from hekla.deployments.simengine.tokens import EOS, encode

_CONSONANTS, _VOWELS = "bdfghklmnprstvwz", "aeiou"
WORDS: tuple[int, ...] = tuple(
    encode(f" {first}{vowel}{last}")[0] for first, vowel, last in product(_CONSONANTS, _VOWELS, _CONSONANTS)
)
"""1,280 three-letter words, each with its space exactly one token."""

_MASK = 2**64 - 1
_CHANCE_BITS = 24


class Sampler:
    """`mean_output_tokens` is the mean length of an answer that nothing else ends (geometric)."""

    def __init__(self, model: str, mean_output_tokens: float = 128.0) -> None:
        if mean_output_tokens < 1:
            raise ValueError(f"mean_output_tokens: {mean_output_tokens} is below 1 token")
        self._model = model.encode()
        self._end_below = int(2**_CHANCE_BITS / mean_output_tokens)

    def start(self, prompt: Sequence[int], adapter: str = "") -> int:
        """The state after the prompt."""
        name = crc32(adapter.encode(), crc32(self._model))
        return crc32(array("I", prompt).tobytes(), name)

    @staticmethod
    def advance(state: int, token: int) -> int:
        return crc32(token.to_bytes(4, byteorder), state)

    def draw(self, state: int, position: int, seed: int = 0) -> tuple[int, float]:
        """(token, its log-probability) at an absolute position; `seed` 0 is greedy."""
        chance = mix(state, position, seed)
        logprob = -(chance >> 44) / 2**21
        if chance & (2**_CHANCE_BITS - 1) < self._end_below:
            return EOS, logprob
        return WORDS[(chance >> _CHANCE_BITS) % len(WORDS)], logprob

    def draw_word(self, state: int, position: int, seed: int = 0) -> tuple[int, float]:
        """As `draw`, but never the end of the text."""
        chance = mix(state, position, seed)
        return WORDS[(chance >> _CHANCE_BITS) % len(WORDS)], -(chance >> 44) / 2**21


def mix(state: int, position: int, seed: int) -> int:
    """64 well-stirred bits; the constants are splitmix64's."""
    value = (state * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9 + seed * 0x94D049BB133111EB) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
