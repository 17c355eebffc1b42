"""Check by syntax tree that an adapter calls the project and computes nothing itself."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

PROJECT = ("fedlabels",)

ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)

_MATHS_NAMES = """
    abs absolute add addbmm addcmul addmm amax amin argmax argmin argsort average baddbmm bincount
    bmm clip clamp clamp_max clamp_min conv1d conv2d cosine_similarity cross_entropy cumprod cumsum
    diff div divide dot eig eigh einsum entropy exp expm1 fmod histogram inner kl_div kron lerp
    linear log log1p log2 log_softmax logsumexp matmul max maximum mean median min minimum mm mul
    multiply mv nanmean nansum neg negative nll_loss norm normalize outer percentile pow power prod
    quantile reciprocal relu round sigmoid sign softmax softplus solve sort sqrt square std sub
    subtract sum svd tanh tensordot topk trace true_divide var vdot vecdot where
"""
MATHS = frozenset(_MATHS_NAMES.split())


def project_calls(function: Callable[..., Any]) -> set[str]:
    """Name the functions and classes of the project that an adapter or its helpers call."""
    found = set()
    for part in _with_helpers(function):
        for call in _nodes(part, ast.Call):
            target = _resolve(call.func, part)
            if _is_project(target):
                found.add(f"{target.__module__}.{target.__qualname__}")
    return found


def maths(function: Callable[..., Any]) -> set[str]:
    """Name the computations that an adapter or its helpers do themselves."""
    return {problem for part in _with_helpers(function) for problem in _maths_of(part)}


def _maths_of(function: Callable[..., Any]) -> Iterator[str]:
    where = f"in {function.__name__}"
    for node in _nodes(function, ast.BinOp, ast.AugAssign):
        if isinstance(node.op, ARITHMETIC):
            yield f"operator {type(node.op).__name__} {where}"
    for node in _nodes(function, ast.UnaryOp):
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            yield f"operator USub {where}"
    for call in _nodes(function, ast.Call):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name.rstrip("_") in MATHS and not _is_project(_resolve(call.func, function)):
            yield f"call of {name} {where}"


def _with_helpers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Collect a function and the functions and classes of the tests that it reaches."""
    todo, seen = [function], []
    while todo:
        part = todo.pop()
        seen.append(part)
        for node in _nodes(part, ast.Name, ast.Attribute):
            target = _resolve(node, part)
            ours = inspect.isfunction(target) or inspect.isclass(target)
            if ours and target.__module__.startswith("tests."):
                todo += [target] if target not in seen + todo else []
    return seen


def _nodes(function: Callable[..., Any], *kinds: type[ast.AST]) -> Iterator[Any]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def _resolve(node: ast.AST, function: Callable[..., Any]) -> Any:
    """Look up a name, or attributes of a module or class, among its module's globals."""
    if isinstance(node, ast.Name):
        return vars(sys.modules[function.__module__]).get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, function)
        if isinstance(owner, ModuleType | type):
            return getattr(owner, node.attr, None)
    return None


def _is_project(target: Any) -> bool:
    module = getattr(target, "__module__", None) or ""
    return callable(target) and module.split(".")[0] in PROJECT
