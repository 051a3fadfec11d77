"""Report of scripts/bench_ebmfold.py: tables in Markdown, and figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebmfold_benchmark import PEER, Row
from ebmfold_summary import best_of_first, decoy_means, interval, paired, selected
from protenix_eba.core.files import atomic_path
from protenix_eba.eval.report.plots.style import Drawing, label_colours, small_multiples

Rows = Mapping[str, list[Row]]
METHODS = ("hybrid", "churned", "churned64", "algorithm1", PEER)
SHORT, LONG = 100, 150
SHOWN_STAGES = (0, 6, 10, 14)


def group(rows: Iterable[Row], *keys: str) -> dict[tuple, list[Row]]:
    """Group rows by the values of some keys, sorted, with methods in their order."""
    found: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)

    def place(values: tuple) -> tuple:
        return tuple(METHODS.index(v) if isinstance(v, str) else v for v in values)

    return dict(sorted(found.items(), key=lambda item: place(item[0])))


def table(columns: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [f"| {' | '.join(map(str, line))} |" for line in (columns, *lines)]
    rows.insert(1, "|---" * len(columns) + "|")
    return "\n".join(rows)


def percent(values: Iterable[Iterable[bool]]) -> str:
    return f"{100 * np.mean([v for row in values for v in row]):.1f}%"


def mean(rows: Iterable[Row], key: str, digits: int = 2) -> str:
    return f"{np.mean([row[key] for row in rows]):.{digits}f}"


def said(orientations: bool) -> str:
    return "yes" if orientations else "no"


def folding(rows: list[Row]) -> str:
    columns = (
        *("width", "orientations", "method", "targets", "lDDT-Ca, mean of decoys", "best"),
        *("selected", "minus the peer", "GDT-TS", "selected", "TM-score", "mirrored", "mixed"),
        *("CPU s", "evaluations"),
    )
    lines = []
    for (noise, oriented, method), cell in group(rows, "noise", "orientations", "method").items():
        peers = [r for r in rows if (r["noise"], r["orientations"]) == (noise, oriented)]
        peers = [r for r in peers if r["method"] == PEER]
        lines.append(
            (
                *(noise, said(oriented), method, len(cell)),
                interval(decoy_means(cell, "lddt_ca")),
                interval([best_of_first(r, "lddt_ca") for r in cell]),
                interval([selected(r, "lddt_ca") for r in cell]),
                "" if method == PEER else paired(cell, peers, "lddt_ca"),
                f"{np.mean(decoy_means(cell, 'gdt_ts')):.3f}",
                f"{np.mean([selected(r, 'gdt_ts') for r in cell]):.3f}",
                f"{np.mean(decoy_means(cell, 'tm_score')):.3f}",
                percent(r["mirrored"] for r in cell),
                percent(r["mixed"] for r in cell),
                *(mean(cell, "cpu_seconds"), mean(cell, "n_evaluations", 0)),
            )
        )
    by_length = table(
        ("residues", "method", "rows", "lDDT-Ca", "minus the peer", "CPU s"), _by_length(rows)
    )
    return f"{table(columns, lines)}\n\n{by_length}"


def _by_length(rows: list[Row]) -> Iterable[Sequence[object]]:
    for name, low, high in (
        (f"below {SHORT}", 0, SHORT),
        (f"{SHORT} to {LONG}", SHORT, LONG + 1),
        (f"above {LONG}", LONG + 1, 10**9),
    ):
        part = [
            row | {"target": (row["target"], row["noise"], row["orientations"])}
            for row in rows
            if low <= row["length"] < high
        ]
        cells = group(part, "method")
        for (method,), cell in cells.items():
            scores = interval(decoy_means(cell, "lddt_ca"))
            peers = cells.get((PEER,), [])
            difference = "" if method == PEER else paired(cell, peers, "lddt_ca")
            yield name, method, len(cell), scores, difference, mean(cell, "cpu_seconds")


def algorithm1(rows: list[Row]) -> str:
    columns = ("method", "targets", "evaluations", "lDDT-Ca", "GDT-TS", "CPU s")
    lines = []
    for (method,), cell in group(rows, "method").items():
        lddt, gdt = (interval(decoy_means(cell, key)) for key in ("lddt_ca", "gdt_ts"))
        cost = mean(cell, "n_evaluations", 0), mean(cell, "cpu_seconds")
        lines.append((method, len(cell), cost[0], lddt, gdt, cost[1]))
    return table(columns, lines)


def decoys(rows: list[Row]) -> str:
    columns = ("method", "decoys", "lDDT-Ca, best", "selected", "CPU s")
    lines = []
    for (method,), cell in group(rows, "method").items():
        for n in powers_of_two(len(cell[0]["lddt_ca"])):
            best, likeliest = (
                interval([of(row, "lddt_ca", n) for row in cell])
                for of in (best_of_first, selected)
            )
            seconds = n * np.mean([row["cpu_seconds"] for row in cell])
            lines.append((method, n, best, likeliest, f"{seconds:.1f}"))
    return table(columns, lines)


def powers_of_two(largest: int) -> list[int]:
    return [2**k for k in range(largest.bit_length()) if 2**k <= largest]


def refinement(rows: list[Row]) -> str:
    columns = (
        "trace",
        "method",
        "targets",
        "level, Å",
        "lDDT-Ca before",
        "after",
        "GDT-TS",
        "after",
    )
    lines = []
    for (asked, method), cell in sorted(group(rows, "asked", "method").items(), reverse=True):
        before = [interval([row[f"{key}_before"] for row in cell]) for key in ("lddt_ca", "gdt_ts")]
        after = [interval(decoy_means(cell, key)) for key in ("lddt_ca", "gdt_ts")]
        lines.append(
            (
                asked,
                method,
                len(cell),
                mean(cell, "level"),
                before[0],
                after[0],
                before[1],
                after[1],
            )
        )
    return table(columns, lines)


def hands(rows: list[Row]) -> str:
    wrong = [row["target"] for row in rows if row["wrong"]]
    return f"{len(wrong)} of {len(rows)} native domains are taken for mirror images. " + " ".join(
        wrong
    )


def lengths(rows: list[Row]) -> str:
    columns = (
        *("residues", "s of an evaluation", "µs per pair", "s of a hybrid decoy", "lDDT-Ca"),
        *("peak MB", "before"),
    )
    return table(
        columns,
        (
            (
                row["length"],
                f"{row['evaluation_seconds']:.3f}",
                f"{1e6 * row['evaluation_seconds'] / row['length'] ** 2:.2f}",
                f"{row['cpu_seconds']:.2f}",
                f"{row['lddt_ca'][0]:.3f}",
                f"{row['peak_mb']:.0f}",
                f"{row['peak_mb_before']:.0f}",
            )
            for row in sorted(rows, key=lambda row: row["length"])
        ),
    )


def real(rows: list[Row]) -> str:
    columns = ("prediction", "orientations", "method", "lDDT-Ca, mean", "best", "selected")
    lines: list[tuple] = []
    for row in rows:
        if "model" in row:
            scores = (f"{row['lddt_ca']:.3f}", f"{row['gdt_ts']:.3f}")
            lines.append((row["target"], "", row["model"], "", "", *scores))
            continue
        of = np.mean(row["lddt_ca"]), max(row["lddt_ca"]), selected(row, "lddt_ca")
        scores = [f"{score:.3f}" for score in (*of, selected(row, "gdt_ts"))]
        lines.append((row["target"], said(row["orientations"]), row["method"], *scores))
    return table((*columns, "GDT-TS, selected"), lines)


SECTIONS: dict[str, tuple[str, Callable[[list[Row]], str]]] = {
    "folding": ("Stand-in predictions", folding),
    "algorithm1": ("The paper's schedule against fast samplers", algorithm1),
    "decoys": ("Number of decoys", decoys),
    "refinement": ("Refinement of a trace", refinement),
    "hands": ("Hands of native domains", hands),
    "real": ("Real predictions", real),
    "lengths": ("Time and memory against length", lengths),
}


def report(rows: Rows) -> str:
    """Return all tables; intervals are 95% bootstrap intervals over targets."""
    parts = [
        f"## {title}\n\n{make(rows[section])}\n"
        for section, (title, make) in SECTIONS.items()
        if section in rows
    ]
    return "\n".join(parts)


def draw(rows: Rows, folder: Path) -> None:
    """Draw the figures for which there are rows, as PNG and SVG."""
    made: dict[str, Drawing] = {}
    if "folding" in rows:
        made["against_peer"] = against_peer(rows["folding"])
        made["distribution"] = distribution(rows["folding"])
        made["time"] = seconds_by_length(rows["folding"])
    if "decoys" in rows:
        made["decoys"] = by_decoys(rows["decoys"])
    if "stages" in rows:
        made["stages"] = stages(rows["stages"])
        made["distances"] = distance_matrices(rows["stages"])
    for name, drawing in made.items():
        for suffix, content in (("svg", drawing.svg), ("png", drawing.png)):
            with atomic_path(folder / f"{name}.{suffix}") as temporary:
                temporary.write_bytes(content)


def panels(rows: list[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return title to method to rows, one panel for each width and setting."""
    return {
        f"width {noise:g}, {'with' if oriented else 'without'} orientations": {
            method: found for (method,), found in group(cell, "method").items()
        }
        for (noise, oriented), cell in group(rows, "noise", "orientations").items()
    }


