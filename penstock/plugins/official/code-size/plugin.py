"""Counts files, lines and code by language, and how complex Python functions are; see docs/index.md."""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from penstock import sdk

LARGEST_BYTES = 2_000_000
LANGUAGES = {
    **dict.fromkeys((".py", ".pyi"), "Python"),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "JavaScript"),
    **dict.fromkeys((".ts", ".tsx"), "TypeScript"),
    **dict.fromkeys((".sh", ".bash"), "Shell"),
    **dict.fromkeys((".c", ".h"), "C"),
    **dict.fromkeys((".cc", ".cpp", ".hpp"), "C++"),
    **dict.fromkeys((".yml", ".yaml"), "YAML"),
    **dict.fromkeys((".html", ".htm"), "HTML"),
    ".go": "Go",
    ".rs": "Rust",
    ".java": "Java",
    ".kt": "Kotlin",
    ".rb": "Ruby",
    ".php": "PHP",
    ".cs": "C#",
    ".sql": "SQL",
    ".css": "CSS",
    ".toml": "TOML",
    ".md": "Markdown",
    ".tf": "Terraform",
}
COMMENTS = {
    **dict.fromkeys(("Python", "Shell", "Ruby", "YAML", "TOML", "Terraform"), ("#",)),
    **dict.fromkeys(
        ("JavaScript", "TypeScript", "C", "C++", "Go", "Rust", "Java", "Kotlin", "C#", "PHP", "CSS"), ("//", "/*", "*")
    ),
    "SQL": ("--",),
    "HTML": ("<!--",),
}
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.Assert, ast.match_case)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main(plugin: sdk.Plugin) -> None:
    """Look at every file that is asked for."""
    by_language: dict[str, Counter[str]] = defaultdict(Counter)
    complexities: list[int] = []
    plugin.scanned()
    for path in files(plugin.workspace, plugin.inputs["paths"], set(plugin.inputs["exclude"])):
        if plugin.cancelled:
            raise sdk.Failed("stopped")
        name, language = path.relative_to(plugin.workspace).as_posix(), LANGUAGES[path.suffix.lower()]
        text = path.read_text(encoding="utf-8", errors="replace")
        counted = {"lines": len(text.splitlines()), "code_lines": code_lines(text, language)}
        by_language[language].update({"files": 1, **counted})
        told = {"language": language, **counted}
        if language == "Python":
            functions = list(python_functions(text))
            complexities += [complexity for _, _, complexity in functions]
            told["complexity"] = sum(complexity for _, _, complexity in functions)
            report(plugin, name, functions)
        plugin.data("file", told, key=name)
    tell(plugin, by_language, complexities)


def report(plugin: sdk.Plugin, path: str, functions: list[tuple[str, int, int]]) -> None:
    """A finding for each function that is too complex."""
    limit = plugin.inputs["most_complex"]
    for function, line, complexity in functions:
        if complexity > limit:
            words = f"{function} has a cyclomatic complexity of {complexity}, at most {limit} may be"
            plugin.finding("complex-function", words, path=path, line=line, severity="low")


def tell(plugin: sdk.Plugin, by_language: dict[str, Counter[str]], complexities: list[int]) -> None:
    """Metrics by language and in all, and outputs."""
    for language, counts in sorted(by_language.items()):
        for metric in ("files", "lines", "code_lines"):
            plugin.metric(metric, counts[metric], labels={"language": language})
        plugin.log(f"{language}: {counts['files']} files, {counts['code_lines']} lines of code")
    if complexities:
        plugin.metric("complexity_mean", sum(complexities) / len(complexities))
        plugin.metric("complexity_max", max(complexities))
    total = sum(by_language.values(), Counter())
    plugin.output("files", total["files"])
    plugin.output("code_lines", total["code_lines"])


def files(root: Path, paths: list[str], excluded: set[str]) -> Iterator[Path]:
    """Files of a known language, sorted; links, hidden folders and very large files are left out."""
    found: set[Path] = set()
    for given in paths:
        place = root / given
        found.update([place] if place.is_file() else place.rglob("*"))
    for path in sorted(found):
        inner = path.relative_to(root).parts[:-1]
        hidden = any(part in excluded or part.startswith(".") for part in inner)
        known = path.suffix.lower() in LANGUAGES
        if known and not hidden and not path.is_symlink() and path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            yield path


def code_lines(text: str, language: str) -> int:
    """Lines that are neither blank nor begin with what begins a comment in the language."""
    marks = COMMENTS.get(language, ())
    stripped = (line.strip() for line in text.splitlines())
    return sum(1 for line in stripped if line and not (marks and line.startswith(marks)))


def python_functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Each function's name, line and cyclomatic complexity (McCabe 1976); none for what cannot be parsed."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield node.name, node.lineno, 1 + sum(map(branches, own_nodes(node)))


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """What a function consists of, without the functions inside of it."""
    todo = list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, FUNCTIONS):
            todo.extend(ast.iter_child_nodes(node))


def branches(node: ast.AST) -> int:
    """How many more ways through a function a node makes."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return int(isinstance(node, BRANCHES))


if __name__ == "__main__":
    with sdk.plugin() as plugin:
        main(plugin)
