"""A recurrent highway network: one state that several layers refine at every step. torch has none.

Source: Recurrent Highway Networks (Zilly et al., ICML 2017), equations 6 to 9, with the carry gate tied to the
transform gate (c = 1 − t) as the paper trains it; variational dropout after Gal and Ghahramani (2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RHN"]


class RHN(nn.Module):
    """Recurrent highway layer of depth D: in every time step, for d = 0 … D − 1,

        h = tanh(W_h x [d = 0 only] + R_h s + b_h)
        t = sigmoid(W_t x [d = 0 only] + R_t s + b_t)
        s = s + (h − s) t

    It is called as torch's own recurrent modules of one layer with ``batch_first``: inputs (batch, time, in) and the
    state (1, batch, hidden) or None for zeros give outputs (batch, time, hidden) and the last state.

    Parameters of the module
    ------------------------
    weight_ih : (2 hidden, in), the rows of h before those of t, as torch stacks gates.
    weight_hh_d, bias_d : (2 hidden, hidden) and (2 hidden,) of depth d = 0, 1, …

    Parameters
    ----------
    input_size, hidden_size : widths.
    depth : D, at least 1.
    dropout : share of the inputs, and of the state that goes into the matrices, that is zero while training; the same
        elements in all steps of one call. 0 for none.
    transform_bias : first value of b_t; below zero the state is mostly carried on at first (the paper: −2 for words).
    """  # noqa: D400

    def __init__(
        self, input_size: int, hidden_size: int, depth: int = 3, dropout: float = 0.0, transform_bias: float = -2.0
    ) -> None:
        super().__init__()
        if min(input_size, hidden_size, depth) < 1 or not 0 <= dropout < 1:
            raise ValueError(
                f"an RHN of widths {input_size} and {hidden_size}, depth {depth} and dropout {dropout}; "
                "expected at least 1 each, and dropout from 0 to below 1"
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.depth, self.dropout = depth, dropout
        self.weight_ih = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        for d in range(depth):
            self.register_parameter(f"weight_hh_{d}", nn.Parameter(torch.empty(2 * hidden_size, hidden_size)))
            self.register_parameter(f"bias_{d}", nn.Parameter(torch.empty(2 * hidden_size)))
        self.reset_parameters(transform_bias)

    def reset_parameters(self, transform_bias: float) -> None:
        """Weights uniform within 1/sqrt(hidden), as torch starts its recurrent modules; biases 0 and that of t."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        for d in range(self.depth):
            bias = self.get_parameter(f"bias_{d}")
            nn.init.zeros_(bias[: self.hidden_size])
            nn.init.constant_(bias[self.hidden_size :], transform_bias)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs of all steps and the last state, see above."""
        batch, steps, _ = inputs.shape
        hidden = self.hidden_size
        s = inputs.new_zeros(batch, hidden) if state is None else state[0]
        noise = None
        if self.training and self.dropout:
            inputs = inputs * self._noise(inputs, self.input_size).unsqueeze(1)
            noise = self._noise(inputs, hidden)
        # The part of the inputs is the same product for all steps: one call instead of one a step.
        driven = nn.functional.linear(inputs, self.weight_ih).unbind(1)
        layers = [(getattr(self, f"weight_hh_{d}"), getattr(self, f"bias_{d}")) for d in range(self.depth)]
        outputs = []
        for step in range(steps):
            for d, (weight, bias) in enumerate(layers):
                both = nn.functional.linear(s if noise is None else s * noise, weight, bias)
                if d == 0:
                    both = both + driven[step]
                h, t = both[:, :hidden], both[:, hidden:]
                s = torch.lerp(s, torch.tanh(h).to(s.dtype), torch.sigmoid(t).to(s.dtype))
            outputs.append(s)
        return torch.stack(outputs, 1), s.unsqueeze(0)

    def _noise(self, like: Tensor, width: int) -> Tensor:
        ones = torch.ones(len(like), width, dtype=like.dtype, device=like.device)
        return nn.functional.dropout(ones, self.dropout)

    def extra_repr(self) -> str:
        """What print(module) shows."""
        return f"{self.input_size}, {self.hidden_size}, depth={self.depth}, dropout={self.dropout}"
