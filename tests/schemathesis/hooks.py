"""Adapts the requests that schemathesis generates."""

import zlib

import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Replaces half of the function names by an existing one; generated names never exist."""
    function = (path_parameters or {}).get("function_id")
    is_asked = isinstance(function, str) and zlib.crc32(function.encode("utf-8", "replace")) % 2 == 0
    if is_asked and context.operation.label != "DELETE /api/functions/{function_id}":
        path_parameters["function_id"] = "sample"
    return path_parameters


@schemathesis.hook
def filter_case(context, case):
    """Drops negative cases without a body where the body is optional: they are valid."""
    is_negative = case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE
    return not (is_negative and case.operation.body and case.body is NOT_SET)
