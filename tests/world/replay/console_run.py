# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's main() in this process: what Ansible would get of it, after its masking, also where it failed."""

from __future__ import annotations

import importlib
import json
import unittest.mock
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

RunModule = Callable[..., dict[str, Any]]


def runner(capsys: pytest.CaptureFixture[str]) -> RunModule:
    def run(name: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        main = importlib.import_module(f"ansible_collections.llmops.stack.plugins.modules.{name}").main
        capsys.readouterr()
        arguments = {**options, "_ansible_check_mode": check, "_ansible_diff": True}
        # Ansible says a warning once in a process, and a module is a process of its own that is no controller.
        said_before: Any = unittest.mock.patch.object(warnings, "_global_warnings", {})
        a_module: Any = unittest.mock.patch.object(_internal, "is_controller", False)
        with patch_module_args(arguments), said_before, a_module, pytest.raises(SystemExit):
            main()
        return json.loads(capsys.readouterr().out)

    return run
