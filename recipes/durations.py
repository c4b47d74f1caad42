"""Times as people write them: 90s, 45m, 1h30m."""

from __future__ import annotations

import re

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def seconds_of(text: str | float) -> float:
    """Seconds in a time such as 90s, 45m or 1h30m; a bare number counts seconds.

    Raises:
        ValueError: something else, or nothing above 0.
    """
    compact = str(text).strip().lower().replace(" ", "")
    compact = f"{compact}s" if compact[-1:].isdecimal() else compact
    found = _PART.findall(compact) if _WHOLE.fullmatch(compact) else []
    total = sum(float(number) * _UNITS[unit] for number, unit in found)
    if total <= 0:
        raise ValueError(f"{text!r} is not a time such as 90s, 45m or 1h30m")
    return total
