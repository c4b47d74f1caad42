"""Which programs will load an artifact and get the same vectors from it, and what to change for the others.

What each one reads was found in its source; `scripts/interop.py` runs the real ones, except text-embeddings-inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Manifest, is_artifact, no_artifact
from emb.errors import ArtifactError
from emb.files import read_json
from emb.publish.tei import STATIC, on_cpu, on_gpu
from emb.runtime.sessions import open_session

GRAPH = "onnx/model.onnx"
_WEB = "onnx/model_quantized.onnx"
_TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
_EXPORT_AGAIN = "export it again with emb export"


@dataclass(frozen=True)
class Finding:
    """One client: what stands in its way, each with the change that mends it, and the line that opens the artifact."""

    client: str
    problems: list[str]
    how: str

    @property
    def loads(self) -> bool:
        """Whether nothing stands in its way."""
        return not self.problems


@dataclass(frozen=True)
class Patient:
    """An artifact with what several clients look at."""

    folder: Path
    manifest: Manifest

    def has(self, *names: str) -> Iterator[str]:
        """A problem for each file that is missing."""
        yield from (f"{name} is missing: {_EXPORT_AGAIN}" for name in names if not (self.folder / name).is_file())

    def data(self) -> Iterator[str]:
        """A problem if the fp32 graph's tensors should lie beside it and do not."""
        files = [name for name in self.manifest.files if name.startswith(GRAPH) and name != GRAPH]
        yield from self.has(*files)

    def json(self, name: str) -> Any:
        """A JSON file's value, or nothing if it cannot be read."""
        try:
            return read_json(self.folder / name)
        except ArtifactError:
            return {}

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """Inputs and outputs of the fp32 graph, as far as it can be opened."""
        if not (self.folder / GRAPH).is_file() or list(self.data()):
            return [], []
        session = open_session(self.folder / GRAPH, 1)
        return [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]

    @property
    def modules(self) -> list[str]:
        """The kinds of its modules, in order."""
        return [module["type"].split(".")[-1] for module in self.json("modules.json") or []]

    def inputs(self) -> Iterator[str]:
        """A problem if the graph asks for what clients do not give."""
        yield from self.data()
        strange = set(self.names[0]) - _TEXT_INPUTS
        if strange:
            yield f"{GRAPH} asks for {', '.join(sorted(strange))}: {_EXPORT_AGAIN}"

    def output(self, name: str) -> Iterator[str]:
        """A problem if the graph lacks an output."""
        if self.names[1] and name not in self.names[1]:
            yield f"{GRAPH} has no output {name}: {_EXPORT_AGAIN}"

    def limit(self) -> Iterator[str]:
        """A problem where the tokenizer's files cut texts elsewhere than the model does."""
        config = self.json("tokenizer_config.json")
        found = min(
            (value for key in ("model_max_length", "max_length") if isinstance(value := config.get(key), int)),
            default=None,
        )
        if found != self.manifest.max_length:
            yield (
                f"tokenizer_config.json cuts texts at {found} tokens, the model at {self.manifest.max_length}: set"
                " model_max_length and remove max_length"
            )


def examine(folder: str | Path) -> list[Finding]:
    """What each known client will make of an artifact.

    Raises:
        ArtifactError: not an artifact, or its ONNX file cannot be opened.
    """
    folder = Path(folder)
    if not is_artifact(folder):
        raise no_artifact(folder)
    patient = Patient(folder, Manifest.load(folder))
    return [
        Finding(name, list(problems(patient)), line(name, patient.manifest, str(folder)))
        for name, (problems, _) in _CLIENTS.items()
    ]


def line(client: str, manifest: Manifest, place: str) -> str:
    """The line with which a client opens an artifact at `place`, a folder or a hub id: the 8-bit file where there is
    one that passed.
    """
    web = next((each.file for each in manifest.variants if each.file == _WEB and each.passed is not False), None)
    return _CLIENTS[client][1].format(folder=place, dim=manifest.dim, file=web or GRAPH, dtype="q8" if web else "fp32")


