"""What setup.cfg cannot say: the folder `recipes` is installed as `paddle_sparse_cb/recipes`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["paddle_sparse_cb*"]), "paddle_sparse_cb.recipes"],
    package_dir={"paddle_sparse_cb.recipes": "recipes"},
    package_data={
        "paddle_sparse_cb": ["py.typed", "recipe/templates/*.yml", "report/*.css", "report/*.j2"],
        "paddle_sparse_cb.recipes": ["*.yml", "*/*.yml"],
    },
)
