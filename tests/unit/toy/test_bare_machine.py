"""What the scripts for GPU machines may import: little more than torch."""

from __future__ import annotations

import subprocess
import sys

SCRIPTS = (
    "train_vae", "train_transformer", "train_probes", "train_vggt", "train_jepa", "ship",
    "ridge", "sample",
)  # fmt: skip
ALLOWED = {"torch", "numpy", "diffusers", "safetensors", "einops", "explorer"}
CODE = """
import builtins, importlib, sys

def importing(name, globals=None, locals=None, fromlist=(), level=0):
    package = (globals or {}).get("__name__", "")
    top = name.partition(".")[0]
    if package.partition(".")[0] == "explorer" and not level:
        known = top in allowed or top in sys.stdlib_module_names
        if not known and package != "explorer._typing":  # takes jaxtyping where there is one
            print(f"{package} imports {top}")
    return original(name, globals, locals, fromlist, level)

original, builtins.__import__ = builtins.__import__, importing
for script in scripts:
    importlib.import_module(script)
"""


def foreign(*modules: str) -> str:
    """What explorer's modules import besides what is allowed, once these are imported."""
    code = f"allowed, scripts = {ALLOWED!r}, {modules!r}\n{CODE}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_imports_nothing_but_torch_numpy_diffusers_safetensors_and_einops() -> None:
    assert foreign(*(f"explorer.toy.{name}" for name in SCRIPTS)) == ""


def test_a_forbidden_import_would_be_found() -> None:
    assert "explorer.jpeg imports cv2" in foreign("explorer.jpeg")
