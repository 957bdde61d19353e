//! The XMM registers, lent by the guest whose they are.
//!
//! The kernel is compiled without SSE, and a guest's registers stay in the processor while the host runs. The few functions that need
//! them ([`super::gcm`]) borrow them here. XSAVE and XRSTOR, and not plain moves, because a guest can see more than the values:
//! XSAVE of its own tells whether a component is in its initial configuration (XINUSE, SDM vol. 1, 13.6), and that must not depend on
//! when its host has encrypted something.

use core::arch::asm;
use core::mem::MaybeUninit;
use x86_64::registers::control::{Cr4, Cr4Flags};

/// SSE's bit in XCR0.
const SSE: u32 = 2;

/// x87's, which is always set, and SSE's.
const WITH_SSE: u32 = 3;

/// What XSAVE writes for SSE and the header, or FXSAVE: the rest of the legacy area is left alone.
#[repr(C, align(64))]
struct Area {
    legacy: MaybeUninit<[u8; 512]>,
    header: [u64; 8],
}

/// Calls the function, which may use XMM registers by inline assembly, and nothing else of SSE; MXCSR is the guest's meanwhile.
/// Where the guest's XCR0 has no SSE, it has for that time. It must not be called from within itself, which is why `gcm` alone has
/// it; interrupt handlers are compiled without SSE like everything else.
#[inline]
pub(super) fn lend<R>(act: impl FnOnce() -> R) -> R {
    let mut area = Area { legacy: MaybeUninit::uninit(), header: [0; 8] };
    let at = &raw mut area;
    if !Cr4::read().contains(Cr4Flags::OSXSAVE) {
        // SAFETY: CR4.OSFXSR is set (`fpu::init`) on a processor that enters guests, and in the kernel before that none of its state
        // matters; the area is aligned and 512 bytes.
        unsafe { asm!("fxsave64 [{}]", in(reg) at, options(nostack, preserves_flags)) };
        let result = act();
        // SAFETY: as above; the area is what FXSAVE64 has written.
        unsafe { asm!("fxrstor64 [{}]", in(reg) at, options(nostack, preserves_flags)) };
        return result;
    }
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    let lacks = low & SSE == 0;
    if lacks {
        set_xcr0(low | WITH_SSE, high);
    }
    // SAFETY: XSAVE is on, and SSE enabled; the area is aligned, as long as a standard area without extended components, and no other
    // component is asked for.
    unsafe {
        asm!("xsave64 [{}]", in(reg) at, in("eax") SSE, in("edx") 0, options(nostack, preserves_flags));
    }
    let result = act();
    // SAFETY: as above; the header was zero but for what XSAVE64 has set.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) at, in("eax") SSE, in("edx") 0, options(nostack, preserves_flags));
    }
    if lacks {
        set_xcr0(low, high);
    }
    result
}

#[cold]
fn set_xcr0(low: u32, high: u32) {
    // SAFETY: CR4.OSXSAVE is set; the value is what XCR0 was, or has x87 and SSE besides, which every processor with XSAVE has. AVX
    // is not set where SSE was not.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack, preserves_flags));
    }
}
