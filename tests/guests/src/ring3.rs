//! Ring 3: what SYSCALL, INT 42h and a fault need to come back, and code that runs there.

use core::{arch::naked_asm, cell::UnsafeCell};

use crate::{
    boot::MAX_CPUS,
    cpu,
    traps::{self, Fault, USER_CS, USER_SS},
};

/// Vector by which ring-3 code goes back to ring 0.
pub const LEAVE_VECTOR: u8 = 0x42;
/// Bytes of the stack that interrupts from ring 3 use.
const RSP0_BYTES: usize = 16 * 1024;

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const FMASK: u32 = 0xc000_0084;

#[repr(align(16))]
struct Stacks(UnsafeCell<[[u8; RSP0_BYTES]; MAX_CPUS]>);
// SAFETY: only the processors use it as stacks, each its own.
unsafe impl Sync for Stacks {}
static STACKS: Stacks = Stacks(UnsafeCell::new([[0; RSP0_BYTES]; MAX_CPUS]));

/// Sets RSP0, SYSCALL and the way back of this processor.
pub fn init() {
    let top = STACKS.0.get() as u64 + ((traps::cpu_number() + 1) * RSP0_BYTES) as u64;
    // SAFETY: a stack of this processor alone; the routines follow what their gates and SYSCALL demand.
    unsafe {
        traps::set_rsp0(top);
        traps::set_raw_gate(LEAVE_VECTOR, leave);
        cpu::wrmsr_any(STAR, 0x18 << 48 | 0x08 << 32).expect("STAR");
        cpu::wrmsr_any(LSTAR, syscall as *const () as u64).expect("LSTAR");
        cpu::wrmsr_any(FMASK, 0).expect("FMASK");
    }
}

/// Back to the stack of whoever entered ring 3: drops the interrupt frame and returns.
#[unsafe(naked)]
unsafe extern "C" fn leave() {
    naked_asm!("mov rsp, gs:[{rsp}]", "ret", rsp = const traps::RING0_RSP)
}

#[unsafe(naked)]
unsafe extern "C" fn syscall() {
    naked_asm!("sysretq")
}

/// RDPMC in ring 3 with this ECX, or how the processor refused.
pub fn rdpmc(index: u32) -> Result<u64, Fault> {
    let mut io = [u64::from(index)];
    traps::guarded(rdpmc_leaf, &mut io)?;
    Ok(io[0])
}

#[unsafe(naked)]
extern "C" fn rdpmc_leaf(_io: *mut u64) {
    naked_asm!(
        "mov gs:[{ring0}], rsp",
        "mov rax, rsp",
        "push {ss}", "push rax", "pushfq", "push {cs}",
        "lea rax, [rip + 2f]",
        "push rax",
        "iretq",
        "2:",
        "mov ecx, [rdi]",
        "rdpmc",
        "mov [rdi], eax",
        "mov [rdi + 4], edx",
        "int 0x42",
        ring0 = const traps::RING0_RSP, ss = const USER_SS, cs = const USER_CS,
    )
}
