"""The engines a decision is made among: a sequence of `Candidate` that also knows their load as arrays.

A `Pool` is made once per set of ready engines and kept between decisions, so that nothing is built per request and
engine. `Candidates` is a pool, or some positions of it, at the time of one decision.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from hekla.routing.backend import Backend
from hekla.routing.load import LoadBook
from hekla.routing.load_columns import LoadColumns, Rows, Vector
from hekla.routing.scheduling.interface import Candidate

Mask = NDArray[np.bool_]
Kept = TypeVar("Kept")


class Pool:
    """A fixed set of engines. `kept` is where others keep what they make of it once, by a key of their own."""

    def __init__(self, candidates: Sequence[Candidate], columns: LoadColumns | None) -> None:
        self.candidates = tuple(candidates)
        self.keys = tuple(candidate.backend.key for candidate in self.candidates)
        self.everyone: Rows = np.arange(len(self.candidates))
        self._columns = columns
        self._rows: Rows = np.array([candidate.load.row for candidate in self.candidates], dtype=np.int64)
        self._generation = columns.generation if columns is not None else 0
        self._kept: dict[Any, Any] = {}

    @classmethod
    def of(cls, backends: Sequence[Backend], book: LoadBook) -> Pool:
        return cls([Candidate(backend, book.load(backend.key)) for backend in backends], book.columns)

    @property
    def is_current(self) -> bool:
        """False when an engine's row may have gone to another: make a new pool."""
        return self._columns is None or self._columns.generation == self._generation

    def loads(self) -> Vector:
        """`[column, position]` now; the columns are those of `hekla.routing.load_columns`."""
        if self._columns is not None:
            return self._columns.gather(self._rows)
        return np.stack([candidate.load.vector for candidate in self.candidates], axis=1)

    def keep(self, key: Any, make: Callable[[Pool], Kept]) -> Kept:
        """What `make` makes of this pool, made once."""
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = make(self)
        return cast(Kept, found)  # what the same key's `make` returned


class Candidates(Sequence[Candidate]):
    """Some of a pool, in its order. Immutable: the loads are those of the moment they were first asked for."""

    def __init__(self, pool: Pool, positions: Rows | None = None, *, loads: Vector | None = None) -> None:
        self.pool = pool
        self.positions = pool.everyone if positions is None else positions
        self._loads = loads

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Candidates:
        """Itself, or a pool made of a plain sequence for this once."""
        return candidates if isinstance(candidates, Candidates) else cls(Pool(candidates, None))

    @property
    def is_whole(self) -> bool:
        return self.positions is self.pool.everyone

    @property
    def loads(self) -> Vector:
        """`[column, candidate]`: the columns are those of `hekla.routing.load_columns`."""
        if self._loads is None:
            loads = self.pool.loads()
            self._loads = loads if self.is_whole else loads[:, self.positions]
        return self._loads

    @cached_property
    def keys(self) -> Sequence[str]:
        """The engines' keys."""
        if self.is_whole:
            return self.pool.keys
        keys = self.pool.keys
        return [keys[position] for position in self.positions.tolist()]

    def where(self, mask: Mask) -> Candidates:
        """Those that the mask marks; itself when it marks all."""
        if mask.all():
            return self
        loads = None if self._loads is None else self._loads[:, mask]
        return Candidates(self.pool, self.positions[mask], loads=loads)

    def without(self, engines: Collection[str]) -> Candidates:
        if not engines:
            return self
        return self.where(np.array([key not in engines for key in self.keys], dtype=np.bool_))

    def at(self, values: Sequence[float] | Vector) -> Vector:
        """Of one value per engine of the pool, those of these candidates."""
        array = np.asarray(values, dtype=np.float64)
        return array if self.is_whole else array[self.positions]

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        candidates = self.pool.candidates
        if isinstance(index, slice):
            return [candidates[position] for position in self.positions[index].tolist()]
        return candidates[int(self.positions[index])]

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Candidate]:
        if self.is_whole:
            return iter(self.pool.candidates)
        candidates = self.pool.candidates
        return iter([candidates[position] for position in self.positions.tolist()])

    def __repr__(self) -> str:
        return f"Candidates({len(self)} of {len(self.pool.candidates)})"
