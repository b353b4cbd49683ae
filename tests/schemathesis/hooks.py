"""What schemathesis does otherwise here."""

import zlib

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Half of the functions asked for are there: of names made up, none is."""
    function = (path_parameters or {}).get("function_id")
    is_asked = isinstance(function, str) and zlib.crc32(function.encode("utf-8", "replace")) % 2 == 0
    if is_asked and context.operation.label != "DELETE /api/functions/{function_id}":
        path_parameters["function_id"] = "sample"
    return path_parameters


@schemathesis.hook
def filter_case(context, case):
    """No body, where none is needed, is not wrong."""
    is_negative = case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE
    return not (is_negative and case.operation.body and case.body is NOT_SET)
