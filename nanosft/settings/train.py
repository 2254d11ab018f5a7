"""Settings of `nanosft train` and `nanosft launch`."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from nanosft.settings.base import StageSettings, Step

DEFAULT_PROMPTS = ("Who are you?", "Who made you?", "What can you do?")


class TrainSettings(StageSettings):
    """What `nanosft train` is told. Where the default is None, the base's meta file decides, as in nanochat."""

    command: ClassVar[str] = "train"

    base: str = Field(
        description="URI of the base: nanochat's directory, one of its experiments, or a flat folder as on the Hub.",
        json_schema_extra={"group": "Base, data and output", "content": False, "env": "NANOCHAT_BASE_DIR"},
    )
    data: str = Field(
        description="URI of the data: what mix made, or a JSONL file or a directory or prefix of them.",
        json_schema_extra={"content": False},
    )
    out: str = Field(
        description="URI that states, metrics and the chat checkpoint go to.", json_schema_extra={"content": False}
    )
    val_data: str | None = Field(
        default=None,
        description="URI of validation data (default: the val-… objects of what mix made).",
        json_schema_extra={"content": False},
    )
    base_source: Literal["base", "mid", "chat", "rl"] = Field(
        default="base", description="Which kind of checkpoint to start from: base, mid, chat or rl."
    )
    base_tag: str | None = Field(default=None, description="Tag of the base model, such as d20 (default: the largest).")
    base_step: Step | None = Field(
        default=None,
        description="Base checkpoint: best (by validation loss where a run says it, the default), last, or a step.",
    )
    softcap: float | None = Field(
        default=None,
        gt=0,
        description="Softcap of the logits (default: 15; bases of 2 to 8 March 2026 were trained with 20).",
    )

    max_seq_len: int | None = Field(
        default=None,
        ge=8,
        description="Tokens of a packed row (default: the base's).",
        json_schema_extra={"group": "Rows, batches and passes"},
    )
    device_batch_size: int | Literal["auto"] | None = Field(
        default=None,
        description="Most rows of a micro-batch on one rank; auto: what fits (default: auto on CUDA, else the base's).",
        json_schema_extra={"content": False},
    )
    total_batch_size: int | None = Field(
        default=None, ge=8, description="Tokens of the global batch of a step, over all ranks (default: the base's)."
    )
    epochs: int = Field(default=1, ge=1, description="Passes over the data.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Exactly so many steps, with as many passes over the data as they take."
    )
    attention: Literal["document", "row"] = Field(
        default="document",
        description="What a token sees: its own conversation (document), or its whole packed row as in nanochat (row).",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Compute dtype; the weights stay float32. auto on a CPU: bfloat16 if measured 1.5 times as fast.",
    )
    overlong: Literal["turns", "drop", "error"] = Field(
        default="turns",
        description="A conversation longer than a row: keep the leading turns that fit, drop it, or stop.",
    )
    pack_window: int = Field(default=16_384, ge=1, description="Conversations that are packed into rows together.")

    matrix_lr: float | None = Field(
        default=None,
        gt=0,
        description="Muon's learning rate (default: the base's, or 0.02).",
        json_schema_extra={"group": "Learning rates"},
    )
    embedding_lr: float | None = Field(
        default=None, gt=0, description="Learning rate of the token embedding (default: the base's, or 0.3)."
    )
    unembedding_lr: float | None = Field(
        default=None, gt=0, description="Learning rate of the head (default: the base's, or 0.004)."
    )
    scalar_lr: float = Field(
        default=0.5, gt=0, description="Learning rate of x0_lambdas; resid_lambdas take a hundredth of it."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decay of Muon's matrices.")
    init_lr_frac: float = Field(default=0.8, gt=0, description="Scale of all learning rates before the warm-down.")
    warmup_steps: int = Field(default=0, ge=0, description="Steps over which the learning rates rise linearly.")
    warmdown_frac: float = Field(
        default=0.5, ge=0, le=1, description="Fraction of the run, at its end, over which they fall."
    )
    final_lr_frac: float = Field(default=0.0, ge=0, le=1, description="Fraction of init-lr-frac that they fall to.")
    lr_shape: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="How the learning rates fall: linear, cosine or constant (not at all)."
    )
    warm_start: bool = Field(
        default=True,
        description="Take the momentum over from the base's optimizer files, where there are any.",
        json_schema_extra={"group": "Beginning"},
    )
    seed: int = Field(default=0, ge=0, description="Seed of the order of the data and of the samples.")

    save_every: int = Field(
        default=200,
        ge=0,
        description="Save a resumable state every so many steps; 0: never by steps.",
        json_schema_extra={"group": "States", "content": False},
    )
    save_minutes: float = Field(
        default=15.0,
        ge=0,
        description="Save a resumable state when the last one is so many minutes old; 0: never.",
        json_schema_extra={"content": False},
    )
    keep_states: int = Field(
        default=2, ge=1, description="How many of the newest states to keep.", json_schema_extra={"content": False}
    )
    eval_every: int = Field(
        default=100,
        ge=0,
        description="Evaluate every so many steps, and at the end; 0: at the end alone.",
        json_schema_extra={"group": "Evaluation on the way"},
    )
    eval_rows: int | None = Field(
        default=None, ge=1, description="Packed rows of validation data to evaluate (default: all)."
    )
    early_stop: int = Field(
        default=0, ge=0, description="Stop after so many evaluations without a better validation loss; 0: never."
    )
    prompts: tuple[str, ...] = Field(
        default=DEFAULT_PROMPTS, description="Prompt that is answered at each evaluation; may be repeated."
    )
    sample_tokens: int = Field(
        default=48, ge=0, description="Longest answer to such a prompt, in tokens; 0: no samples."
    )
    eval_probes: int = Field(
        default=0,
        ge=0,
        description="Probes of who the model says it is, asked at each evaluation for metrics.jsonl; 0: none.",
        json_schema_extra={"content": False},
    )
    eval_knowledge: str | None = Field(
        default=None,
        description="URI of the knowledge base that probes are made from (default: shipped).",
        json_schema_extra={"content": False},
    )
    evaluate: bool = Field(
        default=False,
        description="Evaluate the finished model as nanosft eval does, into OUT-evaluation beside it.",
        json_schema_extra={"flag": "--eval", "content": False},
    )

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto",
        description="Device: auto, cpu, cuda or mps.",
        json_schema_extra={"group": "Machine", "content": False},
    )
    compile: bool | None = Field(
        default=None,
        description="Compile the blocks (on a GPU) and the loss of the head with torch.compile (default: on CUDA).",
        json_schema_extra={"content": False},
    )
    report: bool = Field(
        default=True,
        description="At the end, write report.html beside the model.",
        json_schema_extra={"content": False},
    )
    num_threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of one rank (default: OMP_NUM_THREADS, or the cores shared evenly).",
        json_schema_extra={"content": False},
    )
    num_workers: int | None = Field(
        default=None,
        ge=1,
        description="Processes that tokenise (default: the cores of this machine).",
        json_schema_extra={"content": False},
    )
    collective_timeout_s: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds after which a rank that waits for another gives up.",
        json_schema_extra={"content": False},
    )
    log_every: int = Field(
        default=1,
        ge=1,
        description="Write every so many steps to metrics.jsonl.",
        json_schema_extra={"group": "Metrics", "content": False},
    )
    tensorboard: str | None = Field(
        default=None,
        description="Directory for TensorBoard's files (needs the tensorboard extra).",
        json_schema_extra={"content": False},
    )
    wandb: str | None = Field(
        default=None,
        description="Project of Weights & Biases (needs the wandb extra).",
        json_schema_extra={"content": False},
    )
    trackio: str | None = Field(
        default=None,
        description="Project of trackio (needs the trackio extra).",
        json_schema_extra={"content": False},
    )
    preflight: bool = Field(
        default=False,
        description="Check store, base, tokenizer, data, memory and batch, say what would fail, and exit.",
        json_schema_extra={"group": "Preflight", "content": False},
    )
    preflight_nodes: int | None = Field(
        default=None,
        ge=1,
        description="With --preflight in one process: nodes of the job it asks about (default: 1).",
        json_schema_extra={"content": False},
    )
    preflight_ranks_per_node: int | None = Field(
        default=None,
        ge=1,
        description="With --preflight in one process: ranks on each of its nodes (default: 1).",
        json_schema_extra={"content": False},
    )

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if isinstance(self.device_batch_size, int) and self.device_batch_size < 1:
            raise ValueError("--device-batch-size must be at least 1, or auto")
        if self.device == "mps" and self.dtype == "bfloat16":
            raise ValueError("--device mps computes in float32: leave --dtype bfloat16 out")
        if self.max_steps is not None and self.epochs != 1:
            raise ValueError("--epochs and --max-steps exclude each other: give one of them")
        if self.early_stop and not self.eval_every:
            raise ValueError("--early-stop counts evaluations, and --eval-every 0 makes none before the end")
        if self.out.rstrip("/") in (self.base.rstrip("/"), self.data.rstrip("/")):
            raise ValueError("--out must differ from --base and --data")
        return self


