"""A test that runs pytest on the folder of its BUILD file."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, deps, srcs = [], **kwargs):
    """Runs the tests in `srcs` and the doctests of a folder.

    Args:
        name: String, name of the target.
        deps: List of labels, what the sources import.
        srcs: List of labels, the sources.
        **kwargs: Other arguments of `py_test`.
    """
    py_test(
        name = name,
        srcs = srcs,
        args = [native.package_name()],
        data = ["//:pyproject.toml"],
        main_module = "pytest",
        deps = deps + ["//:conftest", "//tests:conftest"],
        **kwargs
    )
