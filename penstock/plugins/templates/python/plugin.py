"""Counts files; see docs/index.md."""

from pathlib import Path

from penstock import sdk


def main(plugin: sdk.Plugin) -> None:
    suffix, at_most = plugin.inputs["suffix"], plugin.inputs["at-most"]
    with plugin.group(f"Files that end with {suffix}"):
        sizes = {path: path.stat().st_size for path in files_below(plugin.workspace, suffix)}
        for path, size in sizes.items():
            plugin.log(f"{path.relative_to(plugin.workspace)}: {size} bytes")
    plugin.metric("files", len(sizes))
    plugin.metric("bytes", sum(sizes.values()))
    plugin.output("files", len(sizes))
    if sizes:
        largest = max(sizes, key=lambda path: sizes[path])
        plugin.data("largest", {"path": str(largest.relative_to(plugin.workspace)), "bytes": sizes[largest]})
    plugin.scanned()
    if at_most and len(sizes) > at_most:
        words = f"{len(sizes)} files end with {suffix}, at most {at_most} may"
        plugin.finding("too-many-files", words, severity="low")
        raise sdk.Failed(words)


def files_below(root: Path, suffix: str) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name.endswith(suffix) and path.is_file())


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
