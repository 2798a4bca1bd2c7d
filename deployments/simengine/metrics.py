"""`/metrics`: the names, labels and buckets of vLLM 0.32, for everything the simulated engine has."""

from __future__ import annotations

from hekla.deployments.simengine.core import EngineCore
from hekla.deployments.simengine.exposition import Histogram, Page, one_two_five
from hekla.deployments.simengine.sequence import FinishReason, Output, RequestStats

LATENCY_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80),
    *(160, 640, 2560),
)
BETWEEN_TOKENS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SMALL_COUNTS = (1, 2, 5, 10, 20)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
TRANSFER_BYTES = tuple(2.0**power for power in range(11, 35, 2))
TRANSFER_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 5)
FINISH_REASONS: tuple[FinishReason, ...] = ("stop", "length", "abort", "error")


class EngineMetrics:
    def __init__(self, model: str, max_model_len: int) -> None:
        tokens = one_two_five(max_model_len)
        self._labels = {"model_name": model, "engine": "0"}
        self.success: dict[str, float] = dict.fromkeys(FINISH_REASONS, 0)
        self.iteration_tokens = Histogram(STEP_TOKENS)
        self._transfer_s = Histogram(TRANSFER_S)
        self._transfer_bytes = Histogram(TRANSFER_BYTES)
        self.first_token_s = Histogram(FIRST_TOKEN_S)
        self.between_tokens_s = Histogram(BETWEEN_TOKENS_S)
        self.params_n = Histogram(SMALL_COUNTS)
        self._per_output_token_s = Histogram(BETWEEN_TOKENS_S)
        self._end_to_end_s = Histogram(LATENCY_S)
        self._queue_s = Histogram(LATENCY_S)
        self._inference_s = Histogram(LATENCY_S)
        self._prefill_s = Histogram(LATENCY_S)
        self._decode_s = Histogram(LATENCY_S)
        self._prompt_tokens = Histogram(tokens)
        self._generation_tokens = Histogram(tokens)
        self._max_generation_tokens = Histogram(tokens)
        self._max_tokens = Histogram(tokens)
        self._computed_tokens = Histogram(tokens)
        self._preemptions = Histogram(PREEMPTIONS)

    def token(self, output: Output) -> None:
        (self.first_token_s if output.first else self.between_tokens_s).observe(output.latency_s)

    def transferred(self, seconds: float, size_bytes: int) -> None:
        self._transfer_s.observe(seconds)
        self._transfer_bytes.observe(size_bytes)

    def finished(self, stats: RequestStats, reason: FinishReason) -> None:
        self.success[reason] += 1
        decode_s = max(0.0, stats.finished_at - stats.first_token_at)
        if stats.output_tokens > 1:
            self._per_output_token_s.observe(decode_s / (stats.output_tokens - 1))
        self._end_to_end_s.observe(stats.finished_at - stats.arrived_at)
        self._queue_s.observe(stats.scheduled_at - stats.arrived_at)
        self._inference_s.observe(max(0.0, stats.finished_at - stats.scheduled_at))
        self._prefill_s.observe(max(0.0, stats.first_token_at - stats.scheduled_at))
        self._decode_s.observe(decode_s)
        self._prompt_tokens.observe(stats.prompt_tokens)
        self._generation_tokens.observe(stats.output_tokens)
        self._max_generation_tokens.observe(stats.output_tokens)
        self._max_tokens.observe(stats.max_tokens)
        self._computed_tokens.observe(stats.prompt_tokens - stats.cached_tokens)
        self._preemptions.observe(stats.preemptions)

    def page(self, core: EngineCore, now: float) -> str:
        """One scrape. `now` is Unix time, the value of the adapter gauge."""
        page = Page(self._labels)
        self._load(page, core)
        self._tokens(page, core)
        self._latencies(page)
        self._sizes(page)
        self._transfers(page, core)
        self._information(page, core, now)
        return page.text()

    def _load(self, page: Page, core: EngineCore) -> None:
        page.gauge("vllm:num_requests_running", "Requests in execution batches.", core.running)
        page.gauge("vllm:num_requests_waiting", "Requests waiting to run.", core.waiting)
        reasons = {"capacity": len(core.scheduler.waiting), "deferred": len(core.scheduler.pulling)}
        page.gauges("vllm:num_requests_waiting_by_reason", "Requests waiting, by reason.", "reason", reasons)
        page.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", core.pool.usage)
        states = {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
        page.gauges("vllm:engine_sleep_state", "1 for the state the engine is in.", "sleep_state", states)

    def _tokens(self, page: Page, core: EngineCore) -> None:
        count = core.counters
        cached = {"local_cache_hit": count.prefix_hits, "external_kv_transfer": count.external_hits}
        page.counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", count.prefix_queries)
        page.counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", count.prefix_hits)
        page.counter("vllm:external_prefix_cache_queries", "Tokens asked of other engines.", count.external_queries)
        page.counter("vllm:external_prefix_cache_hits", "Tokens got from other engines.", count.external_hits)
        page.counter("vllm:num_preemptions", "Preemptions.", core.scheduler.preemptions)
        page.counter("vllm:prompt_tokens", "Prompt tokens processed.", count.prompt_tokens)
        sources = {"local_compute": count.prompt_tokens_computed, **cached}
        page.counters("vllm:prompt_tokens_by_source", "Prompt tokens, by source.", "source", sources)
        page.counter("vllm:prompt_tokens_cached", "Prompt tokens not computed here.", sum(cached.values()))
        page.counter("vllm:generation_tokens", "Tokens generated.", count.generation_tokens)
        rejected: dict[str, float] = {"max_num_queued_reqs": count.rejected}
        page.counters("vllm:admission_rejections", "Requests refused, by reason.", "reason", rejected)
        page.counters(
            "vllm:request_success",
            "Finished requests.",
            "finished_reason",
            self.success,
        )

    def _latencies(self, page: Page) -> None:
        page.histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", self.first_token_s)
        page.histogram("vllm:inter_token_latency_seconds", "Between tokens.", self.between_tokens_s)
        page.histogram("vllm:request_time_per_output_token_seconds", "Mean per output token.", self._per_output_token_s)
        page.histogram("vllm:e2e_request_latency_seconds", "Arrival to end.", self._end_to_end_s)
        page.histogram("vllm:request_queue_time_seconds", "Waiting.", self._queue_s)
        page.histogram("vllm:request_inference_time_seconds", "Running.", self._inference_s)
        page.histogram("vllm:request_prefill_time_seconds", "Prefill.", self._prefill_s)
        page.histogram("vllm:request_decode_time_seconds", "Decode.", self._decode_s)

    def _sizes(self, page: Page) -> None:
        page.histogram("vllm:request_prompt_tokens", "Prompt tokens.", self._prompt_tokens)
        page.histogram("vllm:request_generation_tokens", "Tokens generated.", self._generation_tokens)
        page.histogram("vllm:iteration_tokens_total", "Tokens per step.", self.iteration_tokens)
        page.histogram(
            "vllm:request_max_num_generation_tokens", "Most tokens of a request's answers.", self._max_generation_tokens
        )
        page.histogram("vllm:request_params_n", "The parameter n.", self.params_n)
        page.histogram("vllm:request_params_max_tokens", "The parameter max_tokens.", self._max_tokens)
        page.histogram("vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed.", self._computed_tokens)
        page.histogram("vllm:request_num_preemptions", "Preemptions of a request.", self._preemptions)

    def _transfers(self, page: Page, core: EngineCore) -> None:
        page.histogram("vllm:nixl_xfer_time_seconds", "KV transfers.", self._transfer_s)
        page.histogram("vllm:nixl_bytes_transferred", "Bytes of a KV transfer.", self._transfer_bytes)
        page.counter("vllm:nixl_num_failed_transfers", "KV transfers that failed.", core.counters.transfer_failures)
        page.counter("vllm:nixl_num_kv_expired_reqs", "Requests whose held KV expired.", core.leases.expired)

    def _information(self, page: Page, core: EngineCore, now: float) -> None:
        config = core.config
        facts = {
            "block_size": str(config.block_size),
            "num_gpu_blocks": str(config.blocks),
            "enable_prefix_caching": str(config.prefix_caching),
            "gpu_memory_utilization": "0.9",
            "cache_dtype": "auto",
        }
        page.information("vllm:cache_config_info", "The KV cache.", 1, engine="0", **facts)
        if config.limits.max_loras:
            running, waiting = core.adapters()
            page.information(
                "vllm:lora_requests_info",
                "Adapters in use.",
                now,
                max_lora=str(config.limits.max_loras),
                running_lora_adapters=",".join(running),
                waiting_lora_adapters=",".join(waiting),
            )
