# SPDX-License-Identifier: Apache-2.0
"""Where settings come from, which stands over which, and what is refused by name, rule and value."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fleet import Vectors

from dgs import GradientSGD, Settings, init_server
from dgs.config import CODECS, agent_run, default, resolve
from dgs.errors import ConfigError
from dgs.options import add_settings, settings_of


def settled(args: object | None = None, environ: dict[str, str] | None = None, **keywords: Any) -> Settings:
    return resolve(args, environ or {}, **keywords)


def test_keyword_over_args_over_environment_over_default() -> None:
    environ = {"DGS_DENSITY": "0.5", "DGS_CODEC": "float16", "MASTER_PORT": "1234"}
    args = SimpleNamespace(density=0.25, codec="bfloat16")
    found = settled(args, environ, density=0.125)
    assert (found.density, found.codec, found.port, found.mode) == (0.125, "bfloat16", 1234, "dgs")


def test_torchruns_variables_and_the_librarys_own_over_them() -> None:
    environ = {"RANK": "2", "WORLD_SIZE": "4", "MASTER_ADDR": "10.1.2.3", "MASTER_PORT": "7", "DGS_PORT": "8"}
    found = settled(None, environ)
    assert (found.rank, found.world_size, found.master, found.port) == (2, 4, "10.1.2.3", 8)


SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "4"}


def test_a_task_of_srun_knows_its_place() -> None:
    found = settled(None, SRUN | {"MASTER_ADDR": "node1"})
    assert (found.rank, found.world_size, found.master) == (2, 4, "node1")
    assert settled(None, SRUN, rank=1).rank == 1


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"RANK": "1", "WORLD_SIZE": "3"}, (1, 3)),
        ({"DGS_WORLD_SIZE": "5"}, (None, 5)),
        ({"DGS_RANK": "1"}, (1, None)),
        ({"SLURM_STEP_ID": ""}, (None, None)),
        ({"SLURM_PROCID": ""}, (None, None)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (None, None)),
        ({"SLURM_NTASKS": ""}, (None, None)),
    ],
    ids=str,
)
def test_slurm_counts_only_in_one_of_several_tasks_that_nobody_else_has_placed(
    changed: dict[str, str], place: tuple[int | None, int | None]
) -> None:
    """A batch script has the variables of a task, but no step; a job of one task, as in an array, is no run's."""
    found = settled(None, SRUN | changed)
    assert (found.rank, found.world_size) == place


