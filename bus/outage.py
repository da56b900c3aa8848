"""When is the server away? The one answer, for clients, agents and dispatchers.

Away is a server that does not answer, and one that answers that it cannot do this *now*: it loads its data, is or has
become a replica, misses its replicas, a script holds it, its memory or disk is full, its cluster is rearranged. The
same command will succeed later, so the right answer is to wait and repeat it.

Any other error reply (WRONGTYPE, NOPERM, a syntax error) will be the same in an hour: ours or the operator's fault. It
must be raised, or at least be logged each time; a loop that repeats it in silence hides a defect for ever.
"""

from typing import Any, Final

import redis
import redis.exceptions


class NotServingError(redis.ResponseError):
    """A reply by which the server refuses a command for now, of those that redis-py has no class for."""


CONNECTION_ERRORS: Final = (
    redis.ConnectionError,  # LOADING and "max number of clients reached" among them
    redis.TimeoutError,
    OSError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,  # MASTERDOWN is one
    redis.exceptions.TryAgainError,
    redis.exceptions.OutOfMemoryError,
    NotServingError,
)
"""What a command raises when the server is away. After the first three a write may have been done all the same."""

SERVER_ERRORS: Final = (redis.RedisError, OSError)
"""Everything that a command raises, whether the server is away or refuses it for good; see `is_refusal`."""

_NOT_SERVING: Final = ("NOREPLICAS", "MISCONF", "BUSY", "UNBLOCKED")


def is_refusal(error: BaseException) -> bool:
    """Tell whether repeating the command is in vain until somebody changes a program, a key or a permission."""
    # redis-py counts a wrong password among the lost connections.
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError):
        return True
    return isinstance(error, redis.RedisError) and not isinstance(error, CONNECTION_ERRORS)


def telling_parser(parser: type[Any]) -> type[Any]:
    """Return redis-py's parser of replies `parser` as one that raises `NotServingError` for what that stands for."""
    known = {**parser.EXCEPTION_CLASSES, **dict.fromkeys(_NOT_SERVING, NotServingError)}
    return type(f"Telling{parser.__name__}", (parser,), {"EXCEPTION_CLASSES": known})
