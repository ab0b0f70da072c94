# SPDX-License-Identifier: Apache-2.0
"""The launcher's processes: what they find, how they end, and what becomes of the others then."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dgs import config
from dgs.errors import ConfigError, PortInUseError
from dgs.launch import launch
from dgs.launch import run as running
from dgs.launch.child import environment
from dgs.launch.output import Screen

if TYPE_CHECKING:
    from conftest import Launched

Run = Callable[..., "Launched"]


def test_each_finds_its_rank_and_the_arguments_are_the_scripts_own(run: Run) -> None:
    done = run(
        """
import json
print(json.dumps([os.environ["RANK"], os.environ["LOCAL_RANK"], sys.argv[1:], os.getpgid(0) == os.getpid()]))
print("aside", file=sys.stderr)
""",
        "--workers",
        "7",
        "-m",
    )
    assert done.code == 0
    for rank, (name, device) in enumerate((("server", "0"), ("worker 1", "0"), ("worker 2", "1"))):
        assert done.said(name) == [json.dumps([str(rank), device, ["--workers", "7", "-m"], True])]
    assert sorted(done.err) == ["[server]   aside", "[worker 1] aside", "[worker 2] aside"]


def test_the_library_reads_what_it_sets() -> None:
    base = {
        "DGS_RANK": "9",
        "DGS_WORLD_SIZE": "9",
        "DGS_MASTER": "far",
        "DGS_PORT": "9",
        "RANK": "9",
        "DGS_MODE": "gd",
    }
    base |= {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "5",
        "SLURM_NTASKS": "6",
    }
    environ = environment(base, 3, 4, 1234)
    found = config.resolve(None, environ)
    assert (found.rank, found.world_size, found.master, found.port) == (3, 5, "127.0.0.1", 1234)
    assert found.mode == "gd" and config.agent_run(found, environ) is None


def test_cores_are_shared_out_unless_somebody_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    threads = [environment({}, rank, 3, 1)["OMP_NUM_THREADS"] for rank in range(4)]
    assert threads == ["1", "5", "5", "5"]
    assert environment({}, 1, 99, 1)["OMP_NUM_THREADS"] == "1"
    assert environment({"OMP_NUM_THREADS": "7"}, 1, 3, 1)["OMP_NUM_THREADS"] == "7"


def test_a_notice_says_how_cores_are_shared_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("").err == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    (notice,) = run("").err
    assert notice.startswith("[launch]   OMP_NUM_THREADS was not set: ")


def test_a_worker_that_dies_leaves_the_others_alone(run: Run) -> None:
    done = run("""
if rank == 1:
    note("dead", os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)
wait("dead")
wait_for_the_end_of((notes / "dead").read_text())
print("here")
""")
    assert done.code == 128 + 9
    assert done.said("server") == done.said("worker 2") == ["here"]
    assert done.err == ["[launch]   worker 1 ended with exit code 137 (SIGKILL); the others go on"]


def test_the_first_code_that_is_not_0_counts(run: Run) -> None:
    done = run("""
if rank == 2:
    note("dead", os.getpid())
    sys.exit(7)
wait("dead")
wait_for_the_end_of((notes / "dead").read_text())
sys.exit(3 if rank == 0 else 0)
""")
    assert done.code == 7
    assert "[launch]   worker 2 failed with exit code 7; the others go on" in done.err


def test_without_a_server_workers_are_told_to_end(run: Run) -> None:
    done = run("""
if rank == 0:
    wait("worker 1", "worker 2")
    sys.exit(3)
def leave(*_):
    print("goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note(f"worker {rank}")
while True:
    time.sleep(1)
""")
    assert done.code == 3
    assert done.said("worker 1") == done.said("worker 2") == ["goodbye"]
    assert done.err == [
        "[launch]   server failed with exit code 3; nobody starts it again, and the workers are told to end"
    ]


def test_a_server_that_is_done_leaves_its_workers_time(run: Run) -> None:
    done = run("""
if rank == 0:
    note("dead", os.getpid())
    sys.exit()
wait("dead")
wait_for_the_end_of((notes / "dead").read_text())
print("saved")
""")
    assert done.code == 0 and done.said("worker 1") == done.said("worker 2") == ["saved"] and not done.err


@pytest.mark.parametrize(
    ("name", "sent"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGTERM")]
)
def test_a_signal_is_passed_on_to_all(run: Run, name: str, sent: str) -> None:
    done = run(f"""
def leave(number, _):
    print(signal.Signals(number).name, flush=True)
    sys.exit(0)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, leave)
