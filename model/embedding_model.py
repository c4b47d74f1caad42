"""The torch side of an embedding model: encoder, pooling, one projection per exit, normalisation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from emb.artifact.layout import EXITS_FILE, write_limits, write_older_keys, write_sentence_transformers
from emb.artifact.manifest import LayerDimPair, Manifest, is_artifact
from emb.errors import ArtifactError, EmbError, UsageError, first_line
from emb.files import read_json, write_json
from emb.model.batches import over_batches
from emb.model.dense import dense_parts, linear, projections, read_dense
from emb.model.intake import check_folder, check_loading, check_weights, loading_noted
from emb.model.module_settings import refuse_settings
from emb.model.reference import check_reference, running
from emb.model.static import StaticEncoder, read_static
from emb.progress import note
from emb.tokens import Indices, TextTokenizer, prompt_of

POOLINGS = ("mean", "cls", "lasttoken")

_COUNTING = threading.Lock()
_ORDER = "supported, in this order: Transformer and Pooling, or StaticEmbedding; any number of Dense; Normalize"


@dataclass(frozen=True)
class ModelSpec:
    """What turns token vectors into a text vector, and text into tokens.

    `prompts` are all that the model names, as its folder has them; `default_prompt` is the name of the one that
    sentence-transformers takes where none is asked for; `similarity` the function that its vectors are compared with.
    """

    pooling: str = "mean"
    normalize: bool = True
    max_length: int = 512
    prompts: dict[str, str] = field(default_factory=dict)
    lowercase: bool = False
    truncation_side: str = "right"
    default_prompt: str | None = None
    similarity: str = "cosine"

    def prompt(self, kind: str) -> str:
        """The prefix for a "query" or a "document"; a model without one gets none."""
        return prompt_of(self.prompts, kind)


class EmbeddingModel(nn.Module):
    """`(input_ids, attention_mask)` → text vectors `(batch, dim)`.

    `heads` maps a number of layers to what follows pooling there: a projection into the teacher's space, or
    nothing. The deepest is the model's own output; the others are exits.
    """

    def __init__(
        self, encoder: PreTrainedModel, hf_tokenizer: Any, spec: ModelSpec, heads: dict[int, nn.Module] | None = None
    ) -> None:
        super().__init__()
        _refuse_pooling(spec.pooling)
        if getattr(encoder, "pooler", None) is not None:
            # BERT's next-sentence head: not part of an embedding. Some call theirs without looking whether it is there.
            encoder.register_module("pooler", nn.Identity())
        if not all(
            isinstance(getattr(encoder.config, name, None), int) for name in ("num_hidden_layers", "hidden_size")
        ):
            raise ArtifactError(
                f"{type(encoder).__name__} is not supported: its config names no single stack of layers",
                "of a model of several parts, give the text encoder",
            )
        self.encoder = encoder
        self.hf_tokenizer = hf_tokenizer
        self.spec = spec
        heads = heads or {self.layers: nn.Identity()}
        self.heads = nn.ModuleDict({str(layers): head for layers, head in sorted(heads.items())})

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return int(self.encoder.config.num_hidden_layers)

    @property
    def hidden(self) -> int:
        """Width of the token vectors."""
        return int(self.encoder.config.hidden_size)

    @property
    def exits(self) -> list[int]:
        """The layers at which this model has an output, ascending."""
        return sorted(int(layers) for layers in self.heads)

    @property
    def dim(self) -> int:
        """Width of the text vectors."""
        found = projections(self.heads[str(self.exits[-1])])
        return found[-1].out_features if found else self.hidden

    def tokenizer(self) -> TextTokenizer:
        """A fresh tokenizer that cuts at this model's `max_length`."""
        backend = type(self.hf_tokenizer.backend_tokenizer).from_str(self.hf_tokenizer.backend_tokenizer.to_str())
        pad = self.hf_tokenizer.pad_token_id
        pad = pad if pad is not None else (self.hf_tokenizer.eos_token_id or 0)
        spec = self.spec
        return TextTokenizer(
            backend, max_length=spec.max_length, pad_id=int(pad), lowercase=spec.lowercase, side=spec.truncation_side
        )

    def token_states(
        self, input_ids: Tensor, attention_mask: Tensor, exits: Sequence[int] | None = None
    ) -> dict[int, Tensor]:
        """Hidden states `(batch, tokens, hidden)` at each of `exits` (1-based layer counts)."""
        wanted = list(exits or self.exits)
        with self._counted_from_the_text(attention_mask):
            output = self.encoder(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=wanted != [self.layers]
            )
        return {
            n: output.last_hidden_state if n == self.layers else self._final_norm(output.hidden_states[n])
            for n in wanted
        }

    def pooled(
        self, input_ids: Tensor, attention_mask: Tensor, exits: Sequence[int] | None = None
    ) -> dict[int, Tensor]:
        """Pooled hidden states `(batch, hidden)` at each of `exits`."""
        states = self.token_states(input_ids, attention_mask, exits)
        return {n: pool(state, attention_mask, self.spec.pooling) for n, state in states.items()}

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, exits: Sequence[int] | None = None
    ) -> dict[int, Tensor]:
        """Projected, not yet normalised vectors `(batch, dim)` at each of `exits`."""
        pooled = self.pooled(input_ids, attention_mask, exits)
        return {n: self.heads[str(n)](vector) for n, vector in pooled.items()}

    def embed(self, input_ids: Tensor, attention_mask: Tensor, pair: LayerDimPair | None = None) -> Tensor:
        """Final vectors `(batch, dim)`: the exit's output, cut to `pair.dim` and re-normalised."""
        layers = pair.layers if pair else self.exits[-1]
        return self.finished(self.token_states(input_ids, attention_mask, [layers])[layers], attention_mask, pair)

    def finished(self, states: Tensor, attention_mask: Tensor, pair: LayerDimPair | None = None) -> Tensor:
        """Final vectors `(batch, dim)` from token states `(batch, tokens, hidden)`."""
        head = self.heads[str(pair.layers if pair else self.exits[-1])]
        vectors: Tensor = head(pool(states, attention_mask, self.spec.pooling))
        vectors = vectors[:, : pair.dim] if pair else vectors
        return nn.functional.normalize(vectors, dim=-1) if self.spec.normalize else vectors

    def embed_ids(
        self,
        rows: Sequence[np.ndarray[Any, Any]],
        pair: LayerDimPair | None = None,
        *,
        tokens_per_batch: int = 512,
        side: str = "right",
    ) -> Iterator[tuple[Indices, Tensor]]:
        """Yield `(indices, vectors)` for tokenised texts in token-budget batches, longest first."""
        compute = functools.partial(self.embed, pair=pair)
        batches = over_batches(compute, self, self.tokenizer(), rows, tokens_per_batch=tokens_per_batch, side=side)
        for batch, vectors in batches:
            yield batch, vectors.float().cpu()

    @contextlib.contextmanager
    def _counted_from_the_text(self, mask: Tensor) -> Iterator[None]:
        # BERT, DistilBERT and ELECTRA count positions from the first column, padding included: under left padding
        # the mask must say where the text starts. MPNet and RoBERTa look at the ids; rotary and relative positions
        # do not mind. Told to the table itself, since not every encoder can be told (DistilBERT in transformers 4).
        table = getattr(getattr(self.encoder, "embeddings", None), "position_embeddings", None)
        if not isinstance(table, nn.Embedding) or table.padding_idx is not None:
            yield
            return
        places = (mask.cumsum(1) - 1).clamp(min=0)
        with _COUNTING:  # the table is one for all threads
            # Some count from two.
            handle = table.register_forward_pre_hook(lambda _, columns: (columns[0][..., :1] + places,))
            try:
                yield
            finally:
                handle.remove()

    def _final_norm(self, state: Tensor) -> Tensor:
        # Pre-norm stacks (Qwen3, Gemma: norm; ModernBERT: final_norm; T5: final_layer_norm) normalise once more
        # after the last layer; a stack cut at an earlier one does the same.
        owner = layer_stack(self.encoder)[0]
        norms = [
            norm
            for name in ("norm", "final_norm", "final_layer_norm")
            if (norm := getattr(owner, name, None)) is not None
        ]
        return norms[0](state) if norms else state


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Reduce token vectors `(batch, tokens, hidden)` to `(batch, hidden)`, whatever the padding side."""
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    # The position comes from the mask, never from the column: padding may stand on either side.
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    index = mask.argmax(1) if pooling == "cls" else (steps * mask).argmax(1)
    picked = states.gather(1, index.view(-1, 1, 1).expand(-1, 1, states.shape[-1])).squeeze(1)
    # A text without any token has no vector, as with the mean: what stands in its padding is nothing.
    return torch.where(mask.sum(1, keepdim=True) > 0, picked, torch.zeros_like(picked))


def load_model(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> EmbeddingModel:
    """Load any sentence-transformers folder or hub id, this package's students included.

    Raises:
        ArtifactError: not a model, or one with modules that cannot be sliced or exported.
    """
    loaded = open_sentence_transformer(source, dtype=dtype, trust_remote_code=trust_remote_code, revision=revision)
    model = _from_sentence_transformers(loaded, Path(source)).eval()
    with running(source, model.encoder):
        check_reference(loaded.eval(), model, source)
    return model


def load_changed(source: str | Path, *, device: torch.device, **more: Any) -> EmbeddingModel:
    """Load a folder with weights that are no longer those of its files, since `more`, which goes to transformers, says
    so (4 bits): it is not run, and not held against anything.

    Raises:
        ArtifactError: not a model, or one with modules that cannot be sliced or exported.
    """
    loaded = open_sentence_transformer(source, device=device, more=more)
    return _from_sentence_transformers(loaded, Path(source)).eval()


def open_sentence_transformer(
    source: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    revision: str | None = None,
    device: torch.device | str = "cpu",
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """The folder as sentence-transformers itself loads it, from safetensors; `more` goes to transformers.

    Raises:
        ArtifactError: not a model.
    """
    if Path(source).is_dir():
        check_folder(Path(source))
    with quiet(), loading_noted() as infos:
        from sentence_transformers import SentenceTransformer

        try:
            loaded = SentenceTransformer(
                str(source),
                device=str(device),
                trust_remote_code=trust_remote_code,
                revision=revision,
                model_kwargs={"dtype": dtype, "use_safetensors": True, **more},
            )
        except EmbError:
            raise
        except Exception as error:  # what these libraries raise on a damaged folder shares no base
            raise ArtifactError(
                f"{source}: cannot be loaded as an embedding model ({first_line(error)})", _hint(error)
            ) from error
    check_loading(source, infos)
    return loaded


def _hint(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it brings code of its own: read that, then allow it with --trust-remote-code"
    return "give a folder with config.json, model.safetensors and tokenizer.json"


def save_model(model: EmbeddingModel, folder: Path) -> None:
    """Write `model` as a sentence-transformers folder that both current and older clients read."""
    with quiet():
        if isinstance(model.encoder, StaticEncoder):
            model.encoder.write(folder, normalize=model.spec.normalize)
        else:
            model.encoder.save_pretrained(folder, safe_serialization=True)
        model.hf_tokenizer.save_pretrained(folder)
    _keep_window(model.encoder.config, folder)
    write_older_keys(folder)
    taken = inspect.signature(model.encoder.forward).parameters
    names = model.hf_tokenizer.model_input_names
    inputs = [name for name in names if name in taken] or names  # code of others may pass on whatever it is given
    write_limits(folder, model.spec.max_length, inputs, model.spec.truncation_side)
    deepest = model.exits[-1]
    write_sentence_transformers(
        folder,
        dataclasses.asdict(model.spec),
        model.hidden,
        list(dense_parts(model.heads[str(deepest)])),
        static=isinstance(model.encoder, StaticEncoder),
    )
    others = {f"{n}.weight": projections(model.heads[str(n)])[0].weight.detach().contiguous() for n in model.exits[:-1]}
    if others:
        save_file(others, folder / EXITS_FILE)


def _keep_window(config: Any, folder: Path) -> None:
    # Gemma 3 in both directions halves the window that its file names each time it is read.
    # transformers 5 writes the whole one; 4 wrote the half, to be halved again.
    if config.model_type == "gemma3_text" and config.use_bidirectional_attention:
        stored = read_json(folder / "config.json")
        write_json(folder / "config.json", stored | {"sliding_window": 2 * (config.sliding_window - 1)})


def cut_layers(model: EmbeddingModel, keep: Sequence[int]) -> None:
    """Keep the encoder layers with the given 0-based indices, in place.

    Raises:
        UsageError: an index beyond the encoder.
    """
    if not keep or max(keep) >= model.layers:
        raise UsageError(f"--layers {len(keep)}: the encoder has {model.layers} layers", f"choose 1 to {model.layers}")
    owner, name, stack = layer_stack(model.encoder)
    config = model.encoder.config
    _check_pattern(config, keep)
    setattr(owner, name, nn.ModuleList([stack[index] for index in keep]))
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[index] for index in keep]
    config.num_hidden_layers = len(keep)
    for index, layer in enumerate(getattr(owner, name)):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def _check_pattern(config: Any, keep: Sequence[int]) -> None:
    # ModernBERT in transformers 4 knows global from local layers by their number alone.
    every = None if getattr(config, "layer_types", None) else getattr(config, "global_attn_every_n_layers", None)
    if every and any(bool(old % every) != bool(new % every) for new, old in enumerate(keep)):
        numbers = ", ".join(str(index + 1) for index in keep)
        raise UsageError(
            f"layers {numbers}: in transformers 4, local layers would become global",
            "keep the first ones (student.keep: first), or use transformers 5",
        )


def layer_stack(encoder: PreTrainedModel) -> tuple[nn.Module, str, nn.ModuleList]:
    """The module that holds the transformer layers, the attribute's name, and the list."""
    for owner in encoder.modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == encoder.config.num_hidden_layers:
                return owner, name, child
    raise ArtifactError(
        f"{type(encoder).__name__}: no list of {encoder.config.num_hidden_layers} layers found",
        "this architecture cannot be sliced; export it whole",
    )


