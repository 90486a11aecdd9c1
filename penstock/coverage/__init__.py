"""What tests reached of the code: reports of coverage, file by file, and their sum."""

from penstock.coverage.report import FileCoverage, Summary, merged, read_coverage, summarise

__all__ = ["FileCoverage", "Summary", "merged", "read_coverage", "summarise"]
