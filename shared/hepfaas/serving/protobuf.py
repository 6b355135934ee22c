"""Protobuf messages described by tables of their fields, so that nothing generated has to be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from hepfaas.errors import RequestError

FIELD = descriptor_pb2.FieldDescriptorProto
SCALARS = {
    "bool": FIELD.TYPE_BOOL,
    "bytes": FIELD.TYPE_BYTES,
    "double": FIELD.TYPE_DOUBLE,
    "float": FIELD.TYPE_FLOAT,
    "int32": FIELD.TYPE_INT32,
    "int64": FIELD.TYPE_INT64,
    "string": FIELD.TYPE_STRING,
    "uint32": FIELD.TYPE_UINT32,
    "uint64": FIELD.TYPE_UINT64,
}

Table = Mapping[str, Sequence[tuple[str, int, str]]]
"""Fields of each message: name, number, and a scalar or a message of the table; 'repeated …' for many."""


def messages(package: str, table: Table) -> Callable[[str], Any]:
    """Gives the class of each message of a package (proto3)."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in table.items():
        described = file.message_type.add(name=name)
        for field, number, kind in fields:
            bare = kind.removeprefix("repeated ")
            label = FIELD.LABEL_REPEATED if kind != bare else FIELD.LABEL_OPTIONAL
            if bare in SCALARS:
                described.field.add(name=field, number=number, label=label, type=SCALARS[bare])
            else:
                type_name = f".{package}.{bare}"
                described.field.add(
                    name=field, number=number, label=label, type=FIELD.TYPE_MESSAGE, type_name=type_name
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in table}
    return classes.__getitem__


def parsed(message: Any, data: bytes) -> Any:
    """A message of a class. Raises: RequestError if the bytes are none."""
    from google.protobuf.message import DecodeError

    try:
        return message.FromString(data)
    except DecodeError as error:
        raise RequestError(f"the body is no protobuf message {message.DESCRIPTOR.full_name}") from error
