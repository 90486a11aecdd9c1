"""Masking: what a step prints does not hold its secrets, in no form and however it was cut."""

import base64
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from itertools import pairwise
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.vault.masking import Masker
from penstock.vault.variants import variants

TOKEN = b"ghp_A1b2C3d4E5f6G7h8I9j0"
ODD = "p@ss w/rd'\"\\+~<ü>*$!".encode()
KEY = (
    b"-----BEGIN KEY-----\n" + b"\n".join(base64.b64encode(bytes(range(n, n + 48))) for n in range(12)) + b"\n-----END"
)
# The same examples everywhere, and no limit of time: busy machines are slow.
property_of = settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
WORDS = st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r\n", b"=", b"%", b"\\", b"QUJD" * 16, b" log line ", b"\xff"])
SECRETS = st.one_of(
    st.binary(min_size=0, max_size=40),
    st.text("ab\n", min_size=3, max_size=12).map(str.encode),
    st.text(min_size=1, max_size=20).map(str.encode),
    st.sampled_from([TOKEN, ODD, KEY]),
)


def run(masker: Masker, chunks: Iterable[bytes]) -> bytes:
    return b"".join([*(masker.feed(chunk) for chunk in chunks), masker.flush()])


def masked(values: Iterable[bytes], data: bytes) -> bytes:
    return run(Masker(values), [data])


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def slowly(values: list[bytes], data: bytes) -> bytes:
    """What masking means, byte by byte."""
    covered = [0] * len(data)  # number of the stretch that a byte belongs to
    soft = set[int]()
    for match in re.finditer(rb"\r\n|\r|\n", data):
        if re.fullmatch(rb"[A-Za-z0-9+/_-]{60}", data[max(0, match.start() - 60) : match.start()]):
            soft |= set(range(*match.span()))
            if match[0] == b"\r\n":
                continue
        elif match[0] == b"\r\n":
            continue
    kept = [at for at in range(len(data)) if at not in soft]
    joined = bytes(data[at] for at in kept)
    spans = []
    for value in values:
        every, wrapped = variants(value)
        spans += [match.span() for v in every for match in overlapping(v, data)]
        spans += [(kept[match.start()], kept[match.end() - 1] + 1) for v in wrapped for match in overlapping(v, joined)]
    shown, stop = [], 0
    starts = dict[int, int]()
    for start, end in spans:
        starts[start] = max(end, starts.get(start, 0))
    for at in range(len(data)):
        if at in starts:
            if at >= stop:
                shown.append(b"***")
            stop = max(stop, starts[at])
        if at >= stop:
            shown.append(data[at : at + 1])
    del covered
    return b"".join(shown)


class _Found:
    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end

    def start(self) -> int:
        return self._start

    def end(self) -> int:
        return self._end

    def span(self) -> tuple[int, int]:
        return self._start, self._end


def overlapping(needle: bytes, data: bytes) -> list[_Found]:
    return [_Found(at, at + len(needle)) for at in range(len(data)) if data.startswith(needle, at)]


