"""One HTTP request's life in the engine: submit its choices, gather or stream their text, leave nothing behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from hekla.deployments.simengine.answer import Answer
from hekla.deployments.simengine.intake import Job
from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.runner import Mailbox, Runner
from hekla.deployments.simengine.sequence import EngineRequest


class ClientGone(Exception):
    """The client left; nothing is to be answered."""


@dataclass(slots=True)
class Delta:
    """What one choice gained."""

    answer: Answer
    text: str
    first_token: int
    """Index in `answer.tokens` of the first new token."""


class Generation:
    """`run` to the end or leave: `close` aborts what is unfinished."""

    def __init__(self, job: Job, requests: list[EngineRequest], runner: Runner) -> None:
        self.job = job
        self._runner = runner
        self._mailbox = Mailbox(eager=bool(job.sampling.stream))
        self.answers = [self._answer(index, list(request.prompt)) for index, request in enumerate(requests)]
        self._open = {request.id: answer for request, answer in zip(requests, self.answers, strict=True)}
        runner.metrics.params_n.observe(job.n)
        for request in requests:
            runner.submit(request, self._mailbox)

    def _answer(self, index: int, prompt: list[int]) -> Answer:
        sampling = self.job.sampling
        return Answer(
            index, prompt, self.job.stops, keep_stop=sampling.include_stop_str_in_output, min_tokens=sampling.min_tokens
        )

    def leave(self) -> None:
        """The client has gone: wakes `deltas`, which raises ClientGone."""
        self._mailbox.close()

    def close(self) -> None:
        for request_id in self._open:
            self._runner.cancel(request_id)
        self._open.clear()

    async def collect(self) -> list[Answer]:
        """All answers, complete. Raises ClientGone, and Refusal when the engine failed."""
        async for _ in self.deltas():
            pass
        return self.answers

    async def deltas(self) -> AsyncIterator[list[Delta]]:
        """What came, batch by batch, until all answers are complete. Raises ClientGone and Refusal."""
        try:
            while self._open:
                outputs = await self._mailbox.take()
                if not outputs:
                    raise ClientGone
                fresh: list[Delta] = []
                for output in outputs:
                    answer = self._open.get(output.request_id)
                    if answer is None:
                        continue
                    first = len(answer.tokens)
                    text = answer.feed(output)
                    if answer.finish is not None:
                        del self._open[output.request_id]
                        if output.finish is None:
                            self._runner.cancel(output.request_id, "stop")
                        if answer.error:
                            raise Refusal(answer.error, 500)
                    fresh.append(Delta(answer, text, first))
                yield fresh
        finally:
            self.close()

    @property
    def usage(self) -> dict[str, object]:
        """OpenAI's usage object."""
        first_choices = self.answers[:: self.job.n]
        prompt = sum(len(answer.prompt) for answer in first_choices)
        output = sum(len(answer.tokens) for answer in self.answers)
        cached = sum(answer.cached_tokens for answer in first_choices)
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
