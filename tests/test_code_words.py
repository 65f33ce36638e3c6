"""Habits of the code: nouns for what is bound, the field's words, arguments that are explained."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradwatch"
CODE = ("gradwatch", "tests", "benchmarks", "scripts", "docs", "examples")
TEXTS = (".py", ".js", ".css", ".json")

BANNED = {
    "ill": "unhealthy",
    "sick": "unhealthy",
    "thrown": "diverged, or raised",
    "pinned": "saturated, constant, or held at its bound",
    "starve": "get no gradient",
    "starved": "gets no gradient",
    "starves": "gets no gradient",
    "starving": "gets no gradient",
    "told": "reported, distinguished, or known",
    "anew": "again",
}
"""What the package says instead of each of these, in names as in texts."""

SHARED = {
    "CARDS": "each figure lists its own",
    "GradWatchCallback": "the callback of each trainer",
    "examine": "what each rule does",
    "logger": "of its module",
}
"""Public names that several modules define, since they mean the same in all of them."""

CALLBACKS = ("GradWatchCallback",)
_CALLBACK_HOOK = re.compile(r"on_\w+|setup|teardown")
_SCRIPT_BINDING = re.compile(
    r"\([^()]*\bone\b[^()]*\) =>|\bone =>|(const|let|for \(const) [\[{]?\s*one\b"
    r"|function \w*\([^)]*\bone\b"
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def list_files(room: str, *endings: str) -> list[Path]:
    found = sorted(path for path in (ROOT / room).rglob("*") if path.suffix in endings)
    assert found
    return found


def find_bindings(tree: ast.Module, name: str) -> Iterator[int]:
    """Lines that bind a name: by assignment, loop, comprehension, argument, import or pattern."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            bound = node.id if isinstance(node.ctx, ast.Store) else None
        elif isinstance(node, ast.arg):
            bound = node.arg
        elif isinstance(node, ast.alias):
            bound = node.asname
        else:
            is_named = isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar))
            bound = node.name if is_named else None
        if bound == name:
            yield getattr(node, "lineno", 0)


def find_script_bindings(path: Path) -> Iterator[str]:
    """Lines of JavaScript that bind ``one``: as an argument, a constant or a variable."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if _SCRIPT_BINDING.search(line):
            yield f"{number}: {line.strip()}"


def find_banned(text: str) -> Iterator[str]:
    """Lines with a banned word, also as a part of ``snake_case`` or of ``CamelCase``."""
    for number, line in enumerate(text.splitlines(), 1):
        for word in _WORD.findall(line):
            if word.lower() in BANNED:
                yield f"{number}: {word} (say {BANNED[word.lower()]})"


def list_public(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Public functions, and public methods of public classes, under their names."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def is_framework_hook(name: str, function: Function) -> bool:
    """A hook or fixture of pytest, or a hook of a trainer's callback: a plain line will do.

    Their arguments are the framework's, which explains them.
    """
    owner, _, own = name.rpartition(".")
    marks = {ast.unparse(mark).partition("(")[0] for mark in function.decorator_list}
    is_pytest = own.startswith("pytest_") or "pytest.fixture" in marks
    return is_pytest or (owner in CALLBACKS and bool(_CALLBACK_HOOK.fullmatch(own)))


def takes_arguments(function: Function) -> bool:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return bool(given.vararg or given.kwarg or any(arg.arg not in ("self", "cls") for arg in named))


def find_unexplained(tree: ast.Module) -> Iterator[str]:
    """Public functions that take arguments and do not say what they are."""
    for name, function in list_public(tree):
        explains = "\nArgs:\n" in (ast.get_docstring(function) or "")
        if takes_arguments(function) and not explains and not is_framework_hook(name, function):
            yield f"{function.lineno}: {name}"


def list_defined(tree: ast.Module) -> Iterator[str]:
    """Public names that a module binds by a class, a function or an assignment of its own."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | Function):
            names = [node.name]
        else:
            targets = (
                node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            )
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        yield from (name for name in names if not name.startswith("_"))


def find_ambiguous(modules: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Names that mean something in several modules, with these."""
    homes: dict[str, list[str]] = {}
    for home, tree in modules.items():
        for name in set(list_defined(tree)):
            homes.setdefault(name, []).append(home)
    return {name: places for name, places in homes.items() if len(places) > 1}


def examine(files: list[Path], find: Callable[[Path], Iterator[object]]) -> None:
    """No file has what is looked for."""
    found = {path.relative_to(ROOT).as_posix(): list(find(path)) for path in files}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize("room", CODE)
def test_nothing_is_called_one(room: str) -> None:
    """A binding has the noun of what it holds."""
    examine(list_files(room, ".py"), lambda path: find_bindings(parse(path), "one"))


def test_nothing_in_the_page_is_called_one() -> None:
    examine(list_files("gradwatch/display/static", ".js"), find_script_bindings)


def test_the_package_speaks_the_words_of_the_field() -> None:
    files = list_files("gradwatch", *TEXTS)
    examine(files, lambda path: find_banned(path.read_text(encoding="utf-8")))


def test_public_functions_explain_their_arguments() -> None:
    """An ``Args:`` section has units, shapes, what None means, who owns it."""
    examine(list_files("gradwatch", ".py"), lambda path: find_unexplained(parse(path)))


def test_each_name_means_one_thing() -> None:
    """What two modules define under one name is one thing, or has two names."""
    files = list_files("gradwatch", ".py")
    found = find_ambiguous({path.relative_to(ROOT).as_posix(): parse(path) for path in files})
    assert {name: homes for name, homes in found.items() if name not in SHARED} == {}
    assert SHARED.keys() <= found.keys()  # none is listed in vain


def test_the_check_of_names_sees_what_it_looks_for() -> None:
    codes = {
        "a": "class C: x = 1\nB: int = 2",
        "b": "def C(): y = 1\nx = _p = 0",
        "c": "B = _p = 3",
    }
    assert find_ambiguous({home: ast.parse(code) for home, code in codes.items()}) == {
        "C": ["a", "b"], "B": ["a", "c"],
    }  # fmt: skip


def test_the_checks_see_what_they_look_for() -> None:
    code = """
one = 1
for one in (): pass
[one for one in ()]
lambda one: 0
import os as one
try: pass
except OSError as one: pass
def f(a): "Do."
def g(a): pass
def _h(a): pass
class C:
    def m(self, *rest): pass
    def plain(self): pass
class GradWatchCallback:
    def on_step(self, a): pass
    def own(self, a): pass
def pytest_configure(config): pass
"""
    tree = ast.parse(code)
    assert len(list(find_bindings(tree, "one"))) == 6
    assert [line.split()[1] for line in find_unexplained(tree)] == [
        "f", "g", "C.m", "GradWatchCallback.own",
    ]  # fmt: skip
    scripts = ["(a, one) => 0", "one => 0", "const [one, b] = x", "function f(one) {}"]
    assert [bool(_SCRIPT_BINDING.search(line)) for line in scripts] == [True] * 4
    assert not _SCRIPT_BINDING.search("const none = (done) => 1; // one")
    words = "has_pinned_outputs until countSick will THROWN_UPDATE I'll"
    assert len(list(find_banned(words))) == 3
