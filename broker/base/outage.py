"""Whether an error means that Redis cannot be used just now."""

from __future__ import annotations

from redis import exceptions as redis_errors

from emitter import errors

# Redis is away, starting, failing over or full: nothing the client did, and worth another try.
_REDIS_AWAY = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterError,  # it is down, or keys of one user lie on two nodes while their slot moves
    redis_errors.RedisClusterException,
    redis_errors.TryAgainError,
    redis_errors.OutOfMemoryError,
    errors.RedisUnavailable,
    errors.QueueFull,
    errors.EventsLost,
    TimeoutError,
)
_REFUSED_FOR_NOW = ("NOREPLICAS ", "MISCONF ", "MASTERDOWN ", "BUSY ")
"""How errors of a Redis begin that answers, but takes no writes for a while, or nothing."""
_NO_RIGHT_IN_SCRIPT = ("The user executing the script ", "ACL failure in script")
"""How Redis and Valkey begin to say that a script's caller lacks a right."""


def is_away(error: Exception) -> bool:
    """Whether Redis cannot do just now what it was asked, or may not: an operator gives the edge's user its rights."""
    is_refusal = isinstance(error, redis_errors.ResponseError) and str(error).startswith(_REFUSED_FOR_NOW)
    return is_refusal or isinstance(error, _REDIS_AWAY) or lacks_right(error)


def lacks_right(error: Exception) -> bool:
    """Whether the edge's user in Redis may not do what it was asked."""
    is_script = isinstance(error, redis_errors.ResponseError) and str(error).startswith(_NO_RIGHT_IN_SCRIPT)
    return is_script or isinstance(error, redis_errors.NoPermissionError)
