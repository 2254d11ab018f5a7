"""One Chromium for all pages."""

import shutil
from collections.abc import Iterator

import pytest

from tests.browser.driver import Browser, browsing


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    found = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if not all(found):
        pytest.skip("pages in a browser: install chromium and chromium-driver")
    with browsing(str(found[0]), str(found[1]), tmp_path_factory.mktemp("profile")) as opened:
        yield opened
