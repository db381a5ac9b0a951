"""Is the graph whole? Every tensor made once and before it is used, in subgraphs too.

onnx's own checker also refuses models that onnxruntime runs (contrib operators, IR 3, nodes in another
order), so only what nobody can run is refused here.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from onnxlrp.errors import ModelReadError

_SHOWN = 5
_STANDARD = "ai.onnx"


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in the attributes of `node` (bodies of If, Loop, Scan)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(lists: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """The nodes of several lists, each followed by those of its subgraphs."""
    for nodes in lists:
        for node in nodes:
            yield node
            yield from all_nodes(body.node for body in subgraphs(node))


def import_domains(model: onnx.ModelProto) -> None:
    """Import, in place, the domains that `model` uses without saying so.

    onnxruntime knows its own domains without being told; onnx's passes fail on them.
    """
    imported = {entry.domain or _STANDARD for entry in model.opset_import}
    for domain in sorted(_domains(model.graph) - imported):
        model.opset_import.add(domain=domain, version=1)


def _domains(graph: onnx.GraphProto) -> set[str]:
    own = {node.domain or _STANDARD for node in graph.node}
    return own.union(*(_domains(body) for node in graph.node for body in subgraphs(node)))


def describe(node: onnx.NodeProto) -> str:
    """A node in a message: its operator and its name, or its first output where it has no name."""
    named = repr(node.name) if node.name else f"making {next(filter(None, node.output), '')!r}"
    return f"{node.op_type} {named}"


def given(graph: onnx.GraphProto) -> list[str]:
    """Names of the tensors that `graph` has without computing them; initializers that are also inputs come
    once.
    """
    inputs = [value.name for value in graph.input]
    constants = [tensor.name for tensor in graph.initializer]
    constants += [sparse.values.name for sparse in graph.sparse_initializer]
    listed = set(inputs)
    return inputs + [name for name in constants if name not in listed]


def uses(node: onnx.NodeProto) -> set[str]:
    """Names of all tensors that `node` needs, those that its subgraphs take from outside included."""
    return set(filter(None, node.input)).union(*map(_captured, subgraphs(node)))


def _captured(graph: onnx.GraphProto) -> set[str]:
    needed = {value.name for value in graph.output}.union(*map(uses, graph.node))
    return needed - set(given(graph)) - {name for node in graph.node for name in node.output}


def check(graph: onnx.GraphProto) -> None:
    """ModelReadError where a tensor is made twice, used but never made, or needed for itself (a cycle)."""
    _check_scope(graph, frozenset())


def _check_scope(graph: onnx.GraphProto, outer: frozenset[str]) -> None:
    made = [name for node in graph.node for name in node.output if name]
    names = given(graph) + made
    _refuse("defines a tensor name more than once", [n for n, times in Counter(names).items() if times > 1])
    known = outer.union(names)
    _refuse(
        "uses tensors that nothing makes",
        [
            f"{name} (input of {describe(node)})"
            for node in graph.node
            for name in dict.fromkeys(node.input)
            if name and name not in known
        ]
        + [f"{value.name} (output of the graph)" for value in graph.output if value.name not in known],
    )
    for node in graph.node:
        for body in subgraphs(node):
            _check_scope(body, known)
    _order(graph)


def _refuse(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ModelReadError(f"the model is damaged: it {what}: {', '.join(names[:_SHOWN])}{more}; export it again")


def is_sorted(graph: onnx.GraphProto) -> bool:
    """True where each node stands after those whose outputs it uses, in subgraphs too."""
    return _order(graph) == list(range(len(graph.node))) and all(
        is_sorted(body) for node in graph.node for body in subgraphs(node)
    )


def sort(graph: onnx.GraphProto) -> None:
    """Put, in place, every node after those whose outputs it uses, moving as few as possible. `graph` must
    pass `check`.
    """
    nodes = list(graph.node)
    order = _order(graph)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)
    for node in graph.node:
        for body in subgraphs(node):
            sort(body)


def _order(graph: onnx.GraphProto) -> list[int]:
    """Indices of the nodes in an order of computation, the earliest in the file first. ModelReadError names a
    cycle.
    """
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waiting: list[int] = []
    users: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        before = {maker[name] for name in uses(node) if name in maker}
        waiting.append(len(before))
        for earlier in before:
            users.setdefault(earlier, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(graph.node):
        _refuse(
            "has nodes that wait for each other (a cycle)",
            [describe(node) for index, node in enumerate(graph.node) if waiting[index] > 0],
        )
    return order