def _from_sentence_transformers(loaded: Any, source: Path) -> EmbeddingModel:
    kinds = _supported(list(loaded), source)
    if loaded.truncate_dim:
        raise ArtifactError(
            f"{source}: truncate_dim = {loaded.truncate_dim} in config_sentence_transformers.json is not carried",
            f"take it out there; what is made of the model keeps so many dimensions with --dim {loaded.truncate_dim}",
        )
    encoder, tokenizer, spec = _static(loaded) if kinds[0] == "StaticEmbedding" else _transformer(loaded, source)
    spec = dataclasses.replace(
        spec,
        normalize="Normalize" in kinds,
        prompts=dict(loaded.prompts),
        truncation_side=getattr(tokenizer, "truncation_side", "right"),
        default_prompt=loaded.default_prompt_name,
        similarity=loaded.similarity_fn_name or "cosine",
    )
    dense = [step for module, kind in zip(loaded, kinds, strict=True) if kind == "Dense" for step in read_dense(module)]
    check_weights(source, encoder, _ids(tokenizer))
    heads: dict[int, nn.Module] = {
        int(encoder.config.num_hidden_layers): nn.Sequential(*dense) if dense else nn.Identity()
    }
    heads |= _saved_exits(source)
    _tell_of_passages(spec, source)
    return EmbeddingModel(encoder, tokenizer, spec, heads)


