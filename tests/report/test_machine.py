from __future__ import annotations

import io

from imbdyn.ops import _library
from imbdyn.report.machine import machine, show_machine
from imbdyn.report.terminal import report_console


def test_every_op_says_what_serves_each_device() -> None:
    ops = machine()["ops"]
    assert set(ops) == {"class_gram", "class_logits", "class_moments", "norm_gradients", "parameter_norms"}
    for op, entry in ops.items():
        for device in ("cpu", "cuda"):
            assert entry[device] == _library.serving(op, device).name
            assert [i["name"] for i in entry["implementations"] if device in i["serves"]] == [entry[device]]


def test_what_does_not_serve_says_why() -> None:
    missing = _library.Implementation("class_gram", "quantum", "cpu", "qubits", why_not="no qubits here")
    _library.IMPLEMENTATIONS.append(missing)
    try:
        found = machine()
    finally:
        _library.IMPLEMENTATIONS.remove(missing)
    entry = next(i for i in found["ops"]["class_gram"]["implementations"] if i["name"] == "quantum")
    assert (entry["serves"], entry["why_not"]) == ([], "no qubits here")
    file = io.StringIO()
    show_machine(report_console(file), found)
    assert "no qubits here" in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80
