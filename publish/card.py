"""The model card: `README.md` of an artifact, each figure in it read from the file that the measuring command wrote."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from emb.artifact.lineage import Lineage, TeacherRecord
from emb.artifact.manifest import Variant, weights_name
from emb.errors import ArtifactError
from emb.files import atomic_path
from emb.publish.published_artifact import PublishedArtifact, front_matter, without_paths
from emb.publish.usage import asymmetric, usage

FILE = "README.md"
_SIGNED = re.compile(r"<!-- written by emb card, sha256 ([0-9a-f]{64}); an edited card is left alone -->\n\Z")


def card(published: PublishedArtifact) -> str:
    """The whole card: front matter, use, files, scores, prompts, limits, and how to make the artifact again."""
    sections = [
        _opening(published),
        usage(published),
        asymmetric(published),
        _files(published),
        _scores(published),
        _prompts(published),
        _limits(published),
        _again(published),
    ]
    text = front_matter(published) + "\n" + "\n\n".join(section for section in sections if section) + "\n\n"
    return f"{text}<!-- written by emb card, sha256 {_digest(text)}; an edited card is left alone -->\n"


def write_card(published: PublishedArtifact, *, overwrite: bool = False) -> Path:
    """Write the card into the artifact.

    Raises:
        ArtifactError: a README.md lies there that this function did not write, or that was edited since.
    """
    path = published.folder / FILE
    if path.is_file() and not overwrite and not is_generated(path.read_text(encoding="utf-8")):
        raise ArtifactError(
            f"{path}: written or edited by hand", "add --overwrite to replace it, or --print to look at the new one"
        )
    with atomic_path(path) as partial:
        partial.write_text(card(published), encoding="utf-8")
    return path


def is_generated(text: str) -> bool:
    """Whether a card is as `card` wrote it, to the letter."""
    found = _SIGNED.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _opening(published: PublishedArtifact) -> str:
    known, name = published.manifest, published.name.split("/")[-1]
    kind = (
        f"A text encoder of {known.layers} layers"
        if known.layers
        else "A static text encoder (a row per token, no layers)"
    )
    what = (
        f"{kind}: texts of up to {known.max_length} tokens to vectors of {known.dim}"
        f" dims{' and length 1' if known.normalize else ''}."
    )
    if published.teacher:
        what += f" Distilled from `{published.teacher}`, in whose vector space it answers."
    elif published.parents:
        what += f" An export of `{published.parents[0]}`."
    return f"# {name}\n\n{what} Made with emb (`emb-distill`); every figure below was measured on these files."


def _files(published: PublishedArtifact) -> str:
    rows = [_row(published, variant) for variant in published.files]
    header = ["file", "weights", "vectors", "MB", "min cosine", "mean cosine", "p50, one text", "texts/s", "gate"]
    return f"## Files\n\n{_table(header, rows, right=range(3, 8))}\n\n{_how_measured(published)}"


def _row(published: PublishedArtifact, variant: Variant) -> list[str]:
    names = " = ".join(f"`{name}`" for name in (variant.file, *_same(published, variant)))
    found, size = published.measured(variant), f"{published.size(variant) / 1e6:.1f}"
    start = [
        names,
        weights_name(variant.weight_dtype, variant.exporter) + (f" ({variant.quantizer})" if variant.quantizer else ""),
        variant.vector_dtype,
        size,
    ]
    if found is None or found.get("error"):
        return [*start, "–", "–", "–", "–", "not validated" if found is None else "does not run"]
    settings = found["settings"]
    lowest = min(one["min_cosine"] or 0.0 for one in settings.values())
    mean = settings["as a client"]["mean_cosine"] or 0.0
    verdict = "passed" if found["passed"] else "**failed**"
    return [
        *start,
        f"{lowest:.5f}",
        f"{mean:.5f}",
        f"{found['latency_ms']['p50']:.1f} ms",
        f"{found['speed']['texts_per_second']:.0f}",
        verdict,
    ]


def _same(published: PublishedArtifact, variant: Variant) -> list[str]:
    digest = published.manifest.files.get(variant.file)
    return [
        other.file
        for other in published.manifest.variants
        if other is not variant and digest and published.manifest.files.get(other.file) == digest
    ]


def _how_measured(published: PublishedArtifact) -> str:
    if not published.parity:
        return "Not validated: `emb validate` has not been run on these files."
    texts, machine = published.parity["texts"], published.parity["machine"]
    count = (
        f"{texts['text']} ordinary, {texts['odd']} odd and {texts['long']} long texts, and {texts.get('hard', 0)} made"
        " from the model itself"
    )
    where = (
        f"{machine['threads']} threads of {machine['processor']}, onnxruntime {machine['onnxruntime']},"
        f" {published.parity['created'][:10]}"
    )
    return (
        f"Cosines are to this folder's model in torch, over {count}, alone and in mixed batches, padded on either side"
        f" (`emb validate`). Speed: {where}."
    )


def _scores(published: PublishedArtifact) -> str:
    if not published.evaluation.scores:
        return ""
    note = f", or made by `{published.evaluation.teacher}`" if published.evaluation.teacher else ""
    return (
        "## Scores\n\nBy `emb evaluate`, × 100; documents by the model"
        f" itself{note}.\n\n{published.evaluation.markdown().rstrip()}"
    )


def _prompts(published: PublishedArtifact) -> str:
    given = {kind: prompt for kind, prompt in published.manifest.prompts.items() if prompt}
    if not given:
        return "## Prompts\n\nNone: queries and documents are encoded as they are."
    rows = [[kind, f"`{prompt!r}`"] for kind, prompt in given.items()]
    return (
        "## Prompts\n\nPut before each text of a kind; programs other than emb and sentence-transformers leave that to"
        f" you.\n\n{_table(['kind', 'prompt'], rows)}"
    )


def _limits(published: PublishedArtifact) -> str:
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in [*_failures(published), *_bounds(published)])])


def _failures(published: PublishedArtifact) -> list[str]:
    found = []
    for variant in published.files:
        report = published.measured(variant)
        for gate in (report or {}).get("gates", []):
            if not gate["passed"]:
                value = "no finite number" if gate["value"] is None else f"{gate['value']:.5g}"
                found.append(
                    f"**`{variant.file}` failed a gate**: {gate['name']} is {value},"
                    f" {'at most' if gate['at_most'] else 'at least'} {gate['limit']:g} was asked."
                )
        if report is None and variant.passed is False:
            found.append(
                f"**`{variant.file}` failed its gate** when it was made (min cosine {variant.min_cosine or 0:.4f})."
            )
    return found


def _bounds(published: PublishedArtifact) -> list[str]:
    bounds = [f"Texts are cut at {published.manifest.max_length} tokens."]
    if learned := published.manifest.learned_length:
        bounds.append(f"In training they were cut at {learned}: what stands behind was not learned from.")
    teacher = (published.parity.get("slice") or {}).get("teacher")
    if teacher and teacher.get("mean_cosine") is not None:
        overlap = (
            f"and {teacher['overlap_at_10']:.0%} of the teacher's ten nearest neighbours are this model's"
            if teacher.get("overlap_at_10") is not None
            else ""
        )
        bounds.append(
            f"The teacher is approached, not reached: mean cosine to its vectors {teacher['mean_cosine']:.3f} on"
            f" {teacher['texts']} texts {overlap}".rstrip()
            + "."
        )
    if not published.evaluation.scores:
        bounds.append("No benchmark was run on it: quality in search is unknown.")
    if any(variant.weight_dtype == "int8" for variant in published.files):
        where = chosen.processor if (chosen := published.lineage.quantization) and chosen.processor else "one processor"
        bounds.append(f"8-bit files were chosen and timed on {where}; another may prefer `onnx/model.onnx`.")
    return [*bounds, *_licences(published)]


def _licences(published: PublishedArtifact) -> list[str]:
    terms = [f"`{entry.hub_id}` {entry.licence}" for entry in published.known]
    unknown = [
        name
        for name in published.parents
        if not any(entry.name == name.split("/")[-1] or entry.hub_id == name for entry in published.known)
    ]
    terms += [f"`{name}` not known" for name in unknown]
    return [f"Licences of the models it was made from: {', '.join(dict.fromkeys(terms))}."] if terms else []


def _again(published: PublishedArtifact) -> str:
    lineage = published.lineage
    rows = [row for row in [*_teacher_rows(lineage), *_data_rows(lineage), *_version_rows(lineage)] if row[1]]
    parts = ["## Made again", f"```bash\n{_commands(published)}\n```", _table(["what", "value"], rows)]
    if lineage.recipe:
        parts.append(f"`recipe.yaml`, as resolved:\n\n```yaml\n{_yaml(lineage.recipe)}```")
    return "\n\n".join([*parts, "`emb.json` has all of this and the sha256 of every file."])


def _commands(published: PublishedArtifact) -> str:
    known, lines = published.manifest, []
    if published.lineage.recipe:
        lines.append("emb distill --recipe recipe.yaml --out run")
    source = "run" if published.lineage.recipe else (published.parents or ["MODEL"])[-1]
    dtypes = {variant.weight_dtype for variant in known.variants}
    options = [f"--{dtype}" for dtype in ("int8", "fp16") if dtype in dtypes]
    chosen = published.lineage.quantization
    options += [f"--min-cosine {chosen.min_cosine:g}"] if chosen else []
    options += ["--reduce-range"] if chosen and chosen.reduce_range else []
    options += [
        f"--vectors {kind}"
        for kind, dtype in (("int8", "int8"), ("binary", "ubinary"))
        if dtype in {variant.vector_dtype for variant in known.variants}
    ]
    lines.append(
        " ".join(
            [
                f"emb export {source} --layers {known.layers} --dim {known.dim}",
                *options,
                f"--out {published.name.split('/')[-1]}",
            ]
        )
    )
    return "\n".join([*lines, f"emb validate {published.name.split('/')[-1]}"])


def _teacher_rows(lineage: Lineage) -> list[list[str]]:
    teacher, source = lineage.teacher or TeacherRecord(""), lineage.source
    names = {
        "name": "teacher",
        "revision": "teacher's revision",
        "weights": "sha256 of the teacher's weights",
        "fingerprint": "fingerprint of its vectors",
    }
    rows = [[label, f"`{value}`" if (value := getattr(teacher, key)) else ""] for key, label in names.items()]
    return [
        *rows,
        ["sha256 of the source's weights", f"`{source.fingerprint}`" if source and source.fingerprint else ""],
    ]


def _data_rows(lineage: Lineage) -> list[list[str]]:
    data = lineage.data
    texts = f"{data.texts:,} texts, hash `{data.hash}`" if data else ""
    return [["training data", texts], ["seed", "" if lineage.seed is None else str(lineage.seed)]]


def _version_rows(lineage: Lineage) -> list[list[str]]:
    stages = {"trained with": lineage.versions, "exported with": lineage.export.versions}
    return [
        [label, ", ".join(f"{name} {number}" for name, number in versions.items())]
        for label, versions in stages.items()
    ]


def _yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(without_paths(value), sort_keys=False, allow_unicode=True))


def _table(header: list[str], rows: list[list[str]], right: range = range(0)) -> str:
    rule = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join(
        f"| {' | '.join(cells)} |"
        for cells in [header, rule, *([cell.replace("|", "&#124;") for cell in row] for row in rows)]
    )
