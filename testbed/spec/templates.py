"""Numbers that may be Jinja2 templates over the parameters: ``count``, ``quorum``, a service's port."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

from testbed.spec.findings import Findings, clipped, names, shown
from testbed.spec.source import Item

_UNKNOWN = object()


class Templates:
    """Reads numbers; ``promised`` are the names of all parameters, those without a right value too."""

    def __init__(
        self, parameters: Mapping[str, Any], promised: Collection[str], faulty: set[int], findings: Findings
    ) -> None:
        self._parameters = parameters
        self._wrong = [name for name in promised if name not in parameters]
        self._faulty, self._findings = faulty, findings

    def number(self, item: Item | None, most: int, what: str) -> int | None:
        """The whole number from 1 to ``most`` that ``item`` says or comes to; None where that is not known."""
        if item is None or id(item) in self._faulty:
            return None
        if not isinstance(item.value, str):
            return int(item.value)
        value = self._evaluate(item)
        if value is _UNKNOWN:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            hint = f"it must come to a whole number from 1 to {most}"
            self._findings.add(f"this template gives no {what}: it comes to {shown(value)}", item.span, help=hint)
            return None
        return value

    def _evaluate(self, item: Item) -> Any:
        from jinja2 import TemplateError, UndefinedError

        try:
            template = _environment().from_string(item.value)
            if any(re.search(rf"\b{re.escape(name)}\b", item.value) for name in self._wrong):
                return _UNKNOWN  # what is wrong with the parameter has been noted
            value = template.render(params=self._parameters)
            if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
                value = str(value)  # an undefined value says so now
        except UndefinedError as error:
            wanted = re.search(r"has no attribute '([^']*)'", str(error.message))
            hint = self._findings.suggest(wanted[1], self._parameters) if wanted else ""
            hint = hint or f"there is 'params' with: {names(self._parameters) or 'nothing'}"
            self._findings.add(f"this template cannot be filled in: {error.message}", item.span, help=hint)
        except TemplateError as error:
            hint = 'a template looks like "{{ params.NAME }}"'
            self._findings.add(f"this template is wrong: {error.message}", item.span, help=hint)
        except Exception as error:  # noqa: BLE001  an expression can raise whatever Python can
            reason = f"{type(error).__name__}: {clipped(str(error), 100)}"
            self._findings.add(f"this template fails: {reason}", item.span, help="mend the expression")
        else:
            return value
        return _UNKNOWN


@functools.cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.nativetypes import NativeEnvironment
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Jinja2 as Ansible uses it: sandboxed, and results keep their type.
    return type("_Templates", (ImmutableSandboxedEnvironment, NativeEnvironment), {})(undefined=StrictUndefined)
