"""`callboard api`: a process that serves the REST API, with its metrics."""

import asyncio
from typing import Annotated

from cyclopts import Parameter

from bus.long_process import new_loop, settle
from callboard.failures import CommandError
from callboard.options import LOG_DEFAULTS, PORT_RANGE, Duration, Flag, LogOptions, RedisUrl, given
from callboard.signals import stop_on_signal
from dispatcher.api.settings import API_PORT, ApiSettings


def api(  # noqa: PLR0913 - one per option
    *,
    host: Annotated[str | None, Parameter(help="Address to listen on; beyond loopback only with tokens.")] = None,
    port: Annotated[int | None, Parameter(validator=PORT_RANGE, help=f"Else {API_PORT}; 0 is any free one.")] = None,
    redis_url: RedisUrl = None,
    pool: Annotated[str | None, Parameter(help="Pool of requests that name none.")] = None,
    require_token: Annotated[Flag | None, Parameter(help="Ask for a token on loopback, too.")] = None,
    rate: Annotated[
        float | None, Parameter(metavar="NUMBER", help="Requests per second that each token may make.")
    ] = None,
    burst: Annotated[int | None, Parameter(help="Requests that each token may make at once.")] = None,
    max_body: Annotated[int | None, Parameter(help="Bytes that the body of a request may have.")] = None,
    max_open: Annotated[int | None, Parameter(help="Streams and waiting requests at a time.")] = None,
    max_wait: Annotated[
        Duration | None, Parameter(help="The longest that a request may wait for a result or for work.")
    ] = None,
    request_timeout: Annotated[Duration | None, Parameter(help="How long a request may take, waiting apart.")] = None,
    heartbeat: Annotated[Duration | None, Parameter(help="How often a silent stream says that it lives.")] = None,
    cors_origins: Annotated[
        str | None, Parameter(metavar="ORIGIN,…", help="Web sites whose pages may use the API.")
    ] = None,
    log: LogOptions = LOG_DEFAULTS,
) -> int:
    """Serve the REST API; any number of such processes may run beside the dispatchers.

    It listens on loopback, where no token is needed. Elsewhere every request needs one: see `callboard token`. It may
    be started before the server and the dispatcher.
    """
    log.set_up()
    settings = ApiSettings(
        **given(
            host=host,
            port=port,
            redis_url=redis_url,
            pool=pool,
            require_token=require_token,
            rate=rate,
            burst=burst,
            max_body=max_body,
            max_open=max_open,
            max_wait=max_wait,
            request_timeout=request_timeout,
            heartbeat=heartbeat,
            cors_origins=cors_origins,
        )
    )
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_run(settings))


async def _run(settings: ApiSettings) -> int:
    from dispatcher.api.service import ApiError, ApiService  # noqa: PLC0415 - FastAPI takes a second to import
    from metrics.api_metrics import ApiMetrics  # noqa: PLC0415 - the same path, and --help needs neither
    from metrics.exposition import exposition_of, new_registry  # noqa: PLC0415 - the same

    registry = new_registry()
    service = ApiService(settings, exposition=exposition_of(registry), observer=ApiMetrics(registry))
    with stop_on_signal() as stop:
        ready = asyncio.Event()
        settling = asyncio.create_task(_settle(ready))
        try:
            await service.run(stop, ready)
        except ApiError as error:
            raise CommandError(str(error)) from None
        finally:
            settling.cancel()
    return 0


async def _settle(ready: asyncio.Event) -> None:
    await ready.wait()
    settle()
