// The kernels for one instruction set. Compiled with -mavx2 -mfma: nothing that another file could link to may come
// from here but the table, so all it includes has internal linkage, and it uses no inline function of the standard
// library.
#include "cpu/class_logits_kernel.h"
#include "cpu/class_moments_in_order_kernel.h"
#include "cpu/class_moments_kernel.h"
#include "cpu/class_products_kernel.h"
#include "cpu/norm_gradients_kernel.h"
#include "cpu/parameter_norms_kernel.h"

namespace imbdyn {

extern const Kernels kAvx2Kernels = {
    {class_moments_kernel<double>, class_moments_kernel<float>, class_moments_kernel<Bfloat16>,
     class_moments_kernel<Float16>},
    {nullptr, class_moments_in_order<float>, class_moments_in_order<Bfloat16>, class_moments_in_order<Float16>},
    {class_logits_kernel<double>, class_logits_kernel<float>, class_logits_kernel<Bfloat16>,
     class_logits_kernel<Float16>},
    parameter_norms_kernel,
    channel_moments_kernel,
    norm_rows_kernel,
    kVectorBytes,
    {class_products_kernel<false, double>, class_products_kernel<false, float>},
    {class_products_kernel<true, double>, class_products_kernel<true, float>},
    {row_dots_kernel<double>, row_dots_kernel<float>},
    {pack_lines_kernel<double>, pack_lines_kernel<float>, pack_lines_kernel<Bfloat16>, pack_lines_kernel<Float16>},
    {copy_lines_kernel<double>, copy_lines_kernel<float>, copy_lines_kernel<Bfloat16>, copy_lines_kernel<Float16>},
};

}  // namespace imbdyn
