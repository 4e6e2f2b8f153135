"""Where the units of a run are computed: in this process, in others beside it, or on a Ray cluster."""
