"""What a chat template writes behind an answer, read from its source without rendering it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

_GENERATION_TAG = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
_NOTHING: frozenset[str] = frozenset()


def markers_after_answer(
    source: str, markers: Iterable[str], variables: Mapping[str, str]
) -> frozenset[str]:
    """Those of `markers` that may come first behind an assistant's content.

    `variables` are the texts of names such as `eos_token`. Branches for another role and for
    the generation prompt are left out, both ways of any other condition are followed. Empty for a
    source that is not a template.
    """
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        template = environment.parse(_GENERATION_TAG.sub("", source))
        return _Reader(template, markers, variables).found()
    except (TemplateSyntaxError, RecursionError):
        return _NOTHING


class _Reader:
    """Goes through the template from its end, with the markers that may come next."""

    def __init__(
        self, template: nodes.Template, markers: Iterable[str], variables: Mapping[str, str]
    ) -> None:
        longest_first = sorted(markers, key=len, reverse=True)
        self._marker = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._variables = variables
        self._template = template
        self._names_of_content = _names_of_content(template)
        self._found: set[str] = set()

    def found(self) -> frozenset[str]:
        self._before_all(self._template.body, _NOTHING)
        return frozenset(self._found)

    def _before_all(
        self, statements: Iterable[nodes.Node], following: frozenset[str]
    ) -> frozenset[str]:
        for statement in reversed(list(statements)):
            following = self._before(statement, following)
        return following

    def _before(self, node: nodes.Node, following: frozenset[str]) -> frozenset[str]:
        """The markers that may come first from `node` on, given those from behind it."""
        if self._is_content(node):
            self._found |= following
            return following
        match node:
            case nodes.TemplateData(data=str(text)) | nodes.Const(value=str(text)):
                return self._before_text(text, following)
            case nodes.Name(name=name):
                return self._before_text(self._variables.get(name, ""), following)
            case nodes.If() | nodes.CondExpr():
                return self._before_condition(node, following)
            case nodes.For(body=body, else_=otherwise):
                return self._before_all(body, following) | self._before_all(otherwise, following)
            case nodes.Macro(body=body) | nodes.AssignBlock(body=body):
                self._before_all(body, _NOTHING)
                return following
            case nodes.Add(left=left, right=right):
                return self._before_all([left, right], following)
            case nodes.Output(nodes=parts) | nodes.Concat(nodes=parts):
                return self._before_all(parts, following)
            case nodes.Filter(node=nodes.Expr() as inner):
                return self._before(inner, following)
            case nodes.Getitem(node=inner) | nodes.Getattr(node=inner):
                return self._before(inner, following)
            case nodes.Call(node=nodes.Getattr(node=inner)):
                return self._before(inner, following)
            case nodes.With(body=body) | nodes.Scope(body=body) | nodes.FilterBlock(body=body):
                return self._before_all(body, following)
        return following

    def _before_text(self, text: str, following: frozenset[str]) -> frozenset[str]:
        first = self._marker.search(text)
        return following if first is None else frozenset({first.group()})

    def _before_condition(
        self, node: nodes.If | nodes.CondExpr, following: frozenset[str]
    ) -> frozenset[str]:
        holds = _holds_for_an_answer(node.test)
        if isinstance(node, nodes.CondExpr):
            then: list[nodes.Node] = [node.expr1]
            otherwise: list[nodes.Node] = [] if node.expr2 is None else [node.expr2]
        else:
            then, otherwise = node.body, node.else_
            for branch in reversed(node.elif_):
                otherwise = [nodes.If(branch.test, branch.body, [], otherwise)]
        before = _NOTHING
        if holds is not False:
            before |= self._before_all(then, following)
        if holds is not True:
            before |= self._before_all(otherwise, following)
        return before

    def _is_content(self, node: nodes.Node) -> bool:
        return _reads(node, "content") or (
            isinstance(node, nodes.Name) and node.name in self._names_of_content
        )


def _names_of_content(template: nodes.Template) -> set[str]:
    """Variables that a message's content was put in, or that loop over its parts."""
    names = {"content"}
    bindings: list[tuple[nodes.Node, nodes.Node]] = [
        *((node.target, node.node) for node in template.find_all(nodes.Assign)),
        *((node.target, node.iter) for node in template.find_all(nodes.For)),
    ]
    for target, value in bindings:
        if isinstance(target, nodes.Name) and _is_made_of(value, names):
            names.add(target.name)
    return names


def _is_made_of(value: nodes.Node, names: set[str]) -> bool:
    # What is split off may be the thought before an answer, with an end mark of its own.
    if any(part.attr == "split" for part in value.find_all(nodes.Getattr)):
        return False
    parts = [value, *value.find_all((nodes.Getattr, nodes.Getitem, nodes.Name))]
    return any(
        _reads(part, "content") or (isinstance(part, nodes.Name) and part.name in names)
        for part in parts
    )


def _reads(node: nodes.Node, key: str) -> bool:
    """Is it `message.key` or `message['key']`?"""
    match node:
        case nodes.Getattr(attr=attribute):
            return bool(attribute == key)
        case nodes.Getitem(arg=nodes.Const(value=value)):
            return bool(value == key)
    return False


def _holds_for_an_answer(test: nodes.Node) -> bool | None:
    """The condition's value for an assistant's message that ends the text, None where unknown."""
    match test:
        case nodes.Name(name="add_generation_prompt"):
            return False
        case nodes.Not(node=inner):
            value = _holds_for_an_answer(inner)
            return None if value is None else not value
        case nodes.And(left=left, right=right):
            values = {_holds_for_an_answer(left), _holds_for_an_answer(right)}
            return False if False in values else None if None in values else True
        case nodes.Or(left=left, right=right):
            values = {_holds_for_an_answer(left), _holds_for_an_answer(right)}
            return True if True in values else None if None in values else False
        case nodes.Compare(expr=expr, ops=[nodes.Operand(op=operator, expr=operand)]):
            return _compares_role(operator, operand) if _reads(expr, "role") else None
    return None


def _compares_role(operator: str, operand: nodes.Node) -> bool | None:
    match operand:
        case nodes.Const(value=str(role)) if operator in {"eq", "ne"}:
            return (role == "assistant") is (operator == "eq")
        case nodes.List(items=items) | nodes.Tuple(items=items) if operator in {"in", "notin"}:
            if all(isinstance(item, nodes.Const) for item in items):
                is_in = any(isinstance(i, nodes.Const) and i.value == "assistant" for i in items)
                return is_in is (operator == "in")
    return None
