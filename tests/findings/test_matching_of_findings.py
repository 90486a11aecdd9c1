"""Following findings from commit to commit, through code that was moved, renamed, edited and reordered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import InputError
from penstock.findings import Finding
from penstock.findings.baseline import diff_findings
from penstock.findings.checkout import folder_source
from penstock.findings.matching import carry_identity, match_findings


def finding(path, line, rule="R1", message="m", name="", **more):
    """A finding; `name` is who it truly is, carried in a field that matching does not look at."""
    fingerprint = more.pop("fingerprint", f"{path}:{line}:{rule}:{message}:{name}")
    return Finding("tool", rule, message=message, path=path, line=line, help_uri=name, fingerprint=fingerprint, **more)


def code(n):
    """A file of n lines, no two alike."""
    return [f"statement {number} of {n}" for number in range(n)]


def truth(old, new, matching):
    """The true names on both sides of every pair."""
    return [(old[pair.old].help_uri, new[pair.new].help_uri) for pair in matching.pairs]


LINE = st.sampled_from(["x()", "y()", "z()", "", "  x()", "}"])
FILES = st.dictionaries(
    st.sampled_from(["a.py", "b.py", "c/d.py"]), st.lists(LINE, min_size=1, max_size=12), min_size=1
)


@st.composite
def commits(draw):
    """A checkout with findings on some lines; every line is told apart from the others by its neighbours."""
    files = draw(FILES)
    files = {path: [f"{path} line {n}: {text}" for n, text in enumerate(lines)] for path, lines in files.items()}
    found = [
        finding(path, line + 1, rule, name=f"{path}#{line}#{rule}")
        for path, lines in files.items()
        for line in range(len(lines))
        for rule in draw(st.sets(st.sampled_from(["R1", "R2"])))
    ]
    return files, found


def moved(found, path, line):
    """A finding at another place, with the fingerprint that a reader would give it there."""
    return finding(path, line, found.rule_id, found.message, found.help_uri)


@given(commits(), st.data())
def test_added_lines_keep_identity(made, data):
    """Lines added anywhere: every finding is still itself."""
    files, old = made
    path = data.draw(st.sampled_from(sorted(files)))
    at = data.draw(st.integers(0, len(files[path])))
    added = [f"added {n}" for n in range(data.draw(st.integers(1, 5)))]
    after = files | {path: files[path][:at] + added + files[path][at:]}
    new = [moved(one, one.path, one.line + len(added) * (one.path == path and one.line > at)) for one in old]
    matching = match_findings(old, new, files.get, after.get)
    assert all(before == now for before, now in truth(old, new, matching))
    assert len(matching.pairs) == len(old)


@given(commits(), st.data())
def test_renamed_file_keeps_identity(made, data):
    """A file under another name: its findings are still themselves."""
    files, old = made
    path = data.draw(st.sampled_from(sorted(files)))
    after = {("new/" + name if name == path else name): lines for name, lines in files.items()}
    new = [moved(one, "new/" + one.path if one.path == path else one.path, one.line) for one in old]
    matching = match_findings(old, new, files.get, after.get)
    assert all(before == now for before, now in truth(old, new, matching))
    assert len(matching.pairs) == len(old)


@given(commits(), st.randoms(use_true_random=False))
def test_reordered_report_keeps_identity(made, random):
    """The same findings in another order: every finding is still itself, with sources and without."""
    files, old = made
    new = list(old)
    random.shuffle(new)
    for sources in ((files.get, files.get), (None, None)):
        matching = match_findings(old, new, *sources)
        assert len(matching.pairs) == len(old)
    assert all(before == now for before, now in truth(old, new, match_findings(old, new, files.get, files.get)))


@given(commits(), st.data())
def test_moved_block_keeps_identity(made, data):
    """A stretch of a file at another place in it: its findings are still themselves."""
    files, old = made
    path = data.draw(st.sampled_from(sorted(files)))
    lines = files[path]
    order = list(range(len(lines)))
    first = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(first, len(lines)))
    block, rest = order[first:end], order[:first] + order[end:]
    at = data.draw(st.integers(0, len(rest)))
    order = rest[:at] + block + rest[at:]
    after = files | {path: [lines[n] for n in order]}
    new = [moved(one, path, order.index(one.line - 1) + 1) if one.path == path else one for one in old]
    matching = match_findings(old, new, files.get, after.get)
    assert all(before == now for before, now in truth(old, new, matching))
    assert len(matching.pairs) == len(old)


@given(commits(), commits())
def test_findings_never_merge(first, second):
    """Whatever two commits hold, every finding is in one pair or left over, and fingerprints stay unique."""
    (before, old), (after, new) = first, second
    for sources in ((before.get, after.get), (None, None)):
        matching = match_findings(old, new, *sources)
        pairs = matching.pairs
        assert len({pair.old for pair in pairs}) == len({pair.new for pair in pairs}) == len(pairs)
        assert sorted([pair.new for pair in pairs] + list(matching.introduced)) == list(range(len(new)))
        assert sorted([pair.old for pair in pairs] + list(matching.fixed)) == list(range(len(old)))
        carried = carry_identity(old, new, matching)
        assert len({one.fingerprint for one in carried}) == len(new)
        kept = {old[pair.old].fingerprint for pair in pairs}
        assert not {carried[at].fingerprint for at in matching.introduced} & {one.fingerprint for one in old}
        assert kept <= {one.fingerprint for one in carried}


@given(commits())
def test_rules_tools_and_categories_are_not_mixed(made):
    """A finding of another rule on the same line is another finding."""
    files, old = made
    new = [moved(one, one.path, one.line) for one in old]
    for other in ([finding(one.path, one.line, "other") for one in new],):
        assert not match_findings(old, other, files.get, files.get).pairs


def test_inserted_twin_is_the_new_one():
    """Of two findings alike, the one whose surroundings are new was introduced; the other keeps its identity."""
    before = [*code(5), "eval(x)", *code(4)]
    after = ["def new():", "    eval(x)", "", *before]
    old = [finding("a.py", 6, name="first", snippet="eval(x)", identity="snippet", fingerprint="p")]
    new = [
        finding("a.py", 2, name="twin", snippet="eval(x)", identity="snippet", fingerprint="p"),
        finding("a.py", 9, name="first", snippet="eval(x)", identity="snippet", fingerprint="q"),
    ]
    found = diff_findings(old, new, {"a.py": before}.get, {"a.py": after}.get)
    assert [one.help_uri for one in found.introduced] == ["twin"]
    assert [(one.help_uri, one.fingerprint) for one in found.unchanged] == [("first", "p")]
    assert found.introduced[0].fingerprint not in {"p", "q"}


def test_edited_line_keeps_its_finding():
    """A line that was edited, but not mended, has the same finding; one mended elsewhere is fixed."""
    before = [*code(9), "run(cmd, shell=True)", *code(9), "run(other, shell=True)"]
    after = [*code(9), "run(cmd, shell=True, cwd=here)", *code(9), "safe(other)"]
    old = [finding("a.py", 10, name="edited"), finding("a.py", 20, name="mended")]
    new = [finding("a.py", 10, name="edited")]
    matching = match_findings(old, new, {"a.py": before}.get, {"a.py": after}.get)
    assert truth(old, new, matching) == [("edited", "edited")]
    assert matching.pairs[0].tier == "order"


def test_copy_is_a_new_finding():
    """Code copied into another file brings a finding; the original keeps its own."""
    text = [*code(4), "eval(x)", *code(4)]
    old = [finding("a.py", 5, name="original")]
    new = [finding("a.py", 5, name="original"), finding("b.py", 5, name="copy")]
    found = diff_findings(old, new, {"a.py": text}.get, {"a.py": text, "b.py": text}.get)
    assert [one.help_uri for one in found.introduced] == ["copy"]


def test_code_moved_to_another_file_keeps_its_finding():
    """A function moved out of a file that stays takes its finding along."""
    body = ["def f(x):", "    y = clean(x)", "    eval(y)", "    return y", ""]
    before = {"a.py": [*code(3), *body, *code(3)], "b.py": ["# b"]}
    after = {"a.py": [*code(3), *code(3)], "b.py": ["# b", "", *body]}
    old, new = [finding("a.py", 6, name="f")], [finding("b.py", 5, name="f")]
    matching = match_findings(old, new, before.get, after.get)
    assert [pair.tier for pair in matching.pairs] == ["moved"]


def test_bumped_package_is_the_same_finding():
    """Another version of a package with the same advisory is the finding that was there; with a mended one it goes."""
    old = [finding("go.mod", 1, "CVE-1", package="pkg:golang/a@1", identity="package", name="a")]
    new = [finding("go.mod", 4, "CVE-1", package="pkg:golang/a@2", identity="package", name="a")]
    assert [pair.tier for pair in match_findings(old, new).pairs] == ["package"]
    other = [finding("go.mod", 4, "CVE-1", package="pkg:golang/b@2", identity="package")]
    assert match_findings(old, other).pairs == ()


def test_trusted_fingerprint_goes_before_code():
    """What the tool recognises is the same, even where the code says otherwise."""
    old = [finding("a.py", 1, identity="tool", fingerprint="t", name="x")]
    new = [finding("z.py", 3, identity="tool", fingerprint="t", name="x")]
    matching = match_findings(old, new, {"a.py": code(5)}.get, {"z.py": ["else"] * 9}.get)
    assert [pair.tier for pair in matching.pairs] == ["fingerprint"]


def test_reports_alone_follow_lines_and_names():
    """Without sources: snippets through moved lines, messages without digits, and a renamed file as a whole."""
    old = [
        finding("a.py", 3, snippet="eval(x)", name="s"),
        finding("a.py", 9, message="complexity 12", name="c"),
        finding("old.py", 4, "R2", "shell", name="r"),
    ]
    new = [
        finding("a.py", 30, snippet="  eval(x)", name="s"),
        finding("a.py", 90, message="complexity 14", name="c"),
        finding("new.py", 4, "R2", "shell", name="r"),
    ]
    matching = match_findings(old, new)
    assert truth(old, new, matching) == [("s", "s"), ("c", "c"), ("r", "r")]
    assert [pair.tier for pair in matching.pairs] == ["snippet", "message", "renamed"]


def test_findings_without_a_place_are_matched_by_message():
    """What is about no file, or no line, is the same if it says the same."""
    old = [finding(None, None, message="branch protection is off", name="a")]
    new = [finding(None, None, message="branch protection is off", name="a")]
    source = {"a.py": code(3)}.get
    assert len(match_findings(old, new, source, source).pairs) == 1


def test_stale_lines_do_not_break_matching():
    """A line beyond the end of its file, or a file that is not there, is matched by what the report says."""
    old = [finding("a.py", 99, name="far"), finding("gone.py", 1, message="g", name="gone")]
    new = [finding("a.py", 98, name="far"), finding("gone.py", 2, message="g", name="gone")]
    source = {"a.py": code(3)}.get
    assert len(match_findings(old, new, source, source).pairs) == 2


def test_folder_is_a_source(tmp_path):
    """Lines end at \\n, \\r\\n or \\r and nowhere else; bytes that are no text are replaced."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_bytes(b"one\r\ntwo\x0cstill two\nthr\xffee")
    source = folder_source(tmp_path)
    assert source("src/a.py") == ["one", "two\x0cstill two", "thr�ee"]


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "link", "src/../../secret", "missing", "folder", "a\0b", ""]
)
def test_folder_does_not_lead_out_of_itself(tmp_path, path):
    """A report may name any path; only files below the folder are read."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path / "secret")
    assert folder_source(root)(path) is None


def test_missing_folder_is_refused(tmp_path):
    """A source that is not there is an error, not a commit without files."""
    with pytest.raises(InputError, match="no such folder"):
        folder_source(tmp_path / "missing")
