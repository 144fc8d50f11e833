"""Megatron-LM arguments that a step's time and memory do not depend on, as moesim counts them.

Names from Megatron-LM, megatron/training/arguments.py (from memory of its releases, unchecked
name by name): what is not listed in any table is an error, so a gap shows.
"""

from moesim.spec.megatron.names import names

FLAGS = names(
    """
    use-mcore-models use-legacy-models no-save-optim no-save-rng no-load-optim no-load-rng
    finetune use-checkpoint-args use-mp-args-from-checkpoint-args exit-signal-handler
    use-dist-ckpt auto-detect-ckpt-format async-save ckpt-fully-parallel-save
    no-ckpt-fully-parallel-save ckpt-fully-parallel-load ckpt-assume-constant-structure
    no-use-tokenizer-model-from-checkpoint-args use-tokenizer-model-from-checkpoint-args
    log-throughput log-timers-to-tensorboard log-memory-to-tensorboard log-params-norm
    log-num-zeros-in-grad log-progress log-validation-ppl-to-tensorboard
    log-world-size-to-tensorboard log-loss-scale-to-tensorboard no-log-loss-scale-to-tensorboard
    log-learning-rate-to-tensorboard no-log-learning-rate-to-tensorboard log-energy
    log-straggler disable-straggler-on-startup profile use-pytorch-profiler
    record-memory-history mock-data no-mmap-bin-files no-create-attention-mask-in-dataloader
    create-attention-mask-in-dataloader reset-position-ids reset-attention-mask eod-mask-loss
    override-opt-param-scheduler use-checkpoint-opt-param-scheduler
    check-for-nan-in-loss-and-grad no-check-for-nan-in-loss-and-grad check-for-spiky-loss
    check-for-large-grads no-async-tensor-model-parallel-allreduce apply-layernorm-1p
    use-rotary-position-embeddings rotary-interleaved use-rope-scaling no-position-embedding
    no-masked-softmax-fusion no-bias-swiglu-fusion no-bias-gelu-fusion no-bias-dropout-fusion
    no-rope-fusion no-gradient-accumulation-fusion no-persist-layer-norm use-cpu-initialization
    empty-unused-memory-level deterministic-mode manual-gc moe-router-pre-softmax
    moe-router-enable-expert-bias moe-per-layer-logging calculate-per-token-loss
    init-model-with-meta-device data-parallel-random-init reuse-grad-buf-for-mxfp8-param-ag
    accumulate-allreduce-grads-in-fp32 use-one-sent-docs full-validation skip-train
    no-scatter-gather-tensors-in-pipeline no-initialization perform-initialization
    adlr-autoresume log-max-attention-logit enable-experimental enable-gloo-process-groups
    disable-gloo-process-groups use-persistent-ckpt-worker mtp-use-repeated-layer
    trust-remote-code attention-softmax-in-fp32 apply-query-key-layer-scaling
    no-query-key-layer-scaling te-rng-tracker inference-rng-tracker
    """
)
"""Arguments without a value."""

VALUES = names(
    """
    data-path train-data-path valid-data-path test-data-path data-args-path
    per-split-data-args-path per-dataset-sequences-path split data-cache-path
    num-dataset-builder-threads tokenizer-model tokenizer-metadata tiktoken-pattern
    tiktoken-num-special-tokens vocab-file merge-file num-workers lr min-lr lr-decay-style
    lr-decay-iters lr-decay-samples lr-warmup-iters lr-warmup-samples lr-warmup-fraction
    lr-warmup-init lr-wsd-decay-style lr-wsd-decay-iters lr-wsd-decay-samples lr-steps
    weight-decay start-weight-decay end-weight-decay weight-decay-incr-style adam-beta1
    adam-beta2 adam-eps sgd-momentum clip-grad loss-scale initial-loss-scale min-loss-scale
    loss-scale-window hysteresis init-method-std init-method-xavier-uniform
    embedding-init-method-std attention-dropout hidden-dropout train-iters train-samples
    exit-interval exit-duration-in-mins eval-iters eval-interval test-mode save load
    save-interval save-retain-interval-interval non-persistent-global-ckpt-dir
    non-persistent-local-ckpt-dir non-persistent-local-ckpt-algo ckpt-step ckpt-format
    dist-ckpt-format dist-ckpt-strictness pretrained-checkpoint ckpt-convert-format
    ckpt-convert-save load-model-opt-format log-interval tensorboard-dir
    tensorboard-log-interval tensorboard-queue-size wandb-project wandb-entity wandb-exp-name
    wandb-save-dir timing-log-level timing-log-option logging-level profile-step-start
    profile-step-end profile-ranks memory-snapshot-path distributed-backend
    distributed-timeout-minutes local-rank seed rotary-base rotary-percent rotary-scaling-factor
    rotary-seq-len-interpolation-factor rope-scaling-factor original-max-position-embeddings
    mscale mscale-all-dim beta-fast beta-slow norm-epsilon layernorm-epsilon
    fp16-lm-cross-entropy fp8-margin fp8-interval fp8-amax-history-len fp8-amax-compute-algo
    fp8-num-layers-at-start-in-bf16 moe-aux-loss-coeff moe-z-loss-coeff
    moe-router-topk-scaling-factor moe-router-bias-update-rate moe-input-jitter-eps
    moe-router-score-function moe-router-load-balancing-type mtp-loss-scaling-factor
    manual-gc-interval decoder-seq-length sample-rate attention-mask-type rope-type
    dataloader-type mask-prob short-seq-prob error-injection-rate error-injection-type
    rerun-mode straggler-ctrlr-port straggler-minmax-count head-lr-mult no-rope-freq
    check-weight-hash-across-dp-replicas-interval replication-jump replication-factor
    moe-extended-tp log-memory-interval iterations-to-skip mid-level-dataset-surplus eod-token
    pad-token hf-tokenizer-path export-legacy-megatron cache-dir legacy-tokenizer
    glu-linear-offset activation-func-clamp-value moe-apply-probs-on-input
    """
)
"""Arguments with values."""

REASONS = {
    "moe-router-load-balancing-type": "it moves the loss; how even loads are: see routing.load",
    "moe-router-score-function": "a few operations per token and expert",
    "moe-router-enable-expert-bias": "it moves the choice; loads stand in routing.load",
    "fp8-interval": "scales are read once a step or product: see training.fp8_recipe",
    "accumulate-allreduce-grads-in-fp32": "training.optimizer.gradient_dtype: fp32 is the default",
    "use-rotary-position-embeddings": "positions without parameters",
    "attention-dropout": "dropout is left out of the kernels' time",
    "hidden-dropout": "dropout is left out of the kernels' time",
}
"""What to say of the ones that look as if they mattered."""