def against_peer(rows: list[Row]) -> Drawing:
    colours = label_colours(METHODS)

    def panel(axes: Any, cells: dict[str, list[Row]]) -> None:
        peer = {row["target"]: np.mean(row["lddt_ca"]) for row in cells[PEER]}
        axes.plot([0, 1], [0, 1], color="#888888", lw=0.8)
        for method, cell in cells.items():
            if method != PEER:
                x = [peer[row["target"]] for row in cell]
                y = decoy_means(cell, "lddt_ca")
                axes.plot(x, y, "o", ms=3, alpha=0.7, color=colours[method], label=method)
        low = 0.95 * min(min(decoy_means(cell, "lddt_ca")) for cell in cells.values())
        axes.set(xlim=(low, 1), ylim=(low, 1))

    return small_multiples(
        panels(rows), panel, "lDDT-Ca of the peer", "lDDT-Ca", legend=METHODS, columns=4
    )


def distribution(rows: list[Row]) -> Drawing:
    colours = label_colours(METHODS)

    def panel(axes: Any, cells: dict[str, list[Row]]) -> None:
        for method, cell in cells.items():
            scores = np.sort([score for row in cell for score in row["lddt_ca"]])
            share = np.arange(1, len(scores) + 1) / len(scores)
            axes.step(scores, share, where="post", color=colours[method], label=method)

    return small_multiples(
        panels(rows), panel, "lDDT-Ca of a decoy", "Share below", legend=METHODS, columns=4
    )


