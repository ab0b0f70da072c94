# SPDX-License-Identifier: Apache-2.0
"""Lines behind names: whole ones, bars that draw over themselves, colours only for who can see them."""

from __future__ import annotations

import io

import pytest

from dgs.launch.output import Lines, Screen


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def out() -> io.BytesIO:
    return io.BytesIO()


def shown(out: io.BytesIO) -> list[str]:
    return out.getvalue().decode().splitlines()


def test_a_line_is_shown_when_it_is_whole(out: io.BytesIO) -> None:
    lines = Lines(b"[a] ", out)
    lines.feed(b"one\ntw")
    assert shown(out) == ["[a] one"]
    lines.feed(b"o\n\nthree")
    assert shown(out) == ["[a] one", "[a] two", "[a] "]
    lines.end()
    lines.end()
    assert shown(out)[3:] == ["[a] three"]


def test_a_bar_is_shown_now_and_then_and_in_its_last_state(out: io.BytesIO) -> None:
    clock = Clock()
    lines = Lines(b"", out, clock)
    lines.feed(b"\r 0%")
    lines.feed(b"\r 1%")
    for percent in range(2, 12):
        clock.now += 1
        lines.feed(f"\r {percent}%".encode())
    assert shown(out) == [" 0%", " 5%", " 10%"], "one in five seconds"
    lines.feed(b"\r100%\n")
    assert shown(out)[3:] == ["100%"]


def test_bars_one_below_the_other_are_shown_now_and_then(out: io.BytesIO) -> None:
    """As tqdm draws them: down to its place, the bar, and up again."""
    clock = Clock()
    lines = Lines(b"", out, clock)
    lines.feed(b"\router 0")
    for batch in range(1, 12):
        clock.now += 1
        lines.feed(b"\n")
        lines.feed(f"\rinner {batch}\x1b[A".encode())
        lines.feed(f"\router {batch}".encode())
    assert shown(out) == ["outer 0", "inner 1", "outer 5", "outer 10"]
    lines.feed(b"\n\rinner 12\x1b[A\router 12\n")
    assert len(shown(out)) == 4
    lines.end()
    assert shown(out)[4:] == ["outer 12"], "the last state is not lost"
    lines.feed(b"\n\rinner 13\x1b[A\nan ordinary line\n")
    assert shown(out)[-1] == "an ordinary line"


def test_both_kinds_of_line_ends_and_what_clears_a_line(out: io.BytesIO) -> None:
    lines = Lines(b"", out)
    lines.feed(b"dos\r")
    lines.feed(b"\nunix\n")
    lines.feed(b"\r 50%|#| 1/2\r            \rdone\n")
    lines.feed(b"\x1b[Aup\x1b[K and \x1b[31mred\x1b[0m\n")
    assert out.getvalue().decode().split("\n") == ["dos", "unix", "done", "up and \x1b[31mred\x1b[0m", ""]


def test_a_line_without_an_end_does_not_fill_the_memory(out: io.BytesIO) -> None:
    lines = Lines(b"> ", out)
    for _ in range(100):
        lines.feed(b"x" * 1000)
    assert len(out.getvalue()) > 60_000
    lines.end()
    assert out.getvalue().count(b"x") == 100_000


def test_what_is_no_text_is_passed_on(out: io.BytesIO) -> None:
    Lines(b"", out).feed(b"\xff\xfe\n")
    assert out.getvalue() == b"\xff\xfe\n"


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def first_lines(environ: dict[str, str]) -> tuple[list[bytes], bytes]:
    terminal, file = Terminal(), io.BytesIO()
    screen = Screen(terminal, file, 10, environ)
    screen.say("notice")
    for rank, name in ((0, "server"), (1, "worker 1"), (10, "worker 10")):
        for lines in screen.streams(name, rank):
            lines.feed(b"x\n")
    return terminal.getvalue().splitlines(), file.getvalue()


def test_names_are_in_colour_on_a_terminal_alone() -> None:
    on_terminal, in_file = first_lines({})
    assert on_terminal[0] == b"\x1b[36m[server]    \x1b[0mx"
    assert len({line[:5] for line in on_terminal}) == 3
    assert in_file.splitlines() == [
        b"[launch]    notice",
        b"[server]    x",
        b"[worker 1]  x",
        b"[worker 10] x",
    ]


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colours_can_be_had_without(environ: dict[str, str]) -> None:
    on_terminal, _ = first_lines(environ)
    assert on_terminal == [b"[server]    x", b"[worker 1]  x", b"[worker 10] x"]
