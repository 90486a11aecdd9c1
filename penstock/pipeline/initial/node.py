"""Node: how its packages are installed, by the lock file, and which of its scripts are run."""

from collections.abc import Sequence

from penstock.pipeline.initial.proposal import Listing, ProposedStep, table

_NO_TESTS = "no test specified"  # what `npm init` writes
_INSTALLS = {
    "package-lock.json": ("npm ci", "package-lock.json"),
    "npm-shrinkwrap.json": ("npm ci", "npm-shrinkwrap.json"),
    "yarn.lock": ("yarn install --frozen-lockfile", "yarn.lock"),
    "pnpm-lock.yaml": ("pnpm install --frozen-lockfile", "pnpm-lock.yaml"),
}
_SCRIPTS = ("lint", "build", "test")


def steps(files: Listing) -> Sequence[ProposedStep]:
    """One step that installs, lints, builds and tests, as far as package.json has scripts for it."""
    if files.first("package.json") is None:
        return ()
    package = files.json("package.json")
    scripts = {name: text for name, text in table(package.get("scripts")).items() if _NO_TESTS not in str(text)}
    chosen = [name for name in _SCRIPTS if name in scripts]
    install, by = _install(files, package)
    if not chosen and not install:
        return ()
    name = ("test" if "test" in chosen else "build") + ("-node" if files.with_suffix(".py") else "")
    report = "vitest" in str(scripts.get("test", ""))
    return (ProposedStep(name, _says(chosen, by, report), _lines(chosen, install, report)),)


def _install(files: Listing, package: object) -> tuple[str | None, str]:
    """The command that installs, and by what; no command where nothing is needed."""
    for lock, found in _INSTALLS.items():
        if files.first(lock):
            return found
    needed = any(table(table(package).get(key)) for key in ("dependencies", "devDependencies", "workspaces"))
    return ("npm install --no-audit --no-fund", "package.json, for there is no lock") if needed else (None, "nothing")


def _says(chosen: Sequence[str], by: str, report: bool) -> tuple[str, ...]:
    work = ", ".join(chosen) or "install"
    said = [f"The scripts of package.json ({work}), with the packages that {by} names." if by != "nothing" else ""]
    said = [line or f"The scripts of package.json ({work}); it needs no packages." for line in said]
    if report:
        said.append("The JUnit report names the tests that failed.")
    return tuple(said)


def _lines(chosen: Sequence[str], install: str | None, report: bool) -> tuple[str, ...]:
    lines = ["type: step.shell_exec", "timeout: 30m"]
    if install:
        lines.append("network: true # to install; without it a step has none")
    tool = install.split()[0] if install else "npm"
    vitest = " --reporter=default --reporter=junit --outputFile.junit=reports/junit.xml"
    dashes = " --" if tool == "npm" else ""
    lines += ["commands:", *([f"  - {install}"] if install else [])]
    for name in chosen:
        lines.append(f"  - {tool} run {name}" + (dashes + vitest if report and name == "test" else ""))
    return (*lines, "reports:", "  junit: reports/junit.xml") if report else tuple(lines)
