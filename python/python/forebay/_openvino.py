"""Graphs of OpenVINO, as messages of TensorBoard."""

from __future__ import annotations

import os
from xml.etree import ElementTree


def graph(path: str | os.PathLike[str]) -> bytes:
    """Returns the graph of a model of OpenVINO as an encoded ``GraphDef``: a node for each layer, named, with its type and its inputs.

    Args:
        path: The XML file of the model: ``<layers>`` with ``id``, ``name`` and ``type``, and ``<edges>`` between them.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no model of OpenVINO.
    """
    try:
        net = ElementTree.parse(path).getroot()
        layers = {layer.attrib["id"]: layer.attrib for layer in net.iterfind("layers/layer")}
        inputs: dict[str, list[str]] = {layer: [] for layer in layers}
        for edge in net.iterfind("edges/edge"):
            inputs[edge.attrib["to-layer"]].append(layers[edge.attrib["from-layer"]]["name"])
        nodes = [(layer["name"], layer.get("type", "op"), inputs[number]) for number, layer in layers.items()]
    except (ElementTree.ParseError, KeyError) as error:
        raise ValueError(f"xmlname must be the XML file of a model of OpenVINO, got {os.fspath(path)!r}: {error!r}") from None
    if not nodes:
        raise ValueError(f"xmlname must be the XML file of a model of OpenVINO, got {os.fspath(path)!r}: it has no layers")
    # NodeDef: name, op and inputs. GraphDef: nodes, and the version of what made it.
    made = (_field(1, name.encode()) + _field(2, op.encode()) + b"".join(_field(3, each.encode()) for each in given) for name, op, given in nodes)
    return b"".join(_field(1, node) for node in made) + _field(4, b"\x08\x16")


def _field(number: int, value: bytes) -> bytes:
    """Returns a field of an encoded message."""
    length, left = bytearray(), len(value)
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([number << 3 | 2, *length, left]) + value
