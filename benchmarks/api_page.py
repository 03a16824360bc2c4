"""Write docs/api.md: what `import ddpm_eval` offers, as the docstrings say it.

    python benchmarks/api_page.py

A test holds the page to the code.
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import ddpm_eval

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
WIDTH = 100
INSTANCES = {
    "Model": "model",
    "ImageSet": "images",
    "Protocol": "protocol",
    "Bound": "bound",
    "SampleQuality": "quality",
}
"""What an object of each class is called in the examples."""
ENTRIES = ("Args", "Attributes", "Raises")
"""Sections of a docstring whose paragraphs are names with their meanings."""
HEAD = """# Python

`import ddpm_eval` offers these names. Each example runs as it stands. In them `model` is a `Model`, `images`
an `ImageSet`, `bound` a `Bound` and `samples` an array; the objects of other projects bear the names of the
arguments. Images are uint8, networks see them in [-1, 1], and bounds are in bits/dim. `Array` is an array of
NumPy, and `Progress` a function of stage, done and total. The fields of records, such as `bound.terms`, are
in [fields.md](fields.md), and whole programs in [examples](../examples). This page is written by
`python benchmarks/api_page.py`.

"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page in Markdown."""
    names = ddpm_eval.__all__
    contents = "\n".join(f"- [`{name}`](#{name.lower()}): {_summary(name)}" for name in names)
    return HEAD + "\n".join([contents, "", *map(_section, names)])


def public_methods(value: object) -> list[str]:
    """Return the names of a class' own public methods and properties, in the order of its file."""
    if not isinstance(value, type):
        return []
    return [
        node.name
        for node in _definition(value).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def _section(name: str) -> str:
    """Return the description of one public name, and of its methods if it is a class."""
    value = getattr(ddpm_eval, name)
    parts = [f"## {name}", _signature(f"ddpm_eval.{name}", value), _description(value)]
    for method in public_methods(value):
        member = inspect.getattr_static(value, method)
        parts.append(f"### {name}.{method}")
        if not isinstance(member, property):
            parts.append(_signature(f"{INSTANCES[name]}.{method}", member))
        parts.append(_description(member))
    return "\n\n".join(parts) + "\n"


def _summary(name: str) -> str:
    return _as_markdown(_docstring(getattr(ddpm_eval, name)).splitlines()[0])


def _docstring(value: object) -> str:
    text = inspect.getdoc(value)
    assert text, f"{value} has no docstring"
    return text


def _definition(value: Callable[..., object]) -> ast.ClassDef | ast.FunctionDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    return node


def _signature(called: str, value: Callable[..., object]) -> str:
    """Return how a function or class is called, with the types as its file has them."""
    node = _definition(value)
    returns = ""
    if isinstance(node, ast.ClassDef):
        annotated = [part for part in node.body if isinstance(part, ast.AnnAssign)]
        types = {ast.unparse(part.target): ast.unparse(part.annotation) for part in annotated}
    else:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        types = {each.arg: ast.unparse(each.annotation) for each in arguments if each.annotation}
        returns = f" -> {ast.unparse(node.returns)}".replace("'", "") if node.returns else ""
    words = _parameters(inspect.signature(value), types)
    line = f"{called}({', '.join(words)}){returns}"
    if len(line) > WIDTH:
        line = "\n".join([f"{called}(", *(f"    {word}," for word in words), f"){returns}"])
    return f"```python\n{line}\n```"


def _parameters(signature: inspect.Signature, types: dict[str, str]) -> list[str]:
    """Return the parameters as in a call, `*` before the first that is named only."""
    words: list[str] = []
    for name, parameter in signature.parameters.items():
        if name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        given = parameter.default is not parameter.empty
        words.append(f"{name}: {types[name]}" + (f" = {_literal(parameter.default)}" if given else ""))
    return words


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _description(value: object) -> str:
    """Return a docstring in Google's form as Markdown."""
    blocks = re.split(r"\n\n(?=\S)", _docstring(value))
    return "\n\n".join(map(_block, blocks))


def _block(block: str) -> str:
    """Return a paragraph, or a section under its name."""
    heading, _, body = block.partition(":\n")
    if not body or not heading.isalpha():
        return _as_markdown(re.sub(r"^(Source): ", r"**\1.** ", block))
    text = textwrap.dedent(body)
    if heading == "Example":
        return f"```python\n{text}\n```"
    if heading in ENTRIES:
        text = "\n".join(_entry(part) for part in re.split(r"\n(?=\S)", text))
    return f"**{heading}**\n\n{_as_markdown(text)}"


def _entry(text: str) -> str:
    name, _, meaning = text.partition(": ")
    return f"- `{name}`: {meaning}"


def _as_markdown(text: str) -> str:
    """Return text with code between single backquotes."""
    return text.replace("``", "`")


if __name__ == "__main__":
    main()
