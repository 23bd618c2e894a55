"""Text that stands for something else: the content types with which MLServer's codecs mark their tensors.

Source: MLServer's public documentation of content types. Most say nothing that the datatype does not say and are left
alone; the two that would be read as other text are undone here.
"""

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.errors import InvalidInput
from holdfast.wire.tensors import Tensor


def decoded(tensor: Tensor, content_type: Any) -> Tensor:
    """The tensor as its content type means it: text of ``base64`` or ``pd_json`` becomes plain text or null.

    Raises InvalidInput with the row of what cannot be undone.
    """
    undo = _UNDO.get(content_type) if isinstance(content_type, str) else None
    if undo is None or tensor.datatype != "BYTES":
        return tensor
    data: list[str | None] = []
    for place, value in enumerate(tensor.data):
        try:
            data.append(None if value is None else undo(value))
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            row = place // tensor.width
            raise InvalidInput(
                f"row {row}, column '{tensor.name}': {value[:40]!r} is not text of the content type '{content_type}', "
                "which its input says it is",
                row=row,
                column=tensor.name,
                expected=f"text in {content_type}, or no content type",
            ) from error
    return msgspec.structs.replace(tensor, data=data)


def _from_base64(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


_from_json: Callable[[str], str | None] = msgspec.json.Decoder(str | None).decode
_UNDO: dict[str, Callable[[str], str | None]] = {"base64": _from_base64, "pd_json": _from_json}
