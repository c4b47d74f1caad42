"""Graphs beyond protobuf's 2 GB: their tensors lie in `<name>_data` beside them, and clients must find them there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnx

from emb.files import read_json, write_json
from emb.quantize.weights.surgery import data_file

_KEY = "transformers.js_config"


def second_name(graph: Path, name: Path) -> None:
    """Give a graph another name, which costs no room where the file system can share files.

    A graph with a data file names it inside, so both are written anew: onnx refuses data that two names share.
    """
    data = data_file(graph)
    if not data.is_file():
        _share(graph, name)
        return
    model = onnx.load(str(graph), load_external_data=False)
    for entry in (
        entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    ):
        entry.value = data_file(name).name
    onnx.save(model, str(name))
    shutil.copyfile(data, data_file(name))


def declare(folder: Path) -> None:
    """Tell transformers.js, in `config.json`, which graphs in `folder` have a data file: it does not look for one."""
    graphs = sorted(path.name for path in (folder / "onnx").glob("*.onnx") if data_file(path).is_file())
    if graphs:
        config = read_json(folder / "config.json")
        write_json(folder / "config.json", config | {_KEY: {"use_external_data_format": dict.fromkeys(graphs, 1)}})


def _share(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
