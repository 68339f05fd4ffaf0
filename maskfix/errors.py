"""Everything maskfix raises on purpose.

    MaskfixError            the base: one clear line for a person, exit code 2
    ├── UsageError          a flag, a setting or a combination that cannot work
    ├── InputError          a file that is missing, unreadable or not what it should be
    │   ├── ClickScriptError    a click script: names file, line, image and instance
    │   └── CheckpointError     a weights file that does not fit its network
    └── InstanceError       one image or instance that cannot be done; the batch goes on

A message says what was expected, what was found, where, and how to mend it. Programming mistakes
are assertions, not these.
"""

from __future__ import annotations


class MaskfixError(Exception):
    """Base of all expected failures. ``str(error)`` is one line, ready to be shown."""

    exit_code = 2


class UsageError(MaskfixError):
    """A flag or setting, or a combination of them, that cannot work."""


class InputError(MaskfixError):
    """An input file that is missing, unreadable, or not of the expected content."""


class ClickScriptError(InputError):
    """A click script that cannot be followed; the message names file, line, image and instance."""


class CheckpointError(InputError):
    """A weights file that is damaged, foreign, or does not fit the network it names."""


class InstanceError(MaskfixError):
    """One image or instance that cannot be processed. Reported in its row; the batch goes on."""

    exit_code = 1
