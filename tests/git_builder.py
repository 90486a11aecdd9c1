"""Makes real git repositories for tests."""

import os
import subprocess
from pathlib import Path

PIPELINE = """\
version: 1
steps:
  - name: hello
    type: step.shell_exec
    commands: [echo hello]
"""


class GitRepository:
    """A work tree of its own, with an identity and without the machine's git configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str, data: bytes | None = None, env: dict[str, str] | None = None) -> str:
        """What git printed; raises when it fails."""
        own = {
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada",
            "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada",
            "GIT_COMMITTER_EMAIL": "ada@example.org",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-c", "protocol.file.allow=always", "-C", str(self.root), *words]
        done = subprocess.run(
            command, check=True, capture_output=True, input=data, env={**inherited, **own, **(env or {})}
        )
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, files: dict[str, str | bytes]) -> None:
        """Write files below the root."""
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: dict[str, str | bytes] | None = None, message: str = "Change") -> str:
        """Write files, commit everything. Returns: the commit."""
        self.write(files or {})
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")
