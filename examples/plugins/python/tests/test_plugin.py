"""Run with `python -m unittest discover tests` in the plugin's folder."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import plugin  # noqa: E402


class LineLengths(unittest.TestCase):
    def test_bytes_that_are_no_text_count_as_one_character_each(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a"
            path.write_bytes(b"ab\xff\n\n")
            assert plugin.line_lengths(path) == [3, 0]


if __name__ == "__main__":
    unittest.main()
