"""A module imports only from the layers above its own, and nothing imports torchvision."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "robustode"
# Top to bottom. Modules of one line may import each other.
LAYERS = [
    {"errors"},
    {"files", "resources", "toml_lines", "validation", "versions"},
    {"solvers"},
    {"models"},
    {"sensitivity"},
    {"data"},
    {"attacks"},
    {"uncertainty", "certificates"},
    {"training"},
    {"evaluation"},
    {"audit"},
    {"reporting"},
    {"api"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of everything the file imports, at any depth, apart from blocks for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_has_a_layer():
    assert {layer_of(path) for path in FILES} == set(RANK)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_up(path):
    own = layer_of(path)
    if own == "__init__":
        return  # the package's front door names all layers, and loads them on first use
    for name in imports(path):
        assert not name.startswith("torchvision"), "torchvision does not load with a CPU build of torch"
        parts = name.split(".")
        if parts[0] != "robustode" or len(parts) == 1:
            continue
        target = parts[1]
        if target.startswith("__"):
            continue  # robustode.__version__
        assert target in RANK, f"{path.relative_to(PACKAGE)} imports {name}"
        assert RANK[target] <= RANK[own], f"{path.relative_to(PACKAGE)} ({own}) imports {name}, from a lower layer"


def test_the_walk_sees_deferred_imports(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from robustode.cli.main import app\n    import torchvision.ops\n")
    assert {"robustode.cli.main", "robustode.cli.main.app", "torchvision.ops"} <= imports(file)
