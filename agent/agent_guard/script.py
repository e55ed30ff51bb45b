"""The user's script, run as ``__main__`` and left there.

One rule: job processes must be able to find the script's functions by name, so the module stays in
``sys.modules`` as Python itself would have left it: a plain file by its path, a module of a package by
its name, with which relative imports work in the worker and in its jobs.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

from agent_guard.settings import GuardError


def run_as_main(path: Path, arguments: list[str]) -> types.ModuleType:
    """Run it to its end, as ``python path arguments...`` would; whatever it raises goes through."""
    if not path.is_file():
        raise GuardError(f"there is no script {path}")
    sys.argv = [str(path), *arguments]
    root = _package_root(path)
    _set_import_path(path.parent if root is None else root, path.parent)
    spec = None if root is None else _in_package(path, root)
    code = _compile(path) if spec is None else _code_of(spec)
    module = _main_module(path, spec)
    # The launcher's own module must not lose its globals while its code is still running.
    module.__dict__["__agent_guard_main__"] = sys.modules["__main__"]
    sys.modules["__main__"] = module
    exec(code, module.__dict__)
    return module


def _package_root(path: Path) -> Path | None:
    """The folder that holds the outermost package around the script; None if it is in no package."""
    folder = path.parent
    if path.stem in ("__init__", "__main__") or not (folder / "__init__.py").is_file():
        return None
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    # A folder with a dot in its name, as of a version, cannot be part of a module's name.
    return None if any("." in part for part in path.relative_to(folder).with_suffix("").parts) else folder


def _set_import_path(first: Path, script: Path) -> None:
    """As for ``python SCRIPT``; as a last choice, so that they hide nothing, also the places that
    ``python -m livekit.agents start SCRIPT`` would look at."""
    if not getattr(sys.flags, "safe_path", False) and sys.path[:1] in ([""], [os.getcwd()]):
        del sys.path[0]
    sys.path[0:0] = [str(first)]
    sys.path += [str(script), os.getcwd()]


def _in_package(path: Path, root: Path) -> ModuleSpec:
    """The script as a module of its package."""
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not os.path.samefile(spec.origin, path):
        raise GuardError(f"{name} is not {path} but {spec.origin if spec else 'nothing'}")
    return spec


def _code_of(spec: ModuleSpec) -> types.CodeType:
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(spec.name) if get_code is not None else None
    if not isinstance(code, types.CodeType):
        raise GuardError(f"no code for {spec.name}")
    return code


def _compile(path: Path) -> types.CodeType:
    with io.open_code(str(path)) as file:
        return compile(file.read(), str(path), "exec", dont_inherit=True)


def _main_module(path: Path, spec: ModuleSpec | None) -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    module.__dict__["__builtins__"] = __builtins__
    if spec is not None:
        module.__spec__ = spec
        module.__loader__ = spec.loader
        module.__package__ = spec.parent
    else:
        module.__package__ = None
    return module
