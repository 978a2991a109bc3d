"""What no line of the package may do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dspt

FILES = sorted(Path(dspt.__file__).parent.rglob("*.py"))
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    *("os.system", "os.popen", "pickle.load", "pickle.loads", "joblib.load", "marshal.loads"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "shutil.unpack_archive"),
}
MODULES = {"subprocess", "dill", "cloudpickle", "shelve", "marshal", "code", "pty"}


def offences(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield f"{node.lineno}: {name}"
            case ast.Call(func=ast.Attribute()):
                called = ast.unparse(node.func)
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if called in METHODS or said.get("shell") == "True":
                    yield f"{node.lineno}: {called}"
                if called == "torch.load" and said.get("weights_only") != "True":
                    yield f"{node.lineno}: torch.load of everything"
                if called == "np.load" and said.get("allow_pickle", "False") != "False":
                    yield f"{node.lineno}: np.load with pickles"
            case ast.Import(names=names):
                yield from (f"{node.lineno}: {n.name}" for n in names if n.name in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield f"{node.lineno}: {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_code_comes_from_data_and_no_program_is_started(file: Path) -> None:
    assert not list(offences(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "line",
    [
        *("eval('1')", "import subprocess", "from subprocess import run", "os.system('ls')"),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)"),
        *("pickle.load(f)", "yaml.load(f)", "thing.run('ls', shell=True)"),
    ],
)
def test_the_search_finds(line: str) -> None:
    assert list(offences(ast.parse(line)))
