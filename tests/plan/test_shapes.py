# SPDX-License-Identifier: Apache-2.0
"""The models that are known by name have the sizes that their papers' implementations have."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgs.errors import ConfigError, LayoutError
from dgs.plan import layout_of


@pytest.mark.parametrize(
    ("model", "numel", "tensors"),
    [
        ("resnet18", 11_689_512, 62),
        ("resnet18-cifar", 11_173_962, 62),
        ("resnet50", 25_557_032, 161),
        ("gpt2", 124_439_808, 148),
        ("124M", 124_000_000, 1),
        ("1.5b", 1_500_000_000, 1),
        ("25_000", 25_000, 1),
    ],
)
def test_names_and_numbers(model: str, numel: int, tensors: int) -> None:
    layout = layout_of(model)
    assert (layout.numel, len(layout.segments)) == (numel, tensors)


def test_a_callable_makes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_net.py").write_text(
        "import torch\nSIZE = 3\ndef make():\n    return torch.nn.Linear(30, 40)\ndef none():\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert layout_of("my_net:make").numel == 30 * 40 + 40
    for text, words in [
        ("my_net:none", "returns an nn.Module"),
        ("my_net:SIZE", "returns an nn.Module"),
        ("my_net:other", "cannot be found"),
        ("no_such_module:make", "cannot be found"),
        ("resnet19", "must be one of"),
        ("12Q", "must be one of"),
        (":make", "cannot be found: Empty module name"),
        (".relative:make", "cannot be found"),
        ("0", "must have 1 to"),
        ("1000000000000b", "must have 1 to"),
    ]:
        with pytest.raises(ConfigError, match=words):
            layout_of(text)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(LayoutError, match="no trainable parameters"):
        layout_of("torch.nn:Identity")
