"""Chained hashes of a prompt's blocks: equal hashes mean equal blocks, and equal blocks all the way before them.

A chain is sequential by nature, and a prompt has thousands of blocks. Two steps make it one pass of numpy:

1. each block gets a digest of its own, by multiplying its 64-bit words with secret odd numbers, mixing, and adding up
   (multilinear hashing; Lemire & Kaser, "Strongly universal string hashing is fast", 2013);
2. the chain is linear, h[i] = h[i-1] * M + d[i] modulo 2**64 with M odd. Then h[i] = M**i * (h[-1] + sum of
   d[j] * M**-j), which is a running sum: no loop.

So a chain can also go on from any block, one block at a time, as engines' events tell them. All numbers come from a secret seed:
nobody outside can make two prompts collide. The hashes mean nothing to an engine, and an engine's mean nothing here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
MASK = 2**64 - 1
_SHIFT = np.uint64(29)
_WORDS_MAX = 2**16


class BlockHasher:
    """Hashes for one seed. Not for two threads at once, except `digests`."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self.multiplier = self._number("multiplier") | 1
        self._inverse = pow(self.multiplier, -1, 2**64)
        self._powers, self._inverses = _powers(self.multiplier, 256), _powers(self._inverse, 256)
        self._factors: dict[int, tuple[U64, U64]] = {}

    def root(self, *names: str) -> int:
        """Where a chain starts: adapters, models and salts have chains of their own."""
        return self._number("root", msgspec.msgpack.encode(names))

    def keyed(self, digest: int, keys: Iterable[Any]) -> int:
        """The digest of a block that other things than tokens belong to: an image, a salt."""
        return (digest + self._number("keys", msgspec.msgpack.encode([_plain(key) for key in keys]))) & MASK

    def digests(self, tokens: npt.NDArray[np.uint32], block_size: int) -> U64:
        """One digest for each whole block; what is left over is not looked at."""
        count = len(tokens) // block_size
        block = tokens[: count * block_size].reshape(count, block_size)
        if block_size % 2:
            block = np.concatenate([block, np.zeros((count, 1), np.uint32)], axis=1)
        return self._digests(np.ascontiguousarray(block).view(np.uint64))

    def text_digests(self, text: bytes, block_bytes: int) -> U64:
        """As `digests`, of a text; `block_bytes` is a multiple of 8."""
        count = len(text) // block_bytes
        words = np.frombuffer(text, np.uint64, count * block_bytes // 8)
        return self._digests(words.reshape(count, block_bytes // 8))

    def chain(self, parent: int, digests: U64) -> U64:
        """The chained hashes of blocks that follow `parent`: a root, or the hash of the block before them."""
        count = len(digests)
        if count >= len(self._powers):
            room = 1 << count.bit_length()
            self._powers, self._inverses = _powers(self.multiplier, room), _powers(self._inverse, room)
        chained = digests * self._inverses[1 : count + 1]
        np.cumsum(chained, out=chained)
        chained += np.uint64(parent)
        chained *= self._powers[1 : count + 1]
        return chained

    def _digests(self, words: U64) -> U64:
        """One number for each row."""
        first, second = self._factors_of(words.shape[1])
        mixed = words * first
        mixed ^= mixed >> _SHIFT
        digests: U64 = mixed @ second
        digests ^= digests >> _SHIFT
        return digests

    def _factors_of(self, words: int) -> tuple[U64, U64]:
        found = self._factors.get(words)
        if found is None:
            if words > _WORDS_MAX:
                raise ValueError(f"a block of {words} words; allowed: {_WORDS_MAX} or fewer")
            made = [[self._number(f"{name}{i}") | 1 for i in range(words)] for name in ("first", "second")]
            found = self._factors[words] = (np.array(made[0], np.uint64), np.array(made[1], np.uint64))
        return found

    def _number(self, purpose: str, data: bytes = b"") -> int:
        key = blake2b(self._seed, digest_size=32).digest()
        return int.from_bytes(blake2b(purpose.encode() + b"\0" + data, digest_size=8, key=key).digest(), "big")


def token_array(tokens: Sequence[int]) -> npt.NDArray[np.uint32]:
    """Free of charge for an `array("I")`. Raises OverflowError when an id does not fit 32 bits, TypeError when it is none."""
    packed = tokens if isinstance(tokens, array) and tokens.typecode == "I" else array("I", tokens)
    return np.frombuffer(packed, np.uint32)


def _powers(base: int, count: int) -> U64:
    """base**0 … base**(count-1) modulo 2**64."""
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _plain(key: Any) -> Any:
    """A list and a tuple mean the same key: the wire does not tell them apart."""
    return [_plain(part) for part in key] if isinstance(key, list | tuple) else key
