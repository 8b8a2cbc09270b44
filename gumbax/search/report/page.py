"""One self-contained page of one run or several: report.html."""

import base64
import html
import json
import string
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from gumbax.search.methods.methods import METHODS
from gumbax.search.network.supernet import dense_operation
from gumbax.search.report import charts, gap
from gumbax.search.report.cell_drawing import is_chain, node_label
from gumbax.search.report.costing import pareto
from gumbax.search.report.curve_drawing import PANELS, curves_of
from gumbax.search.report.gap import Row
from gumbax.search.report.plots import genotype_text
from gumbax.search.report.run_folder import Run, read_run
from gumbax.search.spaces.space import Choice
from gumbax.search.store import folder

PAGE = "report.html"
REFRESH_SECONDS = 10
_MOST_FRAMES = 200


def write_page(
    folders: Sequence[Path], path: Path, *, truth: str = "", running: bool = False
) -> None:
    """Writes the page of one run, or of several side by side.

    Args:
        folders: of searches, finished or not.
        path: of the page.
        truth: text on published accuracies, if there are any.
        running: a search goes on: the page then loads itself anew every 10 seconds.
    """
    runs = [read_run(one) for one in folders]
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    of_data = dict.fromkeys(Path(str(run.options.get("dataset"))).name for run in runs)
    of_space = dict.fromkeys(run.space.name for run in runs if run.space is not None)
    title = ", ".join([*of_data, *of_space])
    parts = [_verdict(runs), *([_together(runs)] if len(runs) > 1 else [])]
    if truth:
        plate = f'<pre class="truth">{html.escape(truth)}</pre>'
        parts.append(f"<h3>Published accuracies</h3>{plate}")
    parts.append(_costs(runs))
    parts.append(f'<div class="runs">{"".join(map(_run, runs))}</div>')
    template = string.Template(
        resources.files("gumbax.search.report").joinpath("page.html").read_text("utf-8")
    )
    folder.write(
        path,
        template.substitute(
            refresh=refresh if running else "",
            title=html.escape(f"Search: {title}"),
            body="\n".join(parts),
        ),
    )


def _verdict(runs: Sequence[Run]) -> str:
    """What a reader wants to know first."""
    reports = [run.rows for run in runs if run.rows]
    if not reports:
        epochs = max(
            (run.metrics[-1]["epoch"] for run in runs if run.metrics), default=0
        )
        return f'<p class="verdict">Searching: {epochs} epochs so far.</p>'
    sentences = []
    for experiment in dict.fromkeys(run.experiment for run in runs if run.rows):
        of_it = [run for run in runs if run.rows and run.experiment == experiment]
        own = [run.rows for run in of_it]
        trained = _trained(of_it[0].options.get("method"))
        lost = gap.gaps(gap.over_seeds(own))[trained]
        label = f"{experiment}: " if len(reports) > len(own) else ""
        sentences.append(
            f"{label}From what was trained ({trained}) to what is kept (argmax): "
            f"{-lost:+.2f} points. {' '.join(gap.verdict(own))}"
        )
    return "".join(f'<p class="verdict">{html.escape(one)}</p>' for one in sentences)


def _trained(name: str | None) -> str:
    """The reading of the search that a method trains; draws, of one that is unknown."""
    method = METHODS.get(name or "")
    dense = method is not None and method.operation is dense_operation
    return gap.SOFT if dense else gap.DRAWN


def _together(runs: Sequence[Run]) -> str:
    """The rows of all runs beside each other."""
    names = list(dict.fromkeys(row.name for run in runs for row in run.rows))
    head = "".join(f'<th class="number">{html.escape(run.name)}</th>' for run in runs)
    body = []
    for name in names:
        found = [next((r for r in run.rows if r.name == name), None) for run in runs]
        cells = "".join(f'<td class="number">{_number(row)}</td>' for row in found)
        body.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    table = f"<table><tr><th>test accuracy, %</th>{head}</tr>{''.join(body)}</table>"
    return f'<div class="wide">{table}</div>'


