"""The grammar of expressions: text becomes a tree of nodes. Nothing is computed, and no name is looked up here.

Python's own parser is not used: '&&', '||', '!' and 'TMath::Abs' are not Python, '&' binds tighter than comparisons in
Python and looser in C++, and an error must name a column of the text that the user wrote, for every version of Python.

Operators from the loosest to the tightest:

    a if c else b;  or ||;  and &&;  not;  |;  &;  comparisons;  << >>;  + -;  * / // %;  unary - + ~ !;  **;  x[i] f(x)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hepfaas.errors import RequestError

MAX_CHARACTERS = 4_000
MAX_NODES = 1_000
MAX_DEPTH = 64
MAX_INTEGER = 2**64 - 1
_EXCERPT = 120

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<name>[A-Za-z_][A-Za-z_0-9]*(?:(?:\.|::)[A-Za-z_][A-Za-z_0-9]*)*)
    |(?P<text>"[^"\\]*"|'[^'\\]*')
    |(?P<sign>\*\*|//|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>&|~!()\[\],])""",
    re.VERBOSE,
)
_WORD = re.compile(r"[A-Za-z_0-9.]*")
_SAME = {"&&": "and", "||": "or"}
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_POWERS = {
    "if": 1,
    "or": 2,
    "and": 3,
    "|": 5,
    "&": 6,
    **dict.fromkeys(_COMPARISONS, 7),
    "<<": 8,
    ">>": 8,
    "+": 9,
    "-": 9,
    "*": 10,
    "/": 10,
    "//": 10,
    "%": 10,
    "**": 12,
    "[": 13,
    "(": 13,
}
_NOT, _UNARY = 4, 11
_HINTS = {
    "=": "'=' is not an operator; compare with '=='. Arguments of functions have no names",
    "^": "'^' is not an operator; write ** for a power, and != for an exclusive or",
    "?": "'?' is not an operator; write where(condition, a, b)",
    ":": "':' is not an operator; for the first objects write x[0], x[1], or a filter such as x[x > 20]",
    ".": "there are no attributes; write pt(Muon[0]) for the pt of a four-vector",
    "[": "there are no lists; write x[0] or x[x > 20] after a branch",
    ";": "there is only one expression",
}
_WORDS = {
    "in": "write (x == 1) or (x == 2)",
    "is": "write ==",
    **dict.fromkeys(("lambda", "for", "import", "await", "yield", "async", "def", "class", "return"), "remove it"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Base of the nodes. start and end: the part of the text; depth: operations inside each other; grouped: the part
    stands in parentheses."""

    start: int
    end: int
    depth: int = 1
    grouped: bool = field(default=False)

    def parts(self) -> tuple[Node, ...]:
        """Return the nodes directly below this one."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Number(Node):
    """A number as it is written: an integer, or a floating-point number."""

    value: int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(Node):
    """The name of a branch, of a constant or of a collection. quoted: a branch, written as branch("…")."""

    name: str
    quoted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(Node):
    """An operator with one operand: '-', '+', '~' or 'not'."""

    operator: str
    operand: Node

    def parts(self) -> tuple[Node, ...]:
        return (self.operand,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Node):
    """An operator with two operands: arithmetic, shifts, '&' and '|'."""

    operator: str
    left: Node
    right: Node

    def parts(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Node):
    """A comparison or a chain of comparisons: 20 < pt <= 50 has two operators and three operands."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]

    def parts(self) -> tuple[Node, ...]:
        return self.operands


@dataclass(frozen=True, slots=True, kw_only=True)
class Logic(Node):
    """Operands that are joined by 'and' or by 'or'."""

    operator: str
    operands: tuple[Node, ...]

    def parts(self) -> tuple[Node, ...]:
        return self.operands


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Node):
    """A call of a function."""

    function: str
    arguments: tuple[Node, ...]

    def parts(self) -> tuple[Node, ...]:
        return self.arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Index(Node):
    """Objects of a jagged value: x[0], x[argmax(y)], x[y > 20]."""

    value: Node
    index: Node

    def parts(self) -> tuple[Node, ...]:
        return (self.value, self.index)


def nodes(root: Node) -> Iterator[Node]:
    """Return all nodes of a tree."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node.parts())


def problem(place: str, text: str, position: int, message: str) -> RequestError:
    """Return the error for one position of a text."""
    start = max(0, min(position - _EXCERPT // 2, len(text) - _EXCERPT))
    end = start + _EXCERPT
    excerpt = ("…" if start else "") + shown(text[start:end]) + ("…" if end < len(text) else "")
    return RequestError(f"{place}: '{excerpt}' at column {position + 1}: {message}")


def shown(text: str) -> str:
    """Return a text for a message of one line: characters that cannot be printed are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def tree(text: str, place: str) -> Node:
    """Return the tree of an expression.

    Raises:
        RequestError: the text is not an expression, or is over a limit.
    """
    if len(text) > MAX_CHARACTERS:
        message = f"the expression has {len(text)} characters; the limit is {MAX_CHARACTERS}"
        raise problem(place, text, MAX_CHARACTERS, message)
    return _Parser(text, place).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class _Parser:
    """A parser by the binding powers of operators (Pratt). It reads the tokens once, from left to right."""

    def __init__(self, text: str, place: str) -> None:
        self._text, self._place = text, place
        self._tokens = self._split()
        self._ahead: _Token | None = None
        self._nodes = 0
        self._level = 0

    def whole(self) -> Node:
        """Return the tree of the whole text."""
        root = self._expression(0)
        token = self._token
        if token.kind != "end":
            hint = _HINTS.get(token.text) or _WORDS.get(token.text)
            raise self._error(token, f"an operator is expected before {_quoted(token)}" + (f"; {hint}" if hint else ""))
        return root

    def _split(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise problem(self._place, self._text, position, self._unknown(position))
            token = _Token(str(match.lastgroup), match.group(), position)
            position = match.end()
            rest = _WORD.match(self._text, position)
            if token.kind == "number" and rest is not None and rest.group():
                message = f"'{token.text}{rest.group()[:40]}' is not a number"
                raise problem(self._place, self._text, token.start, message)
            if token.kind != "space":
                yield token
        yield _Token("end", "", len(self._text))

    def _unknown(self, position: int) -> str:
        character = self._text[position]
        if character in "\"'":
            return "the quoted name has no end, or contains a backslash"
        return _HINTS.get(character, f"the character '{shown(character)}' is not part of any expression")

    @property
    def _token(self) -> _Token:
        if self._ahead is None:
            self._ahead = next(self._tokens)
        return self._ahead

    def _take(self) -> _Token:
        token, self._ahead = self._token, None
        return token

    def _expect(self, sign: str, message: str) -> _Token:
        if self._token.text != sign or self._token.kind == "text":
            raise self._error(self._token, message)
        return self._take()

    def _error(self, token: _Token | Node, message: str) -> RequestError:
        return problem(self._place, self._text, token.start, message)

    def _checked(self, node: Node) -> Node:
        """Return the node, after it is counted."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(node, f"the expression has more than {MAX_NODES} names, numbers and operations")
        if node.depth > MAX_DEPTH:
            raise self._error(node, _too_deep())
        return node

    def _expression(self, power: int) -> Node:
        """Return the longest expression from here whose operators all bind tighter than `power`."""
        self._level += 1
        if self._level > MAX_DEPTH:
            raise self._error(self._token, _too_deep())
        node = self._operand()
        while (found := _operator(self._token)) is not None and _POWERS[found] > power:
            node = self._joined(node, found)
        self._level -= 1
        return node

    def _operand(self) -> Node:
        token = self._take()
        if token.kind == "number":
            return self._checked(Number(start=token.start, end=token.end, value=self._value(token)))
        if token.kind == "name" and token.text not in ("and", "or", "not", "if", "else"):
            if token.text in _WORDS:
                raise self._error(token, f"'{token.text}' is not part of any expression; {_WORDS[token.text]}")
            return self._checked(Name(start=token.start, end=token.end, name=token.text))
        if token.kind == "text":
            raise self._error(
                token, f"text is not a value; write branch({token.text[:80]}) for the branch of this name"
            )
        if token.text == "(":
            inner = self._expression(0)
            end = self._expect(")", f"a ')' is expected: the '(' of column {token.start + 1} is open").end
            return replace(inner, start=token.start, end=end, grouped=True)
        if token.text in ("-", "+", "~", "!", "not"):
            return self._unary(token)
        if token.text == "[":
            raise self._error(token, _HINTS["["])
        raise self._error(token, f"a number, a branch or a function is expected before {_quoted(token)}")

    def _value(self, token: _Token) -> int | float:
        if not token.text.isdecimal():
            return float(token.text)
        if len(token.text.lstrip("0")) > 20 or int(token.text) > MAX_INTEGER:
            raise self._error(token, "the integer needs more than 64 bits; write it with an exponent, such as 1e20")
        return int(token.text)

    def _unary(self, token: _Token) -> Node:
        operand = self._expression(_NOT if token.text == "not" else _UNARY)
        if token.text == "!" and _operator(self._token) in _COMPARISONS:
            raise self._error(token, "'!' binds tighter than the comparison; write not (a > b), or (!a) == b")
        operator = "not" if token.text == "!" else token.text
        return self._checked(
            Unary(start=token.start, end=operand.end, depth=operand.depth + 1, operator=operator, operand=operand)
        )

    def _joined(self, left: Node, operator: str) -> Node:
        if operator in _COMPARISONS:
            return self._comparison(left)
        token = self._take()
        if operator == "(":
            return self._call(left, token)
        if operator == "[":
            return self._index(left, token)
        if operator == "if":
            return self._choice(left)
        if operator in ("and", "or"):
            return self._logic(left, operator)
        # a ** -b ** c: the right operand of ** may begin with a unary operator, and binds from the right
        right = self._expression(_UNARY - 1 if operator == "**" else _POWERS[operator])
        if operator in ("&", "|"):
            self._refuse_mixture(token, left, right)
        # Chains such as a + b + c are computed in a loop: only the right operand makes the tree deeper.
        depth = max(left.depth, right.depth + 1)
        return self._checked(
            Binary(start=left.start, end=right.end, depth=depth, operator=operator, left=left, right=right)
        )

    def _refuse_mixture(self, token: _Token, left: Node, right: Node) -> None:
        """Refuse x & a == b: C++ reads x & (a == b), Python (x & a) == b."""
        bare = [isinstance(side, Comparison) and not side.grouped for side in (left, right)]
        if any(bare) and not (_is_logical(left) and _is_logical(right)):
            message = f"'{token.text}' next to a comparison has two readings; write (a {token.text} b) == c"
            raise self._error(token, f"{message}, a {token.text} (b == c), or 'and', 'or'")

    def _comparison(self, left: Node) -> Node:
        operators, operands = [], [left]
        while (found := _operator(self._token)) in _COMPARISONS:
            self._take()
            operators.append(str(found))
            operands.append(self._expression(_POWERS["<"]))
        return self._checked(
            Comparison(
                start=left.start,
                end=operands[-1].end,
                depth=_above(operands),
                operators=tuple(operators),
                operands=tuple(operands),
            )
        )

    def _logic(self, left: Node, operator: str) -> Node:
        right = self._expression(_POWERS[operator])
        same = isinstance(left, Logic) and left.operator == operator and not left.grouped
        operands = (*left.parts(), right) if same else (left, right)
        return self._checked(
            Logic(start=left.start, end=right.end, depth=_above(operands), operator=operator, operands=operands)
        )

    def _choice(self, first: Node) -> Node:
        condition = self._expression(_POWERS["if"])
        self._expect("else", "an 'else' is expected: a if condition else b")
        second = self._expression(_POWERS["if"] - 1)
        arguments = (condition, first, second)
        return self._checked(
            Call(start=first.start, end=second.end, depth=_above(arguments), function="where", arguments=arguments)
        )

    def _call(self, function: Node, token: _Token) -> Node:
        if not isinstance(function, Name) or function.grouped or function.quoted:
            raise self._error(token, "only functions can be called; an operator is expected before '('")
        if function.name in ("branch", "get"):
            return self._branch(function)
        arguments: list[Node] = []
        while self._token.text != ")":
            arguments.append(self._expression(0))
            if self._token.text != ",":
                break
            self._take()
        end = self._expect(")", f"a ',' or ')' is expected: the '(' of column {token.start + 1} is open").end
        return self._checked(
            Call(
                start=function.start,
                end=end,
                depth=_above(arguments),
                function=function.name,
                arguments=tuple(arguments),
            )
        )

    def _branch(self, function: Name) -> Node:
        name = self._take()
        if name.kind != "text":
            raise self._error(name, f'{function.name}() needs a name in quotes: {function.name}("name of the branch")')
        end = self._expect(")", "a ')' is expected after the name of the branch").end
        return self._checked(Name(start=function.start, end=end, name=name.text[1:-1], quoted=True))

    def _index(self, value: Node, token: _Token) -> Node:
        index = self._expression(0)
        end = self._expect("]", f"a ']' is expected: the '[' of column {token.start + 1} is open").end
        depth = max(value.depth, index.depth) + 1
        return self._checked(Index(start=value.start, end=end, depth=depth, value=value, index=index))


def _operator(token: _Token) -> str | None:
    """Return the operator that a token is after an operand; None if it is none."""
    text = _SAME.get(token.text, token.text)
    return text if text in _POWERS and token.kind in ("sign", "name") else None


def _is_logical(node: Node) -> bool:
    """True if the value of a node is true or false, whatever the branches are."""
    if isinstance(node, Comparison | Logic):
        return True
    if isinstance(node, Unary):
        return node.operator == "not" or (node.operator == "~" and _is_logical(node.operand))
    if isinstance(node, Binary):
        return node.operator in ("&", "|") and _is_logical(node.left) and _is_logical(node.right)
    if isinstance(node, Name):
        return node.name in ("True", "False", "true", "false")
    return isinstance(node, Call) and node.function in ("any", "all", "isnan", "isfinite", "isinf")


def _above(operands: list[Node] | tuple[Node, ...]) -> int:
    return 1 + max((operand.depth for operand in operands), default=0)


def _too_deep() -> str:
    return f"more than {MAX_DEPTH} operations or parentheses stand inside each other"


def _quoted(token: _Token) -> str:
    return f"'{shown(token.text[:80])}'" if token.text else "the end"