class LaunchSettings(StageSettings):
    """What `nanosft launch` is told: torchrun's options and variables."""

    command: ClassVar[str] = "launch"

    nnodes: str = Field(
        default="1",
        pattern=r"^[1-9]\d*(:[1-9]\d*)?$",
        description="Number of nodes, or MIN:MAX for an elastic job.",
        json_schema_extra={"group": "Ranks", "env": "PET_NNODES"},
    )
    nproc_per_node: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|gpu|[1-9]\d*)$",
        description="Ranks of a node: a number, gpu (one a GPU), cpu (one a core) or auto (gpu, or 1 without).",
        json_schema_extra={"env": "PET_NPROC_PER_NODE"},
    )
    node_rank: int = Field(
        default=0,
        ge=0,
        description="Rank of this node, for the static rendezvous.",
        json_schema_extra={"env": "PET_NODE_RANK"},
    )
    master_addr: str = Field(
        default="127.0.0.1",
        description="Host of node 0, for the static rendezvous.",
        json_schema_extra={"env": "PET_MASTER_ADDR"},
    )
    master_port: int = Field(
        default=29500,
        ge=1,
        le=65535,
        description="Port on node 0, for the static rendezvous.",
        json_schema_extra={"env": "PET_MASTER_PORT"},
    )
    rdzv_backend: str = Field(
        default="static",
        pattern=r"^(static|c10d|etcd|etcd-v2)$",
        description="Rendezvous: static, c10d, etcd or etcd-v2.",
        json_schema_extra={"group": "Rendezvous", "env": "PET_RDZV_BACKEND"},
    )
    rdzv_endpoint: str = Field(
        default="",
        description="Host and port of the rendezvous (default: master-addr:master-port).",
        json_schema_extra={"env": "PET_RDZV_ENDPOINT"},
    )
    rdzv_id: str = Field(
        default="nanosft", description="Name of the job at the rendezvous.", json_schema_extra={"env": "PET_RDZV_ID"}
    )
    rdzv_conf: str = Field(
        default="",
        description="More rendezvous settings: key=value,key=value.",
        json_schema_extra={"env": "PET_RDZV_CONF"},
    )
    standalone: bool = Field(
        default=False,
        description="One node with a rendezvous of its own on a free port.",
        json_schema_extra={"env": "PET_STANDALONE"},
    )
    max_restarts: int = Field(
        default=0,
        ge=0,
        description="How often the ranks are started again in place after a failure.",
        json_schema_extra={"group": "Failures", "env": "PET_MAX_RESTARTS"},
    )
    monitor_interval: float = Field(
        default=0.1,
        gt=0,
        description="Seconds between two looks at the ranks.",
        json_schema_extra={"env": "PET_MONITOR_INTERVAL"},
    )
    grace_s: float = Field(
        default=60.0,
        gt=10,
        description="Seconds between SIGTERM and the end of the pod; the ranks get ten less to save their state.",
    )
