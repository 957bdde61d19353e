//! The processor that the guest sees, as data and pure functions: what CPUID and the MSRs say, which control-register
//! values it takes.

pub mod debug;
pub mod features;
pub mod msr;
pub mod mtrr;
pub mod profile;
pub mod registers;

pub use features::Level;
pub use msr::Msrs;
pub use profile::Profile;
pub use registers::{GeneralProtection, Limits};

/// What CPUID's answers depend on besides the leaf: bits that the guest has set in its control registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CpuView {
    /// CR4. OSXSAVE and PKE are seen in CPUID; bits that the host owns are not looked at.
    pub cr4: u64,
    /// XCR0: leaf 0Dh gives the size of what it enables.
    pub xcr0: u64,
}
