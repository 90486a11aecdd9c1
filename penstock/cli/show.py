"""How runs and steps look in a terminal."""

import sys
import threading
from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.pipeline.log import log_path, read_log
from penstock.pipeline.records import StepRecord
from penstock.settings import Settings
from penstock.steps.context import StepResult

WIDE = 400  # columns

SIGNS = {
    "succeeded": ("✔", "green"),
    "failed": ("✘", "red"),
    "timed_out": ("⏱", "red"),
    "infra_error": ("!", "magenta"),
    "cancelled": ("■", "yellow"),
    "skipped": ("–", "bright_black"),
    "waiting": ("◔", "yellow"),
    "running": ("▶", "cyan"),
    "queued": ("·", "bright_black"),
}


def sign(state: str) -> Text:
    """The state with its sign and colour; the word is there too, for those who see no colours."""
    mark, colour = SIGNS.get(state, ("?", "white"))
    return Text(f"{mark} {state}", style=colour)


def seconds(value: float | None) -> str:
    """`1.2 s`, or nothing."""
    return "" if value is None else f"{value:.1f} s"


def step_table(steps: Iterable[StepRecord]) -> Table:
    """Step, state, seconds, what it produced or why not."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "state", "seconds", "produced"):
        table.add_column(name, justify="right" if name == "seconds" else "left", overflow="fold")
    for step in steps:
        words = step.reason or step.produced
        if step.reused_from:
            words = f"{words} (from run {step.reused_from[:8]})".strip()
        table.add_row(step.step, sign(step.state), seconds(step.seconds), Text(words))
    return table


def print_log(console: Console, settings: Settings, run_id: str, step: str, *, last: int | None = None) -> None:
    """A step's log, or its last lines."""
    lines, _ = read_log(log_path(settings.home, run_id, step), limit_bytes=64 * 1024 * 1024)
    cut = max(0, len(lines) - last) if last else 0
    console.print(Text(f"── log of {step}" + (f", without its first {cut} lines" if cut else ""), style="bold"))
    for line in lines[cut:]:
        console.print(Text(("» " if line.own else "  ") + line.text), soft_wrap=True)


def console() -> Console:
    """Standard output; where it is no terminal, lines are not cut to a terminal's width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


class Progress:
    """Steps as they begin and end, one line each; on a terminal also what runs right now and its last line."""

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self._console, self._verbose = console, verbose
        self._running: dict[str, str] = {}
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def step(self, name: str, result: StepResult | None) -> None:
        """A step began (None) or ended."""
        if result is None:
            self.began(name)
        else:
            self.ended(name, result.state, result.reason or result.produced)

    def began(self, name: str) -> None:
        """A step began."""
        with self._lock:
            self._running[name] = ""
            if not self._live:
                self._console.print(Text.assemble(sign("running"), f"  {name}"))
        self._draw()

    def ended(self, name: str, state: str, words: str) -> None:
        """A step ended."""
        with self._lock:
            self._running.pop(name, None)
            self._console.print(
                Text.assemble(sign(state), f"  {name}", (f"  {words}" if words else "", "bright_black"))
            )
        self._draw()

    def line(self, step: str, text: str) -> None:
        """A line of a step's output."""
        with self._lock:
            if step in self._running:
                self._running[step] = text
            if self._verbose:
                self._console.print(Text(f"{step} │ {text}"), soft_wrap=True)
        self._draw()

    def _draw(self) -> None:
        if self._live:
            with self._lock:
                rows = [
                    Text.assemble(sign("running"), f"  {name}  ", (last[:80], "bright_black"))
                    for name, last in self._running.items()
                ]
            self._live.update(Text("\n").join(rows))
