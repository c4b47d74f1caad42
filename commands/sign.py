"""The command `emb sign`."""

from __future__ import annotations

from pathlib import Path

import click

from emb.commands.console import Outcome, reports
from emb.commands.next_step import next_step


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="An ed25519 private key: openssl genpkey -algorithm ed25519 -out key.pem",
)
@reports
def sign(folder: Path, key: Path) -> Outcome:
    """Sign a bundle, or any other folder, with all its files.

    SHA256SUMS gets the hash of every file, SHA256SUMS.sig an ed25519 signature of that. Whoever has the public key can
    then refuse a folder in which a byte was changed, or a file added or removed: --trusted-key of `emb validate` and
    `emb serve`, emb.load(…, trusted_key=…), or openssl and sha256sum. Sign last: what is written afterwards is not
    signed.
    """
    import emb

    written = emb.sign(folder, key)
    return Outcome(
        {"folder": folder, "signature": written},
        f"{written}\n{next_step('validate', folder, '--trusted-key', 'PUBLIC-KEY')}",
    )
