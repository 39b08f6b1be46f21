"""TernGrad: gradients of three values, two bits each, between the workers of a data-parallel training.

`ternarize` one tensor; `exchange` a step of all workers, over a `channel`: `wire` (processes) or virtual ones;
`hook`, `virtual` and `optimizer` are the three ways to use it; `train` trains with torchrun.

Source: TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning (Wen et al., NIPS 2017).
"""
