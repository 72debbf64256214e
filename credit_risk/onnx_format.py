"""A network as an ONNX file: written for a package, and read without the library.

ONNX is a protocol buffer (https://onnx.ai/onnx/repo-docs/IR.html). A dense network needs so little
of it that a reader is shorter than what a dependency on ``onnx`` would have to be excused with:
initializers in float64, and the operators Cast, Gemm and Relu. Whatever else a file holds is
refused by name, never skipped: what is served is all that the file says.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from credit_risk.errors import PackageInvalid
from credit_risk.network import Layer, Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Message = defaultdict[int, list[int | bytes]]

NAME = "network.onnx"
INPUT = "columns"
OUTPUT = "score"

_IR_VERSION = 8
_OPSET = 17
_FLOAT, _DOUBLE = 1, 11
_INT = 2  # an attribute's type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


# Numbers of the fields, by message, as onnx.proto has them.
class _Model:
    IR_VERSION, PRODUCER, GRAPH, OPSET = 1, 2, 7, 8


class _Opset:
    VERSION = 2


class _Graph:
    NODE, NAME, INITIALIZER, INPUT, OUTPUT = 1, 2, 5, 11, 12


class _Node:
    INPUT, OUTPUT, NAME, OPERATOR, ATTRIBUTE = 1, 2, 3, 4, 5


class _Attribute:
    NAME, INTEGER, TYPE = 1, 3, 20


class _Tensor:
    DIMENSION, TYPE, NAME, RAW = 1, 2, 8, 9


def write(network: Network) -> bytes:
    """The file: float32 ``columns`` of shape (rows, columns) in, ``score`` of (rows, 1) out."""
    nodes = [_node("Cast", [INPUT], "values", {"to": _DOUBLE})]
    tensors, value = [], "values"
    for number, layer in enumerate(network.layers):
        weights, biases, out = (f"{name}_{number}" for name in ("weights", "biases", "layer"))
        tensors += [_tensor(weights, layer.weights), _tensor(biases, layer.biases)]
        last = layer is network.layers[-1]
        nodes.append(
            _node("Gemm", [value, weights, biases], OUTPUT if last else out, {"transB": 1})
        )
        if not last:
            value = f"rectified_{number}"
            nodes.append(_node("Relu", [out], value, {}))
    graph = _join(
        *(_field(_Graph.NODE, node) for node in nodes),
        _field(_Graph.NAME, b"network"),
        *(_field(_Graph.INITIALIZER, tensor) for tensor in tensors),
        _field(_Graph.INPUT, _matrix(INPUT, _FLOAT, network.columns)),
        _field(_Graph.OUTPUT, _matrix(OUTPUT, _DOUBLE, 1)),
    )
    return _join(
        _field(_Model.IR_VERSION, _IR_VERSION),
        _field(_Model.PRODUCER, b"credit-risk-server"),
        _field(_Model.GRAPH, graph),
        _field(_Model.OPSET, _field(_Opset.VERSION, _OPSET)),
    )


def read(content: bytes) -> Network:
    """The network in a file of the operators that `write` writes.

    Raises:
        PackageInvalid: it is no ONNX file, not a whole one, or holds another kind of model.
    """
    try:
        graph = _message(_graph(_message(content)))
        weights = dict(_read_tensor(_bytes(t)) for t in graph[_Graph.INITIALIZER])
        nodes = [_read_node(_bytes(node)) for node in graph[_Graph.NODE]]
        network = Network(tuple(_layers(nodes, weights)))
    except _Malformed as error:
        msg = f"{NAME}: cannot be read: {error}"
        raise PackageInvalid(msg) from error
    return network


def _graph(model: Message) -> bytes:
    if _message(_one(model, _Model.OPSET))[_Opset.VERSION] != [_OPSET]:
        msg = f"operators of another set than {_OPSET}"
        raise _Malformed(msg)
    return _one(model, _Model.GRAPH)


class _Malformed(ValueError):
    """Not a protocol buffer, or not one of a dense network."""


class _Operation(NamedTuple):
    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, int]


def _layers(nodes: list[_Operation], weights: dict[str, Floats]) -> Iterator[Layer]:
    """The layers, in order: every operation takes what the one before it gave."""
    value = INPUT
    rectified = True
    for node in nodes:
        if node.inputs[:1] != (value,):
            msg = f"{node.operator}: it does not take what the operation before it gave"
            raise _Malformed(msg)
        if node.operator == "Gemm" and rectified:
            named = [weights.get(name) for name in node.inputs[1:]]
            if len(named) != 2 or node.attributes != {"transB": 1}:  # noqa: PLR2004 - W and b
                msg = "Gemm: other than weights, transposed, and biases"
                raise _Malformed(msg)
            if named[0] is None or named[1] is None:
                msg = "Gemm: weights that are not in the file"
                raise _Malformed(msg)
            yield Layer(named[0], named[1])
            rectified = False
        elif node.operator == "Relu" and not rectified and not node.attributes:
            rectified = True
        elif not (
            node.operator == "Cast" and value == INPUT and node.attributes == {"to": _DOUBLE}
        ):
            msg = f"operator {node.operator} there is none of in a dense network"
            raise _Malformed(msg)
        value = node.output
    if rectified or value != OUTPUT:
        msg = "the last operation does not give the score"
        raise _Malformed(msg)


def _read_node(content: bytes) -> _Operation:
    node = _message(content)
    attributes = {}
    for one in node[_Node.ATTRIBUTE]:
        attribute = _message(_bytes(one))
        name, value = _text(_one(attribute, _Attribute.NAME)), attribute[_Attribute.INTEGER]
        if len(value) != 1 or not isinstance(value[0], int):
            msg = "an attribute that is no integer"
            raise _Malformed(msg)
        attributes[name] = value[0]
    return _Operation(
        operator=_text(_one(node, _Node.OPERATOR)),
        inputs=tuple(_text(_bytes(name)) for name in node[_Node.INPUT]),
        output=_text(_one(node, _Node.OUTPUT)),
        attributes=attributes,
    )


def _read_tensor(content: bytes) -> tuple[str, Floats]:
    tensor = _message(content)
    name = _text(_one(tensor, _Tensor.NAME))
    shape = [size for size in tensor[_Tensor.DIMENSION] if isinstance(size, int)]
    raw = _one(tensor, _Tensor.RAW)
    if tensor[_Tensor.TYPE] != [_DOUBLE] or len(shape) != len(tensor[_Tensor.DIMENSION]):
        msg = "a tensor that is not of float64"
        raise _Malformed(msg)
    if 0 in shape or np.prod(shape, dtype=object) * 8 != len(raw):
        msg = "a tensor of another size than it says"
        raise _Malformed(msg)
    return name, np.frombuffer(raw, dtype="<f8").astype(np.float64).reshape(shape)


def _message(content: bytes) -> Message:
    """The fields of a protocol buffer's message, by number."""
    fields: Message = defaultdict(list)
    at = 0
    while at < len(content):
        tag, at = _read_varint(content, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _read_varint(content, at)
            fields[number].append(value)
            continue
        if kind == _BYTES:
            length, at = _read_varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            msg = "not a protocol buffer"
            raise _Malformed(msg)
        if at + length > len(content):
            msg = "it ends too soon"
            raise _Malformed(msg)
        fields[number].append(content[at : at + length])
        at += length
    return fields


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in itertools.count():
        if at >= len(content) or place == _LONGEST_VARINT:
            msg = "it ends too soon" if at >= len(content) else "not a protocol buffer"
            raise _Malformed(msg)
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says there is more
            break
    return value, at


def _one(fields: Message, number: int) -> bytes:
    if len(fields[number]) != 1:
        msg = "not the model of a network"
        raise _Malformed(msg)
    return _bytes(fields[number][0])


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        msg = "not the model of a network"
        raise _Malformed(msg)
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        msg = "a name that is no text"
        raise _Malformed(msg) from error


def _node(operator: str, inputs: list[str], output: str, attributes: dict[str, int]) -> bytes:
    return _join(
        *(_field(_Node.INPUT, name.encode()) for name in inputs),
        _field(_Node.OUTPUT, output.encode()),
        _field(_Node.NAME, output.encode()),
        _field(_Node.OPERATOR, operator.encode()),
        *(
            _field(
                _Node.ATTRIBUTE,
                _join(
                    _field(_Attribute.NAME, name.encode()),
                    _field(_Attribute.INTEGER, value),
                    _field(_Attribute.TYPE, _INT),
                ),
            )
            for name, value in attributes.items()
        ),
    )


def _tensor(name: str, values: Floats) -> bytes:
    return _join(
        *(_field(_Tensor.DIMENSION, size) for size in values.shape),
        _field(_Tensor.TYPE, _DOUBLE),
        _field(_Tensor.NAME, name.encode()),
        _field(_Tensor.RAW, values.astype("<f8").tobytes()),
    )


def _matrix(name: str, kind: int, width: int) -> bytes:
    """A value of ``rows`` by so many numbers: name and type, which has element type and shape."""
    shape = _join(_field(1, _field(2, b"rows")), _field(1, _field(1, width)))
    tensor = _join(_field(1, kind), _field(2, shape))
    return _join(_field(1, name.encode()), _field(2, _field(1, tensor)))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits to a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _join(*parts: bytes) -> bytes:
    return b"".join(parts)
