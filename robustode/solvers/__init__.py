"""Fixed-step solvers, the depth grid of the weights, and the fused sweep that integrates an sNODE both ways."""
