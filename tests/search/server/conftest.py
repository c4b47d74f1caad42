"""What a search is served of, made once for these tests."""

from __future__ import annotations

import pytest
from searchable import Searchable, made


@pytest.fixture(scope="session")
def searchable(tmp_path_factory: pytest.TempPathFactory) -> Searchable:
    return made(tmp_path_factory.mktemp("searchable"))
