"""The query encoder's tokenizer as the page needs it, and which ones it can do."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from emb.errors import ArtifactError
from emb.search.web.characters import characters
from emb.tokens import TextTokenizer

_HINT = "the page reads WordPiece with BERT's normaliser; distil a query encoder from a teacher that has it"


def page_tokenizer(tokenizer: TextTokenizer, prompt: str) -> dict[str, Any]:
    """What page/tokenizer.js reads: vocabulary by id, what happens to characters, tokens found before words are.

    Raises:
        ArtifactError: another kind of tokenizer, or a setting that the page does not know.
    """
    state = json.loads(tokenizer.tokenizer.to_str())
    _require_known(tokenizer, state)
    model, added = state["model"], state["added_tokens"]
    normalise = tokenizer.tokenizer.normalizer.normalize_str
    before, after = _around(tokenizer.tokenizer)
    return {
        "prompt": prompt,
        "before": before,
        "after": after,
        "max_length": tokenizer.max_length,
        "side": tokenizer.truncation_side,
        "vocabulary": _by_id(model["vocab"]),
        "prefix": model["continuing_subword_prefix"],
        "unknown": model["vocab"][model["unk_token"]],
        "longest_word": model["max_input_chars_per_word"],
        "characters": characters(tokenizer.tokenizer),
        "added": {
            "raw": [[each["content"], each["id"]] for each in added if not each["normalized"]],
            "normalised": [[normalise(each["content"]), each["id"]] for each in added if each["normalized"]],
        },
    }


def _require_known(tokenizer: TextTokenizer, state: dict[str, Any]) -> None:
    parts = (("model", "WordPiece"), ("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer"))
    for name, known in parts:
        found = (state[name] or {}).get("type")
        if found != known:
            raise ArtifactError(f"the tokenizer's {name} is {found}, not {known}", _HINT)
    if tokenizer.lowercase:
        raise ArtifactError("sentence_bert_config.json: do_lower_case is set", "set it to false: the tokenizer lowers")
    if state["model"]["unk_token"] not in state["model"]["vocab"]:
        raise ArtifactError(f"the tokenizer's vocabulary has no {state['model']['unk_token']}", _HINT)
    for each in state["added_tokens"]:
        if each["single_word"]:
            raise ArtifactError(f"the added token {each['content']!r} stands for single words only", _HINT)


def _around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids of the special tokens before and behind every text, asked of the tokenizer itself: several kinds of
    post-processors add them.
    """
    found = tokenizer.encode("a")
    own = [row for row, special in enumerate(found.special_tokens_mask) if not special]
    first, last = (own[0], own[-1]) if own else (len(found.ids), len(found.ids))
    if found.ids[first : last + 1] != tokenizer.encode("a", add_special_tokens=False).ids:
        raise ArtifactError("the tokenizer's post_processor does more than to put tokens around a text", _HINT)
    return found.ids[:first], found.ids[last + 1 :]


def _by_id(vocabulary: dict[str, int]) -> list[str | None]:
    """Tokens in the order of their ids; an id without a token gets none."""
    found: list[str | None] = [None] * (1 + max(vocabulary.values()))
    for token, row in vocabulary.items():
        found[row] = token
    return found
