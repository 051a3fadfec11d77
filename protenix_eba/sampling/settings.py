"""Settings of diffusion samplers, and presets of them by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from protenix_eba.core.errors import UserError
from protenix_eba.core.ranges import Ranged

__all__ = ["PRESETS", "SamplerSettings"]


@dataclass(frozen=True)
class SamplerSettings(Ranged):
    """Settings of AlphaFold 3's sampler (Algorithm 18).

    Attributes:
        n_steps: Denoising steps.
        gamma0: Churn: how much noise is added again before each step, while sigma > gamma_min.
            AlphaFold 3 takes 0.8. It corrects errors of the model, and narrows the samples (a
            Gaussian of 4 angstrom by an eighth); 0 solves the probability-flow equation.
        gamma_min: In angstrom.
        noise_scale: lambda, on the added noise; AlphaFold 3 takes 1.003.
        step_scale: eta, on the step; 1 is the Euler step, AlphaFold 3 takes 1.5, which narrows
            the samples.
        s_max: Largest noise level in units of sigma_data, above s_min.
        s_min: Smallest one, above 0.
        rho: Exponent of the schedule, above 0.
        order: 1, Euler's step; or 2, Heun's (Karras et al., 2022, Algorithm 1), which denoises
            twice in a step and needs far fewer steps for the same error.
        sigma_data: In angstrom.
    """

    n_steps: int = 20
    gamma0: float = 0.8
    gamma_min: float = 1.0
    noise_scale: float = 1.0
    step_scale: float = 1.0
    s_max: float = 160.0
    s_min: float = 4e-4
    rho: float = 7.0
    order: int = 1
    sigma_data: float = 16.0

    def __post_init__(self) -> None:
        if self.n_steps < 1:
            raise UserError(f"expected at least 1 denoising step, found {self.n_steps}")
        for name in ("gamma0", "gamma_min", "noise_scale", "step_scale"):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        for name in ("s_min", "rho"):
            self._require(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        self._require("order", self.order in (1, 2), "1 or 2")
        above = self.s_min < self.s_max < math.inf
        self._require("s_max", above, f"a number above s_min, which is {self.s_min}")


PRESETS: Final[dict[str, dict[str, Any]]] = {
    # The sampling script in the EBA authors' repository (lujiarui/eba, sh/sample_demo.sh), run on
    # their released checkpoint: noise_scale_lambda 1.75, step_scale_eta 1.25, N_step 20; gamma0
    # from configs/configs_base.py there. The script's lines for the pre-trained weights, commented
    # out, leave the sampler as it is. Not compared with the paper's text.
    "tuned": {"gamma0": 0.8, "noise_scale": 1.75, "step_scale": 1.25},
    # Abramson et al., Nature 2024, supplement, Algorithm 18; the defaults of Protenix, with 200
    # steps.
    "alphafold3": {"gamma0": 0.8, "noise_scale": 1.003, "step_scale": 1.5},
    # The probability-flow equation (Karras et al., 2022, Eq. 1): with enough steps it samples the
    # model's own distribution, while churn and a step scale other than 1 move populations.
    "exact": {"gamma0": 0.0, "noise_scale": 1.0, "step_scale": 1.0, "order": 2},
}
"""Settings of the sampler by name; the number of steps is no part of them."""
