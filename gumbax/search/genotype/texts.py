"""The texts of an architecture: JSON, the DARTS record, the NAS-Bench-201 string.

Cells are plain here, name -> (primitive, source, target) triples. Writers return None
for cells that their form cannot hold, readers raise ValueError for what is not theirs.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence

Triple = tuple[str, int, int]
Cells = Mapping[str, Sequence[Triple]]

INPUTS = 2  # of a DARTS cell, and of each of its nodes
DARTS_CELLS = ("normal", "reduce")
NASBENCH201_CELL = "cell"


def write_json(space: str, cells: Cells, text: str) -> str:
    """One line for each edge; the text is for the reader alone."""
    blocks = []
    for name, edges in cells.items():
        lines = ",\n".join(f"      {json.dumps(list(edge))}" for edge in edges)
        block = f"[\n{lines}\n    ]" if edges else "[]"
        blocks.append(f"    {json.dumps(name)}: {block}")
    inner = ",\n".join(blocks)
    return (
        f'{{\n  "space": {json.dumps(space)},\n  "cells": {{\n{inner}\n  }},\n'
        f'  "text": {json.dumps(text)}\n}}\n'
    )


def read_json(text: str) -> tuple[str, dict[str, list[Triple]]]:
    try:
        fields = json.loads(text)
        space, cells = fields["space"], fields["cells"]
        found = {name: [_triple(edge) for edge in cells[name]] for name in cells}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(repr(error)) from error
    if not isinstance(space, str) or not isinstance(cells, dict):
        raise ValueError("the space is not a name or the cells are not by name")
    return space, found


def _triple(edge: object) -> Triple:
    match edge:
        case [str(primitive), int(source), int(target)] if 0 <= source < target:
            if not isinstance(source, bool) and not isinstance(target, bool):
                return primitive, source, target
    raise ValueError(f"{edge!r} is not [primitive, source, target]")


def write_darts(cells: Cells) -> str | None:
    if set(cells) != set(DARTS_CELLS):
        return None
    fields = []
    for name in DARTS_CELLS:
        edges = sorted(cells[name], key=lambda edge: edge[2])  # stable
        targets = [target for _, _, target in edges]
        nodes = range(INPUTS, INPUTS + len(edges) // INPUTS)
        if not edges or targets != [node for node in nodes for _ in range(INPUTS)]:
            return None
        pairs = [(primitive, source) for primitive, source, _ in edges]
        fields.append(f"{name}={pairs}, {name}_concat={nodes}")
    return f"Genotype({', '.join(fields)})"


def read_darts(text: str) -> dict[str, list[Triple]]:
    try:
        fields = _call_arguments(text)
        found = {}
        for name in DARTS_CELLS:
            pairs = ast.literal_eval(fields.pop(name))
            found[name] = [
                _triple([primitive, source, INPUTS + i // INPUTS])
                for i, (primitive, source) in enumerate(pairs)
            ]
            nodes = range(INPUTS, INPUTS + len(pairs) // INPUTS)
            whole = len(pairs) % INPUTS == 0
            if not whole or not _is_range(fields.pop(f"{name}_concat"), nodes):
                raise ValueError(f"{name}: not two inputs a node, all concatenated")
    except (KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(repr(error)) from error
    if fields:
        raise ValueError(f"unknown fields {', '.join(fields)}")
    return found


def _call_arguments(text: str) -> dict[str, ast.expr]:
    """Of `Genotype(a=..., b=...)`, alone or as the value of an assignment."""
    match ast.parse(text.strip()).body:
        case [
            ast.Expr(ast.Call(ast.Name("Genotype"), [], keywords))
            | ast.Assign(_, ast.Call(ast.Name("Genotype"), [], keywords))
        ]:
            return {str(keyword.arg): keyword.value for keyword in keywords}
    raise ValueError("not one Genotype(...) with named fields")


def _is_range(node: ast.expr, expected: range) -> bool:
    """Whether a literal list or `range(a, b)` is the expected range."""
    match node:
        case ast.Call(ast.Name("range"), arguments, []):
            return range(*map(ast.literal_eval, arguments)) == expected
    return list(ast.literal_eval(node)) == list(expected)


def write_nasbench201(cells: Cells) -> str | None:
    if set(cells) != {NASBENCH201_CELL}:
        return None
    edges = sorted(cells[NASBENCH201_CELL], key=lambda edge: (edge[2], edge[1]))
    last = max((target for _, _, target in edges), default=0)
    pairs = [(source, target) for target in range(last + 1) for source in range(target)]
    if not edges or [(source, target) for _, source, target in edges] != pairs:
        return None
    nodes = [
        "|".join(f"{name}~{source}" for name, source, target in edges if target == node)
        for node in range(1, last + 1)
    ]
    return "+".join(f"|{inputs}|" for inputs in nodes)


def read_nasbench201(text: str) -> dict[str, list[Triple]]:
    found = []
    for target, node in enumerate(text.strip().split("+"), start=1):
        inputs = re.findall(r"(?<=\|)([^|~+]+)~(\d+)(?=\|)", node)
        expected = [(name, str(source)) for source, (name, _) in enumerate(inputs)]
        whole = "|" + "".join(f"{name}~{source}|" for name, source in inputs)
        if len(inputs) != target or inputs != expected or node != whole:
            raise ValueError(f"{node!r} is not node {target}, one input of each before")
        found += [(name, source, target) for source, (name, _) in enumerate(inputs)]
    return {NASBENCH201_CELL: found}


def write_plain(cells: Cells) -> str:
    return "; ".join(
        f"{name}: "
        + ", ".join(f"{p}({source}->{target})" for p, source, target in edges)
        for name, edges in cells.items()
    )
