"""Imports run downwards, without a circle, and nothing shared knows a command; functions fit on a screen."""

import ast
import graphlib
import io
import pathlib
import tokenize

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = {"experiments": ROOT, "benchmarks": ROOT, "hiwae_jax": ROOT / "src"}
# A package may import from itself and from those of lower layers.
LAYERS = (
    {"hiwae_jax._types"},
    {"hiwae_jax._checks", "hiwae_jax.data"},
    {
        "hiwae_jax._random_streams",
        "hiwae_jax._programs",
        "hiwae_jax._numpyro_model",
        "hiwae_jax._log_weights",
        "hiwae_jax._weightings",
    },
    {"hiwae_jax._families", "hiwae_jax._discrete", "hiwae_jax.nn"},
    {"hiwae_jax._proposals"},
    {"hiwae_jax._assembly"},
    {"hiwae_jax._gradients"},
    {"hiwae_jax._make_bound", "hiwae_jax._make_log_weights"},
    {"hiwae_jax._batched", "hiwae_jax._log_evidence"},
    {"experiments.shared"},
    {"experiments.vae", "experiments.toy"},
    {"experiments.tables", "experiments.toy_comparison"},
    {"benchmarks.shared"},
    {
        "benchmarks.peers",
        "benchmarks.overhead",
        "benchmarks.k_scaling",
        "benchmarks.gradient_quality",
        "benchmarks.objectives",
        "benchmarks.agreement",
        "benchmarks.compile_time",
        "benchmarks.control_variates",
        "benchmarks.cpu_devices",
        "benchmarks.gap",
        "benchmarks.proposals",
        "benchmarks.trained_cells",
        "benchmarks.readme",
        "benchmarks.numbers",
        "benchmarks.models",
    },
    {
        "benchmarks.accelerator",
        "benchmarks.step_parts",
        "benchmarks.microbatch",
        "benchmarks.measured",
        "benchmarks.performance",
    },
    {"benchmarks.pages"},
)
LAYER_OF = {package: number for number, packages in enumerate(LAYERS) for package in packages}


def module_name(path, root):
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules():
    """The files by module name."""
    return {
        module_name(path, root): path
        for folder, root in SOURCES.items()
        for path in sorted((root / folder).rglob("*.py"))
    }


def imported(path, known):
    """The modules of ours that a file imports, at the top or in a function, with the packages that lie around them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & known.keys()


def package_of(module):
    return ".".join(module.split(".")[:2])


@pytest.fixture(scope="module")
def graph():
    """The imports of each module, among ours."""
    known = modules()
    return {module: imported(path, known) for module, path in known.items()}


def test_there_is_no_circle(graph):
    # A package imports its modules where it exports their names, and importing a module imports its package first; that
    # is no circle that anybody can go round.
    edges = {
        module: {other for other in others if not module.startswith(f"{other}.")} for module, others in graph.items()
    }
    assert len(list(graphlib.TopologicalSorter(edges).static_order())) >= len(edges) > 80


def test_every_package_has_a_layer(graph):
    assert {package_of(module) for module in graph} - {"experiments", "benchmarks", "hiwae_jax"} == LAYER_OF.keys()


def test_no_import_runs_upwards_or_into_another_command(graph):
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        if package_of(module) in LAYER_OF
        for other in others
        if package_of(other) in LAYER_OF
        and package_of(other) != package_of(module)
        and LAYER_OF[package_of(other)] >= LAYER_OF[package_of(module)]
    ]
    assert wrong == []


def test_nobody_imports_a_command_and_the_library_no_experiment(graph):
    commands = {module for module in graph if module.endswith((".command", ".__main__"))}
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if (other in commands and not module.endswith(".__main__"))
        or (module.startswith("hiwae_jax") and not other.startswith("hiwae_jax"))
    ]
    assert wrong == []


def test_an_import_that_runs_upwards_would_be_seen(tmp_path):
    """In a function too, and whichever way it is written."""
    known = modules()
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from experiments.vae import models\n    import experiments.toy.problem\n")
    assert imported(path, known) == {"experiments.vae", "experiments.vae.models", "experiments.toy.problem"}


def test_no_test_imports_from_another_test_module():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            last = {name.rsplit(".", 1)[-1] for name in names}
            assert not {name for name in last if name == "conftest" or name.startswith("test_")}, path


LONGEST = 50  # lines of code of a function, docstrings and comments not counted
SPACE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(text):
    """The numbers of the lines that hold code: no comments, blank lines or docstrings."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SPACE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def long_functions(text):
    lines = code_lines(text)
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {f.name for f in functions if len(lines & set(range(f.lineno, f.end_lineno + 1))) > LONGEST}


def test_every_function_fits_on_a_screen():
    assert {str(path): names for path in modules().values() if (names := long_functions(path.read_text()))} == {}


def test_a_long_function_would_be_seen():
    text = 'def f():\n    """Two\n    lines."""\n    # and a comment\n' + "    x = 0\n" * 49
    assert long_functions(text) == set()
    assert long_functions(text + "    y = 0\n") == {"f"}


MOST_NAMES = 20  # local names of a function, arguments and imports counted, those of inner functions not


INNER = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def local_names(function):
    """What a function binds. Comprehensions have names of their own here, though from Python 3.12 on not for Python."""
    names = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    nodes = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler):
            names.add(node.name)
        nodes += [] if isinstance(node, INNER) else ast.iter_child_nodes(node)
    return names - {None}


def functions_of_many_names(text):
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {function.name for function in functions if len(local_names(function)) > MOST_NAMES}


def test_no_function_has_more_local_names_than_one_can_keep_in_mind():
    many = {path: found for path in modules().values() if (found := functions_of_many_names(path.read_text()))}
    assert many == {}
    arguments = ", ".join(f"a{number}" for number in range(MOST_NAMES))
    assert functions_of_many_names(f"def f({arguments}): return a0") == set()
    assert functions_of_many_names(f"def f({arguments}): b = a0") == {"f"}
