"""YAML as the files of people hold it: safe types only, and no key twice."""

from __future__ import annotations

from typing import Any

import yaml


class DuplicateKeyError(yaml.YAMLError):
    """A mapping that has a key twice; YAML forbids it, and PyYAML alone would keep the last value without a word."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line, value = key.start_mark.line + 1, self.construct_object(key)
                if value in lines:
                    raise DuplicateKeyError(f"line {line}: the key {value!r} is there already, in line {lines[value]}")
                lines[value] = line
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: not YAML, a tag beyond plain types, or a key twice (`DuplicateKeyError`).
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
