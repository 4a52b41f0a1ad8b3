"""The plots of the report, made from the result file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write(parts: Mapping[str, Any], folder: Path) -> None:
    """One PNG for each plot whose part was measured."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    if "network" in parts:
        _batches(parts["network"]["figures"], folder / "throughput-batch.png")
    if "serving" in parts:
        _concurrency(parts["serving"]["figures"], folder / "throughput-concurrency.png")
        _latency(parts["serving"]["figures"], folder / "throughput-latency.png")
    if "image" in parts:
        _one_image(parts["image"]["figures"], folder / "one-image.png")


def _batches(figures: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Plot the throughput of each way to run the network, and the limits, by batch size."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for figure in figures:
        if figure["table"].startswith("Batch of "):
            batch = float(figure["table"].rsplit(" ", 1)[1])
            lines.setdefault(figure["name"], []).append((batch, figure["median"]))
    axes = _axes("images in a batch", "images/s")
    for name, points in lines.items():
        style = "k--" if name.startswith("limit") else "o-"
        axes.plot(*zip(*sorted(points), strict=True), style, label=name, linewidth=1)
    axes.set_xscale("log", base=2)
    _save(axes, file)


def _concurrency(figures: Iterable[Mapping[str, Any]], file: Path) -> None:
    axes = _axes("calls in flight", "images/s")
    for name, points in _loads(figures).items():
        axes.plot([at for at, _, _ in points], [rate for _, rate, _ in points], "o-", label=name)
    axes.set_xscale("log", base=2)
    _save(axes, file)


def _latency(figures: Iterable[Mapping[str, Any]], file: Path) -> None:
    axes = _axes("images/s", "median latency, ms")
    for name, points in _loads(figures).items():
        axes.plot([rate for _, rate, _ in points], [ms for _, _, ms in points], "o-", label=name)
    axes.set_yscale("log")
    _save(axes, file)


def _loads(figures: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float, float]]]:
    """(calls in flight, images per second, median ms) of each load, by table."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for figure in figures:
        more = figure["more"]
        if "in flight" in more and "p50 ms" in more:
            point = (more["in flight"], figure["median"], more["p50 ms"])
            found.setdefault(figure["table"], []).append(point)
    return {name: sorted(points) for name, points in found.items()}


def _one_image(figures: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Plot the steps of a single call as stacked bars, in milliseconds."""
    axes = _axes("ms", "")
    left: dict[str, float] = {}
    for figure in figures:
        if "of the whole" in figure["more"]:
            start = left.get(figure["table"], 0.0)
            axes.barh(figure["table"], figure["median"], left=start, label=figure["name"])
            left[figure["table"]] = start + figure["median"]
    _save(axes, file)


def _axes(x: str, y: str) -> Any:
    from matplotlib.figure import Figure

    axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return axes


def _save(axes: Any, file: Path) -> None:
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.figure.savefig(file, dpi=90)
