from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import tokenizers

from hekla.platform.base.clock import SystemClock
from hekla.routing.body import Body
from hekla.routing.prefix.engine_facts import FakeEngineFacts
from hekla.routing.prefix.settings import TokeniserSettings
from hekla.routing.prefix.tokenise import CHAT, TEXT, Teacher, Tokeniser
from hekla.routing.prefix.vocabulary import CannotTokenise, PieceCache, Vocabulary

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATIENT = TokeniserSettings(deadline_s=30)


def write_model(folder: Path, *, template: str | None = TEMPLATE, lstrip: bool = False) -> Path:
    """A byte-level BPE tokenizer of a few hundred tokens, with ChatML."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    model.train_from_iterator(["the quick brown fox jumps over the lazy dog, system user assistant "] * 20, trainer)
    model.add_special_tokens(
        [
            tokenizers.AddedToken(t, special=True, normalized=False, lstrip=lstrip)
            for t in ("<|im_start|>", "<|im_end|>", "<s>")
        ]
    )
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", model.token_to_id("<s>"))]
    )
    folder.mkdir(exist_ok=True)
    model.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "eos_token": {"content": "<|im_end|>"}})
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Callable[..., tuple[Tokeniser, FakeEngineFacts]]]:
    made: list[Tokeniser] = []

    def build(settings: TokeniserSettings = PATIENT) -> tuple[Tokeniser, FakeEngineFacts]:
        facts = FakeEngineFacts()
        tokeniser = Tokeniser(settings, facts.tokenize, clock=SystemClock())
        made.append(tokeniser)
        return tokeniser, facts

    yield build
    for tokeniser in made:
        await tokeniser.stop()


def body(**fields: Any) -> Body:
    return Body.parse(json.dumps({"model": "m", **fields}).encode())


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def whole(folder: Path, text: str, *, special: bool) -> list[int]:
    return list(
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=special).ids
    )


@pytest.mark.parametrize(
    "text", ["", "the fox", "  two  spaces\n\n", "é 🙂 \u2028", "<|im_end|> in a text", "a" * 3000]
)
def test_a_chat_in_pieces_has_the_tokens_of_the_whole(folder: Path, text: str) -> None:
    vocabulary = Vocabulary(folder, PieceCache(2**20))
    assert vocabulary.is_cut
    rendered = f"<|im_start|>user\nthe dog<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"
    assert list(vocabulary.chat(chat("the dog", text))) == whole(folder, rendered, special=False)


def test_a_longer_chat_encodes_only_its_new_turns(folder: Path) -> None:
    cache = PieceCache(2**20)
    vocabulary = Vocabulary(folder, cache)
    vocabulary.chat(chat("the quick", "brown fox", "jumps"))
    missed = cache.misses
    vocabulary.chat(chat("the quick", "brown fox", "jumps", "over the lazy", "dog"))
    assert cache.misses == missed + 2


def test_special_tokens_that_swallow_their_surroundings_are_no_place_to_cut(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "strips", lstrip=True)
    vocabulary = Vocabulary(folder, PieceCache(2**20))
    assert not vocabulary.is_cut
    rendered = "<|im_start|>user\na  <|im_end|>\n<|im_start|>assistant\n"
    assert list(vocabulary.chat(chat("a  "))) == whole(folder, rendered, special=False)


def test_a_completions_prompt_gets_what_the_tokenizer_puts_before_it(folder: Path) -> None:
    vocabulary = Vocabulary(folder, PieceCache(2**20))
    for _ in range(2):
        assert list(vocabulary.text("the lazy dog")) == whole(folder, "the lazy dog", special=True)


def test_pieces_kept_are_bounded_in_bytes(folder: Path) -> None:
    cache = PieceCache(10_000)
    vocabulary = Vocabulary(folder, cache)
    for number in range(100):
        vocabulary.text(f"the quick brown fox {number}")
    assert cache.bytes <= 10_000
    assert 0 < len(cache) < 100


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ messages.nothing.at_all }}", "{{ ''.__class__.__mro__ }}{{ x.y }}"]
)
def test_a_template_that_refuses_or_misbehaves_is_an_error_with_its_reason(tmp_path: Path, template: str) -> None:
    vocabulary = Vocabulary(write_model(tmp_path / "bad", template=template), PieceCache(2**20))
    with pytest.raises(CannotTokenise, match="template"):
        vocabulary.chat(chat("hi"))


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotTokenise, match="tokenizer"):
        Vocabulary(tmp_path, PieceCache(2**20))


async def test_ids_that_the_client_sent_are_used_as_they_are(make: Any) -> None:
    tokeniser, facts = make()
    for prompt in ([1, 2, 3], [[1, 2, 3]]):
        assert await tokeniser.tokens(TEXT, body(prompt=prompt), "m", Teacher("http://e")) == array("I", [1, 2, 3])
    assert facts.asked == []
    assert tokeniser.counts.given == 2


async def test_the_models_own_folder_is_used_when_it_can_be_read(make: Any, folder: Path) -> None:
    tokeniser, _ = make()
    text = await tokeniser.tokens(TEXT, body(prompt="the fox"), "m", Teacher("http://e", str(folder)))
    turns = await tokeniser.tokens(CHAT, body(messages=chat("hi")), "m", Teacher("http://e", str(folder)))
    assert list(text) == whole(folder, "the fox", special=True)
    assert list(turns) == whole(folder, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", special=False)
    assert tokeniser.counts.local == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"messages": chat("hi"), "tools": [{"type": "function"}]},
        {"messages": chat("hi"), "chat_template_kwargs": {"thinking": True}},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": []}]},
    ],
)
async def test_what_only_the_engine_knows_it_is_asked(make: Any, folder: Path, fields: Any) -> None:
    tokeniser, facts = make()
    facts.vocabulary["".join(str(message["content"]) for message in fields["messages"])] = [7, 8]
    found = await tokeniser.tokens(CHAT, body(**fields), "m", Teacher("http://e", str(folder)))
    assert list(found) == [7, 8]
    assert facts.asked == [("http://e", {**fields, "model": "m"})]


async def test_without_a_folder_the_engine_is_asked(make: Any, tmp_path: Path) -> None:
    tokeniser, facts = make()
    facts.vocabulary["hi"] = [7]
    for teacher in (Teacher("http://e"), Teacher("http://e", str(tmp_path / "elsewhere"))):
        assert list(await tokeniser.tokens(TEXT, body(prompt="hi"), "m", teacher)) == [7]
    assert tokeniser.counts.engine == 2


async def test_an_engine_that_tokenises_otherwise_is_believed_from_then_on(make: Any, folder: Path) -> None:
    tokeniser, facts = make()
    facts.vocabulary["hi"] = [7, 8, 9]
    teacher = Teacher("http://e", str(folder))
    await tokeniser.tokens(TEXT, body(prompt="hi"), "m", teacher)
    for _ in range(2000):
        if tokeniser.counts.mismatched:
            break
        await asyncio.sleep(0.005)
    assert list(await tokeniser.tokens(TEXT, body(prompt="hi"), "m", teacher)) == [7, 8, 9]


async def test_what_comes_late_is_not_waited_for() -> None:
    release = asyncio.Event()

    async def slowly(url: str, question: dict[str, Any]) -> array[int]:
        await release.wait()
        return array("I", [1])

    slow = Tokeniser(TokeniserSettings(deadline_s=0.01, pending_max=1), slowly, clock=SystemClock())
    assert await slow.tokens(TEXT, body(prompt="hi"), "m", Teacher("http://e")) is None
    assert await slow.tokens(TEXT, body(prompt="hi"), "m", Teacher("http://e")) is None
    assert (slow.counts.late, slow.counts.overloaded) == (1, 1)
    release.set()
    await slow.stop()


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ["a", "b"]},
        {"prompt": [[1], [2]]},
        {"prompt": "x", "truncate_prompt_tokens": 5},
        {"prompt": [-1]},
        {"prompt": {}},
    ],
)
async def test_prompts_that_are_not_one_sequence_of_tokens_are_left_alone(make: Any, fields: Any) -> None:
    tokeniser, facts = make()
    assert await tokeniser.tokens(TEXT, body(**fields), "m", Teacher("http://e")) is None
    assert facts.asked == []


async def test_paths_without_a_prompt_of_this_kind_are_left_alone(make: Any) -> None:
    tokeniser, facts = make()
    assert await tokeniser.tokens("/v1/embeddings", body(input="x"), "m", Teacher("http://e")) is None
    assert facts.asked == []


async def test_an_engine_that_is_away_is_no_error(make: Any) -> None:
    tokeniser, _ = make()
    assert await tokeniser.tokens(TEXT, body(prompt="hi"), "m", Teacher("http://e")) is None
    assert tokeniser.counts.failed == 1


async def test_messages_that_are_none_are_the_engines_to_refuse(make: Any, folder: Path) -> None:
    tokeniser, _ = make()
    bad: list[Any] = [7, [3], [{}], [{"role": "user", "content": None}]]
    for messages in bad:
        assert await tokeniser.tokens(CHAT, body(messages=messages), "m", Teacher("http://e", str(folder))) is None
