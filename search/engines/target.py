"""Where an index is copied to, read from an address; its password is told to nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from emb.errors import UsageError

NAME = "emb"  # of the table or collection, where the address names none
_SCHEMES = {"milvus": "milvus", "milvus+tls": "milvus", "postgresql": "postgresql", "postgres": "postgresql"}
_SCHEME = re.compile(r"([a-z][a-z0-9+]+):", re.ASCII)
_NAMES = re.compile(r"[a-z_][a-z0-9_]{0,47}", re.ASCII)
_FORMS = "milvus:FILE.db#NAME, milvus://HOST:19530/DATABASE#NAME, postgresql://USER@HOST/DATABASE#NAME"


@dataclass(frozen=True)
class Target:
    """An engine, and the table or collection in it.

    Attributes:
        kind: "milvus" or "postgresql".
        name: of the table or collection.
        file: of an engine inside this process; None for a server.
        host, port, user, password, database: of a server, empty or None where the address leaves them out.
        tls: whether the address asks for it.
        options: what stands behind `?`, libpq's own names.
    """

    kind: str
    name: str
    file: Path | None = None
    host: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    tls: bool = False
    options: dict[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        """The address without its password and its options."""
        if self.file is not None:
            return f"{self.kind}:{self.file}#{self.name}"
        who = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        scheme = f"{self.kind}+tls" if self.tls else self.kind
        return f"{scheme}://{who}{self.host}{port}/{self.database}#{self.name}"

    def without_secrets(self, said: str) -> str:
        """What a library says, with the password left out if it stands there."""
        secrets = [self.password, *(value for name, value in self.options.items() if "password" in name)]
        for secret in filter(None, secrets):
            said = said.replace(secret, "…")
        return said


def is_target(address: str | Path) -> bool:
    """Whether this is the address of an engine, and no folder."""
    found = _SCHEME.match(str(address))
    return found is not None and (found[1] in _SCHEMES or "://" in str(address))


def read_target(address: str) -> Target:
    """The engine that an address names.

    Raises:
        UsageError: an engine that is unknown, a port or a name that is none; the address is not repeated.
    """
    scheme = _scheme(address)
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # its message may hold what stands before the host
        raise UsageError(
            f"{scheme}: an address with a port or a host that is none",
            "write special characters of a password as %40 and the like",
        ) from None
    name = _name(scheme, parts.fragment or NAME)
    if scheme == "milvus" and not parts.netloc:
        return Target("milvus", name, _file(parts))
    return Target(
        _SCHEMES[scheme],
        name,
        host=parts.hostname or "",
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.strip("/")),
        tls=scheme == "milvus+tls",
        options=dict(parse_qsl(parts.query)),
    )


def _scheme(address: str) -> str:
    found = _SCHEME.match(address)
    if found is None or found[1] not in _SCHEMES:
        engine = f"the engine {found[1]!r} is unknown" if found else "this is no address of an engine"
        raise UsageError(engine, f"known: {_FORMS}")
    return found[1]


def _name(scheme: str, name: str) -> str:
    if not _NAMES.fullmatch(name):
        raise UsageError(
            f"{scheme}: #{name} is no name for a table",
            "choose up to 48 small letters, digits and underscores, a letter first",
        )
    return name


def _file(parts: SplitResult) -> Path:
    path = Path(unquote(parts.path))
    if path.suffix != ".db":
        raise UsageError(
            f"milvus:{path}: the engine inside this process takes files that end with .db", "write milvus:docs.db"
        )
    return path
