"""What the processes that tests start have in common."""

# Without optimisation, and without the fusion emitters of newer versions of XLA, whose code takes
# twice as long to compile; versions that do not know the second option ignore it.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0 "
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
)