def _costs(runs: Sequence[Run]) -> str:
    """Accuracy against each cost, of all runs together, and what nothing beats."""
    names = dict.fromkeys(
        name for run in runs for one in run.trained for name in one.costs
    )
    parts = []
    for name in names:
        groups: dict[str, list[tuple[float, float, str]]] = {}
        for of, one in ((run, one) for run in runs for one in run.trained):
            if name not in one.costs:
                continue
            cost, accuracy = one.costs[name], one.accuracy
            kind = _kind(one.name, f"kept by {of.experiment}")
            told = f"{of.name}, {one.name}: {accuracy:.2f} % at {cost:,g}"
            groups.setdefault(kind, []).append((cost, accuracy, told))
        every = [point for points in groups.values() for point in points]
        front = pareto([(cost, accuracy) for cost, accuracy, _ in every])
        # What was kept is drawn last, above the others.
        shown = {kind: groups[kind] for kind in sorted(groups, key=_kept_last)}
        chart = charts.scatter(
            f"Accuracy against {name}", shown, name, line=[every[i][:2] for i in front]
        )
        best = "; ".join(every[i][2] for i in front)
        parts.append(
            f"<div><h4>{html.escape(name)}</h4>{chart}{charts.legend(list(shown))}"
            f'<p class="note">Nothing beats {html.escape(best)}.</p></div>'
        )
    if not parts:
        return ""
    return f'<h3>Accuracy against cost</h3><div class="charts">{"".join(parts)}</div>'


def _kind(name: str, kept: str) -> str:
    if name.endswith(gap.EVERYWHERE):
        return "constant"
    return "random" if name.startswith("random ") else kept


def _kept_last(kind: str) -> tuple[bool, str]:
    return kind not in ("random", "constant"), kind


def _number(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.mean:.2f}" + ("" if row.std is None else f" ± {row.std:.2f}")


def _run(run: Run) -> str:
    parts = [f"<h2>{html.escape(run.name)}</h2>"]
    parts += [f'<p class="note">{html.escape(run.title)}</p>'] * bool(run.title)
    middle = (_kept(run), _gap(run.rows), _standing(run.rows), _choices(run))
    parts.append(f'<div class="parts">{"".join(map(_part, middle))}</div>')
    parts += [_curves(run), _settings(run)]
    return f'<section class="run">{"".join(parts)}</section>'


def _part(content: str) -> str:
    return f"<div>{content}</div>" if content else ""


def _kept(run: Run) -> str:
    """The derived architecture, drawn where its picture is there."""
    if run.genotype is None or run.space is None:
        return ""
    try:
        shown = genotype_text(run.genotype, run.space)  # type: ignore[arg-type]
    except ValueError:  # derived anew for another space
        return ""
    picture = ""
    try:
        content = base64.b64encode((run.folder / "cell.svg").read_bytes()).decode()
        picture = f'<img class="cell" alt="" src="data:image/svg+xml;base64,{content}">'
    except OSError:  # not drawn yet
        pass
    return f"<h3>What is kept</h3>{picture}<pre>{html.escape(shown)}</pre>"


def _gap(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th>{html.escape(row.name)}</th><td class="number">{_number(row)}</td>'
        f'<td class="note">{html.escape(gap.note(row.name))}</td></tr>'
        for row in rows
    )
    gaps = "; ".join(f"{name} {lost:+.2f}" for name, lost in gap.gaps(rows).items())
    return (
        f'<h3>Test accuracy, %</h3><div class="wide"><table>{body}</table></div>'
        f'<p class="note">Discretisation gap, as searched minus argmax, in points: '
        f"{html.escape(gaps)}.</p>"
    )


