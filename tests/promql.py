"""What a PromQL expression asks for, and what labels its answer can have: read, not run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import promql_parser as promql

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET = frozenset({"job", "instance"})
"""Labels that a scrape adds."""
OF_COUNTERS = {"rate", "irate", "increase", "resets"}
"""Functions without which a counter says nothing."""
_SETS = {"and", "or", "unless"}
_OF_SERIES = {"topk", "bottomk"}
_WITHOUT_LABELS = {"vector", "time", "scalar"}
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Mistaken(Exception):
    """A query that cannot give what it is asked for."""


@dataclass
class Reader:
    """Reads expressions on series of known names and labels.

    Args:
        known: the labels of each series, by name.
        seen: names asked for so far.
    """

    known: Mapping[str, frozenset[str]]
    seen: set[str] = field(default_factory=set)
    selectors: list[promql.VectorSelector] = field(default_factory=list)

    def labels(self, expression: str, *, totals: bool = False) -> frozenset[str]:
        """Labels that series of the answer can have.

        Args:
            expression: PromQL.
            totals: counters may be asked for as they stand.

        Raises:
            Mistaken: a series or label that there is none of, or a counter as it stands.
        """
        return self._of(promql.parse(expression), counted=totals)

    def _of(self, node: promql.Expr, *, counted: bool) -> frozenset[str]:
        match node:
            case promql.VectorSelector():
                found = self._selected(node, counted=counted)
            case promql.MatrixSelector():
                found = self._selected(node.vector_selector, counted=counted)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                found = self._of(node.expr, counted=counted)
            case promql.AggregateExpr():
                found = self._aggregated(node, counted=counted)
            case promql.Call():
                found = self._called(node, counted=counted)
            case promql.BinaryExpr():
                found = self._combined(node, counted=counted)
            case _:
                found = frozenset()
        return found

    def _selected(self, node: promql.VectorSelector, *, counted: bool) -> frozenset[str]:
        patterns = [m.value for m in node.matchers.matchers if m.name == "__name__"]
        names = [node.name] if node.name else []
        names += [
            name for pattern in patterns for name in self.known if re.fullmatch(pattern, name)
        ]
        if not names or names[0] not in self.known:
            raise Mistaken(f"there is no series {node.name or patterns}")
        self.seen.update(names)
        self.selectors.append(node)
        labels = self.known[names[0]]
        asked = {m.name for m in node.matchers.matchers} - {"__name__"}
        if asked - labels:
            raise Mistaken(f"{names[0]} has no {', '.join(sorted(asked - labels))}")
        if names[0].endswith(("_total", "_bucket", "_sum", "_count")) and not counted:
            raise Mistaken(f"{names[0]} is a counter: what does it grow by?")
        return labels

    def _aggregated(self, node: promql.AggregateExpr, *, counted: bool) -> frozenset[str]:
        inner = self._of(node.expr, counted=counted)
        if node.modifier is None:
            return inner if str(node.op) in _OF_SERIES else frozenset()
        named = frozenset(node.modifier.labels)
        if named - inner:
            raise Mistaken(f"{node.expr.prettify()} has no {', '.join(sorted(named - inner))}")
        return named if node.modifier.type == promql.AggModifierType.By else inner - named

    def _called(self, node: promql.Call, *, counted: bool) -> frozenset[str]:
        name = node.func.name
        inside = counted or name in OF_COUNTERS
        inner = [self._of(a, counted=inside) for a in node.args if isinstance(a, promql.Expr)]
        found = frozenset().union(*inner)
        if name in _WITHOUT_LABELS:
            return frozenset()
        return found - {"le"} if name == "histogram_quantile" else found

    def _combined(self, node: promql.BinaryExpr, *, counted: bool) -> frozenset[str]:
        left, right = (self._of(side, counted=counted) for side in (node.lhs, node.rhs))
        modifier = node.modifier
        on = frozenset(modifier.matching.labels) if modifier and modifier.matching else None
        if on is not None and (on - left or on - right):
            raise Mistaken(f"{node.prettify()}: not on both sides: {', '.join(sorted(on))}")
        operator = str(node.op)
        if operator == "or":
            return left | right
        if operator in _SETS or not right:
            return left
        if not left:
            return right
        many = modifier is not None and modifier.card == promql.VectorMatchCardinality.ManyToOne
        if on is None and left != right:
            raise Mistaken(f"{node.prettify()}: {sorted(left)} beside {sorted(right)}")
        return on if on is not None and not many else left


def filled(expression: str, **values: str) -> str:
    """An expression with Grafana's variables replaced; times are five minutes unless given."""
    times = {"__rate_interval": "5m", "__interval": "5m", "__range": "5m"}
    return _VARIABLE.sub(lambda found: (times | values).get(found[1], found[1]), expression)
