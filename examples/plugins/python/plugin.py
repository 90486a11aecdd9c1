"""Finds long lines; see docs/index.md."""

from pathlib import Path

from penstock import sdk


def main(plugin: sdk.Plugin) -> None:
    limit, suffixes = plugin.inputs["limit"], tuple(plugin.inputs["suffixes"])
    files = sorted(path for path in plugin.workspace.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    plugin.scanned()
    total = longest = 0
    for at, path in enumerate(files, start=1):
        if plugin.cancelled:
            raise sdk.Failed("stopped")
        lengths = line_lengths(path)
        name = path.relative_to(plugin.workspace).as_posix()
        for number, length in enumerate(lengths, start=1):
            if length > limit:
                words = f"{length} characters, at most {limit} may be"
                plugin.finding("long-line", words, path=name, line=number, severity="low")
        plugin.data("file", {"lines": len(lengths), "longest": max(lengths, default=0)}, key=name)
        plugin.progress(at / len(files), name)
        total, longest = total + len(lengths), max([longest, *lengths])
    plugin.metric("lines", total)
    plugin.metric("longest", longest)
    plugin.output("longest", longest)


def line_lengths(path: Path) -> list[int]:
    return [len(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
