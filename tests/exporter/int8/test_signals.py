"""Ctrl-C works after networks were destroyed, which may free the thread's signal stack."""

from __future__ import annotations

from tests.support import warm

START = """
import os, signal, time
import numpy as np
import openvino as ov
from openvino import opset13 as operations
from featurewire_exporter.int8 import openvino_network
from featurewire_exporter.int8.signals import received_elsewhere

def network():
    images = operations.parameter([-1, 2, 2, 3], np.float32)
    return ov.Model([operations.reduce_mean(images, np.array([1, 2]))], [images])

def go_as_they_came(compiled):
    first, second = compiled(network()), compiled(network())
    assert first(np.ones((1, 2, 2, 3), np.float32))[0].tolist() == [[1, 1, 1]]
    del first
    del second

def each_by_its_core(model):
    return ov.Core().compile_model(model, "CPU")

def wait_for(interrupt, *args):
    try:
        interrupt(*args)
        for _ in range(600):
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("interrupted")
"""


def said(code: str) -> str:
    child = warm.run(["-c", START + code], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_networks_of_this_package_leave_the_stack():
    code = """
go_as_they_came(openvino_network.compiled)
wait_for(signal.raise_signal, signal.SIGINT)
"""
    assert said(code) == "interrupted\n"


def test_other_handlers_run_when_another_thread_receives_the_signal():
    code = """
with received_elsewhere():
    go_as_they_came(each_by_its_core)
    wait_for(os.kill, os.getpid(), signal.SIGINT)
wait_for(signal.raise_signal, signal.SIGINT)
"""
    assert said(code) == "interrupted\ninterrupted\n"
