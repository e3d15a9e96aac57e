import pickle
import subprocess
import sys
import threading
from pathlib import Path

import keras
import pytest

import keras_prune as kp
from keras_prune._lazy import import_after

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Function that creates modules and returns their names. The others import the first one."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))

    def make(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        return list(sources)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_import_after_waits_for_the_trigger(modules):
    trigger, follower = modules(trigger_a="value = 1", follower_a="from trigger_a import value")
    import_after(trigger, [follower])
    assert {trigger, follower} & set(sys.modules) == set()
    finders = len(sys.meta_path)
    __import__(trigger)
    assert sys.modules[follower].value == 1
    assert len(sys.meta_path) == finders - 1
    assert "exec_module" not in vars(sys.modules[trigger].__spec__.loader)


def test_import_after_imports_at_once_behind_the_trigger(modules):
    trigger, follower = modules(trigger_b="value = 1", follower_b="from trigger_b import value")
    __import__(trigger)
    import_after(trigger, [follower])
    assert follower in sys.modules


def test_import_after_passes_errors_on_and_tries_again(modules, tmp_path):
    trigger, follower = modules(trigger_c="import no_such_module_c", follower_c="import trigger_c")
    import_after(trigger, [follower])
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_module_c'$"):
            __import__(trigger)
    assert {trigger, follower} & set(sys.modules) == set()
    modules(trigger_c="fixed = True  # of another size")
    __import__(trigger)
    assert follower in sys.modules


def test_import_after_leaves_missing_modules_missing(modules):
    import_after("trigger_d", ["follower_d"])
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'trigger_d'$"):
        __import__("trigger_d")


def test_import_after_lets_threads_wait(modules):
    slow = "import time; time.sleep(0.2); value = 1"
    trigger, follower = modules(trigger_e=slow, follower_e="import time; time.sleep(0.2); from trigger_e import value")
    import_after(trigger, [follower])
    found = []

    def first():
        __import__(trigger)
        found.append(hasattr(sys.modules[follower], "value"))

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [True] * 4


@pytest.fixture
def pruned(tmp_path):
    """A pruned model in a file."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")])
    kp.prune(model, kp.TargetSparsity(0.5)).save(tmp_path / "pruned.keras")
    return tmp_path / "pruned.keras"


def output(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pruned_models_load_where_keras_is_imported_last(pruned):
    code = """
import keras_prune, sys
assert "keras" not in sys.modules
import keras
model = keras.models.load_model(sys.argv[1])
print(keras_prune.layers.pruned_weights(model)[0].criterion)
"""
    assert output(code, pruned) == "TargetSparsity(sparsity=0.5)"


def test_criteria_unpickle_in_a_fresh_process(pruned):
    code = f"""
import pickle, sys
print(pickle.loads({pickle.dumps(kp.TargetSparsity(0.5))}))
import keras
print(type(keras.models.load_model(sys.argv[1])).__mro__[1].__name__)
"""
    assert output(code, pruned).splitlines() == ["TargetSparsity(sparsity=0.5)", "PrunedModel"]


def test_folders_behind_keras_import_it_first():
    """Otherwise `from keras_prune.rules.criteria import X` would find itself half imported."""
    code = """
import sys
import keras_prune, keras
print(*sorted(name for name in sys.modules if name.startswith("keras_prune.")))
"""
    folders = {name.split(".")[1] for name in output(code).split() if name.count(".") > 1}
    assert folders == {"compat", "layers", "models", "rules", "sparse"}
    for folder in folders:
        lines = (ROOT / "keras_prune" / folder / "__init__.py").read_text().splitlines()
        assert next(line for line in lines if "import " in line and '"""' not in line).startswith("import keras ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in (ROOT / "keras_prune").rglob("*.py")
        if file.name != "litert_runner.py"
        and not ("plots" in file.parts or file.stem.endswith("figures"))  # They need Matplotlib.
    ),
)
def test_each_module_can_be_imported_first(name, pruned):
    code = f"""
import {name}, keras, sys
print(type(keras.models.load_model(sys.argv[1])).__mro__[1].__name__)
"""
    assert output(code, pruned) == "PrunedModel"
