"""`callboard asyncapi`: the document of everything that is said on the bus."""

from typing import Annotated

from cyclopts import Parameter

from bus.ids import DEFAULT_POOL
from callboard.failures import UsageError
from callboard.options import Flag
from callboard.output import print_json, print_line
from callboard.yaml_text import to_yaml
from dispatcher.app import build_app


def asyncapi(
    *,
    pool: Annotated[str, Parameter(help="Pool whose streams are named.")] = DEFAULT_POOL,
    yaml: Annotated[Flag, Parameter(help="Print YAML.")] = False,
    json: Annotated[Flag, Parameter(help="Print JSON, which is the default.")] = False,
) -> int:
    """Print the AsyncAPI document of everything that is said on the bus. No server is asked."""
    if yaml and json:
        raise UsageError("--yaml and --json exclude each other: leave one out")
    try:
        document = build_app(pool).schema.to_specification().to_jsonable()
    except ValueError as error:
        raise UsageError(str(error)) from None
    if yaml:
        print_line(to_yaml(document).rstrip())
    else:
        print_json(document)
    return 0
