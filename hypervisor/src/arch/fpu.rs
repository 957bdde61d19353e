//! The guest's x87, SSE and AVX state. The kernel has no such code, so the state stays in the processor while the guest is
//! loaded, host or not; here it goes to memory and back when another guest comes, or somebody wants to look at it.

use super::physical::Pages;
use crate::memory::OutOfFrames;
use core::arch::asm;
use raw_cpuid::CpuId;
use raw_cpuid::native_cpuid::cpuid_count;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

/// XCR0 after reset: x87.
pub const XCR0_RESET: u64 = 1;

/// Components that every processor with XSAVE has: x87 and SSE.
const LEGACY: u64 = 3;

/// MXCSR after reset, and where it is in the area.
const MXCSR_RESET: u32 = 0x1f80;
const MXCSR_AT: usize = 24;
/// The x87 control word after FNINIT, at the area's start.
const CONTROL_WORD: u16 = 0x37f;

/// Lets this processor execute XSAVE, XRSTOR and XSETBV, or at least FXSAVE and FXRSTOR.
pub fn init() {
    let has_xsave = has_xsave();
    // SAFETY: the kernel has no code that CR0.MP, EM, TS or these bits of CR4 mean anything to but what is below. OSXSAVE is set
    // only where CPUID has XSAVE; SSE, and with it the other two, is part of every processor with 64-bit mode.
    unsafe {
        Cr0::update(|cr0| {
            cr0.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            cr0.insert(Cr0Flags::MONITOR_COPROCESSOR);
        });
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
            cr4.set(Cr4Flags::OSXSAVE, has_xsave);
        });
    }
}

fn has_xsave() -> bool {
    CpuId::new().get_feature_info().is_some_and(|features| features.has_xsave())
}

/// The components that XCR0 may enable on this processor; 0 where there is no XSAVE.
pub fn supported() -> u64 {
    if !has_xsave() {
        return 0;
    }
    let leaf = cpuid_count(0xd, 0);
    u64::from(leaf.edx) << 32 | u64::from(leaf.eax)
}

/// Loads XCR0. Nothing where there is no XSAVE.
///
/// # Panics
/// The value is none that this processor takes: it enables a component that is not there, or no x87.
pub fn set_xcr0(value: u64) {
    let supported = supported();
    if supported == 0 {
        return;
    }
    assert!(value & !supported == 0 && value & XCR0_RESET != 0, "XCR0 {value:#x} of {supported:#x}");
    // SAFETY: CR4.OSXSAVE is set (`init`, and every host state since). The components are there, and the rules among them are
    // kept: the values come from `machine::cpu::registers::write_xcr`, or name all components of a profile.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nomem, nostack, preserves_flags));
    }
}

/// A guest's x87, SSE and AVX state at rest: a standard XSAVE area in a page of its own.
#[derive(Debug)]
pub struct FpuState {
    area: Pages,
}

impl FpuState {
    /// As after reset.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> Result<Self, OutOfFrames> {
        let mut this = Self { area: Pages::one()? };
        this.reset();
        Ok(this)
    }

    /// As after reset.
    pub fn reset(&mut self) {
        let bytes = self.area.bytes_mut();
        bytes.fill(0);
        bytes[..2].copy_from_slice(&CONTROL_WORD.to_le_bytes());
        bytes[MXCSR_AT..MXCSR_AT + 4].copy_from_slice(&MXCSR_RESET.to_le_bytes());
    }

    /// Makes it a copy of another.
    pub fn copy_from(&mut self, other: &Self) {
        self.area.bytes_mut().copy_from_slice(other.area.bytes());
    }

    /// The area, as XSAVE has left it.
    pub fn bytes(&self) -> &[u8] {
        self.area.bytes()
    }

    /// Puts these components into the processor, and XCR0 after them. XCR0 may be less: state of a component that it has switched
    /// off is kept all the same.
    pub fn load(&self, components: u64, xcr0: u64) {
        let area = self.area.bytes().as_ptr();
        if supported() == 0 {
            // SAFETY: CR4.OSFXSR is set; the area is a page, aligned, and was written by FXSAVE64 or `reset`.
            unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
            return;
        }
        let mask = components | LEGACY;
        set_xcr0(mask);
        // SAFETY: 1. XSAVE is on. 2. The area is a page, which all components that profiles have fit into, and aligned. 3. Its
        // header is what XSAVE64 or `reset` has written, so no reserved bit is set. 4. The kernel has no state in the registers.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                options(nostack, preserves_flags));
        }
        set_xcr0(xcr0);
    }

    /// Takes these components out of the processor. XCR0 is the host's afterwards.
    pub fn save(&mut self, components: u64) {
        let area = self.area.bytes_mut().as_mut_ptr();
        if supported() == 0 {
            // SAFETY: CR4.OSFXSR is set; the area is a page of ours, aligned.
            unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
            return;
        }
        let mask = components | LEGACY;
        set_xcr0(mask);
        // SAFETY: XSAVE is on; the area is a page of ours, which all components that profiles have fit into, and aligned.
        unsafe {
            asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
                options(nostack, preserves_flags));
        }
        set_xcr0(XCR0_RESET);
    }
}
