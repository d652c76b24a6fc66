"""Packaging of napari-msgan; the settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Return ``__version__``, without importing a package whose dependencies may be missing."""
    text = (HERE / "napari_msgan" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise ValueError('napari_msgan/__init__.py has no line of the form __version__ = "1.2.3"')
    return match[1]


# The oldest that the tests passed with, warnings let through (2026-11-30). CI: constraints.txt.
BASE = [
    "filelock>=4",
    "imagecodecs>=2025.3.30",
    "magicgui>=0.9",
    # older ones mirrored patients in 3-D; without a Qt binding: that choice is the user's
    "napari>=0.9.2",
    "nibabel>=5.3",
    "numpy>=2",
    "pillow>=10.3",
    "platformdirs>=4.3",
    "psutil>=6",
    "psygnal>=0.14",
    "pydantic>=2.10",
    "pydicom>=3",
    "qtpy>=2.4",
    "rich>=14",
    "safetensors>=0.4.3",
    "scipy>=1.15",
    "superqt>=0.7.8",
    "tifffile>=2025.5.10",
    "torch>=2.10",
    "zarr>=3.1.3",  # the first that writes chunks atomically: exports need it
    "fsspec>=2025.2",  # stores at URLs; older ones cannot make a file only if there is none
    "numcodecs>=0.16.2",  # packs chunks; zarr needs it too
]
TRAIN = [
    "lightning-fabric>=2.4",
    "scikit-image>=0.24",
    "tensorboard>=2.18",
    "torchmetrics>=1.4",
]
DASK = ["distributed"]
ALL = ["PyQt6", *DASK, *TRAIN]
DEV = [
    *ALL,
    "SimpleITK",
    "build",
    "google-crc32c",
    "hypothesis",
    "matplotlib",
    "mypy",
    "pre-commit",
    "pytest",
    "pytest-qt",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "setuptools>=77",
    "yaozarrs",
]

setup(
    name="napari-msgan",
    version=read_version(),
    description="Multi-scale GANs that turn a sketch into a medical image of any size, in napari",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="napari-msgan contributors",
    license_expression="BSD-3-Clause",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: napari",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["napari_msgan", "napari_msgan.*"]),
        "napari_msgan.resources",
    ],
    # Editable installs lose the second entry with setuptools older than 77.
    package_dir={"napari_msgan": "napari_msgan", "napari_msgan.resources": "resources"},
    package_data={
        "napari_msgan": ["napari.yaml", "py.typed"],
        "napari_msgan.resources": ["[!_]*/**"],  # every folder but __pycache__
    },
    install_requires=BASE,
    extras_require={
        "all": ALL,
        "dask": DASK,
        "train": TRAIN,
        "dev": DEV,
    },
    entry_points={
        "console_scripts": ["napari-msgan = napari_msgan.cli:main"],
        "napari.manifest": ["napari-msgan = napari_msgan:napari.yaml"],
    },
)
