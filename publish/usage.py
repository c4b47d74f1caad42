"""The lines of a model card that show how to load a model, for the programs that `emb doctor` finds able to."""

from __future__ import annotations

from collections.abc import Callable

from emb.publish.doctor import examine, line
from emb.publish.published_artifact import PublishedArtifact


def usage(published: PublishedArtifact) -> str:
    """A Markdown section with one block of code per program that loads the artifact."""
    able = {found.client for found in examine(published.folder) if found.loads}
    blocks = [f"### {client}\n\n{block(published)}" for client, block in _BLOCKS.items() if client in able]
    return "\n\n".join(["## Use", *blocks])


def asymmetric(published: PublishedArtifact) -> str:
    """A Markdown section: documents by the teacher and queries by this model; nothing where there is no teacher."""
    if published.teacher is None:
        return ""
    dim, teacher = published.manifest.dim, published.teacher
    code = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f"teacher = SentenceTransformer({teacher!r}, truncate_dim={dim})",
        f"student = {_open(published, 'sentence-transformers')}",
        'documents = teacher.encode_document(["Open it with open(path)."], normalize_embeddings=True)',
        (
            'queries = student.encode_query(["how do I open a'
            f' file?"]{"" if published.manifest.normalize else ", normalize_embeddings=True"})'
        ),
        "scores = queries @ documents.T",
    ]
    text = (
        f"Vectors lie in the space of `{teacher}`, cut to {dim} dims: an index of the teacher's document vectors"
        " answers queries of this model."
    )
    if teacher.endswith("-rotated"):
        text += f" `{teacher}` is the folder `teacher` of the run that made this model; publish it beside this one."
    return f"## Documents by the teacher, queries by this model\n\n{text}\n\n{_code('python', code)}"


def _emb(published: PublishedArtifact) -> str:
    code = [
        "import emb",
        "",
        f"encoder = {_open(published, 'emb')}",
        'vectors = encoder.encode(["how do I open a file?"], kind="query")',
    ]
    return f"{_fetch(published)}{_code('python', code)}"


def _torch(published: PublishedArtifact) -> str:
    opening = f"model = {_open(published, 'sentence-transformers')}"
    return _code(
        "python",
        [
            "from sentence_transformers import SentenceTransformer",
            "",
            opening,
            'vectors = model.encode_query(["how do I open a file?"])',
        ],
    )


def _fastembed(published: PublishedArtifact) -> str:
    code = [
        "from fastembed import TextEmbedding",
        "from fastembed.common.model_description import ModelSource, PoolingType",
        "",
        f"name, source = {published.name!r}, ModelSource(hf={published.name!r})",
        _open(published, "fastembed"),
        f"model = TextEmbedding(name, specific_model_path={_local(published)!r})",
        f"vectors = list(model.embed([{_question(published)}]))",
    ]
    return f"{_fetch(published)}{_code('python', code)}"


def _transformers_js(published: PublishedArtifact) -> str:
    code = [
        'import { AutoModel, AutoTokenizer } from "@huggingface/transformers";',
        "",
        f"const tokenizer = await AutoTokenizer.from_pretrained({published.name!r});",
        f"const model = await {_open(published, 'transformers.js')};",
        f"const inputs = await tokenizer([{_question(published)}], {{ padding: true, truncation: true }});",
        "const { sentence_embedding } = await model(inputs);",
    ]
    return _code("js", code)


_BLOCKS: dict[str, Callable[[PublishedArtifact], str]] = {
    "emb": _emb,
    "sentence-transformers": _torch,
    "fastembed": _fastembed,
    "transformers.js": _transformers_js,
}
_READS_FOLDERS = {"emb", "fastembed"}  # the others take a hub id as well


def _open(published: PublishedArtifact, client: str) -> str:
    place = _local(published) if client in _READS_FOLDERS else published.name
    return line(client, published.manifest, place).split(" →")[0]


def _local(published: PublishedArtifact) -> str:
    return published.name.split("/")[-1]


def _fetch(published: PublishedArtifact) -> str:
    return (
        f"{_code('bash', [f'hf download {published.name} --local-dir {_local(published)}'])}\n\n"
        if "/" in published.name
        else ""
    )


def _question(published: PublishedArtifact) -> str:
    text = published.manifest.prompts.get("query", "") + "how do I open a file?"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _code(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
