import sys
from pathlib import Path

# Last, since recipes/evaluate.py has the name of a library.
sys.path.append(str(Path(__file__).parents[1] / "recipes"))

pytest_plugins = ["hub_fixture"]
