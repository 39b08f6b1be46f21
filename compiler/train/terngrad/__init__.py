"""Gradients of few bits between the workers of a data-parallel training: TernGrad, 1-bit SGD, torch's own.

`ternarize` one tensor; `exchange` a step of all workers, over a `channel`: `wire` (processes) or virtual ones;
`hook`, `virtual` and `optimizer` are the three ways to use it; `train` trains with torchrun. `onebit` is 1-bit SGD over
the same channels, `methods` the ways of exchanging that a recipe can name, `trial` a comparison of them.

Source: TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning (Wen et al., NIPS 2017).
"""
