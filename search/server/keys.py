"""The API key: read from a file or the environment, never from the command line, which other users can see."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from pathlib import Path

from emb.errors import UsageError, first_line

VARIABLE = "EMB_API_KEY"


def read_key(file: str | Path | None) -> bytes | None:
    """The key in `file`, or else in the environment; None where there is neither.

    Raises:
        UsageError: the file cannot be read, or either holds no key.
    """
    if file is None and VARIABLE not in os.environ:
        return None
    name = VARIABLE if file is None else f"--api-key-file {file}"
    try:
        key = os.environ[VARIABLE] if file is None else Path(file).read_text(encoding="utf-8-sig")
        sent = key.strip().encode()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{name}: cannot be read ({first_line(error)})", "name a text file with the key") from error
    if not sent:
        raise UsageError(f"{name}: holds no key", "write one into it, or leave it out to serve without")
    if any(byte < 0x20 or byte == 0x7F for byte in sent):
        raise UsageError(f"{name}: a key has one line, and no control characters", "write one key alone into it")
    return sent


def allowed(key: bytes | None, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request's headers bring the `key`; compared in a time that does not tell how much of it was right."""
    if key is None:
        return True
    sent = next((value for name, value in headers if name == b"authorization"), b"")
    return hmac.compare_digest(sent, b"Bearer " + key)
