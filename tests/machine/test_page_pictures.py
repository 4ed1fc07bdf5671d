"""The pictures of the page can be made again."""

from __future__ import annotations

from pathlib import Path

from ..browser import Tab
from ..page import pictures
from ..page.test_pictures import size_of


def test_the_pictures_are_made_from_the_recording(tab: Tab, tmp_path: Path) -> None:
    del tab  # Skips where there is no browser.
    pictures.write(tmp_path)
    for name, _scheme, _view in pictures.PICTURES:
        picture = tmp_path / f"{name}.png"
        assert size_of(picture) == (pictures.WIDTH, pictures.HEIGHT)
        assert picture.stat().st_size > 20_000  # Not blank.
