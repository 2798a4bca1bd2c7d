from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.deployments.simengine.sampler import WORDS, Sampler
from hekla.deployments.simengine.tokens import (
    EOS,
    TURN_END,
    VOCAB_SIZE,
    decode,
    encode,
    encode_with_specials,
    token_bytes,
)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert decode(encode(text)) == text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@given(st.text())
def test_ids_are_in_the_vocabulary_and_fit_32_bits(text: str) -> None:
    assert all(0 <= token < VOCAB_SIZE < 2**32 for token in encode(text))


@given(st.lists(st.sampled_from(WORDS)))
def test_generated_text_tokenizes_to_the_tokens_it_was_made_of(tokens: list[int]) -> None:
    assert encode(decode(tokens)) == tokens


def test_text_that_looks_like_a_special_token_stays_text_unless_asked() -> None:
    assert TURN_END not in encode("a<|im_end|>")
    assert encode_with_specials("a<|im_end|>b") == [*encode("a"), TURN_END, *encode("b")]


@pytest.mark.parametrize("token", [-1, VOCAB_SIZE])
def test_an_id_outside_the_vocabulary_is_refused(token: int) -> None:
    with pytest.raises(ValueError, match="outside the vocabulary"):
        token_bytes(token)


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1), st.lists(st.integers(0, VOCAB_SIZE - 1)))
def test_the_state_after_a_prompt_is_the_state_after_its_tokens_one_by_one(prompt: list[int], more: list[int]) -> None:
    sampler = Sampler("m")
    state = sampler.start(prompt)
    for token in more:
        state = sampler.advance(state, token)
    assert state == sampler.start(prompt + more)


def test_answers_end_after_the_mean_length_on_average() -> None:
    sampler = Sampler("m", mean_output_tokens=50)
    ends = sum(sampler.draw(state, state)[0] == EOS for state in range(50_000))
    assert 850 < ends < 1150


def test_names_of_model_and_adapter_change_the_answer() -> None:
    starts = {Sampler(model).start([1, 2, 3], adapter) for model in ("a", "b") for adapter in ("", "x", "y")}
    assert len(starts) == 6
