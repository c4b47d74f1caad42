"""How the figures of a validation are written, on the page and on the terminal."""

from __future__ import annotations

from emb.artifact.manifest import weights_name
from emb.validate.findings import Gate, VariantReport


def precision(found: VariantReport) -> str:
    """ "int8 (static-smooth)": of weights and vectors, and by which scheme."""
    return f"{short_name(found)} ({found.quantizer})" if found.quantizer else short_name(found)


def short_name(found: VariantReport) -> str:
    """ "int8 → ubinary": of weights, of vectors if it is another."""
    weights = weights_name(found.weight_dtype, found.exporter)
    return weights if found.vector_dtype == "float32" else f"{weights} → {found.vector_dtype}"


def teacher_cosine(figures: dict[str, float | None] | None) -> float | None:
    """The mean cosine among figures against the teacher, if there are any."""
    return figures["mean_cosine"] if figures else None


def gate_text(gate: Gate) -> str:
    """One demand in words, with what was found."""
    return (
        f"{gate.name} is {gate_value(gate.value)}, must be {'at most' if gate.at_most else 'at least'} {gate.limit:.6g}"
    )


def gate_value(value: float | None) -> str:
    """What a gate found; None is what is not finite."""
    return "not finite" if value is None else f"{value:.6g}"


def figure(name: str, value: float | None) -> str:
    """A figure of a setting with the digits that its kind is read with."""
    if value is None:
        return "not finite"
    return f"{value:.1e}" if name == "max_abs_diff" else f"{value:.6f}" if "cosine" in name else f"{value:.4f}"


def number(value: float | None, digits: int) -> str:
    """With `digits` decimals and thousands set apart; a dash if there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def size(count: float) -> str:
    """Bytes as MB or kB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