def _standing(rows: Sequence[Row]) -> str:
    """The kept architecture among the others, best first."""
    kinds = {gap.RETRAINED: "kept", gap.RANDOM: "random"}
    found = [
        (value, kinds.get(row.name, "constant"), row.name)
        for row in rows
        for value in row.values
        if row.name in kinds or row.name.endswith(gap.EVERYWHERE)
    ]
    if len(found) < 2:
        return ""
    points: dict[str, list[tuple[float, float, str]]] = {}
    for place, (value, kind, name) in enumerate(sorted(found, reverse=True), 1):
        points.setdefault(kind, []).append((place, value, f"{name}, {value:.2f} %"))
    order = ("random", "constant", "kept")
    shown = {str(kind): points[kind] for kind in order if kind in points}
    chart = charts.scatter("Accuracy by place", shown, "place, all trained equally")
    return f"<h3>Among others</h3>{chart}{charts.legend(list(shown))}"


def _choices(run: Run) -> str:
    """Probabilities of every edge; a slider goes through the epochs."""
    if run.space is None or not run.choices:
        return ""
    parts = []
    step = -(-len(run.choices) // _MOST_FRAMES)
    shown = [*run.choices[:-1:step], run.choices[-1]]
    for name, choice in run.space.choices.items():
        try:
            frames = [
                [row["epoch"], *_flat(row["probabilities"][name], choice)]
                for row in shown
            ]
        except (KeyError, TypeError, ValueError):
            continue  # of another space
        head = "".join(f"<th>{html.escape(one)}</th>" for one in choice.primitives)
        values = iter(frames[-1][1:])
        body = []
        for edge in range(len(choice.edges)):
            title = _edge_title(choice, edge)
            cells = "".join(
                _cell(f"{title}, {primitive}", next(values))
                for primitive in choice.primitives
            )
            body.append(f"<tr><th>{html.escape(title)}</th>{cells}</tr>")
        last = len(frames) - 1
        parts.append(
            f'<div class="choice wide" data-frames="{html.escape(json.dumps(frames))}">'
            f'<p class="note">{html.escape(name)}: <output>epoch {frames[-1][0]}'
            f'</output> <input type="range" hidden min="0" max="{last}" value="{last}" '
            f'aria-label="epoch"></p>'
            f"<table><thead><tr><td></td>{head}</tr></thead>{''.join(body)}</table></div>"
        )
    return f"<h3>Choices over the epochs</h3>{''.join(parts)}" if parts else ""


def _flat(probabilities: Sequence[Sequence[float]], choice: Choice) -> list[float]:
    values = [round(float(p), 3) for row in probabilities for p in row]
    if len(values) != len(choice.edges) * len(choice.primitives):
        raise ValueError("not the choices of this space")
    return values


def _cell(name: str, value: float) -> str:
    told = html.escape(name)
    style = f'style="--p:{value}" title="{told}: {value}"'
    return f'<td><i data-name="{told}" {style}></i></td>'


def _edge_title(choice: Choice, edge: int) -> str:
    if is_chain(choice):
        return f"layer {edge}"
    source, target = (node_label(choice, node) for node in choice.edges[edge])
    return f"{source} → {target}"


def _curves(run: Run) -> str:
    parts = []
    for title, names in PANELS.items():
        curves: dict[str, charts.Points] = {}
        for name, label in names:
            scale = 100 if "%" in title else 1
            curves |= curves_of(run.metrics, name, label, scale=scale)
        chart = charts.lines(title, curves) if curves else ""
        if chart:
            key = charts.legend(list(curves))
            parts.append(f"<div><h4>{html.escape(title)}</h4>{chart}{key}</div>")
    return f'<h3>Curves</h3><div class="charts">{"".join(parts)}</div>' if parts else ""


def _settings(run: Run) -> str:
    def table(items: Iterable[tuple[str, Any]]) -> str:
        return "".join(
            f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in items
        )

    shown = {k: "by default" if v is None else v for k, v in run.options.items()}
    size = {} if run.space is None else {"architectures": run.space.num_architectures}
    seconds = run.metrics[-1].get("seconds") if run.metrics else None
    took = {} if seconds is None else {"seconds of the search": seconds}
    rows = table({**shown, **size, **took, **run.versions}.items())
    line = f"<pre>{html.escape(run.command)}</pre>" if run.command else ""
    return (
        f"<h3>Settings</h3>{line}<details><summary>"
        f'All of them, and versions</summary><div class="wide"><table>{rows}</table>'
        "</div></details>"
    )