def _emb(patient: Patient) -> Iterator[str]:
    try:
        patient.manifest.verify(patient.folder)
    except ArtifactError as error:
        yield f"{error.message}: {error.hint}"
    if all(variant.passed is False for variant in patient.manifest.variants if variant.exporter == "emb"):
        yield "no file passed its gate: run emb validate, or export again"


def _torch(patient: Patient) -> Iterator[str]:
    yield from patient.has(
        "modules.json",
        "tokenizer.json",
        *(() if STATIC in patient.modules else ("config.json", "1_Pooling/config.json")),
    )
    if not any((patient.folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        yield f"model.safetensors is missing: {_EXPORT_AGAIN}"
    for module in patient.json("modules.json") or []:
        if module["path"].endswith("_Dense"):
            yield from patient.has(f"{module['path']}/config.json", f"{module['path']}/model.safetensors")


def _optimum(patient: Patient) -> Iterator[str]:
    if STATIC in patient.modules:
        yield "it computes a static model itself, not by an ONNX file: leave out backend"
        return
    yield from patient.has(GRAPH, "modules.json", "config.json", "tokenizer.json")
    yield from patient.data()
    yield from patient.output("last_hidden_state")


def _fastembed(patient: Patient) -> Iterator[str]:
    yield from patient.has(GRAPH, "tokenizer.json", "tokenizer_config.json")
    yield from patient.inputs()
    yield from patient.limit()
    if not patient.json("tokenizer_config.json").get("pad_token"):
        yield "tokenizer_config.json names no pad_token: add it"
    if patient.names[1][:1] not in ([], ["sentence_embedding"]):
        yield f"the first output of {GRAPH} is {patient.names[1][0]}: {_EXPORT_AGAIN}"


def _transformers_js(patient: Patient) -> Iterator[str]:
    yield from patient.has(GRAPH, "config.json", "tokenizer.json", "tokenizer_config.json")
    yield from patient.inputs()
    yield from patient.output("sentence_embedding")
    yield from patient.limit()
    config = patient.json("config.json")
    if not config.get("model_type"):
        yield "config.json names no model_type: add it"
    declared = config.get("transformers.js_config", {}).get("use_external_data_format") or {}
    for graph in (
        name.removeprefix("onnx/").removesuffix("_data")
        for name in patient.manifest.files
        if name.endswith(".onnx_data")
    ):
        if graph not in declared:
            yield (
                f"config.json does not say transformers.js_config.use_external_data_format: {{{graph}: 1}}:"
                f" {_EXPORT_AGAIN}"
            )


def _plain(patient: Patient) -> Iterator[str]:
    yield from patient.has(GRAPH, "tokenizer.json")
    yield from patient.inputs()


_CLIENTS: dict[str, tuple[Callable[[Patient], Iterator[str]], str]] = {
    "emb": (_emb, "emb.load('{folder}')"),
    "sentence-transformers": (_torch, "SentenceTransformer('{folder}')"),
    "sentence-transformers, ONNX (optimum-onnx)": (
        _optimum,
        "SentenceTransformer('{folder}', backend='onnx', model_kwargs={{'file_name': '{file}'}})",
    ),
    "fastembed": (
        _fastembed,
        "TextEmbedding.add_custom_model(name, PoolingType.DISABLED, False, source, {dim}, model_file='{file}')",
    ),
    "transformers.js": (
        _transformers_js,
        "AutoModel.from_pretrained('{folder}', {{ dtype: '{dtype}' }}) → sentence_embedding",
    ),
    "text-embeddings-inference, CPU": (on_cpu, "text-embeddings-router --model-id {folder}"),
    "text-embeddings-inference, GPU": (on_gpu, "text-embeddings-router --model-id {folder}"),
    "onnxruntime and tokenizers": (_plain, "InferenceSession('{folder}/{file}')"),
}