def seconds_by_length(rows: list[Row]) -> Drawing:
    colours = label_colours(METHODS)

    def panel(axes: Any, cell: list[Row]) -> None:
        for (method,), found in group(cell, "method").items():
            x, y = [row["length"] for row in found], [row["cpu_seconds"] for row in found]
            axes.loglog(x, y, "o", ms=3, alpha=0.6, color=colours[method], label=method)

    settings = {
        f"{'with' if oriented else 'without'} orientations": cell
        for (oriented,), cell in group(rows, "orientations").items()
    }
    return small_multiples(settings, panel, "Residues", "CPU s of a decoy", legend=METHODS)


def by_decoys(rows: list[Row]) -> Drawing:
    colours = label_colours(METHODS)

    def panel(axes: Any, of: Callable[[Row, str, int], float]) -> None:
        for (method,), cell in group(rows, "method").items():
            counts = range(1, len(cell[0]["lddt_ca"]) + 1)
            y = [np.mean([of(row, "lddt_ca", n) for row in cell]) for n in counts]
            axes.plot(counts, y, "o-", ms=3, color=colours[method], label=method)

    kinds = {"best": best_of_first, "selected": selected}
    return small_multiples(kinds, panel, "Decoys", "lDDT-Ca", legend=METHODS)


def stages(rows: list[Row]) -> Drawing:
    def panel(axes: Any, found: list[Row]) -> None:
        levels = [max(row["level"], 0.05) for row in found]
        axes.semilogx(levels, [row["lddt_ca"] for row in found], "o-", ms=3)
        axes.invert_xaxis()

    annealed = [row for row in rows if row["level"] is not None]
    return small_multiples({"churned": annealed}, panel, "Noise level, Å", "lDDT-Ca")


def distance_matrices(rows: list[Row]) -> Drawing:
    annealed = [row for row in rows if row["level"] is not None]
    shown = [annealed[k] for k in SHOWN_STAGES if k < len(annealed)] + [annealed[-1], rows[-1]]

    def panel(axes: Any, row: Row) -> None:
        axes.imshow(row["distances"], vmin=0, vmax=40, cmap="viridis_r")
        axes.grid(False)

    titles = ["native" if row["level"] is None else f"{row['level']:.2g} Å" for row in shown]
    return small_multiples(
        dict(zip(titles, shown, strict=True)), panel, "Residue", "Residue", panel_size=(2.4, 2.4)
    )
