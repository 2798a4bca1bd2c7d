"""The requests: groups that share a system prompt, each with questions of its own, in one order per seed. Pure.

Texts are made of words that are one token each, with the space before them, in SmolLM2's vocabulary and in the
simulated engine's, so that a length in words is a length in tokens (the chat template adds about ten).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

TEXT = (
    "ace act add age aid aim air all and ant any arm art ash ask bad bag bar bat bay bed bee big bit box boy bus "
    "but can cap car cat cow cup cut dam day dog dry ear eat egg end eye fan far fat few fly fog for fox fun gap "
    "gas gem get god gun hat hen her him his hot how ice ink its jam jar job joy key kid kit lab law leg let lid "
    "lip log lot low man map mat may men mix mud net new nut oak oil old one our out owl own pan pay pen pet pie "
    "pig pin pit pot raw ray red rib rod row run sad sea see set she sit six sky son sun tax tea ten the tip toe "
    "too toy two use van war was way web wet who why win you zoo "
)
WORDS = TEXT.split()


@dataclass(frozen=True)
class Shape:
    """A workload; lengths in tokens."""

    name: str
    groups: int
    prompts: int
    """In each group."""
    system_tokens: int
    question_tokens: int
    output_tokens: int
    concurrency: int = 8

    @property
    def requests(self) -> int:
        return self.groups * self.prompts


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("a", groups=16, prompts=16, system_tokens=1000, question_tokens=24, output_tokens=16),
        Shape("b", groups=8, prompts=16, system_tokens=2500, question_tokens=24, output_tokens=8),
        # Nothing to share: the system prompt does not fill one cache block of 128. What is left is to balance.
        Shape("c", groups=16, prompts=8, system_tokens=100, question_tokens=1000, output_tokens=16),
    )
}


@dataclass(frozen=True)
class Prompt:
    group: int
    system: str
    question: str

    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.question}]

    def body(self, model: str, output_tokens: int) -> dict[str, Any]:
        """A streamed chat request with an answer of exactly `output_tokens`."""
        return {
            "model": model,
            "messages": self.messages(),
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def prompts(shape: Shape, seed: int) -> list[Prompt]:
    """The same list for the same arguments; groups come in a random order, as independent users would."""
    chance = random.Random(f"{shape}/{seed}")
    systems = [_text(chance, shape.system_tokens) for _ in range(shape.groups)]
    made = [
        Prompt(group, system, _text(chance, shape.question_tokens))
        for group, system in enumerate(systems)
        for _ in range(shape.prompts)
    ]
    chance.shuffle(made)
    return made


def _text(chance: random.Random, tokens: int) -> str:
    return "".join(" " + chance.choice(WORDS) for _ in range(tokens))
