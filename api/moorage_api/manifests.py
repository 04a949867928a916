"""ModelDeployments as YAML text: reading many, writing one."""

from collections.abc import Iterator
from typing import Any, Final

import yaml

from moorage_api import keys, v1alpha1
from moorage_api.errors import InvalidResource, Problem
from moorage_api.v1alpha1 import ModelDeployment

#: Most characters of one YAML text; the API server's own limit on a resource is 1.5 MB.
MAX_CHARACTERS: Final = 1_500_000
#: Most values of one YAML document, aliases written out; a text without aliases cannot hold more.
_MAX_NODES: Final = MAX_CHARACTERS


#: What PyYAML lets slip when the text after a tag is not what the tag says, as in `!!int ""`.
_TAG_ERRORS: Final = (AttributeError, IndexError, KeyError, TypeError)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses repeated keys, as `kubectl apply` does, and aliases that explode."""

    def construct_document(self, node: yaml.Node) -> Any:
        if _nodes_in(node, {}) > _MAX_NODES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases stand for more than {_MAX_NODES} values", node.start_mark
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key_node.value!r} stands here twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def parse(text: str, source: str = "") -> list[ModelDeployment]:
    """Read every ModelDeployment of a YAML text with one or more documents.

    Parameters
    ----------
    text
        YAML or JSON; documents are separated by `---`. A `List` (what `kubectl get -o yaml`
        prints) is opened. Documents of other kinds are refused.
    source
        Where it came from, for messages.

    Raises
    ------
    InvalidResource
        With every problem of every document.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidResource([Problem("", f"is longer than {MAX_CHARACTERS} characters")], source)
    try:
        documents = [item for item in yaml.load_all(text, _Loader) if item is not None]
    except (yaml.YAMLError, ValueError, RecursionError, *_TAG_ERRORS) as error:
        words = " ".join(str(error).split()) or "nested too deeply"
        raise InvalidResource([Problem("", f"is not YAML: {words}")], source) from error
    found: list[ModelDeployment] = []
    problems: list[Problem] = []
    try:
        opened = list(_opened(documents))
    except InvalidResource as error:
        raise InvalidResource(error.problems, source) from error
    for document in opened:
        if not isinstance(document, dict) or document.get("kind") != keys.KIND:
            kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
            problems.append(Problem("kind", f"expected {keys.KIND}, got {kind!r}"))
            continue
        try:
            found.append(v1alpha1.load(document))
        except InvalidResource as error:
            problems.extend(error.problems)
    if not found and not problems:
        problems.append(Problem("", f"holds no {keys.KIND}"))
    if problems:
        raise InvalidResource(problems, source)
    return found


def render(resource: ModelDeployment) -> str:
    """Return the resource as YAML that `parse` and `kubectl apply` take."""
    return render_document(v1alpha1.dump(resource))


def render_document(document: Any) -> str:
    """Return any plain document as YAML, in its own order of keys."""
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    return text


def _opened(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "List":
            items = document.get("items") or []
            if not isinstance(items, list):
                raise InvalidResource([Problem("items", f"expected a list, got {items!r:.80}")])
            yield from items
        else:
            yield document


def _nodes_in(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the nodes below and with `node`, each alias as all that it stands for."""
    found = known.get(id(node))
    if found is None:
        # What holds itself holds without end; it is looked at again only while it is counted.
        known[id(node)] = _MAX_NODES
        found = 1
        if isinstance(node, yaml.SequenceNode):
            found += sum(_nodes_in(item, known) for item in node.value)
        elif isinstance(node, yaml.MappingNode):
            found += sum(_nodes_in(part, known) for pair in node.value for part in pair)
        known[id(node)] = found
    return found
