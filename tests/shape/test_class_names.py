"""One class name means one thing, in the processor and in the producers alike."""

import ast
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).parents[2]

STILL_SHARED = {
    "Document",
    "Judge",
    "Limits",
    "Line",
    "Moment",
    "Progress",
    "Report",
    "Selection",
    "Store",
    "Tally",
    "Turn",
    "Unreadable",
    "_Fault",
    "_Server",
}
"""Names in the processor that several classes have. A name leaves this set when it is mended."""


def test_a_class_name_stands_for_one_class() -> None:
    places = defaultdict(list)
    for package in ("processor", "producers"):
        for path in (TOP / package).rglob("*.py"):
            if path.parent.name != "protos":
                tree = ast.parse(path.read_text(encoding="utf-8"))
                for node in ast.walk(tree):
                    if isinstance(node, ast.ClassDef):
                        places[node.name].append(str(path.relative_to(TOP)))

    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert len(places) > 300
    assert shared.keys() <= STILL_SHARED, {name: shared[name] for name in shared.keys() - STILL_SHARED}
    assert shared.keys() >= STILL_SHARED, "these are mended: take them off the list"
    assert not any(where.startswith("producers") for paths in shared.values() for where in paths)
