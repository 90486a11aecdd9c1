"""Fingerprints, fp v1: what keeps them, what changes them, and that no two findings share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sarif_made import encoded, read, read_one, result, run

from penstock.findings import Finding, Scope, read_report
from penstock.findings.identity import image_path, is_placeholder

HASH = "f" * 8 + "0123456789"


def prints(report):
    """The fingerprints of a report, as a set; there are as many as findings."""
    found = {one.fingerprint for one in report.findings}
    assert len(found) == len(report.findings)
    return found


def test_fingerprint_is_what_it_was():
    """fp v1 never changes: rows in warehouses hang on it."""
    scope = Scope(tenant="acme", repository="shop")
    found = [
        read_one(result("R1", "line 7 is wrong", "src/a.py"), scope=scope),
        read_one(result("R1", "m", "src/a.py", snippet="x  =  1\n"), scope=scope),
        read_one(result("R1", "m", "src/a.py", fingerprints={"v1": HASH}), scope=scope),
        read_one(result("CVE-2024-0001", "m", "go.mod", properties={"purl": "pkg:golang/a@1"}), scope=scope),
    ]
    assert [(one.identity, one.fingerprint) for one in found] == [
        ("message", "3df5935921644da25ac1a05c65edd8bf"),
        ("snippet", "38650cc49f8f31aa59e6f9f34e93d868"),
        ("tool", "3e75d609aba4f5e329396460a74e3bbb"),
        ("package", "0531090526ccc64afea6afbb7599ffc8"),
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"scope": Scope(tenant="b")}, {"scope": Scope(repository="r")}, {"scope": Scope(category="c")},
        {"tool": "other"}, {"rule": "R2"},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "basis", [{}, {"snippet": "x"}, {"fingerprints": {"v1": HASH}}, {"properties": {"purl": "pkg:npm/a@1"}}]
)
def test_scope_tool_category_and_rule_are_always_in(other, basis):
    """Whatever an identity stands on, tenant, repository, tool, category and rule tell findings apart."""
    made = {"tool": "scanner", "scope": Scope(), **other}
    rule = made.pop("rule", "R1")
    assert read_one(result(rule, **basis), **made).fingerprint != read_one(result(**basis)).fingerprint


def test_parts_are_not_run_together():
    """Two parts cannot be cut differently and be the same: they are length-prefixed."""
    first = read_one(result("1:ab", "x"), scope=Scope(category="c"))
    second = read_one(result("ab", "x"), scope=Scope(category="c1:"))
    assert first.fingerprint != second.fingerprint


def test_line_moves_keep_findings():
    """The complaint of others' users: lines above were added, and every finding below is closed."""
    before = read(*[result(snippet=f"call({n})", line=n + 10) for n in range(30)])
    after = read(*[result(snippet=f"call({n})", line=n + 17) for n in range(30)])
    assert prints(before) == prints(after)


def test_digits_of_a_message_do_not_count():
    """A message that tells a line or a count is the same message when they change."""
    first, second = (read_one(result(message=f"defined at line {n}, {n} times", line=n)) for n in (3, 41))
    assert first.fingerprint == second.fingerprint


def test_spaces_of_a_snippet_do_not_count():
    """Code that was indented is the same code."""
    first, second = (read_one(result(snippet=text)) for text in ("if x:\n  y()", "    if  x:\r\n\t y()\n"))
    assert first.fingerprint == second.fingerprint


def test_placeholder_fingerprints_close_nothing():
    """The complaint of others' users: "requires login" for all, so all findings but one are closed."""
    some = [result(message=f"m{chr(n + 65)}", fingerprints={"matchBasedId/v1": "requires login"}) for n in range(9)]
    report = read(*some)
    assert len(prints(report)) == 9
    assert {one.identity for one in report.findings} == {"message"}


@pytest.mark.parametrize(
    "value",
    ["requires login", "", "  ", "0", "none", "0000000000000000", "aaaaaaaa", "UNKNOWN", "not a hash", 5, None, []],
)  # fmt: skip
def test_placeholders_are_known(value):
    """Words, single characters repeated, and what is too short identify nothing."""
    assert is_placeholder(value)


@pytest.mark.parametrize("value", ["39fa2ee980eb94b0:1", HASH, "c2VjcmV0LWZpbmdlcnByaW50"])
def test_hashes_are_no_placeholders(value):
    """What tools call fingerprints, mostly."""
    assert not is_placeholder(value)


def test_fingerprint_that_two_results_share_is_not_trusted():
    """A constant that nobody knows as a placeholder is found out by being shared."""
    report = read(
        result(message="a", fingerprints={"id": "constant-of-tool"}),
        result("R2", message="b", fingerprints={"id": "constant-of-tool"}),
        result(message="c", fingerprints={"id": HASH}),
    )
    assert [one.identity for one in report.findings] == ["message", "message", "tool"]
    assert len(prints(report)) == 3


