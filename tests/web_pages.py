"""Tiny static encoders of many scripts, documents with markup in them, and node to run a page's scripts."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tiny import SENTENCES
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from emb.errors import ArtifactError
from emb.search.web.onnxruntime import cached, runtime

LETTERS = "abcdefghijklmnopqrstuvwxyzæøßıάбгґאבجदकक्ฉაあアㄅ한中文字각𐐨𝒜🙂.,;:!?-_/()[]<>«»„…€+|^`~$'\"#§0123456789٣"
NASTY = "<script>document.title='taken'</script>"
BROKEN = "<img src=x onerror=\"document.title='taken'\"> and <b>more</b>"
LONG = " ".join(SENTENCES[:3])  # has no title
_ASKED = Path(__file__).parent / "search" / "web" / "asked.mjs"


def wordpiece(**normaliser: Any) -> Tokenizer:
    """A WordPiece over `LETTERS` and words of the sentences, with tokens that are found before words are."""
    words = sorted({word.strip(".,;?").lower() for text in SENTENCES for word in text.split()} - set(LETTERS))
    letters = list(dict.fromkeys(LETTERS))
    tokens = [
        "[PAD]",
        "[UNK]",
        *letters,
        *(f"##{each}" for each in letters),
        *words,
        "##ing",
        "##ers",
        "straße",
        "##ße",
    ]
    vocabulary = {token: row for row, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**({"lowercase": True} | normaliser))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "<s>", AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("New York", normalized=True), AddedToken("New", normalized=True)])
    return tokenizer


def static_encoder(folder: Path, tokenizer: Tokenizer | None = None, dim: int = 24) -> Path:
    """A StaticEmbedding folder with random rows of very different lengths."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, StaticEmbedding

    tokenizer = tokenizer or wordpiece()
    random = np.random.default_rng(0)
    rows = random.normal(size=(tokenizer.get_vocab_size(), dim)) * random.lognormal(
        size=(tokenizer.get_vocab_size(), 1)
    )
    module = StaticEmbedding(tokenizer, embedding_weights=torch.tensor(rows, dtype=torch.float32))
    SentenceTransformer(modules=[module, Normalize()], device="cpu").save(str(folder))
    return folder


def runtime_at_hand() -> Path | None:
    """Where onnxruntime-web lies, in $EMB_NODE_MODULES or in emb's cache; None if in neither. Nothing is fetched."""
    places = [Path(os.environ["EMB_NODE_MODULES"])] if "EMB_NODE_MODULES" in os.environ else []
    for place in (*places, cached()):
        with suppress(ArtifactError):
            runtime(place)
            return place
    return None


def unpacked(page: Path, file: str) -> bytes:
    """The content of a file that the page holds packed."""
    return gzip.decompress((page / f"{file}.packed").read_bytes())


def documents(path: Path) -> Path:
    """Forty documents, two of which would run scripts if their text became HTML."""
    rows = [{"title": f"Note {row}" if row % 2 else "", "text": text} for row, text in enumerate(SENTENCES)]
    rows += [{"title": text[:12], "text": f"{text} Again: {text.lower()}"} for text in SENTENCES[:17]]
    rows += [{"title": "", "text": LONG}]
    rows += [{"title": NASTY, "text": "markup in a title"}, {"title": "apples", "text": BROKEN}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked(page: Path, texts: Sequence[str], place: Path, count: int = 10) -> list[dict[str, Any]]:
    """What the page's scripts find in node for each text: `ids`, `vector`, and `hits` of row and score."""
    copy = place / "page"
    if not copy.exists():
        shutil.copytree(page, copy)
        (copy / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (place / "texts.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    command = ["node", str(_ASKED), str(copy), str(place / "texts.json"), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
