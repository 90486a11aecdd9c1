"""A new plugin, made of a template: small, and whole enough to pass `penstock plugin check` and `test` as it is."""

import shutil
from pathlib import Path

from penstock.errors import ConflictError, InputError
from penstock.plugins.registries.wire import check_name

TEMPLATES = Path(__file__).with_name("templates")
SDK = Path(__file__).parents[1] / "sdk"
_NAME = "PLUGIN-NAME"
_EXECUTABLE = (".sh",)


def write_plugin(folder: Path, name: str, language: str) -> Path:
    """
    Write the files. A plugin in Python brings the SDK along, so that its image needs nothing but Python.

    Raises: InputError for a name that no plugin can have, ConflictError when there is something already.
    """
    check_name(name)
    if folder.exists():
        raise ConflictError("there is something already", where=str(folder), remedy="choose another name")
    template = TEMPLATES / language
    try:
        for source in sorted(path for path in template.rglob("*") if path.is_file()):
            _write(folder / source.relative_to(template), source.read_text(), name)
        if language == "python":
            bring_sdk(folder)
    except OSError as error:
        raise InputError(f"cannot write it: {error.strerror}", where=str(folder), remedy="choose --into") from error
    return folder


def bring_sdk(folder: Path) -> None:
    """Copy the SDK into a plugin's folder, where its `from penstock import sdk` finds it."""
    target = folder / "penstock" / "sdk"
    target.mkdir(parents=True, exist_ok=True)
    (target.parent / "__init__.py").write_text('"""Holds the SDK that this plugin was made with."""\n')
    for source in sorted(SDK.glob("*.py")):
        shutil.copyfile(source, target / source.name)


def _write(path: Path, text: str, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(_NAME, name))
    if path.suffix in _EXECUTABLE:
        path.chmod(0o755)
