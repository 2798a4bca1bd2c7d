"""vLLM's KV events off the wire. SGLang sends the same ones. Pure.

A message is msgpack: `[time, events, rank]`. vLLM 0.32 writes each event as a map with a `type`, older versions (and SGLang) as
an array that begins with the type's name; optional fields at their default are left out of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from hekla.routing.prefix.batch import DEVICE, EVERY_TIER, HOST, STORAGE, Batch, Cleared, Event, Removed, Stored
from hekla.routing.prefix.hashing import BlockHasher, token_array

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "BlockStored": (
        "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys",
        "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window", "locality",
    ),
    "BlockRemoved": ("block_hashes", "medium", "group_idx", "locality"),
    "AllBlocksCleared": (),
}  # fmt: skip
"""What stands at which place of an event written as an array."""

WHOLE_PREFIX_KINDS = frozenset({"full_attention", "mla_attention", "sink_full_attention"})
_TIERS = {"GPU": DEVICE, "CPU": HOST}
BLOCK_SIZE_MAX = 2**16
_decode = msgspec.msgpack.Decoder().decode


class MalformedBatch(ValueError):
    """Not a batch of KV events; says which field is wrong."""


class _Told(NamedTuple):
    """A BlockStored whose digests are still to be made."""

    fields: Mapping[str, Any]
    at: int
    """Where its tokens begin, in blocks, among all of the batch with its block size."""
    blocks: int


def decode_batch(payload: bytes | memoryview, hasher: BlockHasher) -> Batch:
    """Raises MalformedBatch. All blocks of a batch are hashed in one go, which is what makes it quick."""
    try:
        made_s, told, *rest = _decode(payload)
        rank = rest[0] if rest else None
        events = [_named(event) for event in told]
        if not isinstance(made_s, int | float) or not isinstance(rank, int | None):
            raise MalformedBatch(f"its time is {made_s!r} and its rank {rank!r}; allowed: numbers")
        return Batch(float(made_s), _finished(events, hasher), rank)
    except MalformedBatch:
        raise
    except (msgspec.DecodeError, TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise MalformedBatch(f"not a batch of KV events: {error!r:.300}") from error


def _named(event: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(event, dict):
        return event["type"], event
    kind, *values = event
    return kind, dict(zip(_FIELDS.get(kind, ()), values, strict=False))


def _finished(events: Iterable[tuple[str, Mapping[str, Any]]], hasher: BlockHasher) -> list[Event]:
    done: list[Event | _Told] = []
    tokens: dict[int, list[int]] = {}
    for kind, fields in events:
        if kind == "BlockStored":
            done.append(_stored(fields, tokens))
        elif kind == "BlockRemoved":
            done.append(Removed(_keys(fields), _tier(fields, EVERY_TIER), fields.get("group_idx")))
        elif kind == "AllBlocksCleared":
            done.append(Cleared())
        # A kind that is not known here tells nothing of blocks.
    digests = {size: hasher.digests(token_array(ids), size).tolist() for size, ids in tokens.items()}
    return [_with_digests(event, digests, hasher) if isinstance(event, _Told) else event for event in done]


def _stored(fields: Mapping[str, Any], tokens: dict[int, list[int]]) -> Stored | _Told:
    keys, ids, size = _keys(fields), fields.get("token_ids") or (), fields["block_size"]
    if not ids or not _is_whole_prefix(fields):
        return _event(fields, ())
    if not isinstance(size, int) or not 0 < size <= BLOCK_SIZE_MAX:
        raise MalformedBatch(f"block_size is {size!r}; allowed: 1 to {BLOCK_SIZE_MAX}")
    if len(ids) != len(keys) * size:
        raise MalformedBatch(f"{len(ids)} token_ids for {len(keys)} blocks of {size}")
    same_size = tokens.setdefault(size, [])
    at = len(same_size) // size
    same_size += ids
    return _Told(fields, at, len(keys))


def _with_digests(told: _Told, digests: Mapping[int, list[int]], hasher: BlockHasher) -> Stored:
    fields = told.fields
    own = digests[fields["block_size"]][told.at : told.at + told.blocks]
    extra = fields.get("extra_keys")
    if extra:
        adapter = fields.get("lora_name")
        for i, keys in enumerate(extra[: len(own)]):
            # The adapter is in every block's keys and in the chain's root already.
            rest = [key for n, key in enumerate(keys or ()) if not (n == 0 and adapter and key == adapter)]
            if rest:
                own[i] = hasher.keyed(own[i], rest)
    return _event(fields, own)


def _event(fields: Mapping[str, Any], digests: Sequence[int]) -> Stored:
    return Stored(
        keys=_keys(fields),
        parent=fields.get("parent_block_hash"),
        digests=digests,
        block_size=fields["block_size"],
        adapter=fields.get("lora_name") or "",
        tier=_tier(fields, DEVICE),
        group=fields.get("group_idx"),
        is_whole_prefix=_is_whole_prefix(fields),
    )


def _keys(fields: Mapping[str, Any]) -> list[int | bytes]:
    keys: list[int | bytes] = fields["block_hashes"]
    if not isinstance(keys, list) or (keys and not isinstance(keys[0], int | bytes)):
        raise MalformedBatch(f"block_hashes is {keys!r:.100}; allowed: a list of integers or bytes")
    return keys


def _tier(fields: Mapping[str, Any], unknown: int) -> int:
    """A block that lies elsewhere is as far away as storage, whatever it lies in there."""
    medium = fields.get("medium")
    if fields.get("locality") == "REMOTE":
        return STORAGE
    return unknown if medium is None else _TIERS.get(medium, STORAGE)


def _is_whole_prefix(fields: Mapping[str, Any]) -> bool:
    kind = fields.get("kv_cache_spec_kind")
    return fields.get("kv_cache_spec_sliding_window") is None if kind is None else kind in WHOLE_PREFIX_KINDS
