// The kernels for one instruction set. Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl: nothing that another
// file could link to may come from here but the table, so all it includes has internal linkage, and it uses no inline
// function of the standard library.
#include "cpu/class_logits_kernel.h"
#include "cpu/class_moments_kernel.h"
#include "cpu/parameter_norms_kernel.h"

namespace imbdyn {

extern const Kernels kAvx512Kernels = {
    {class_moments_kernel<double>, class_moments_kernel<float>, class_moments_kernel<Bfloat16>,
     class_moments_kernel<Float16>},
    {class_logits_kernel<double>, class_logits_kernel<float>, class_logits_kernel<Bfloat16>,
     class_logits_kernel<Float16>},
    parameter_norms_kernel,
};

}  // namespace imbdyn
