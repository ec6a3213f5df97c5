//! The table of a vector kernel from the bodies in `simd`.

/// The functions and the table of [`simd_kernel`].
macro_rules! simd_functions {
    ($label:literal, $enable:tt;
     $( $name:ident in $module:ident ( $($arg:ident : $ty:ty),* ) ; )*) => {
        pub(in crate::kernel) const KERNEL: Kernel =
            Kernel { name: $label, packed_is_faster: false, $( $name, )* };

        $(
            fn $name($($arg: $ty),*) {
                #[target_feature(enable = $enable)]
                fn compiled($($arg: $ty),*) {
                    // SAFETY: compiled for the instructions of these lanes.
                    unsafe { simd::$module::$name::<Vector>($($arg),*) }
                }
                // SAFETY: the table is private to `kernel()`, which hands it out only after
                // detecting the features.
                unsafe { compiled($($arg),*) }
            }
        )*
    };
}

/// Declares `kernel()`, the table of the bodies in `simd` compiled for `$lanes`, if the CPU has
/// what `$cpu` asks for.
macro_rules! simd_kernel {
    ($name:literal, $cpu:ident, $enable:tt, $lanes:ident) => {
        /// The kernel of this module if the CPU can run it.
        pub(super) fn kernel() -> Option<&'static $crate::kernel::Kernel> {
            $crate::kernel::cpu::$cpu().then_some(const { &compiled::KERNEL })
        }

        mod compiled {
            use super::$lanes as Vector;
            use crate::kernel::{ExtendTable, Kernel, NttTable, simd};
            use crate::modulus::Modulus;

            simd_functions! { $name, $enable;
                ntt_forward in ntt_forward(t: &NttTable, a: &mut [f64]);
                ntt_inverse in ntt_inverse(t: &NttTable, a: &mut [f64], constant: f64);
                add in pointwise(m: &Modulus, a: &mut [f64], b: &[f64]);
                sub in pointwise(m: &Modulus, a: &mut [f64], b: &[f64]);
                neg in pointwise(m: &Modulus, a: &mut [f64]);
                mul in pointwise(m: &Modulus, a: &mut [f64], b: &[f64]);
                mul_to in pointwise(m: &Modulus, dst: &mut [f64], a: &[f64], b: &[f64]);
                mul_add in pointwise(m: &Modulus, acc: &mut [f64], a: &[f64], b: &[f64]);
                mul_scalar in pointwise(m: &Modulus, a: &mut [f64], w: f64);
                mul_scalar_add in pointwise(m: &Modulus, acc: &mut [f64], a: &[f64], w: f64);
                rsub_mul_scalar in pointwise(m: &Modulus, dst: &mut [f64], a: &[f64], w: f64);
                reduce in pointwise(m: &Modulus, dst: &mut [f64], src: &[f64]);
                permute in pointwise(dst: &mut [f64], src: &[f64], index: &[u32]);
                extend in extend(t: &ExtendTable, src: &[&[f64]], dst: &mut [&mut [f64]]);
                inner_product2 in inner(
                    m: &Modulus, acc0: &mut [f64], acc1: &mut [f64],
                    digits: &[&[f64]], key0: &[&[f64]], key1: &[&[f64]]
                );
                inner_product_packed in packed(
                    m: &Modulus, acc0: &mut [f64], acc1: &mut [f64], digits: &[&[f64]], keys: &[&[u8]]
                );
            }
        }
    };
}
