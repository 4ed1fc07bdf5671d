"""The order of the folders, and the coupling between classes, read from the source."""

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).parent.parent / "agent"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
}
# Modules at the top level that every folder may import; the others import what they like.
BASE = {
    "__init__",
    "model",
    "errors",
    "text",
    "bounded",
    "address",
    "log",
    "broker_login",
    "broker_answers",
    "broker_client",
}
# What the modules of a folder may import besides BASE and each other.
ORDER: dict[str, set[str]] = {
    "kernel": set(),
    "snapshot": {"kernel"},
    "stream": {"snapshot"},
    "publish": {"stream"},
    "remote": {"stream"},
    "service": {"stream"},
}
# Names of values with named fields, and the folders in which a row is a Socket, not bytes.
VALUES = {"socket", "was", "process", "holding", "owner", "snapshot", "delta", "coverage"}
ROWS_ARE_SOCKETS = {"snapshot", "stream", "publish"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def folder(module: str) -> str:
    """The folder of a module; "" at the top level."""
    return module.partition(".")[0] if "." in module else ""


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of this package that a module imports anywhere in its code."""
    found = set()
    package = module.split(".")[:-1]
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) + 1 - node.level], *(node.module or "").split(".")]
        for name in node.names:
            parts = [part for part in base if part]
            whole = ".".join([*parts, name.name])
            found.add(whole if whole in MODULES else ".".join(parts) or "__init__")
    return frozenset(name if name in MODULES else f"{name}.__init__" for name in found - {module})


def found_by(search: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    """What a search finds, by module."""
    found = {module: list(search(module)) for module in sorted(MODULES)}
    return {module: places for module, places in found.items() if places}


def test_every_folder_has_a_place_in_the_order() -> None:
    assert {folder(module) for module in MODULES} == {"", *ORDER}


def imports_against_order(module: str) -> Iterator[str]:
    if folder(module) or module in BASE:
        allowed = {folder(module), *ORDER.get(folder(module), ())} - {""}
        for name in imports(module):
            if name not in BASE and folder(name) not in allowed:
                yield name


def test_imports_follow_the_order_of_the_folders() -> None:
    assert not found_by(imports_against_order)


def test_there_is_no_circle_of_imports() -> None:
    rest = {module: set(imports(module)) for module in MODULES}
    while free := {module for module, needs in rest.items() if not needs & rest.keys()}:
        for module in free:
            del rest[module]
    # What only leads to a circle is removed from the other end.
    while free := rest.keys() - set().union(*rest.values()):
        for module in free:
            del rest[module]
    assert not rest


def assigned(node: ast.AST) -> Iterator[ast.expr]:
    """The targets that a statement assigns to or deletes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            yield from targets
        case ast.AugAssign(target=target) | ast.For(target=target) | ast.AsyncFor(target=target):
            yield target
        case ast.AnnAssign(target=target) | ast.NamedExpr(target=target):
            yield target
        case ast.With(items=items) | ast.AsyncWith(items=items):
            yield from (item.optional_vars for item in items if item.optional_vars)


def own_attributes(cls: ast.ClassDef) -> set[str]:
    """The attributes that a class defines: in its body, or of ``self`` in its methods."""
    found = {node.target.id for node in cls.body
             if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}  # fmt: skip
    for node in ast.walk(cls):
        for target in assigned(node):
            found |= {part.attr for part in ast.walk(target) if is_own(part)}
    return found


def is_own(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether it is an attribute of ``self`` or ``cls``."""
    match node:
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            return True
    return False


@cache
def all_attributes() -> frozenset[str]:
    """The attributes of all classes here, which tells them from those of libraries' objects."""
    classes = (node for module in MODULES for node in ast.walk(tree(module)))
    return frozenset().union(
        *(own_attributes(node) for node in classes if isinstance(node, ast.ClassDef))
    )


def foreign_assignments(node: ast.AST, own: frozenset[str] = frozenset()) -> Iterator[str]:
    """Assignments to attributes of objects, other than ``self``, of other classes."""
    if isinstance(node, ast.ClassDef):
        own = own | own_attributes(node)
    for target in assigned(node):
        for part in ast.walk(target):
            if not isinstance(part, ast.Attribute) or isinstance(part.ctx, ast.Load):
                continue
            if not is_own(part) and part.attr in all_attributes() - own:
                yield f"{part.lineno}: {ast.unparse(part)}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
        yield f"{node.lineno}: {ast.unparse(node)}"
    for child in ast.iter_child_nodes(node):
        yield from foreign_assignments(child, own)


def test_no_attribute_of_another_object_is_assigned() -> None:
    assert not found_by(lambda module: foreign_assignments(tree(module)))


def numeric_indexes(module: str) -> Iterator[str]:
    """Fields of values that are read by number: ``socket[16]``, ``was.socket[4:11]``."""
    values = VALUES | ({"row"} if folder(module) in ROWS_ARE_SOCKETS else set())
    for node in ast.walk(tree(module)):
        match node:
            case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=index):
                numbers = [part for part in ast.walk(index) if isinstance(part, ast.Constant)]
                if name in values and any(isinstance(number.value, int) for number in numbers):
                    yield f"{node.lineno}: {ast.unparse(node)}"


def test_fields_are_not_read_by_number() -> None:
    assert not found_by(numeric_indexes)
