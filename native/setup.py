"""The compiled part: one build for each platform serves every CPython from 3.10 on."""

import sys

from setuptools import Extension, setup

FLAGS = [] if sys.platform == "win32" else ["-O3", "-fopenmp-simd", "-Wall"]

SOURCES = ("elements", "tensors", "rows", "hooks", "module")

setup(
    ext_modules=[
        Extension(
            "gradwatch_native.kernels",
            [f"gradwatch_native/{name}.c" for name in SOURCES],
            depends=["gradwatch_native/kernels.h"],
            extra_compile_args=FLAGS,
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