def _tell_of_passages(spec: ModelSpec, source: Path) -> None:
    taken = spec.prompt("document")
    if taken != spec.prompts.get("document", ""):
        note(
            f"{source}: documents are read behind {taken!r}, which its prompts call passage or corpus;"
            " sentence-transformers' encode_document reads them behind none"
        )


def _static(loaded: Any) -> tuple[PreTrainedModel, Any, ModelSpec]:
    """Encoder, tokenizer, and what the modules say of pooling and window."""
    encoder, tokenizer = read_static(loaded[0])
    return encoder, tokenizer, ModelSpec("mean", max_length=int(tokenizer.model_max_length))


def _transformer(loaded: Any, source: Path) -> tuple[PreTrainedModel, Any, ModelSpec]:
    """Encoder, tokenizer, and what the modules say of pooling, window and lower case."""
    transformer, pooling = loaded[0], loaded[1]
    if not hasattr(transformer.tokenizer, "backend_tokenizer"):
        raise ArtifactError(
            f"{source}: {type(transformer.tokenizer).__name__} is a tokenizer in Python, not one for tokenizer.json",
            "supported are models whose folder holds a tokenizer.json, or what transformers makes one of",
        )
    if not getattr(pooling, "include_prompt", True):
        hint = (
            "its Pooling says include_prompt: false; if no text ever gets a prompt, true gives the same vectors: write"
            " that"
        )
        raise ArtifactError(f"{source}: pools without the tokens of the prompt, which is not supported", hint)
    mode = _pooling_mode(pooling)
    _refuse_pooling(mode, f"{source}: ")
    spec = ModelSpec(
        mode,
        max_length=_max_length(loaded, transformer, source),
        lowercase=_lowered_beforehand(transformer),
    )
    if source.is_dir() and not (source / "modules.json").is_file():
        note(
            f"{source}: no modules.json, so {spec.pooling} pooling is taken, as sentence-transformers does with such a"
            " folder"
        )
    return transformer.auto_model, transformer.tokenizer, spec


