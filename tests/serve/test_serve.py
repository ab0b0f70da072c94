# SPDX-License-Identifier: Apache-2.0
"""dgs-server: a process that serves by itself, keeps what it has in checkpoints and goes on from them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import dgs
import dgs_ext
from dgs.checkpoint import Checkpoints
from dgs.config import Settings, resolve
from dgs.errors import CheckpointError, ConfigError
from dgs.options import WORKERS_OWN
from dgs.serve import __main__ as command
from dgs.serve import load_model

MODELS = """
from torch import nn
def make(hidden=30):
    return nn.Sequential(nn.Linear(8, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 3))
class Zoo:
    tied = nn.Linear(2, 2)
seven = 7
def text():
    return "no model"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of models, from which everything is started."""
    (tmp_path / "models_of_test.py").write_text(MODELS)
    (tmp_path / "lacking.py").write_text("import a_module_that_nobody_has")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def serve(folder: Path, port: int) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m dgs.serve` in that folder; it is killed at the end."""
    paths = dict.fromkeys(str(Path(m.__file__ or "").parents[1]) for m in (dgs, dgs_ext))
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "dgs.serve", *words, "--port", str(port), "--checkpoint-dir", "kept"],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Servers and workers set a number of their own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def worker(port: int) -> Callable[[nn.Module, int], None]:
    """Trains so many steps as a worker, in this process."""

    def train(net: nn.Module, steps: int) -> None:
        with dgs.GradientSGD(
            net.parameters(), 0.1, net, momentum=0.5, port=port, threads=1, buffers_every=1
        ) as optimizer:
            for _ in range(steps):
                optimizer.zero_grad()
                net(torch.randn(4, 8)).square().mean().backward()
                optimizer.step()

    return train


def test_it_serves_ends_and_goes_on_without_its_model(
    serve: Callable[..., subprocess.Popen[str]], worker: Callable[[nn.Module, int], None], folder: Path
) -> None:
    models = import_module("models_of_test")
    first = serve("models_of_test:make", "--model-args", '{"hidden": 20}', "--world-size", "2")
    net = models.make(20)
    worker(net, 6)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 0 and "version 6: kept/latest/model.safetensors\n" in said, said
    bare = models.make(20)
    bare.load_state_dict(load_file(folder / "kept" / "latest" / "model.safetensors"))
    assert bare[1].num_batches_tracked == 6
    second = serve("--resume", "--keep", "1")
    worker(models.make(20), 4)
    second.terminate()
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 128 + signal.SIGTERM and "Traceback" not in said, said
    assert "SIGTERM: the server ends at version 10" in said
    (kept,) = Checkpoints(folder / "kept").found()
    assert kept.name.endswith("-version-10")


def test_what_it_offers_is_what_a_server_reads() -> None:
    package = Path(command.__file__).parents[1]
    sources = [
        *(package / "server").glob("*.py"),
        *(package / "metrics").glob("*.py"),
        package / "threads.py",
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    read = set(re.findall(r"(?:settings|resolved)\.([a-z_]+)", text))
    indirectly = {"sampled": "selection", "codec_up": "codec", "codec_pulls": "codec_down", "local": "mode"}
    known = {field.name for field in fields(Settings)}
    read = {indirectly.get(name, name) for name in read} & known
    offered = {action.dest for action in command.options()._actions} - {
        "help",
        "model",
        "model_args",
        "sparsity",
    }
    assert offered == read - {"rank"}, "what a server does not read belongs into dgs.options.WORKERS_OWN"
    assert offered | WORKERS_OWN == known


def test_the_installed_command_is_there(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["dgs-server"].partition(":")
    assert getattr(import_module(module), function) is command.main


def test_models_that_are_named(folder: Path) -> None:
    assert load_model("models_of_test:make", {"hidden": 5}, Settings())[0].out_features == 5
    zoo = import_module("models_of_test").Zoo
    assert load_model("models_of_test:Zoo.tied", {}, Settings()) is zoo.tied


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("somewhere", "must be module:callable, or the folder of a checkpoint, got 'somewhere'"),
        ("nowhere_at_all:make", "nowhere_at_all:make is not there: No module named 'nowhere_at_all'"),
        ("models_of_test:absent", "models_of_test:absent is not there: .* no attribute 'absent'"),
        (":make", "model :make is not there: Empty module name"),
        (".relative:make", "model .relative:make is not there"),
        ("torch.nn:Linear", "torch.nn:Linear cannot be called with {}: .*missing 2 required"),
        ("models_of_test:seven", "models_of_test:seven must be a callable or a module, is a int"),
        ("models_of_test:text", "models_of_test:text must make a torch.nn.Module, and made a str"),
        (None, r"name a model \(module:callable\), or a --checkpoint-dir that holds one with --resume"),
    ],
)
def test_what_is_no_model(folder: Path, name: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(name, {}, Settings())


def test_what_a_models_module_lacks_is_not_taken_for_the_module(folder: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        load_model("lacking:make", {}, Settings())


def test_a_new_run_begins_with_a_checkpoints_weights(folder: Path) -> None:
    settings = resolve(None, {}, checkpoint_dir="kept", checkpoint_resume=True)
    with pytest.raises(ConfigError, match="no model is named, and kept holds no checkpoint"):
        load_model(None, {}, settings)
    net = import_module("models_of_test").make()
    stopped = threading.Event()
    stopped.set()
    dgs.init_server(
        None, net, listener=dgs.transport.InProcessListener(), stop=stopped, checkpoint_dir="kept"
    )
    for name in (str(Path("kept", "latest")), None):
        taken = load_model(name, {}, settings)
        assert all(torch.equal(t, taken.state_dict()[name]) for name, t in net.state_dict().items())
    (folder / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty cannot be read"):
        load_model("empty", {}, Settings())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["models_of_test:make"],
            "dgs-server: what is trained is kept in checkpoints: give --checkpoint-dir",
        ),
        (["models_of_test:make", "--port", "70000"], "port must be in [0, 65535], got 70000"),
        (["--checkpoint-dir", "kept"], "name a model (module:callable)"),
        ([], "name a model (module:callable), or a --checkpoint-dir that holds one with --resume"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    folder: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["dgs-server", *words])
    assert command.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dgs-server: ") and message in line


@pytest.mark.parametrize("text", ["[1]", "{hidden"])
def test_arguments_that_are_no_json_object(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.options().parse_args(["models_of_test:make", "--model-args", text])
    assert f"must be JSON like {{\"num_classes\": 100}}, got '{text}'" in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "init_server", interrupted)
    monkeypatch.setattr(sys, "argv", ["dgs-server", "models_of_test:make", "--checkpoint-dir", "kept"])
    assert command.main() == 128 + signal.SIGINT
    assert "Traceback" not in capsys.readouterr().err
