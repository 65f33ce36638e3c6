"""Rules that are not gradwatch's: which there are, and how they are kept from doing harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gradwatch.errors import InvalidInput
from gradwatch.evidence.history import History
from gradwatch.interruption import forget_frames, is_foreign
from gradwatch.plugins import RULES_GROUP, load_plugins, warn_once
from gradwatch.schema import kinds
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.verdict.rules import DEFAULT_RULES

SEVERITIES = ("critical", "warning", "note")
"""Of findings, worst first."""


def list_rules(further: Sequence[Rule] = ()) -> tuple[Rule, ...]:
    """gradwatch's rules, those of installed packages, then further ones.

    Args:
        further: as in ``gradwatch.watch(rules=...)``; may hold what an entry point names as well.

    Raises:
        InvalidInput: something among the further ones is no rule, or its code is taken.
    """
    rules = {rule.code: rule for rule in DEFAULT_RULES}
    for rule in load_plugins(RULES_GROUP, Rule):
        if rules.setdefault(rule.code, rule) is not rule:
            warn_once(_refuse_code(rule))
    for rule in further:
        if not isinstance(rule, Rule):
            raise InvalidInput(
                f"Expected rules to hold gradwatch.verdict.rule.Rule, got {type(rule).__name__}. "
                "Pass rules=[Rule(code=..., kind=..., title=..., examine=..., doc=...)]."
            )
        if rules.setdefault(rule.code, rule) is not rule:
            raise InvalidInput(_refuse_code(rule))
    return tuple(rules.values())


def list_kinds() -> tuple[str, ...]:
    """Names of all kinds of finding, those that rules of installed packages bring included.

    Returns:
        In the order in which findings of equal severity are shown.
    """
    for rule in list_rules():
        kinds.register_kind(rule.kind, rule.title, rule.code)
    return tuple(kinds.KINDS)


def _refuse_code(rule: Rule) -> str:
    return (
        f"gradwatch expected a code of its own for the rule {rule.title!r}, got {rule.code!r}, "
        "which is taken. Choose another code."
    )


def guard_rule(rule: Rule, on_failure: Callable[[str], None]) -> Rule:
    """The same rule, silent from its first exception on.

    Args:
        rule: whose ``examine`` is not to be trusted.
        on_failure: is given the exception in words, once.
    """
    failed = False

    def examine(history: History, thresholds: Thresholds) -> list[Sign]:
        nonlocal failed
        if failed:
            return []
        try:
            return [_check_sign(sign) for sign in rule.examine(history, thresholds)]
        except Exception as error:
            if is_foreign(error):
                raise
            failed = True
            text = (
                f"the rule {rule.code} ({rule.title}) has failed and judges no further: "
                f"{type(error).__name__}: {error}"
            )
            warn_once(f"gradwatch goes on without a part: {text}")
            forget_frames(error)
            on_failure(text)
            return []

    return replace(rule, examine=examine)


def _check_sign(sign: Sign) -> Sign:
    """With its explanation found, so that nothing of the rule's runs later.

    Raises:
        InvalidInput: what is shown to users is missing.
    """
    explained = sign.explained()
    names = isinstance(sign.layers, tuple) and all(isinstance(name, str) for name in sign.layers)
    if not (names and sign.layers and sign.severity in SEVERITIES):
        raise InvalidInput(
            f"Expected a sign with a tuple of layer names and a severity among "
            f"{', '.join(SEVERITIES)}, got {sign.layers!r} and {sign.severity!r}. Correct the rule."
        )
    return replace(explained, observed=float(sign.observed), threshold=float(sign.threshold))
