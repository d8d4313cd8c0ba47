"""One call of class_gram in Triton: its results, and the launches of its plan."""

from __future__ import annotations

import torch
from torch import Tensor

from imbdyn.ops.class_gram.order import ClassOrder
from imbdyn.ops.class_gram.triton_choice import FREE, Forced
from imbdyn.ops.class_gram.triton_convolution import ROWS, Geometry, Operand
from imbdyn.ops.class_gram.triton_plan import ONE, Call, Direct, Part, plan_of, precision_of


class Problem:
    """Rows in class order, where each sample has L of them, or a convolution's places."""

    def __init__(
        self,
        inputs: Operand,
        grads: Operand,
        length: int,
        order: ClassOrder,
        sample_norms: bool,
        bias: bool,
        geometry: Geometry = ROWS,
        forced: Forced = FREE,
    ) -> None:
        """Take inputs [S, L, I] (of a convolution its images) and grads [S, L, O]; results are made by `run`."""
        self.inputs, self.grads, self.order = inputs.tensor, grads.tensor, order
        dtype, device = inputs.tensor.dtype, grads.tensor.device
        self.call = Call(
            inputs.lies, grads.lies, len(order.samples), length, order.classes, dtype, precision_of(dtype),
            sample_norms, bias, order.unit is not None, device, geometry, forced,
        )  # fmt: skip
        self.plan = plan_of(self.call)
        self.made, results = _results(order.classes, 2 if bias else 1, device)
        self.gram, self.norm, self.bias_gram, self.bias_norm = *results[:2], *results[-2:]

    def results(self) -> tuple[Tensor, ...]:
        """Return gram and norms of the weight, and of the bias if it was wanted."""
        weight = self.gram, self.norm
        return (*weight, self.bias_gram, self.bias_norm) if self.call.bias else weight

    def run(self) -> None:
        """Launch what the plan says."""
        plan = self.plan
        if plan.direct is not None:
            self._direct(plan.direct)
        else:
            self.made.zero_()
            if plan.pairs is not None:
                plan.pairs(*self._of_pairs(self.inputs, self.grads))
        if self.call.bias and plan.pairs is None:
            self._bias()
        if not self.call.norms:
            for norm in self.results()[1::2]:
                norm.fill_(torch.nan)

    def _of_pairs(self, inputs: Tensor, grads: Tensor) -> tuple[Tensor, ...]:
        order = self.order
        return (
            inputs, grads, order.samples, order.labels, order.rank, order.label_of_rank, order.unit_or_samples,
            order.counted, self.gram, self.norm, self.bias_gram, self.bias_norm,
        )  # fmt: skip

    def _direct(self, direct: Direct) -> None:
        inputs, grads, order = self.inputs, self.grads, self.order
        chunks = order.chunks(direct.chunk)
        scratch = torch.empty(direct.scratch, dtype=torch.float32, device=grads.device)
        if direct.add:  # of one type with the results: one kernel clears both
            torch._foreach_zero_([self.made, scratch.view(torch.float64)])
        else:
            self.made.zero_()
        where = chunks.rank if direct.add else chunks.number
        for part in direct.parts:
            d = grads
            if part.first:
                d = d.as_strided((1,), (1,), d.storage_offset() + part.first)
            if direct.by_sample:
                part.gradients(
                    inputs, d, order.samples, chunks.begin, chunks.end, where, chunks.label, chunks.used, scratch,
                    self.norm,
                )  # fmt: skip
            else:
                x_index, d_index = order.index(direct.inputs_index), order.index(direct.grads_index)
                part.gradients(inputs, d, x_index, d_index, chunks.begin, chunks.end, where, chunks.used, scratch)
            label, used = (order.label_of_rank, order.present) if direct.add else (chunks.label, chunks.used)
            self._add_slots(part, scratch, label, used)
        if direct.row_norms is not None:
            x_index, d_index = order.index(direct.inputs_index), order.index(direct.grads_index)
            direct.row_norms(inputs, grads, x_index, d_index, order.labels, order.counted, self.norm)
        elif direct.within is not None:
            unit = order.unit_or_samples
            direct.within(
                inputs, grads, order.samples, order.labels, order.rank, unit, order.counted, self.norm, self.norm
            )

    def _add_slots(self, part: Part, scratch: Tensor, label: Tensor, used: Tensor) -> None:
        part.products(scratch, label, used, self.gram)

    def _bias(self) -> None:
        """Add the bias's numbers from its samples' gradients, sums of rows; units are no neighbours, and take pairs."""
        call, d = self.call, self.grads
        lies = call.grads
        if self.plan.direct is not None and call.length > 1 and not call.units:
            shape = (call.samples, call.length, call.outputs)
            d = d.as_strided(shape, (lies.sample, lies.row, 1)).sum(1, dtype=torch.float32)
            lies = Operand.of(d, call.outputs, call.outputs, call.outputs).lies
        if self.plan.of_bias is not None:
            self.plan.of_bias(*self._of_pairs(d, d))
        elif call.samples and call.outputs and call.length:
            one = torch.ones(1, dtype=d.dtype, device=d.device)
            of_bias = Problem(Operand(one, ONE), Operand(d, lies), 1, self.order, call.norms, bias=False)
            of_bias.run()
            self.bias_gram, self.bias_norm = of_bias.gram, of_bias.norm


def _results(classes: int, parameters: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return the memory of gram [C, C] and norms [C] of each parameter, cleared in one go, and these."""
    size = classes * classes + classes % 2  # all begin at a multiple of 16 bytes
    step = size + classes + classes % 2
    made = torch.empty(parameters * step, dtype=torch.float64, device=device)
    results = []
    for first in range(0, parameters * step, step):
        results.append(made.as_strided((classes, classes), (classes, 1), first))
        results.append(made.as_strided((classes,), (1,), first + size))
    return made, results