note(f"ready {{rank}}")
if rank == 0:
    wait("ready 1", "ready 2")
    os.kill(parent, signal.{name})
while True:
    time.sleep(1)
""")
    assert done.code == 128 + getattr(running.signal, name), "a run that was broken off has not succeeded"
    assert [done.said(who) for who in ("server", "worker 1", "worker 2")] == [[sent]] * 3
    assert done.err == [f"[launch]   {name}: passed on to all; a second one kills them"]


def test_a_signal_that_comes_twice_at_once_is_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `timeout` sends it: to the process, and then to its group."""
    monkeypatch.setattr(running, "_ECHO", 600.0)
    done = run("""
def leave(*_):
    if rank == 0:
        os.kill(parent, signal.SIGTERM)
    print("goodbye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note(f"ready {rank}")
if rank == 0:
    wait("ready 1", "ready 2")
    os.kill(parent, signal.SIGTERM)
while True:
    time.sleep(1)
""")
    assert done.code == 128 + 15
    assert [done.said(who) for who in ("server", "worker 1", "worker 2")] == [["goodbye"]] * 3


def test_a_second_signal_kills(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_ECHO", 0.0)
    done = run("""
came = []
signal.signal(signal.SIGTERM, lambda *_: came.append(1))
note(f"ready {rank}")
if rank == 0:
    wait("ready 1", "ready 2")
    os.kill(parent, signal.SIGTERM)
    while not came:
        time.sleep(0.02)
    os.kill(parent, signal.SIGTERM)
while True:
    time.sleep(1)
""")
    assert done.code == 128 + 9
    assert "[launch]   SIGTERM again: killing all" in done.err


def test_what_an_ended_process_leaves_behind_is_killed(run: Run, ended: Callable[[Path], None]) -> None:
    """And its hold of the pipe keeps nobody waiting."""
    done = run("""
if rank:
    print("before")
    note(f"left by {rank}", subprocess.Popen(["sleep", "1000"]).pid)
""")
    assert done.code == 0 and done.said("worker 1") == ["before"]
    for rank in (1, 2):
        ended(done.notes / f"left by {rank}")


def test_nobody_is_left_when_the_output_is_gone(
    script: Callable[[str], Path], ended: Callable[[Path], None]
) -> None:
    path = script("""
note(f"pid {rank}", os.getpid())
wait("pid 0", "pid 1", "pid 2")
print("anything")
while True:
    time.sleep(1)
""")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as out, pytest.raises(BrokenPipeError):
        launch([str(path)], 2, screen=Screen(out, io.BytesIO(), 2))
    for rank in range(3):
        ended(path.with_name(f"pid {rank}"))


def test_the_server_can_listen_at_the_port_and_nobody_else_is_given_it(run: Run) -> None:
    done = run(
        """
if rank == 0:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        print(port == listener.accept()[0].getsockname()[1])
else:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.02)
""",
        workers=1,
    )
    assert done.code == 0 and done.said("server") == ["True"]


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"cannot listen at 127.0.0.1:{port}"):
            run("", port=port)


def test_a_server_that_waits_for_nobody_is_told_to_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_ALONE", 0.3)
    listens = """
if rank == 0:
    listener = socket.create_server(("127.0.0.1", port))
    note("listens")
    while True:
        time.sleep(1)
wait("listens")
sys.exit(5)
"""
    done = run(listens, workers=1)
    assert done.code == 5
    first, told, _ = done.err
    assert first.endswith(
        "worker 1 failed with exit code 5; no worker is left, and the server ends by its settings "
        "grace and join_timeout"
    )
    assert told == "[launch]   the server has had no worker for 0.3 s, and is told to end"


def test_a_server_that_has_stopped_listening_is_left_to_its_work(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_ALONE", 0.3)
    done = run(
        """
if rank:
    note("dead", os.getpid())
    sys.exit()
wait("dead")
wait_for_the_end_of((notes / "dead").read_text())
time.sleep(1.5)
print("evaluated")
""",
        workers=1,
    )
    assert (done.code, done.said("server"), done.err) == (0, ["evaluated"], [])


def test_there_is_a_worker_at_least(run: Run) -> None:
    with pytest.raises(ConfigError, match="workers must be at least 1, got 0"):
        run("", workers=0)


def test_a_port_that_there_is_not(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"port must be in \[0, 65535\], got 70000"):
        run("", port=70000)
