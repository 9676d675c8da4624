# Recipes for working on tscli; `just` alone lists them. Users need none of them, see README.md.

venv := ".venv/bin"

# List the recipes.
default:
    @{{just_executable()}} --list --unsorted

# Make .venv and install tscli into it, editable, with all that developers need.
setup:
    python3 -m venv .venv
    {{venv}}/pip install -c constraints.txt -e '.[dev]'

# Train a CartPole teacher, collect, distill a student, measure and film it.
demo *options:
    {{venv}}/tscli pipeline cartpole {{options}}

# Bring the code into its form, and repair what ruff can.
fmt:
    {{venv}}/ruff format
    {{venv}}/ruff check --fix

# Look for mistakes and bad form; change nothing.
lint:
    {{venv}}/ruff check
    {{venv}}/ruff format --check

# Check the types.
type:
    {{venv}}/pyright --pythonpath {{venv}}/python

# Pass the tests, on two cores; `just test tests/envs/test_views.py -n 0` for some of them.
test *options:
    {{venv}}/pytest -n 2 {{options}}

# Break one thing at a time, and count how often the quick tests notice; some minutes (`just mutants --only sitt`).
mutants *options:
    {{venv}}/python tests/tools/mutants.py {{options}}

# Damaged files and careless words, 100 000 of them; `just damage --cases 5000 --damage-seed 7` for others.
damage *options:
    {{venv}}/pytest tests/test_damage.py -m slow -s {{options}}

# Measure speed and results (benchmarks/README.md); some minutes, 2 GB of disk.
bench:
    {{venv}}/python benchmarks/env_speed.py
    {{venv}}/python benchmarks/window_speed.py --gigabytes 2
    {{venv}}/python benchmarks/pipeline_figures.py cartpole --seeds 10

# What .ci/run does: lint, types and tests in fresh venvs.
ci:
    .ci/run

# setuptools would pack what an earlier build has left in build/, scripts since deleted included.
[doc('Build the wheel into dist/.')]
build:
    rm -rf build dist
    {{venv}}/python -m build --wheel
