# Copyright: (c) 2026, llmops.stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python imports this at its start: set the import hook, then do what another sitecustomize would have done."""

import os
import sys


def _install() -> None:
    if os.environ.get("LLMOPS_MONITORING", "true").strip().lower() in ("0", "false", "no", "off"):
        return
    try:
        from llmops_monitoring import hook

        hook.install()
    except Exception as exc:  # whatever it is, the program that is starting must start
        sys.stderr.write(f"llmops-monitoring: not installed: {type(exc).__name__}\n")


def _chain() -> None:
    """Run the sitecustomize that this one hides. Its errors are its own: site.py reports them as ever."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.realpath(__file__))
    others = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


_install()
_chain()
