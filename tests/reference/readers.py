"""Which commands read a setting: those whose code loads a class of settings that has it."""

import inspect
from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType

import click
from pydantic_settings import BaseSettings

from processor.settings import Settings
from tests.reference.commands import contexts

_DEPTH = 4
"""How many calls deep a command is searched."""

_OURS = ("processor.", "producers.")


def readers(name: str) -> list[str]:
    """Give the commands that load a setting; a group stands for all of its commands."""
    loading = _loading()
    field = name.lower()
    found = {path for path, classes in loading.items() if any(field in one.model_fields for one in classes)}
    groups = {path.rpartition(" ")[0] for path in loading} - {"processor", "producers"}
    for group in sorted(groups, reverse=True):
        below = {path for path in loading if path.startswith(f"{group} ")}
        if below <= found | {group}:
            found |= {group}
    return sorted(path for path in found if path.rpartition(" ")[0] not in found)


@cache
def _loading() -> dict[str, set[type[BaseSettings]]]:
    """Give the classes that each command loads, but for the one that has all settings."""
    return {
        context.command_path: set(_classes(inspect.unwrap(context.command.callback), _DEPTH)) - {Settings}
        for context in contexts()
        if not isinstance(context.command, click.Group) and context.command.callback is not None
    }


def _classes(function: FunctionType, depth: int) -> Iterator[type[BaseSettings]]:
    names = set(_names(function.__code__))
    known = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for module in [value for value in known.values() if isinstance(value, ModuleType)]:
        known |= {name: getattr(module, name) for name in names if hasattr(module, name)}
    for value in known.values():
        if isinstance(value, type) and issubclass(value, BaseSettings):
            if "load" in names:
                yield value
        elif isinstance(value, FunctionType) and value.__module__.startswith(_OURS) and depth:
            yield from _classes(inspect.unwrap(value), depth - 1)


def _names(code: CodeType) -> Iterator[str]:
    """Name what a function uses, and the functions inside it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
