"""Names of Ray's core: tasks, actors, objects, and what is about them."""

from __future__ import annotations

from typing import Final

from runtime.alias.entries import Here, Rows, missing, same

_ONE_MACHINE: Final = "a session is one machine's, without a cluster"
_LIBRARY: Final = "the libraries on top of Ray's core are not part of this project"
_INTERNAL: Final = "it is one of Ray's internals, and nothing here corresponds to it"
_GROUPS: Final = "there is one machine to place things on"
_STAND_INS: Final = "runtime.alias.stand_ins"

_RAY: Final[Rows] = {
    **same(
        "runtime",
        "ObjectRef",
        "ObjectRefGenerator",
        "available_resources",
        "cancel",
        "cluster_resources",
        "get",
        "get_actor",
        "get_gpu_ids",
        "get_runtime_context",
        "init",
        "is_initialized",
        "kill",
        "method",
        "nodes",
        "put",
        "remote",
        "shutdown",
        "timeline",
        "wait",
    ),
    **same(_STAND_INS, "LoggingConfig", "SCRIPT_MODE", "WORKER_MODE"),
    "ObjectID": Here("runtime:ObjectRef"),
    "__version__": Here(f"{_STAND_INS}:RAY_VERSION"),
    # Ids are hexadecimal strings.
    **dict.fromkeys(("ActorID", "JobID", "NodeID", "WorkerID"), Here("builtins:str")),
    "TaskID": Here("runtime.ids:TaskId"),
    **missing(
        "ActorClassID",
        "ClusterID",
        "FunctionID",
        "PlacementGroupID",
        "UniqueID",
        why="ids are hexadecimal strings",
        instead="annotate with str, compare with ==",
    ),
    **missing(
        "DynamicObjectRefGenerator",
        why='num_returns="dynamic" is the same as "streaming"',
        instead="use ObjectRefGenerator",
    ),
    **missing(
        "Language",
        "cpp_function",
        "cross_language",
        "java_actor_class",
        "java_function",
        why="actors and tasks are in Python",
    ),
    **missing(
        "ClientBuilder",
        "client",
        "client_builder",
        why=_ONE_MACHINE,
        instead="call ray.init() in the process that uses it",
    ),
    **missing("autoscaler", why=_ONE_MACHINE, instead="ray.init(num_cpus=..., resources=...)"),
    **missing("air", "data", "llm", "rllib", "serve", "train", "tune", "workflow", why=_LIBRARY),
    **missing(
        "dashboard",
        "job_submission",
        "scripts",
        why="there is no daemon to talk to",
        instead="run the script itself; ray.util.state and ray.timeline() show what happens",
    ),
    **missing(
        "job_config",
        why="a session is one job",
        instead="leave job_config out, and give runtime_env to ray.init()",
    ),
    **missing(
        "AUTO_INIT_APIS",
        "NON_AUTO_INIT_APIS",
        "RESTORE_WORKER_MODE",
        "SPILL_WORKER_MODE",
        "_private",
        "_raylet",
        "core",
        "internal",
        "log",
        "ray_constants",
        "serialization",
        "widgets",
        "worker",
        why=_INTERNAL,
    ),
    **missing(
        "state",
        why="it is one of Ray's internals",
        instead="use ray.nodes(), ray.timeline() and ray.util.state",
    ),
}

_ONLY_IN_RAY: Final = (
    "ActorPlacementGroupRemoved",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "PlasmaObjectNotAvailable",
    "RayDirectTransportError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskPlacementGroupRemoved",
    "UserCodeException",
)

EXCEPTIONS: Final[Rows] = {
    **{
        name: Here(f"runtime.exceptions:{ours}")
        for name, ours in {
            "RayError": "ExecutorError",
            "RayTaskError": "TaskError",
            "RayActorError": "ActorError",
            "RaySystemError": "SystemFaultError",
            "RayChannelError": "ChannelError",
            "RayChannelTimeoutError": "ChannelTimeoutError",
            "RayCgraphCapacityExceeded": "CapacityExceededError",
            "PendingCallsLimitExceeded": "PendingCallsLimitError",
            "UnserializableException": "UnserializableError",
        }.items()
    },
    **same(
        "runtime.exceptions",
        "ActorAlreadyExistsError",
        "ActorDiedError",
        "ActorHandleNotFoundError",
        "ActorUnavailableError",
        "ActorUnschedulableError",
        "GetTimeoutError",
        "ObjectLostError",
        "ObjectStoreFullError",
        "OwnerDiedError",
        "RuntimeEnvSetupError",
        "TaskCancelledError",
        "TaskUnschedulableError",
        "WorkerCrashedError",
    ),
    **missing(
        *_ONLY_IN_RAY,
        why="nothing here raises it",
        instead="ray.exceptions.RayError is the base of all that is raised",
    ),
}

