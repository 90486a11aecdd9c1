"""What steps write for Penstock to read: coverage and components, through a whole run into the warehouse."""

import json

import sqlalchemy as sa
from run_sessions import Runner, step

from penstock.warehouse import connect, warehouse_location

LCOV = "SF:src/a.py\\nDA:1,1\\nDA:2,0\\nDA:3,1\\nend_of_record"
BILL = json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [
    {"type": "library", "name": "six", "version": "1.16.0", "purl": "pkg:pypi/six@1.16.0"}]})  # fmt: skip
JUNIT = '<testsuite><testcase classname="t" name="good"/></testsuite>'


def rows(runner: Runner, query: str) -> list[tuple]:
    """What the warehouse says."""
    with connect(warehouse_location(runner.services.settings), read_only=True) as lake:
        return lake.sql(query).fetchall()


def test_coverage_and_components_become_rows(runner: Runner):
    """Per file and per component; the share of lines is an output and in the evidence; the list is kept."""
    write = [f"printf '{LCOV}' > lcov.info", f"printf '%s' '{BILL}' > sbom.json", f"printf '%s' '{JUNIT}' > r.xml"]
    reports = "reports: {junit: r.xml, coverage: '*.info', sbom: sbom.json}"
    run, _steps = runner.run(step("test", *write, more=reports))
    assert run.state == "succeeded"
    coverage = "SELECT step, path, lines, lines_covered FROM coverage"
    assert rows(runner, coverage) == [("test", "src/a.py", 3, 2)]
    listed = "SELECT step, source, ecosystem, name, version FROM components"
    assert rows(runner, listed) == [("test", "checkout", "pypi", "six", "1.16.0")]
    assert rows(runner, "SELECT branch, components, quarantined FROM sboms") == [("main", 1, 0)]
    with runner.services.database.connect() as connection:
        evidence = connection.execute(sa.text("SELECT evidence FROM verdicts")).scalar()
        produced = connection.execute(sa.text("SELECT produced FROM steps")).scalar()
        keys = connection.execute(sa.text("SELECT key FROM artifacts")).scalars().all()
    assert (evidence["coverage"], evidence["lines"], evidence["lines_covered"]) == (66.66, 3, 2)
    assert produced["outputs"]["coverage"] == "66.66"
    assert keys == ["test.cdx.json"]


def test_report_that_is_not_there_fails_the_step(runner: Runner):
    """Declared and not written, or not to be read: as with tests, nobody may take that for good."""
    run, steps = runner.run(
        step("none", "true", more="reports: {coverage: lcov.info}")
        + step("bad", "echo hello > lcov.info", more="reports: {coverage: lcov.info}")
        + step("nolist", "true", more="reports: {sbom: sbom.json}")
        + step("badlist", "echo '<bom/>' > sbom.json", more="reports: {sbom: sbom.json}")
        + step("outside", "ln -s /etc/passwd sbom.json", more="reports: {sbom: sbom.json}")
    )
    assert steps["none"].reason == steps["bad"].reason == "no coverage was found in lcov.info"
    assert steps["nolist"].reason == steps["badlist"].reason == "no component list was found in sbom.json"
    assert "leads out of the workspace" in str(steps["outside"].reason)
    assert any("this list was not read" in line for line in runner.log(run, "badlist", own=True))


def test_result_that_is_known_lists_its_components_again(runner: Runner):
    """A commit whose step is not run again is made of the same: it has its rows, too."""
    pipeline = step("list", f"printf '%s' '{BILL}' > sbom.json", more="inputs: [lock]\nreports: {sbom: sbom.json}")
    first, _ = runner.run(pipeline, lock="1")
    second, steps = runner.run(pipeline, lock="1", other="2")
    assert steps["list"].reused_from == first.info.id
    found = rows(runner, "SELECT commit FROM components ORDER BY listed_at")
    assert found == [(first.info.commit,), (second.info.commit,)]
