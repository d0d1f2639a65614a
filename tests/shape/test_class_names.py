"""One class name means one thing, in the processor and in the producers alike."""

import ast
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_a_class_name_stands_for_one_class() -> None:
    places = defaultdict(list)
    for package in ("processor", "producers"):
        for path in (TOP / package).rglob("*.py"):
            if path.parent.name != "protos":
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.ClassDef):
                        places[node.name].append(str(path.relative_to(TOP)))

    assert len(places) > 300
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
