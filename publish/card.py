"""The model card: `README.md` of an artifact, each figure in it read from the file that the measuring command wrote."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from emb.artifact.manifest import Variant, weights_name
from emb.errors import ArtifactError
from emb.files import atomic_path
from emb.publish.summary import Facts, front_matter, without_paths
from emb.publish.usage import asymmetric, usage

FILE = "README.md"
_SIGNED = re.compile(r"<!-- written by emb card, sha256 ([0-9a-f]{64}); an edited card is left alone -->\n\Z")


def card(facts: Facts) -> str:
    """The whole card: front matter, use, files, scores, prompts, limits, and how to make the artifact again."""
    sections = [
        _opening(facts),
        usage(facts),
        asymmetric(facts),
        _files(facts),
        _scores(facts),
        _prompts(facts),
        _limits(facts),
        _again(facts),
    ]
    text = front_matter(facts) + "\n" + "\n\n".join(section for section in sections if section) + "\n\n"
    return f"{text}<!-- written by emb card, sha256 {_digest(text)}; an edited card is left alone -->\n"


def write_card(facts: Facts, *, overwrite: bool = False) -> Path:
    """Write the card into the artifact.

    Raises:
        ArtifactError: a README.md lies there that this function did not write, or that was edited since.
    """
    path = facts.folder / FILE
    if path.is_file() and not overwrite and not is_generated(path.read_text(encoding="utf-8")):
        raise ArtifactError(
            f"{path}: written or edited by hand", "add --overwrite to replace it, or --print to look at the new one"
        )
    with atomic_path(path) as partial:
        partial.write_text(card(facts), encoding="utf-8")
    return path


def is_generated(text: str) -> bool:
    """Whether a card is as `card` wrote it, to the letter."""
    found = _SIGNED.search(text)
    return found is not None and found[1] == _digest(text[: found.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _opening(facts: Facts) -> str:
    known, name = facts.manifest, facts.name.split("/")[-1]
    kind = (
        f"A text encoder of {known.layers} layers"
        if known.layers
        else "A static text encoder (a row per token, no layers)"
    )
    what = (
        f"{kind}: texts of up to {known.max_length} tokens to vectors of {known.dim}"
        f" dims{' and length 1' if known.normalize else ''}."
    )
    if facts.teacher:
        what += f" Distilled from `{facts.teacher}`, in whose vector space it answers."
    elif facts.parents:
        what += f" An export of `{facts.parents[0]}`."
    return f"# {name}\n\n{what} Made with emb (`emb-distill`); every figure below was measured on these files."


def _files(facts: Facts) -> str:
    rows = [_row(facts, variant) for variant in facts.files]
    header = ["file", "weights", "vectors", "MB", "min cosine", "mean cosine", "p50, one text", "texts/s", "gate"]
    return f"## Files\n\n{_table(header, rows, right=range(3, 8))}\n\n{_how_measured(facts)}"


def _row(facts: Facts, variant: Variant) -> list[str]:
    names = " = ".join(f"`{name}`" for name in (variant.file, *_same(facts, variant)))
    found, size = facts.measured(variant), f"{facts.size(variant) / 1e6:.1f}"
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


def _same(facts: Facts, variant: Variant) -> list[str]:
    digest = facts.manifest.files.get(variant.file)
    return [
        other.file
        for other in facts.manifest.variants
        if other is not variant and digest and facts.manifest.files.get(other.file) == digest
    ]


def _how_measured(facts: Facts) -> str:
    if not facts.parity:
        return "Not validated: `emb validate` has not been run on these files."
    texts, machine = facts.parity["texts"], facts.parity["machine"]
    count = (
        f"{texts['text']} ordinary, {texts['odd']} odd and {texts['long']} long texts, and {texts.get('hard', 0)} made"
        " from the model itself"
    )
    where = (
        f"{machine['threads']} threads of {machine['processor']}, onnxruntime {machine['onnxruntime']},"
        f" {facts.parity['created'][:10]}"
    )
    return (
        f"Cosines are to this folder's model in torch, over {count}, alone and in mixed batches, padded on either side"
        f" (`emb validate`). Speed: {where}."
    )


def _scores(facts: Facts) -> str:
    if not facts.evaluation.scores:
        return ""
    note = f", or made by `{facts.evaluation.teacher}`" if facts.evaluation.teacher else ""
    return (
        "## Scores\n\nBy `emb evaluate`, × 100; documents by the model"
        f" itself{note}.\n\n{facts.evaluation.markdown().rstrip()}"
    )


def _prompts(facts: Facts) -> str:
    given = {kind: prompt for kind, prompt in facts.manifest.prompts.items() if prompt}
    if not given:
        return "## Prompts\n\nNone: queries and documents are encoded as they are."
    rows = [[kind, f"`{prompt!r}`"] for kind, prompt in given.items()]
    return (
        "## Prompts\n\nPut before each text of a kind; programs other than emb and sentence-transformers leave that to"
        f" you.\n\n{_table(['kind', 'prompt'], rows)}"
    )


def _limits(facts: Facts) -> str:
    return "\n".join(["## Limits", "", *(f"- {limit}" for limit in [*_failures(facts), *_bounds(facts)])])


def _failures(facts: Facts) -> list[str]:
    found = []
    for variant in facts.files:
        report = facts.measured(variant)
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


def _bounds(facts: Facts) -> list[str]:
    bounds = [f"Texts are cut at {facts.manifest.max_length} tokens."]
    if learned := facts.manifest.learned_length:
        bounds.append(f"In training they were cut at {learned}: what stands behind was not learned from.")
    teacher = (facts.parity.get("slice") or {}).get("teacher")
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
    if not facts.evaluation.scores:
        bounds.append("No benchmark was run on it: quality in search is unknown.")
    if any(variant.weight_dtype == "int8" for variant in facts.files):
        where = (facts.lineage.get("quantization") or {}).get("processor") or "one processor"
        bounds.append(f"8-bit files were chosen and timed on {where}; another may prefer `onnx/model.onnx`.")
    return [*bounds, *_licences(facts)]


def _licences(facts: Facts) -> list[str]:
    terms = [f"`{entry.hub_id}` {entry.licence}" for entry in facts.known]
    unknown = [
        name
        for name in facts.parents
        if not any(entry.name == name.split("/")[-1] or entry.hub_id == name for entry in facts.known)
    ]
    terms += [f"`{name}` not known" for name in unknown]
    return [f"Licences of the models it was made from: {', '.join(dict.fromkeys(terms))}."] if terms else []


def _again(facts: Facts) -> str:
    lineage = facts.lineage
    rows = [row for row in [*_teacher_rows(lineage), *_data_rows(lineage), *_version_rows(lineage)] if row[1]]
    parts = ["## Made again", f"```bash\n{_commands(facts)}\n```", _table(["what", "value"], rows)]
    if lineage.get("recipe"):
        parts.append(f"`recipe.yaml`, as resolved:\n\n```yaml\n{_yaml(lineage['recipe'])}```")
    return "\n\n".join([*parts, "`emb.json` has all of this and the sha256 of every file."])


def _commands(facts: Facts) -> str:
    known, lines = facts.manifest, []
    if facts.lineage.get("recipe"):
        lines.append("emb distill --recipe recipe.yaml --out run")
    source = "run" if facts.lineage.get("recipe") else (facts.parents or ["MODEL"])[-1]
    dtypes = {variant.weight_dtype for variant in known.variants}
    options = [f"--{dtype}" for dtype in ("int8", "fp16") if dtype in dtypes]
    chosen = facts.lineage.get("quantization") or {}
    options += [f"--min-cosine {chosen['min_cosine']:g}"] if chosen.get("min_cosine") else []
    options += ["--reduce-range"] if chosen.get("reduce_range") else []
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
                f"--out {facts.name.split('/')[-1]}",
            ]
        )
    )
    return "\n".join([*lines, f"emb validate {facts.name.split('/')[-1]}"])


def _teacher_rows(lineage: dict[str, Any]) -> list[list[str]]:
    teacher, source = lineage.get("teacher") or {}, lineage.get("source") or {}
    names = {
        "name": "teacher",
        "revision": "teacher's revision",
        "weights": "sha256 of the teacher's weights",
        "fingerprint": "fingerprint of its vectors",
    }
    rows = [[label, f"`{teacher[key]}`" if teacher.get(key) else ""] for key, label in names.items()]
    return [
        *rows,
        ["sha256 of the source's weights", f"`{source['fingerprint']}`" if source.get("fingerprint") else ""],
    ]


def _data_rows(lineage: dict[str, Any]) -> list[list[str]]:
    data = lineage.get("data") or {}
    texts = f"{data['texts']:,} texts, hash `{data['hash']}`" if data else ""
    return [["training data", texts], ["seed", str(lineage["seed"]) if lineage.get("seed") is not None else ""]]


def _version_rows(lineage: dict[str, Any]) -> list[list[str]]:
    stages = {"trained with": lineage.get("versions"), "exported with": (lineage.get("export") or {}).get("versions")}
    return [
        [label, ", ".join(f"{name} {number}" for name, number in (versions or {}).items())]
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
