"""Every sentence that a user may meet when something is wrong, read from the source by ast.

    for sentence in collect(): print(sentence.code, sentence.text)

That is: what our error classes are made with, what doctor finds, and the known causes of Azure's
failures. The variable parts are … in the text. A sentence that is put together elsewhere and only
passed on is not one; it is collected where its words stand.
"""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scripts.docs import ROOMS, called, modules

ROOTS = {"VerbError", "TrainError", "Interrupted", "StartupError", "RequestError", "EngineError"}
ROOTS |= {"BadRow"}
PASSED_ON = {"refuse": "RequestError"}
"""Functions that raise the class with the sentence that they are given."""
SECOND = ("refuse", "RequestError", "BadRow")
"""Take something else before their sentence."""
CODES = {"StartupError": "3", "EngineError": "HTTP 503", "BadRow": "2", "Cause": "6"}
"""Of those that carry no exit code themselves: what the verb ends with that shows them."""
WORDS = re.compile(r"[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True, order=True)
class Sentence:
    """One sentence, and how it reaches the user."""

    text: str
    code: str
    """The exit code, or the HTTP status."""
    kind: str
    file: str

    @property
    def described(self) -> str:
        """What the rules of symptoms.py look at."""
        return f"{self.file} {self.kind} {self.code}: {self.text}"


@functools.cache
def collect() -> list[Sentence]:
    """All of them, each once, in the order of their words."""
    sources = list(modules(*ROOMS))
    codes = _codes(sources)
    found: dict[tuple[str, str], Sentence] = {}
    for file, tree in sources:
        for scope in ast.walk(tree):
            if isinstance(scope, ast.FunctionDef | ast.Module):
                for sentence in _of(file, scope, codes):
                    found.setdefault((sentence.text, sentence.code), sentence)
    return sorted(found.values())


def _codes(sources: list[tuple[str, ast.Module]]) -> dict[tuple[str, str], str]:
    """The exit code of each error class of a room, inherited where the class names none."""
    classes: dict[tuple[str, str], tuple[list[str], str]] = {}
    for file, tree in sources:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                classes[file.split("/")[0], node.name] = (bases, _own_code(node))

    def code(room: str, name: str) -> str | None:
        bases, own = classes.get((room, name), ([], ""))
        if own or name in CODES or name in ROOTS:
            return own or CODES.get(name, "HTTP 4xx")
        return next((found for base in bases if (found := code(room, base))), None)

    return {key: found for key in classes if (found := code(*key))}


def _own_code(node: ast.ClassDef) -> str:
    for part in node.body:
        match part:
            case ast.Assign(targets=[ast.Name(id="exit_code")], value=ast.Constant(value=code)):
                return str(code)
            case ast.FunctionDef(args=arguments) if "exit_code" in {a.arg for a in arguments.args}:
                return "as the command's"
    return ""


def _of(
    file: str, scope: ast.FunctionDef | ast.Module, codes: dict[tuple[str, str], str]
) -> Iterator[Sentence]:
    room = file.split("/")[0]
    for call in [node for node in _own_nodes(scope) if isinstance(node, ast.Call)]:
        name = called(call)
        kind = PASSED_ON.get(name, name)
        if kind in ("Finding", "Cause"):
            yield from _said(file, call, kind)
            continue
        place = int(name in SECOND)
        texts = _texts(call.args[place : place + 1], scope)
        if kind == "ValueError" and file.startswith("serve/engine/"):  # answered with 400
            yield from (Sentence(text, "HTTP 400", kind, file) for text in texts)
        elif code := codes.get((room, kind)) or codes.get(("train", kind)):
            if kind == "RequestError":
                code = _status(call) if kind == name else "HTTP 400"
            yield from (Sentence(text, code, kind, file) for text in texts)


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of the functions within."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from _own_nodes(child)


def _said(file: str, call: ast.Call, kind: str) -> Iterator[Sentence]:
    """A finding of doctor that is not good news, or a known cause."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if kind == "Cause":
        text = literal(call.args[1])
        yield Sentence(re.sub(r"\{\d\}", "…", text), "6", kind, file)
        return
    severity = given.get("severity")
    if isinstance(severity, ast.Constant) and severity.value not in ("warning", "error"):
        return
    text = literal(given["sentence"])
    remedy = literal(given["remedy"]) if "remedy" in given else ""
    if WORDS.search(text + remedy):
        level = str(severity.value) if isinstance(severity, ast.Constant) else "error"
        yield Sentence(f"{text}; next: {remedy}" if remedy else text, level, kind, file)


def _status(call: ast.Call) -> str:
    match call.args[:1]:
        case [ast.Constant(value=int(status))]:
            return f"HTTP {status}"
    return "HTTP 4xx"


def _texts(arguments: list[ast.expr], scope: ast.AST) -> Iterator[str]:
    """The sentences among the arguments; of a variable, what the function puts into it."""
    for argument in arguments:
        values = [argument]
        if isinstance(argument, ast.Name):
            values = [
                node.value
                for node in _own_nodes(scope)
                if isinstance(node, ast.Assign | ast.AugAssign)
                and any(isinstance(n, ast.Name) and n.id == argument.id for n in _targets(node))
            ]
        for value in values:
            text = " ".join(literal(value).split())
            if len(WORDS.findall(text)) > 1:
                yield text


def _targets(node: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def literal(node: ast.expr) -> str:
    """The words that stand in the source; … for what does not."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return re.sub("…+", "…", "".join(map(literal, parts)))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return literal(left) + literal(right)
        case (
            ast.IfExp(body=ast.Constant(value=str(text)))
            | ast.IfExp(body=ast.JoinedStr(), orelse=ast.Constant(value=str(text)))
        ):
            return text or "…"
    return "…"
