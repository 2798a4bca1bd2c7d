"""vLLM's KV events off the wire. SGLang sends the same ones. Pure.

A message is msgpack: `[time, events, rank]`. vLLM 0.32 writes each event as a map with a `type`, older versions (and SGLang) as
an array that begins with the type's name; optional fields at their default are left out of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def _finished(events: Sequence[tuple[str, Mapping[str, Any]]], hasher: BlockHasher) -> list[Event]:
    done: list[Event] = []
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
    taken = dict.fromkeys(digests, 0)
    told = (fields for kind, fields in events if kind == "BlockStored")
    for event in done:
        if isinstance(event, Stored):
            fields = next(told)
            if isinstance(event.digests, list):
                size, at = event.block_size, taken[event.block_size]
                taken[size] = end = at + len(event.keys)
                event.digests.extend(_keyed(fields, digests[size][at:end], hasher))
    return done


def _stored(fields: Mapping[str, Any], tokens: dict[int, list[int]]) -> Stored:
    """The event, with an empty list where its digests are still to come; its tokens are added to `tokens`."""
    get, keys, size = fields.get, _keys(fields), fields["block_size"]
    ids, is_whole = get("token_ids"), _is_whole_prefix(get("kv_cache_spec_kind"), fields)
    digests: Sequence[int] = ()
    if ids and is_whole:
        if not isinstance(size, int) or not 0 < size <= BLOCK_SIZE_MAX:
            raise MalformedBatch(f"block_size is {size!r}; allowed: 1 to {BLOCK_SIZE_MAX}")
        if len(ids) != len(keys) * size:
            raise MalformedBatch(f"{len(ids)} token_ids for {len(keys)} blocks of {size}")
        tokens.setdefault(size, []).extend(ids)
        digests = []
    parent, adapter, tier = get("parent_block_hash"), get("lora_name") or "", _tier(fields, DEVICE)
    return Stored(keys, parent, digests, size, adapter, tier, get("group_idx"), is_whole)


def _keyed(fields: Mapping[str, Any], digests: list[int], hasher: BlockHasher) -> list[int]:
    """With what belongs to the blocks besides tokens; the adapter is in the chain's root already."""
    extra = fields.get("extra_keys")
    if extra:
        adapter = fields.get("lora_name")
        for i, keys in enumerate(extra[: len(digests)]):
            rest = [key for n, key in enumerate(keys or ()) if not (n == 0 and adapter and key == adapter)]
            if rest:
                digests[i] = hasher.keyed(digests[i], rest)
    return digests


def _keys(fields: Mapping[str, Any]) -> list[int | bytes]:
    keys: list[int | bytes] = fields["block_hashes"]
    if not isinstance(keys, list) or (keys and not isinstance(keys[0], int | bytes)):
        raise MalformedBatch(f"block_hashes is {keys!r:.100}; allowed: a list of integers or bytes")
    return keys


def _tier(fields: Mapping[str, Any], unknown: int) -> int:
    """A block that lies elsewhere is as far away as storage, whatever it lies in there."""
    medium = fields.get("medium")
    if "locality" in fields and fields["locality"] == "REMOTE":
        return STORAGE
    return unknown if medium is None else _TIERS.get(medium, STORAGE)


def _is_whole_prefix(kind: str | None, fields: Mapping[str, Any]) -> bool:
    return fields.get("kv_cache_spec_sliding_window") is None if kind is None else kind in WHOLE_PREFIX_KINDS
