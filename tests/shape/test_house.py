"""What the house forbids itself: a second hand on the queue's delete, early settlements, and long stories."""

import ast
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from processor.cli import cli as processor_cli
from producers.cli import main as producers_cli

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "processor").rglob("*.py")) + sorted((ROOT / "producers").rglob("*.py"))
DELETES = {"delete_message", "delete_message_batch", "purge_queue", "delete_queue"}
HOT_CALLS = ("processor/brokers/fast_sqs/__init__.py", "processor/brokers/fast_sqs/client.py")
"""Who makes the calls for `settle` in boto3's place; that nobody else asks for one is what counts."""

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _mentions(node: ast.AST) -> set[str]:
    """Every name that a piece of code speaks of, as attribute, name or text."""
    found = set()
    for part in ast.walk(node):
        match part:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
                found.add(name)
    return found


def _deleting() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (path.relative_to(ROOT).as_posix(), function)
        for path in FILES
        if path.is_relative_to(ROOT / "processor") and path.relative_to(ROOT).as_posix() not in HOT_CALLS
        for function in _functions(path)
        if _mentions(function) & DELETES
    ]


def test_one_function_deletes_from_the_queue_and_takes_settlements_alone() -> None:
    [(path, function)] = _deleting()

    assert (path, function.name) == ("processor/sources/sqs/source.py", "settle")
    [_, argument] = function.args.args
    assert argument.annotation is not None
    assert ast.unparse(argument.annotation) == "Sequence[Settlement]"
    assert not function.args.kwonlyargs
    assert function.args.vararg is None


def test_nothing_outside_that_function_speaks_of_deleting() -> None:
    [(deleting, _)] = _deleting()

    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("processor/") and name not in (deleting, *HOT_CALLS):
            assert not _mentions(_tree(path)) & DELETES, name


def test_producers_never_delete() -> None:
    for path in FILES:
        if path.is_relative_to(ROOT / "producers"):
            assert not _mentions(_tree(path)) & DELETES, path


def test_only_the_store_makes_settlements() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and _mentions(node.func) & {"Settlement"}
    }

    assert makers == {"processor/store/save_statements.py"}
    # And only the store runs those statements, within the transaction that it commits.
    users = {path.relative_to(ROOT).as_posix() for path in FILES if _mentions(_tree(path)) & {"Statements"}}
    assert users - makers == {"processor/store/store.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_tells_one_story_and_says_which(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= FILE_LINES_MAX
    assert ast.get_docstring(_tree(path))
    for function in _functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES_MAX, function.name


SWALLOWS = {
    "processor/pipeline/pipeline.py",
    "processor/schemas/compiling.py",
    "processor/schemas/judge/process.py",
    "processor/schemas/judge/judging.py",
}
"""The top of a worker, and where the library meets a schema, whose panics are no Exception."""


def test_what_swallows_whatever_comes_stands_at_the_top_of_a_worker_and_around_schemas() -> None:
    broad = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        if path.is_relative_to(ROOT / "processor")
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
        # To tidy up and raise the same again is no swallowing.
        and not (isinstance(last := node.body[-1], ast.Raise) and last.exc is None)
    ]

    assert sorted(place.rsplit(":", 1)[0] for place in broad) == sorted(SWALLOWS)


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────


def _commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child_name, child in command.commands.items():
            yield from _commands(child, f"{name} {child_name}")


COMMANDS = [*_commands(processor_cli, "processor"), *_commands(producers_cli, "producers")]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_has_help_worth_reading(name: str, command: click.Command) -> None:
    assert command.help
    assert command.help[0].isupper()
    assert command.help.split("\n")[0].rstrip().endswith((".", ":")) or "\n" in command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or isinstance(parameter.type, click.Choice) or parameter.show_default, (
                parameter.name
            )


def test_the_commands_are_those_of_the_contract() -> None:
    contract = """
        processor demo · processor dev · processor migrate · processor check · processor run
        · processor tenant add · processor tenant list · processor tenant suspend · processor tenant resume
        · processor schema publish · processor schema list · processor schema show
        · processor rejection list · processor rejection show · processor rejection stats
        · processor rejection replay · processor rejection discard
        · processor dlq list · processor dlq import
        · processor retention plan · processor retention apply
        · processor meter add · processor meter list · processor meter show · processor meter retire
        · processor usage query · processor usage verify · processor usage rebuild
        · processor key add · processor key list · processor key revoke
        · processor audit · processor trace · producers send · producers fake
    """

    assert {" ".join(name.split()) for name in contract.split("·")} <= {name for name, _ in COMMANDS}
