"""How the classes of exceptions are related."""

from ray import exceptions

NAMES = [
    "RayTaskError",
    "RayActorError",
    "ActorDiedError",
    "ActorUnavailableError",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayCgraphCapacityExceeded",
    "RaySystemError",
    "GetTimeoutError",
    "TaskCancelledError",
    "WorkerCrashedError",
    "ObjectLostError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "RuntimeEnvSetupError",
    "ObjectStoreFullError",
    "UnserializableException",
    "TaskUnschedulableError",
    "ActorUnschedulableError",
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
]
for name in NAMES:
    cls = getattr(exceptions, name)
    others = [other for other in NAMES if other != name]
    bases = [other for other in others if issubclass(cls, getattr(exceptions, other))]
    builtin = [base.__name__ for base in (TimeoutError, ValueError) if issubclass(cls, base)]
    print(name, issubclass(cls, exceptions.RayError), *bases, *builtin)