@st.composite
def printed(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Secrets, and a text in which they and the beginnings of their variants occur, overlapping and wrapped too."""
    values = draw(st.lists(SECRETS, min_size=1, max_size=3))
    every = sorted(set().union(*(variants(value)[0] for value in values))) or [b"x"]
    piece = st.one_of(
        WORDS,
        st.binary(max_size=5),
        st.sampled_from(values),
        st.sampled_from(every),
        st.tuples(st.sampled_from(every), st.integers(1, 60)).map(lambda found: found[0][: found[1]]),
        st.tuples(st.sampled_from(every), st.integers(1, 60)).map(lambda found: found[0][found[1] :]),
        st.tuples(st.sampled_from(values), st.binary(max_size=70)).map(
            lambda found: wrapped_base64(found[1] + found[0] + b"tail", 76)
        ),
    )
    return values, b"".join(draw(st.lists(piece, max_size=8)))


def wrapped_base64(data: bytes, columns: int) -> bytes:
    encoded = base64.b64encode(data)
    return b"\n".join(encoded[at : at + columns] for at in range(0, len(encoded), columns)) + b"\n"


@property_of
@given(printed(), st.lists(st.integers(0, 2000), max_size=12))
@example(([b"aaaa"], b"aaaaaaaaa"), [1, 2, 3, 4, 5, 6, 7])
@example(([b"abab", b"babb"], b"xababbx"), [3])
@example(([b"abcd\nefgh"], b"abcd\nefghabcd\nefg"), [4, 5, 8])
def test_any_chunking_masks_the_same(found: tuple[list[bytes], bytes], places: list[int]):
    """However the stream is cut, the result is the one that the definition gives."""
    values, data = found
    expected = slowly(values, data)
    assert masked(values, data) == expected
    assert run(Masker(values), cut(data, places)) == expected


@property_of
@given(printed())
def test_single_bytes_mask_the_same(found: tuple[list[bytes], bytes]):
    """A chunk may be one byte, and empty ones change nothing."""
    values, data = found
    chunks = [part for at in range(len(data)) for part in (data[at : at + 1], b"")]
    assert run(Masker(values), chunks) == masked(values, data)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda value: value,
    "base64": base64.b64encode,
    "base64 without padding": lambda value: base64.b64encode(value).rstrip(b"="),
    "urlsafe base64": base64.urlsafe_b64encode,
    "base64 at offset 1": lambda value: base64.b64encode(b"u" + value + b" end"),
    "base64 at offset 2": lambda value: base64.b64encode(b"u:" + value),
    "urlsafe base64 at offset 1": lambda value: base64.urlsafe_b64encode(b"?" + value + b"?"),
    "base64 in lines of 76": lambda value: wrapped_base64(b"x" * 50 + value + b"y" * 50, 76),
    "base64 in lines of 64": lambda value: wrapped_base64(b"x" * 41 + value + b"y" * 50, 64),
    "base64 in lines with CRLF": lambda value: wrapped_base64(b"x" * 49 + value, 64).replace(b"\n", b"\r\n"),
    "MIME": base64.encodebytes,
    "hex": lambda value: value.hex().encode(),
    "HEX": lambda value: value.hex().upper().encode(),
    "URL": lambda value: quote(value, safe="").encode(),
    "URL, small digits": lambda value: re.sub(rb"%..", lambda m: m[0].lower(), quote(value, safe="").encode()),
    "path of a URL": lambda value: quote(value).encode(),
    "form": lambda value: quote_plus(value).encode(),
    "repr": lambda value: repr(value).encode(),
}
TEXT_ENCODERS: dict[str, Callable[[str], str]] = {
    "JSON": lambda text: json.dumps({"k": text}),
    "JSON in UTF-8": lambda text: json.dumps([text], ensure_ascii=False),
    "query": lambda text: urlencode({"k": text}),
    "shell": shlex.quote,
    "repr of text": repr,
    "ascii of text": ascii,
}
LINES = st.text(st.characters(exclude_characters="*", codec="utf-8"), min_size=4, max_size=60)


@pytest.mark.parametrize("encoder", ENCODERS)
@property_of
@given(value=st.binary(min_size=4, max_size=60).filter(lambda value: b"*" not in value), before=st.binary(max_size=9))
@example(value=TOKEN, before=b"token=")
@example(value=ODD, before=b"")
@example(value=KEY, before=b"")
def test_no_encoding_shows_a_secret(encoder: str, value: bytes, before: bytes):
    """Whatever the bytes: its encoding is masked as a whole, with what it stands in left as it was."""
    encoded = ENCODERS[encoder](value)
    shown = masked([value], before + b"\n" + encoded)
    assert value not in shown
    for variant in variants(value)[0]:
        if b"*" not in variant:
            assert variant not in shown
    assert encoded not in shown


@pytest.mark.parametrize("encoder", TEXT_ENCODERS)
@property_of
@given(value=LINES)
@example(value=ODD.decode().replace("*", ""))
@example(value=KEY.decode())
@example(value="it's\nten\tlines </script>")
def test_no_encoding_of_text_shows_a_secret(encoder: str, value: str):
    """Also in JSON, in a query, quoted for a shell, and as Python writes it in a traceback."""
    encoded = TEXT_ENCODERS[encoder](value)
    shown = Masker([value.encode()]).mask(f"<{encoded}>")
    assert "***" in shown
    assert encoded not in shown


@pytest.mark.parametrize(
    ("encoder", "shown"),
    [
        ("plain", b"***"),
        ("base64", b"***"),
        ("base64 without padding", b"***"),
        ("urlsafe base64", b"***"),
        ("MIME", b"***\n"),
        ("hex", b"***"),
        ("HEX", b"***"),
        ("URL", b"***"),
        ("URL, small digits", b"***"),
        ("path of a URL", b"***"),
        ("form", b"***"),
        ("repr", b"b'***'"),
    ],
)
@pytest.mark.parametrize("value", [TOKEN, ODD, b"\xff\xfe\x00\x01\x80", b"a.*[b(c", b"four"])
def test_an_encoded_secret_is_one_mask(encoder: str, shown: bytes, value: bytes):
    """Nothing is left beside the mask, not even padding."""
    encoded = ENCODERS[encoder](value)
    expected = encoded[:2] + b"***" + encoded[-1:] if encoder == "repr" else shown
    assert masked([value], encoded) == expected


@pytest.mark.parametrize("size", range(1, 9))
def test_base64_in_a_longer_text_leaves_only_the_edges(size: int):
    """At any offset at most one character on each side, which holds bits of the neighbours, is left of the secret."""
    value = b"\x5a" + TOKEN + b"\xa5"
    encoded = base64.b64encode(b"\0" * size + value + b"\0" * 5)
    before, _, after = masked([value], encoded).partition(b"***")
    assert (
        len(base64.b64decode(before + b"=" * (-len(before) % 4) if len(before) % 4 != 1 else before[:-1])) <= size + 1
    )
    assert set(before[: size * 8 // 6]) <= {ord("A")}
    assert len(before) <= -(-size * 8 // 6)
    assert len(after.rstrip(b"=")) <= -(-5 * 8 // 6)


SCRIPTS = {
    "base64": 'printf %s "$SECRET" | base64',
    "base64 with newline": 'echo "$SECRET" | base64',
    "base64 -w0": 'printf %s "user:$SECRET" | base64 -w0',
    "base64 in many lines": '(seq 40; printf %s "$SECRET"; seq 40) | base64',
    "trace": 'set -x; : "$SECRET" 2>&1',
    "od": "printf %s \"$SECRET\" | od -An -v -tx1 | tr -d ' \\n'",
    "%q": 'printf %q "$SECRET"',
    "@Q": 'echo "${SECRET@Q}"',
    "declare": "declare -p SECRET",
    "env": "env | grep -A99 ^SECRET",
}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("value", [TOKEN, ODD, b"it's $HOME `x`", b"first line\nsecond 'line'\n\tthird", KEY])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_what_real_tools_make_of_a_secret_is_masked(script: str, value: bytes, locale: str):
    """Bash's own quoting and tracing, coreutils' base64 and od: of no line of the secret is anything legible left."""
    done = subprocess.run(
        ["bash", "-c", SCRIPTS[script]],
        env={"SECRET": value.decode(), "LC_ALL": locale, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=True,
    )
    shown = masked([value], done.stdout)
    assert b"***" in shown
    for line in value.split(b"\n"):
        for variant in variants(line)[0]:
            assert variant not in shown
    assert all(run not in shown for run in runs_of(value, 8))


def runs_of(value: bytes, size: int) -> set[bytes]:
    return {value[at : at + size] for at in range(len(value) - size + 1)}


@property_of
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_what_holds_no_secret_passes_byte_for_byte(data: bytes, places: list[int]):
    """Invalid UTF-8, control characters and half lines too."""
    values = [TOKEN, ODD, KEY]
    assert run(Masker(values), cut(data, places)) == data


@property_of
@given(st.lists(st.binary(max_size=3)), st.binary(max_size=100))
def test_nothing_shorter_than_four_bytes_is_masked(values: list[bytes], data: bytes):
    """An empty secret, or an x, would mask everything."""
    assert masked(values, data) == data


@pytest.mark.parametrize(
    ("values", "data", "shown"),
    [
        ([b"secret"], b"my secret.", b"my ***."),
        ([b"secret", b"secret-longer"], b"secret-longer secret-lo", b"*** ***-lo"),
        ([b"longer-secret", b"secret"], b"a longer-secret, a secret", b"a ***, a ***"),
        ([b"abcd", b"cdef"], b"<abcdef>", b"<***>"),
        ([b"aaaa"], b"aaaaaaaaaa aaa", b"*** aaa"),
        ([b"abcd"], b"abcdabcd", b"******"),
        ([b"first\nsecond\nx"], b"x: second; first\nsecond\nx", b"x: ***; ***"),
        ([b"  indented: yes\n  more\n"], b"indented: yes", b"***"),
        ([b"hunter22\n"], b"is hunter22?", b"is ***?"),
        ([b"hunter22\n"], b"is aHVudGVyMjI= it?", b"is *** it?"),
        ([b"line one\r\nline two"], b"line two\nline one", b"***\n***"),
        ([b"\xff\xfe\xfd\xfc"], b"\xff\xff\xfe\xfd\xfc\xfc", b"\xff***\xfc"),
        ([b"a|b$^"], b"a|b$^ or a", b"*** or a"),
        ([], b"anything", b"anything"),
    ],
)
def test_masks(values: list[bytes], data: bytes, shown: bytes):
    """Secrets in each other, overlapping, repeated, of several lines, with the signs of regular expressions."""
    assert masked(values, data) == shown


@pytest.mark.parametrize(
    ("chunk", "at_once"),
    [
        (b"nothing like it\n", b"nothing like it\n"),
        (b"no newline yet", b"no newline yet"),
        (b"password: ghp_A1", b"password: "),
        (b"password: g", b"password: "),
        (b"ghp_A1b2C3d4E5f6G7h8I9j0\n", b"***\n"),
        (b"ghp ghp_A1b2C3d4E5f6G7h8I9", b"ghp "),
        (b"ghp_A1b2C3d4E5f6G7h8I9_\n", b"ghp_A1b2C3d4E5f6G7h8I9_\n"),
    ],
)
def test_only_what_may_become_a_secret_waits(chunk: bytes, at_once: bytes):
    """Live output is as live as without masking, unless it ends like the beginning of a secret."""
    masker = Masker([TOKEN])
    assert masker.feed(chunk) == at_once
    assert masker.feed(b"") == b""
    assert masker.flush() == chunk[len(at_once) :] if at_once in chunk else not masker.flush()


def test_a_line_of_base64_waits_only_if_it_ends_like_a_secret():
    """A full line of base64 may go on after its end; any other line is shown with its newline."""
    masker, core = Masker([TOKEN]), base64.b64encode(TOKEN)
    assert masker.feed(b"done" + core[:5] + b"\n") == b"done" + core[:5] + b"\n"
    full = b"A" * 60 + core[:4]
    assert masker.feed(full + b"\n") == full[:60]
    assert masker.feed(core[4:] + b"\n") == b"***\n"
    assert masker.feed(full[:64] + b"\n") == full[:60]
    assert masker.feed(b" no more\n") == core[:4] + b"\n no more\n"


def test_mask_leaves_the_stream_alone():
    """Reasons and outputs are masked as a whole while a stream is in the middle of a secret."""
    masker = Masker([TOKEN])
    assert masker.feed(TOKEN[:5]) == b""
    assert masker.mask(f"exit 1: {TOKEN.decode()}") == "exit 1: ***"
    assert masker.mask("ghp_A1") == "ghp_A1"
    assert masker.feed(TOKEN[5:]) == b"***"


@property_of
@given(st.text(st.characters(), max_size=60))
@example("\ud800 lone")
@example("\udcff")
def test_text_without_secrets_is_the_same_text(text: str):
    """Lone surrogates too, which broken output decodes to."""
    assert Masker([TOKEN]).mask(text) == text


def test_mask_of_bytes_that_are_no_text_stays_text():
    """A secret that ends inside of a character leaves a mark for the rest of it."""
    assert Masker(["xyzé".encode()[:4]]).mask("xyzé") == "***\ufffd"


def test_flushed_masker_serves_the_next_stream():
    """And a fresh one of the same secrets does not know what the other holds."""
    masker = Masker([TOKEN])
    masker.feed(TOKEN[:9])
    assert masker.fresh().feed(TOKEN[9:]) == TOKEN[9:]
    assert masker.flush() == TOKEN[:9]
    assert masker.feed(TOKEN[9:]) == TOKEN[9:]


def test_many_secrets_are_all_found():
    """Several hundred variants go another way; they are found at every place, and beginnings still wait."""
    values = [b"%06d-%s" % (number, base64.b64encode(bytes([number] * 9))) for number in range(60)]
    masker = Masker(values)
    for number, value in enumerate(values):
        data = b"." * number + value + b"," + base64.b64encode(value) + b";" + value.hex().encode()
        assert run(masker, cut(data, [number, 3 * number])) == b"." * number + b"***,***;***"
    assert masker.feed(b"x" + values[5][:-1]) == b"x"


def test_nothing_of_a_secret_is_in_its_repr():
    """Neither in that of the masker nor in what it is made of."""
    masker = Masker([TOKEN])
    assert "ghp" not in repr(masker)
    assert "ghp" not in repr(vars(masker))