def test_trusted_fingerprint_outlives_line_path_and_message():
    """What the tool itself recognises is the same, wherever it went."""
    first = read_one(result(message="a", path="a.py", line=1, partialFingerprints={"primaryLocationLineHash": HASH}))
    second = read_one(result(message="b", path="b.py", line=9, partialFingerprints={"primaryLocationLineHash": HASH}))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("key", ["primaryLocationStartColumnFingerprint", "commitSha", "author", "scanFileHash"])
def test_fingerprints_of_something_else_are_not_used(key):
    """A column, a commit or a whole file is no finding."""
    assert read_one(result(partialFingerprints={key: HASH})).identity == "message"


IMAGES = [
    "shop/web:1.4.0",
    "shop/web:1.4.1",
    "shop/web@sha256:" + "ab" * 32,
    "shop/web:2@sha256:" + "cd" * 32,
    "shop/web",
]


def test_image_tags_do_not_churn_alerts():
    """The complaint of others' users: a new tag of an image closes and opens every vulnerability in it."""
    reports = [
        read(result("CVE-2024-0001", "m", f"{image}/usr/lib/a", properties={"purl": "pkg:deb/debian/a@1?arch=x"}))
        for image in IMAGES
    ]
    assert len({report.findings[0].fingerprint for report in reports}) == 1


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("alpine:3.18", "alpine"),
        ("registry.example:5000/team/app:v1/usr/lib", "registry.example/team/app/usr/lib"),
        ("app.tar (debian 12.5)", "app.tar"),
        ("C:/code/packages.config", "C:/code/packages.config"),
        ("src/a.py", "src/a.py"),
    ],
)
def test_image_tags_come_off_paths(path, kept):
    """Tags, digests and what a scanner says of the system; a drive is no tag."""
    assert image_path(path) == kept


def test_packages_are_told_apart():
    """Another package, version, advisory or path is another finding."""

    def one(cve="CVE-2024-0001", purl="pkg:npm/a@1", path="package-lock.json"):
        return read_one(result(cve, "m", path, properties={"purl": purl})).fingerprint

    others = [one(), one(cve="CVE-2024-0002"), one(purl="pkg:npm/b@1"), one(purl="pkg:npm/a@2"), one(path="x.json")]
    assert len(set(others)) == 5


def test_line_of_a_package_does_not_count():
    """A lock file that grew has the same vulnerable packages."""
    first, second = (
        read_one(result("CVE-2024-0001", f"m{n}", "package-lock.json", line=n, properties={"purl": "pkg:npm/a@1"}))
        for n in (3, 3000)
    )
    assert first.fingerprint == second.fingerprint


RESULTS = st.lists(
    st.builds(
        lambda rule, message, path, line, snippet, own: result(
            rule, message, path, line=line, snippet=snippet, fingerprints={"v1": own}
        ),
        st.sampled_from(["R1", "R2"]),
        st.sampled_from(["a", "b", "at 1", "at 2"]),
        st.sampled_from(["a.py", "b.py", None]),
        st.integers(1, 4),
        st.sampled_from(["x = 1", "x  = 1", "y", ""]),
        st.sampled_from(["requires login", "hash-one", "hash-two", ""]) | st.uuids().map(str),
    ),
    max_size=20,
)


@given(RESULTS)
def test_no_two_findings_share_a_fingerprint(results):
    """However alike two results are, they are two findings."""
    prints(read(*results))


@given(RESULTS, st.randoms(use_true_random=False))
def test_order_of_results_does_not_matter(results, random):
    """A report in another order has the same findings with the same fingerprints."""
    shuffled = list(results)
    random.shuffle(shuffled)

    def by_all(one: Finding):
        return one.fingerprint, one.message, one.path or "", one.line or 0

    assert sorted(map(by_all, read(*results).findings)) == sorted(map(by_all, read(*shuffled).findings))


@given(RESULTS, st.integers(1, 1000))
def test_lines_added_above_keep_fingerprints(results, added):
    """Every line moved by the same number: all findings are still the same."""
    moved = []
    for one in results:
        line = one["locations"][0]["physicalLocation"]["region"]["startLine"] if "locations" in one else 1
        again = result(one["ruleId"], one["message"]["text"], None) | {"fingerprints": one["fingerprints"]}
        if "locations" in one:
            place = one["locations"][0]["physicalLocation"]
            again["locations"] = [
                {"physicalLocation": place | {"region": place["region"] | {"startLine": line + added}}}
            ]
        moved.append(again)
    assert prints(read(*results)) == prints(read(*moved))


@given(RESULTS, RESULTS)
def test_findings_of_two_runs_do_not_merge(first, second):
    """Two runs in one document, of one tool or of two, keep all their findings apart."""
    prints(read_report(encoded(run(first), run(second))))
    prints(read_report(encoded(run(first), run(second, tool="other"))))
