"""Settings of the prefix indexes; the reason for each default below it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ApproximateSettings:
    """What this replica sent where."""

    block_bytes: int = 256
    """Text is hashed in blocks of this many bytes: about 64 tokens, four blocks of an engine."""
    blocks_max: int = 8192
    """Blocks of a prompt that are looked at: 2 MiB of text, more than any context window."""
    entries_max: int = 8192
    """Blocks remembered per engine while its capacity is unknown: 2 MiB of text, about 500 k tokens."""
    records_max: int = 4096
    """Routes kept for the other replicas until they have taken them."""

    def __post_init__(self) -> None:
        _positive("prefix.approximate.block_bytes", self.block_bytes)
        if self.block_bytes % 8:
            raise ValueError(f"prefix.approximate.block_bytes is {self.block_bytes}; allowed: multiples of 8")
        for name in ("blocks_max", "entries_max", "records_max"):
            _positive(f"prefix.approximate.{name}", getattr(self, name))


@dataclass(frozen=True)
class ExactSettings:
    """What engines say they hold."""

    host_memory_credit: float = 0.7
    """A block in host memory is copied, not computed: on a PCIe link that takes about a third of the time."""
    storage_credit: float = 0.4
    """A block on a disk or in a remote store takes longer, and may have to be waited for."""
    blocks_max: int = 32_768
    """Blocks of a prompt that are looked at: 512 k tokens at 16 a block."""
    engine_blocks_max: int = 4_000_000
    """Blocks remembered per data-parallel rank, all tiers: 64 M tokens. More are not taken in; about 0.4 kB each."""
    credit_tokens: int = 128
    """What requests in flight will leave behind is known in steps of this many tokens."""

    def __post_init__(self) -> None:
        for name in ("host_memory_credit", "storage_credit"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"prefix.exact.{name} is {value}; allowed: 0 to 1")
        for name in ("blocks_max", "engine_blocks_max", "credit_tokens"):
            _positive(f"prefix.exact.{name}", getattr(self, name))


@dataclass(frozen=True)
class EventSettings:
    """Following the engines' KV events."""

    replay_timeout_s: float = 5.0
    """An engine that does not finish a replay in this time is started anew from the next event."""
    probe_s: float = 10.0
    """How often an idle stream asks whether it missed the last events: nothing else would show their loss."""
    pending_batches_max: int = 4096
    """Decoded batches that wait for the event loop; beyond it reading stops and ZeroMQ buffers, then drops: a gap."""
    receive_batches_max: int = 100_000
    """ZeroMQ's own buffer per engine, vLLM's default at the sending end."""
    held_batches_max: int = 10_000
    """Batches held back during a replay; beyond it the stream starts anew."""
    message_bytes_max: int = 64 * 2**20
    """Longest event batch: a step that fills 100 k blocks is about 10 MB."""

    def __post_init__(self) -> None:
        for name in ("replay_timeout_s", "probe_s", "pending_batches_max", "receive_batches_max", "held_batches_max"):
            _positive(f"prefix.events.{name}", getattr(self, name))


@dataclass(frozen=True)
class TokeniserSettings:
    """Turning prompts into the tokens an engine sees, off the event loop."""

    deadline_s: float = 0.05
    """A prompt not tokenised by then is scheduled by its text: waiting longer costs more than a poorer choice."""
    deadline_s_per_mib: float = 1.0
    """Added for each MiB of the request: encoding takes about half of it, and computing such a prompt seconds."""
    threads: int = 2
    """Encoders at work at once; the tokenizer releases the interpreter's lock."""
    pending_max: int = 256
    """Prompts waiting for a thread; beyond it they are scheduled by their text."""
    cache_bytes_max: int = 128 * 2**20
    """Tokens of prompts' beginnings, kept to tokenise only what is new."""
    prompt_bytes_max: int = 4 * 2**20
    """Largest request whose prompt is tokenised: a million tokens."""
    prompt_bytes_min: int = 256
    """A shorter text, 64 tokens, is not tokenised: an engine computes it in less time than an engine takes to be asked."""
    engines_min: int = 2
    """For a server of fewer engines nothing is tokenised: there is nothing to choose."""

    def __post_init__(self) -> None:
        for name in (
            "deadline_s",
            "deadline_s_per_mib",
            "threads",
            "pending_max",
            "cache_bytes_max",
            "prompt_bytes_max",
            "prompt_bytes_min",
            "engines_min",
        ):
            _positive(f"prefix.tokeniser.{name}", getattr(self, name))


@dataclass(frozen=True)
class PrefixSettings:
    enabled: bool = True
    """Off: engines' events are not followed and nothing is tokenised; the approximate index is kept."""
    approximate: ApproximateSettings = field(default_factory=ApproximateSettings)
    exact: ExactSettings = field(default_factory=ExactSettings)
    events: EventSettings = field(default_factory=EventSettings)
    tokeniser: TokeniserSettings = field(default_factory=TokeniserSettings)


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} is {value}; allowed: above 0")