_UTIL: Final[Rows] = {
    **same("runtime.util", "ActorPool", "as_completed", "map_unordered"),
    **same(
        "runtime.util.serialization",
        "deregister_serializer",
        "inspect_serializability",
        "register_serializer",
    ),
    **missing(
        "get_current_placement_group",
        "get_placement_group",
        "placement_group",
        "placement_group_table",
        "remove_placement_group",
        why=_GROUPS,
        instead="give num_cpus, num_gpus and resources to the actors themselves",
    ),
    **missing(
        "list_named_actors",
        why="it is not there yet",
        instead="[a.name for a in ray.util.state.list_actors() if a.name]",
    ),
    **missing(
        "connect",
        "disconnect",
        "client",
        "client_connect",
        "get_node_instance_id",
        "get_node_ip_address",
        why=_ONE_MACHINE,
    ),
    **missing(
        "debugpy",
        "pdb",
        "ray_debugpy",
        "rpdb",
        why="there is no debugger of tasks",
        instead="py-spy dump --pid shows the stack of an actor's process",
    ),
    **missing(
        "dask",
        "horovod",
        "joblib",
        "lightgbm",
        "multiprocessing",
        "sgd",
        "spark",
        "xgboost",
        why=_LIBRARY,
    ),
    **missing(
        "metrics",
        "tracing",
        why="there is no metrics service",
        instead="ray.timeline() shows what ran when",
    ),
    **missing(
        "accelerators",
        "tpu",
        why="accelerator types mean nothing on one machine",
        instead="use num_gpus, or a custom resource",
    ),
    **missing("iter", why="Ray has deprecated it", instead="use ActorPool"),
    **missing(
        "actor_group",
        "annotations",
        "check_open_ports",
        "check_serialize",
        "common",
        "debug",
        "disable_log_once_globally",
        "enable_periodic_logging",
        "helpers",
        "iter_metrics",
        "log_once",
        "serialization_addons",
        "timer",
        why=_INTERNAL,
    ),
}

_STATE: Final[Rows] = {
    **same(
        "runtime.util.state",
        "list_actors",
        "list_objects",
        "list_tasks",
        "summarize_actors",
        "summarize_objects",
        "summarize_tasks",
    ),
    **missing(
        "get_actor",
        "get_objects",
        "get_task",
        why="there are lists only",
        instead="look the id up in list_actors(), list_tasks() or list_objects()",
    ),
    **missing(
        "StateApiClient",
        "api",
        "common",
        "exception",
        "get_job",
        "get_log",
        "get_node",
        "get_placement_group",
        "get_worker",
        "list_cluster_events",
        "list_jobs",
        "list_logs",
        "list_nodes",
        "list_placement_groups",
        "list_runtime_envs",
        "list_workers",
        why="there is one machine, one job and no daemon",
        instead="ray.nodes() and runtime.util.state.list_events() tell what there is to know",
    ),
}

_SCHEDULING: Final[Rows] = {
    **same("runtime.util.scheduling_strategies", "NodeAffinitySchedulingStrategy"),
    **missing(
        "DoesNotExist",
        "Exists",
        "In",
        "NodeLabelSchedulingStrategy",
        "NotIn",
        "PlacementGroupSchedulingStrategy",
        why=_GROUPS,
        instead="leave scheduling_strategy out, or use a custom resource",
    ),
}

CORE: Final[dict[str, Rows]] = {
    "ray": _RAY,
    "ray.actor": {
        **same("runtime.actor", "ActorClass", "ActorHandle", "exit_actor"),
        **same("runtime.actor_method", "ActorMethod"),
        "method": Here("runtime:method"),
        "ActorClassInheritanceException": Here("runtime.exceptions:ActorClassInheritanceError"),
        **missing(
            "ActorProxy",
            why="it is for type checkers",
            instead="annotate with ActorHandle",
        ),
    },
    "ray.cloudpickle": {
        **same("cloudpickle", "CloudPickler", "Pickler", "dump", "dumps", "load", "loads"),
        **missing("dump_debug", "dumps_debug", why=_INTERNAL, instead="use dumps"),
    },
    "ray.cluster_utils": missing(
        "AutoscalingCluster",
        "Cluster",
        why=_ONE_MACHINE,
        instead="ray.init(num_cpus=..., num_gpus=...): both may exceed what the machine has",
    ),
    "ray.exceptions": EXCEPTIONS,
    "ray.remote_function": same("runtime.function", "RemoteFunction"),
    "ray.runtime_context": same("runtime", "RuntimeContext", "get_runtime_context"),
    "ray.runtime_env": {
        "RuntimeEnv": Here("builtins:dict"),  # with the same keywords
        **missing(
            "RuntimeEnvConfig",
            why="a runtime_env has env_vars and working_dir only",
            instead="leave it out",
        ),
    },
    "ray.types": same("runtime", "ObjectRef"),
    "ray.util": _UTIL,
    "ray.util.actor_pool": same("runtime.util", "ActorPool"),
    "ray.util.queue": same("runtime.util.queue", "Empty", "Full", "Queue"),
    "ray.util.scheduling_strategies": _SCHEDULING,
    "ray.util.serialization": {
        name: _UTIL[name] for name in ("deregister_serializer", "register_serializer")
    }
    | missing("StandaloneSerializationContext", why=_INTERNAL, instead="use cloudpickle"),
    "ray.util.state": _STATE,
}
