"""
Coverage-guided fuzzing of every forge's parser, delivery id and signature check.

    python bench/fuzz_events.py [FOLDER …] [-max_total_time=60 …]

Further arguments go to libFuzzer; a FOLDER holds inputs to start from. The first byte of an input picks
the forge, the second the event's name, the rest is the body. Needs the `atheris` package (Linux, macOS).
"""

from __future__ import annotations

import sys

EVENTS = (
    None,
    "push",
    "create",
    "delete",
    "pull_request",
    "release",
    "repo:push",
    "pullrequest:created",
    "repo:refs_changed",
    "pr:opened",
    "git.push",
)


def main() -> int:
    """Fuzz until libFuzzer is told to stop. Returns: 2 where atheris is missing."""
    try:
        import atheris
    except ImportError:
        print("fuzz_events: atheris is not installed; pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["penstock.forges"]):
        from penstock.forges import registry
    names = list(registry.FORGES)

    def try_one(data: bytes) -> None:
        if len(data) >= 2:
            forge = registry.FORGES[names[data[0] % len(names)]]
            check(forge, data[2:], EVENTS[data[1] % len(EVENTS)])

    atheris.Setup(sys.argv, try_one)
    atheris.Fuzz()
    return 0


def check(forge, body: bytes, event: str | None) -> None:
    """Anything but an event, a reason or the two clear rejections is a finding."""
    import msgspec

    from penstock.errors import AccessError, EventError
    from penstock.forges.event import GitEvent, event_key
    from penstock.forges.verify import Trust

    try:
        for told in forge.parse_all(body, {}, event):
            msgspec.json.encode(told)
            if isinstance(told, GitEvent):
                event_key(told)
        forge.delivery_id(body, {})
    except EventError:
        pass  # the clear rejection that is asked for
    trust = Trust(secrets=("secret",), topic_arn="arn:aws:sns:eu-west-1:1:t", fetch_certificate=lambda _: b"")
    try:
        forge.verify(body, {}, trust, 0.0)
    except AccessError:
        return
    raise AssertionError(f"{forge.name} believed an unsigned delivery")


if __name__ == "__main__":
    sys.exit(main())
