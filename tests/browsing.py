"""Headless Chromium, which `benchmarks/browser.py` drives, and what tests look at in a page."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest
from test_packaging import ROOT

_spec = importlib.util.spec_from_file_location("benchmarks_browser", ROOT / "benchmarks" / "browser.py")
assert _spec is not None
assert _spec.loader is not None
tools: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = tools
_spec.loader.exec_module(tools)

MARKS = [pytest.mark.interop, pytest.mark.skipif(tools.missing() is not None, reason=str(tools.missing()))]
READY = "!document.getElementById('query').disabled"
STATUS = "document.getElementById('status').textContent"
FOCUS = "document.activeElement.id || document.activeElement.textContent"
