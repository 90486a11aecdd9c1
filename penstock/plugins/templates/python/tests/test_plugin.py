"""Run with `python -m unittest discover tests` in the plugin's folder."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import plugin


class Files(unittest.TestCase):
    def test_only_those_that_end_so(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("b.md", "a.md", "a.txt"):
                (Path(folder) / name).touch()
            found = plugin.files_below(Path(folder), ".md")
            assert [path.name for path in found] == ["a.md", "b.md"]


if __name__ == "__main__":
    unittest.main()
