"""The version, read from the installed package so that it is written down once."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("maskfix")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