def test_what_is_none_or_absent_is_not_given() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--density", type=float)
    parser.add_argument("--world-size", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args(["--world-size", "3"])
    assert settled(args, {"DGS_DENSITY": "0.5"}).density == 0.5
    assert settled(args, {}, codec=None).codec == "float32"
    assert settled(args).world_size == 3
    assert settled(None, {"DGS_DENSITY": ""}).density == default("density") == 0.01


@pytest.mark.parametrize(("name", "stands_for"), [("gradient_sgd", "dgs"), ("aji", "gd"), ("dgc", "dgc")])
def test_the_names_that_first_users_know(name: str, stands_for: str) -> None:
    assert settled(SimpleNamespace(mode=name)).mode == stands_for
    assert settled(None, {"DGS_MODE": name}).mode == stands_for


def test_sparsity_is_one_minus_density() -> None:
    assert settled(sparsity=0.75).density == 0.25
    assert settled(SimpleNamespace(sparsity=0)).density == 1.0
    assert settled(None, {"DGS_SPARSITY": "0.5"}).density == 0.5


def test_density_and_sparsity_contradict_each_other_in_one_place_only() -> None:
    for args, environ, keywords in (
        (None, {}, {"density": 0.1, "sparsity": 0.9}),
        (SimpleNamespace(density=0.1, sparsity=0.9), {}, {}),
        (None, {"DGS_DENSITY": "0.1", "DGS_SPARSITY": "0.9"}, {}),
    ):
        with pytest.raises(ConfigError, match=r"density \(0.1\) and sparsity \(0.9\) are both given"):
            resolve(args, environ, **keywords)
    args = SimpleNamespace(sparsity=0.75)
    assert settled(args, density=0.5).density == 0.5
    assert settled(args, {"DGS_DENSITY": "0.1"}).density == 0.25
    assert settled(SimpleNamespace(density=0.5), sparsity=0.75).density == 0.25


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"density": 0}, "density must be in (0, 1], got 0.0"),
        ({"density": 2}, "density must be in (0, 1], got 2.0"),
        ({"density": math.nan}, "density must be in (0, 1], got nan"),
        ({"density_down": -1}, "density_down must be in (0, 1], got -1.0"),
        ({"sparsity": 1}, "sparsity must be in [0, 1), got 1.0"),
        ({"sparsity": "much"}, "sparsity must be float, got 'much'"),
        ({"mode": "adam"}, "mode must be one of dgs, asgd, gd, dgc, sgd, got 'adam'"),
        ({"codec": "sign", "mode": "asgd"}, "codec sign loses too much of a dense push"),
        ({"codec": "int4"}, f"codec must be one of {', '.join(CODECS)}, got 'int4'"),
        ({"codec_down": "sign"}, "codec_down sign was seen to wreck training"),
        ({"budget_down": 0.5}, "budget_down must be in [1, 1e+06], got 0.5"),
        ({"codec_down": "int4"}, f"codec_down must be one of None, {', '.join(CODECS)}, got 'int4'"),
        ({"buffers": "last"}, "buffers must be one of mean, first, none, got 'last'"),
        ({"on_drift": "ignore"}, "on_drift must be one of raise, snapshot, got 'ignore'"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite must be one of raise, skip, got 'ignore'"),
        ({"world_size": 1}, "world_size 1 leaves no worker for mode dgs"),
        ({"world_size": 0}, "world_size must be in [1, 65536], got 0"),
        ({"rank": 2, "world_size": 2}, "rank must be below world_size = 2, got 2"),
        ({"rank": -1}, "rank must be in [0, 65535], got -1"),
        ({"port": 65536}, "port must be in [0, 65535], got 65536"),
        ({"port": -1}, "port must be in [0, 65535], got -1"),
        ({"port": "http"}, "port must be int, got 'http'"),
        ({"port": 1.5}, "port must be int, got 1.5"),
        ({"port": math.inf}, "port must be int, got inf"),
        ({"clip": 0}, "clip must be in [1e-30, 1e+30], got 0.0"),
        ({"clip_workers": 0}, "clip_workers must be in [1, 65535], got 0"),
        ({"max_version": 0}, "max_version must be in [1, "),
        ({"exchange_timeout": 0}, "exchange_timeout must be in [0.001, 1e+09], got 0.0"),
        ({"connect_timeout": math.inf}, "connect_timeout must be in [0, 1e+09], got inf"),
        ({"grace": math.nan}, "grace must be in [0, 1e+09], got nan"),
        ({"heartbeat": 5, "heartbeat_timeout": 5}, "heartbeat_timeout (5.0 s) must exceed heartbeat (5.0 s)"),
        ({"selection": "best"}, "selection must be one of exact, sampled, got 'best'"),
        ({"maximize": "perhaps"}, "maximize must be bool, got 'perhaps'"),
        ({"threads": 0}, "threads must be in [1, 65535], got 0"),
        ({"cuda": "perhaps"}, "cuda must be bool, got 'perhaps'"),
        ({"mode": "sgd", "rank": 1}, "mode sgd runs in one process: rank 0 trains, got rank 1"),
        ({"densty": 0.1}, "unknown setting 'densty'; the settings are address, "),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_named_with_rule_and_value(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settled(**keywords)
    assert message in str(raised.value)


def test_the_environment_is_checked_like_the_rest() -> None:
    with pytest.raises(ConfigError, match="rank must be int, got 'two'"):
        settled(None, {"RANK": "two"})
    with pytest.raises(ConfigError, match="nesterov must be bool, got 'si'"):
        settled(None, {"DGS_NESTEROV": "si"})


@pytest.mark.parametrize(("text", "value"), [("1", True), ("True", True), ("no", False), ("0", False)])
def test_truth_from_the_environment(text: str, value: bool) -> None:
    assert settled(None, {"DGS_COMPRESS_ALL": text}).compress_all is value


def test_every_setting_can_come_from_the_environment() -> None:
    """DGS_CUDA is the build's, and `auto` there is no truth: the server's has a name of its own."""
    special = {"mode": "gd", "codec": "float16", "codec_down": "float16", "buffers": "first", "rank": "1"}
    special |= {"on_drift": "snapshot", "on_nonfinite": "skip", "density": "0.5", "density_down": "0.5"}
    special |= {"selection": "sampled", "exchange_every": "2"}
    special |= {"heartbeat_timeout": "9", "world_size": "5", "metrics_every": "2"}
    environ = {f"DGS_{f.name.upper()}": special.get(f.name, "1") for f in fields(Settings)}
    environ["DGS_SERVER_CUDA"], environ["DGS_CUDA"] = "1", "auto"
    found = settled(None, environ)
    same = [f.name for f in fields(Settings) if getattr(found, f.name) == getattr(Settings(), f.name)]
    assert same == [], "these did not change"


def test_a_mapping_for_args_is_refused_instead_of_ignored() -> None:
    with pytest.raises(ConfigError, match=r"\*\*args"):
        settled({"density": 0.5})


def test_every_setting_says_what_it_is() -> None:
    assert all(f.metadata["doc"] for f in fields(Settings))


def command() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train")
    add_settings(parser)
    return parser


def test_the_help_names_every_default() -> None:
    offered = {action.dest: str(action.help) for action in command()._actions}
    for setting in fields(Settings):
        value = setting.default
        shown = re.findall(r"\(default: (.+)\)$", offered[setting.name])
        if value is None or isinstance(value, bool):
            assert not shown, setting.name
        else:
            assert [type(value)(text) for text in shown] == [value], setting.name
    assert "(default: 300)" in command().format_help()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--density 5", "density must be in (0, 1], got 5.0"),
        ("--selection foo", "selection must be one of exact, sampled, got 'foo'"),
        ("--max-version many", "max_version must be int, got 'many'"),
    ],
)
def test_a_wrong_setting_ends_a_command_in_a_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = command()
    with pytest.raises(SystemExit, match="2"):
        settings_of(parser, parser.parse_args(words.split()))
    assert capsys.readouterr().err.splitlines()[-1] == f"train: error: {message}"
    assert settings_of(parser, parser.parse_args(["--mode", "asgd"])).mode == "asgd"


def test_the_two_ends_check_who_they_are() -> None:
    model = Vectors({"w": torch.zeros(3)})
    with pytest.raises(ConfigError, match="rank 0 is the server"):
        GradientSGD(model.parameters(), model=model, rank=0, world_size=2)
    with pytest.raises(ConfigError, match="init_server is for rank 0, got rank 1"):
        init_server(None, model, rank=1, world_size=2)
    with pytest.raises(ConfigError, match="mode sgd has no server"):
        init_server(None, model, mode="sgd")
    with pytest.raises(ConfigError, match="every must be at least 1, got 0"):
        init_server(None, model, world_size=2, every=0)


def test_the_agents_store_is_used_where_the_port_is_the_agents() -> None:
    environ = {
        "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
        "TORCHELASTIC_RESTART_COUNT": "2",
    }  # fmt: skip
    assert agent_run(settled(None, environ), environ) == "restart2"
    assert agent_run(settled(None, environ, port=29501), environ) is None
    assert agent_run(settled(), {}) is None