def _ids(tokenizer: Any) -> int:
    """How many ids texts can get; transformers adds a token for masking to tokenizers that have none, which no text
    gets.
    """
    return 1 + max(int(number) for token, number in tokenizer.get_vocab().items() if token != tokenizer.mask_token)


def _supported(modules: list[Any], source: Path) -> list[str]:
    """The names of the modules, each of a kind, in an order and with settings that are carried."""
    kinds = [type(module).__name__ for module in modules]
    first = 1 if kinds[:1] == ["StaticEmbedding"] else 2
    rest = kinds[first:]
    if (
        kinds[:first] not in (["StaticEmbedding"], ["Transformer", "Pooling"])
        or set(rest) - {"Dense", "Normalize"}
        or "Normalize" in rest[:-1]
    ):
        hint = _one_side(modules[0], source) if kinds[:1] == ["Router"] else _ORDER
        raise ArtifactError(f"{source}: modules {', '.join(kinds)} are not supported", hint)
    for module, kind in zip(modules, kinds, strict=True):
        refuse_settings(module, kind, source)
    return kinds


def _one_side(router: Any, source: Path) -> str:
    side = "document" if "document" in router.sub_modules else next(iter(router.sub_modules))
    code = (
        f"from sentence_transformers import SentenceTransformer as S; m = S('{source}');"
        f" S(modules=[*m[0].sub_modules['{side}'], *list(m)[1:]], prompts=m.prompts,"
        f" similarity_fn_name=m.similarity_fn_name).save('{source}-{side}')"
    )
    return f'a model has one side here; make a folder of that for {side}s: python -c "{code}"'


