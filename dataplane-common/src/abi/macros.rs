//! The macro that makes a type fit for a map.

/// Every bit pattern is a valid value and there is no padding, so a value may cross the user/kernel border.
///
/// # Safety
/// Implementors must be `repr(C)` or a primitive, hold no padding and accept every bit pattern.
#[expect(
    unsafe_code,
    reason = "the ABI module is one of the three places where `unsafe` may stand"
)]
pub unsafe trait Plain: Copy + 'static {}

macro_rules! plain {
    ($($t:ty),+) => {$(
        // SAFETY: an integer has no padding and no invalid bit pattern.
        #[expect(unsafe_code, reason = "see `Plain`")]
        unsafe impl Plain for $t {}
    )+};
}
plain!(u8, u16, u32, u64);

// SAFETY: an array has no padding between elements, and its elements accept every bit pattern.
#[expect(unsafe_code, reason = "see `Plain`")]
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Declares a map key or value: `repr(C)`, every field [`Plain`], total size asserted, padding refused.
macro_rules! abi_struct {
    ($(#[$meta:meta])* pub struct $name:ident = $size:literal {
        $($(#[$field_meta:meta])* pub $field:ident : $ty:ty),+ $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),+ }

        const _: () = {
            const fn size_if_plain<T: $crate::abi::Plain>() -> usize { core::mem::size_of::<T>() }
            assert!(core::mem::size_of::<$name>() == $size, "ABI size changed: bump ABI_VERSION");
            assert!(0 $(+ size_if_plain::<$ty>())+ == $size, "implicit padding");
        };

        // SAFETY: repr(C); every field is Plain (checked above); the field sizes add up to the struct's size, so
        // there is no padding.
        #[expect(unsafe_code, reason = "see `Plain`")]
        unsafe impl $crate::abi::Plain for $name {}

        // SAFETY: the same argument: aya's Pod asks for exactly what Plain promises.
        #[cfg(all(feature = "user", not(target_arch = "bpf")))]
        #[expect(unsafe_code, reason = "see `Plain`")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use abi_struct;
