"""Long documents in pieces of so many tokens, by the encoder's own tokenizer, with their places in the text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from emb.errors import UsageError
from emb.tokens import TextTokenizer

_TEXTS = 256  # whose every token is held at a time
Span = tuple[int, int]  # first character, and that behind the last


class Chunker:
    """Cuts texts at `tokens` tokens, of which `overlap` stand in the piece before as well.

    The pieces of a text cover it without a gap: each ends where the first token that is not in it begins.
    """

    def __init__(self, tokenizer: TextTokenizer, tokens: int, overlap: int, prompt: str) -> None:
        """Raises:
        UsageError: pieces that the encoder would cut, or an overlap as long as a piece.
        """
        self.tokenizer: Tokenizer = Tokenizer.from_str(tokenizer.tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.lowercase, self.tokens, self.step = tokenizer.lowercase, tokens, tokens - overlap
        room = tokenizer.max_length - len(self.tokenizer.encode(prompt).ids)
        if tokens > room:
            raise UsageError(
                f"--chunk-tokens {tokens}: the encoder reads {tokenizer.max_length}, its own marks and prompt included",
                f"choose at most {room}, fewer where documents have titles: those stand before every piece",
            )
        if not 0 <= overlap < tokens:
            raise UsageError(f"--overlap {overlap}: a piece has {tokens} tokens", "choose fewer")

    def spans(self, texts: Sequence[str]) -> Iterator[list[Span]]:
        """The pieces of each text; one of no token is one piece."""
        for start in range(0, len(texts), _TEXTS):
            part = texts[start : start + _TEXTS]
            read = [_lower(text) for text in part] if self.lowercase else list(part)
            for text, encoding in zip(part, self.tokenizer.encode_batch(read, add_special_tokens=False), strict=True):
                yield self._spans(len(text), [begin for begin, _ in encoding.offsets])

    def _spans(self, length: int, begins: Sequence[int]) -> list[Span]:
        last = max(0, len(begins) - self.tokens)
        firsts = [*range(0, last, self.step), last] if last else [0]
        starts = [0, *(begins[first] for first in firsts[1:])]
        stops = [*(begins[first + self.tokens] for first in firsts[:-1]), length]
        return list(dict.fromkeys(zip(starts, stops, strict=True)))


def _lower(text: str) -> str:
    """`text` in lower case without a change of length, which İ would make: places must stay."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(low if len(low := c.lower()) == 1 else c for c in text)
