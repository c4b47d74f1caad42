"""The lines of a model card that show how to load a model, for the programs that `emb doctor` finds able to."""

from __future__ import annotations

from collections.abc import Callable

from emb.publish.doctor import examine, line
from emb.publish.summary import Facts


def usage(facts: Facts) -> str:
    """A Markdown section with one block of code per program that loads the artifact."""
    able = {found.client for found in examine(facts.folder) if found.loads}
    blocks = [f"### {client}\n\n{block(facts)}" for client, block in _BLOCKS.items() if client in able]
    return "\n\n".join(["## Use", *blocks])


def asymmetric(facts: Facts) -> str:
    """A Markdown section: documents by the teacher and queries by this model; nothing where there is no teacher."""
    if facts.teacher is None:
        return ""
    dim, teacher = facts.manifest.dim, facts.teacher
    code = [
        "from sentence_transformers import SentenceTransformer",
        "",
        f"teacher = SentenceTransformer({teacher!r}, truncate_dim={dim})",
        f"student = {_open(facts, 'sentence-transformers')}",
        'documents = teacher.encode_document(["Open it with open(path)."], normalize_embeddings=True)',
        (
            'queries = student.encode_query(["how do I open a'
            f' file?"]{"" if facts.manifest.normalize else ", normalize_embeddings=True"})'
        ),
        "scores = queries @ documents.T",
    ]
    text = (
        f"Vectors lie in the space of `{teacher}`, cut to {dim} dims: an index of the teacher's document vectors"
        " answers queries of this model."
    )
    return f"## Documents by the teacher, queries by this model\n\n{text}\n\n{_code('python', code)}"


def _emb(facts: Facts) -> str:
    code = [
        "import emb",
        "",
        f"encoder = {_open(facts, 'emb')}",
        'vectors = encoder.encode(["how do I open a file?"], kind="query")',
    ]
    return f"{_fetch(facts)}{_code('python', code)}"


def _torch(facts: Facts) -> str:
    opening = f"model = {_open(facts, 'sentence-transformers')}"
    return _code(
        "python",
        [
            "from sentence_transformers import SentenceTransformer",
            "",
            opening,
            'vectors = model.encode_query(["how do I open a file?"])',
        ],
    )


def _fastembed(facts: Facts) -> str:
    code = [
        "from fastembed import TextEmbedding",
        "from fastembed.common.model_description import ModelSource, PoolingType",
        "",
        f"name, source = {facts.name!r}, ModelSource(hf={facts.name!r})",
        _open(facts, "fastembed"),
        f"model = TextEmbedding(name, specific_model_path={_local(facts)!r})",
        f"vectors = list(model.embed([{_question(facts)}]))",
    ]
    return f"{_fetch(facts)}{_code('python', code)}"


def _transformers_js(facts: Facts) -> str:
    code = [
        'import { AutoModel, AutoTokenizer } from "@huggingface/transformers";',
        "",
        f"const tokenizer = await AutoTokenizer.from_pretrained({facts.name!r});",
        f"const model = await {_open(facts, 'transformers.js')};",
        f"const inputs = await tokenizer([{_question(facts)}], {{ padding: true, truncation: true }});",
        "const { sentence_embedding } = await model(inputs);",
    ]
    return _code("js", code)


_BLOCKS: dict[str, Callable[[Facts], str]] = {
    "emb": _emb,
    "sentence-transformers": _torch,
    "fastembed": _fastembed,
    "transformers.js": _transformers_js,
}
_READS_FOLDERS = {"emb", "fastembed"}  # the others take a hub id as well


def _open(facts: Facts, client: str) -> str:
    place = _local(facts) if client in _READS_FOLDERS else facts.name
    return line(client, facts.manifest, place).split(" →")[0]


def _local(facts: Facts) -> str:
    return facts.name.split("/")[-1]


def _fetch(facts: Facts) -> str:
    return (
        f"{_code('bash', [f'hf download {facts.name} --local-dir {_local(facts)}'])}\n\n" if "/" in facts.name else ""
    )


def _question(facts: Facts) -> str:
    text = facts.manifest.prompts.get("query", "") + "how do I open a file?"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _code(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