def _lowered_beforehand(transformer: Any) -> bool:
    # sentence-transformers 6 puts the lowering into the tokenizer, whose rules differ from Python's (final sigma),
    # and it is saved with it; 5 lowers each text before.
    lowers = bool(getattr(transformer, "do_lower_case", False))
    return lowers and "Lowercase" not in str(transformer.tokenizer.backend_tokenizer.normalizer)


def _saved_exits(source: Path) -> dict[int, nn.Module]:
    path = source / EXITS_FILE
    weights = load_file(path) if is_artifact(source) and path.is_file() else {}
    return {int(name.split(".")[0]): linear(weight) for name, weight in weights.items()}


def _refuse_pooling(mode: str, where: str = "") -> None:
    if mode not in POOLINGS:
        raise ArtifactError(f"{where}pooling {mode!r} is not supported", f"known: {', '.join(POOLINGS)}")


def _pooling_mode(pooling: Any) -> str:
    # sentence-transformers 6 stores one name, older versions one flag per mode.
    config = pooling.get_config_dict()
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        return modes if isinstance(modes, str) else "+".join(modes)
    flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken"}
    return "+".join(name for flag, name in flags.items() if config.get(flag)) or "unknown"


def _max_length(loaded: Any, transformer: Any, source: Path) -> int:
    asked, trained = loaded.max_seq_length, _positions(transformer.auto_model)
    if asked and trained and asked > trained and not _counts_positions(transformer.auto_model):
        raise ArtifactError(
            f"{source}: asks for a window of {asked:,} tokens, its positions were trained up to {trained:,}",
            f"set max_seq_length to {trained} in sentence_bert_config.json, and model_max_length in"
            " tokenizer_config.json",
        )
    return int(min(limit for limit in (asked, trained, 32768) if limit))


def _counts_positions(encoder: PreTrainedModel) -> bool:
    """Whether there is a row for each position: beyond the last, sentence-transformers itself fails."""
    return isinstance(getattr(getattr(encoder, "embeddings", None), "position_embeddings", None), nn.Embedding)


def _positions(encoder: PreTrainedModel) -> int | None:
    """How many tokens the encoder has positions for, if that is limited."""
    limit: int | None = getattr(encoder.config, "max_position_embeddings", None)
    limit = limit if limit and limit > 0 else None  # XLNet says -1
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    # RoBERTa and MPNet count from behind the id of the padding token: of 514 rows, 512 are for texts.
    offset: int | None = getattr(table, "padding_idx", None)
    return limit if limit is None or offset is None else limit - offset - 1


def manifest_of(folder: Path) -> Manifest | None:
    """The manifest, if `folder` is an artifact of this package."""
    return Manifest.load(folder) if is_artifact(folder) else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the load report and bars of transformers; a failure still raises."""
    import transformers.utils.logging as hf

    before, bars = hf.get_verbosity(), hf.is_progress_bar_enabled()
    # bitsandbytes, where it is installed, tells at its import of a kernel that it lacks.
    loggers = [logging.getLogger(name) for name in ("sentence_transformers", "bitsandbytes")]
    levels = [each.level for each in loggers]
    hf.set_verbosity_error()
    hf.disable_progress_bar()
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hf.set_verbosity(before)
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        if bars:
            hf.enable_progress_bar()
