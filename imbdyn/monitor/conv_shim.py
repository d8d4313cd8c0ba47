import torch
import torch.nn.functional as F
from imbdyn.ops import ClassGram


def class_gradients_conv(input, grad_output, labels, num, kernel, *, stride, padding, dilation, groups):
    if any(a != b for a, b in padding):
        input = F.pad(input, [p for pair in reversed(padding) for p in pair])
        pads = [0] * len(kernel)
    else:
        pads = [a for a, _ in padding]
    weight = input.new_empty(grad_output.shape[1], input.shape[1] // groups, *kernel)
    out = []
    for g in range(num):
        idx = (labels == g).nonzero()[:, 0]
        if not len(idx):
            out.append(torch.zeros_like(weight))
            continue
        out.append(torch.ops.aten.convolution_backward(grad_output[idx], input[idx], weight, None, list(stride), pads,
            list(dilation), False, [0] * len(kernel), groups, [False, True, False])[1])
    return torch.stack(out)


def class_gram_conv(input, grad_output, labels, num, kernel, **k):
    g = class_gradients_conv(input, grad_output, labels, num, kernel, **k).flatten(1).double()
    return ClassGram(g @ g.T, g.new_full((num,), torch.nan))
