//! VM entry and the way back: the guest's general registers and CR2 are swapped by hand, everything else by the VMCS.
//! The kernel has no FPU code, so the guest's FPU state stays in the registers.

use core::arch::global_asm;
use vmx::errors::{InstructionError, VmFail};
use vmx::fields::{self, VmcsRead};
use vmx::instructions::CurrentVmcs;

/// The guest's registers that no VMCS field holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// General registers by their number in instructions: RAX, RCX, RDX, RBX, (RSP: in the VMCS), RBP, RSI, RDI, R8-R15.
    pub gpr: [u64; 16],
    /// CR2.
    pub cr2: u64,
    /// The host's RSP that the VMCS holds; 0 = none yet.
    host_rsp: u64,
}

impl Registers {
    /// Number of RAX.
    pub const RAX: usize = 0;
    /// Number of RCX.
    pub const RCX: usize = 1;
    /// Number of RDX.
    pub const RDX: usize = 2;
    /// Number of RBX.
    pub const RBX: usize = 3;

    /// EDX:EAX as one value.
    pub const fn edx_eax(&self) -> u64 {
        (self.gpr[Self::RDX] & 0xffff_ffff) << 32 | self.gpr[Self::RAX] & 0xffff_ffff
    }
    /// Sets EDX:EAX; the upper halves become 0, as 32-bit writes make them.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.gpr[Self::RAX] = value & 0xffff_ffff;
        self.gpr[Self::RDX] = value >> 32;
    }
    /// Forgets the host's RSP: the VMCS is a new one.
    pub const fn forget_host(&mut self) {
        self.host_rsp = 0;
    }
}

global_asm!(
    r#"
    .text
    .balign 64
    .type vm_enter, @function
.global vm_enter
vm_enter:                       # rdi = registers, esi = launched already; returns 0, or 1 (CF) or 2 (ZF)
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    cmp rsp, [rdi + 136]
    je 2f
    mov [rdi + 136], rsp
    mov eax, {host_rsp}
    vmwrite rax, rsp
2:
    mov rax, [rdi + 128]
    mov rcx, cr2
    cmp rax, rcx
    je 3f
    mov cr2, rax
3:
    test esi, esi
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
    jne 4f
    vmlaunch
    jmp 5f
4:
    vmresume
5:
    mov eax, 1
    jc 6f
    mov eax, 2
    jmp 6f

    .balign 64
.global vm_exit
vm_exit:                        # HOST_RIP: RSP is as at the entry, so its top is the registers' address
    xchg rdi, [rsp]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov rax, [rsp]
    mov [rdi + 56], rax
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    mov rax, cr2
    mov [rdi + 128], rax
    xor eax, eax
6:
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    .size vm_enter, . - vm_enter
"#,
    host_rsp = const fields::HOST_RSP.encoding(),
);

unsafe extern "C" {
    fn vm_enter(registers: *mut Registers, launched: u32) -> u32;
    static vm_exit: u8;
}

/// What HOST_RIP must be.
pub fn exit_address() -> u64 {
    (&raw const vm_exit).addr() as u64
}

/// One VM entry into the current VMCS and the exit from it. Interrupts are off before and after.
///
/// # Errors
/// VMfail: the guest was not entered.
#[inline]
pub fn enter(vmcs: &mut CurrentVmcs, registers: &mut Registers, launched: bool) -> Result<(), VmFail> {
    // SAFETY: 1. `vmcs` is the current one of this processor, exclusively borrowed. 2. Its host state is this kernel's
    // (vmm::setup): HOST_RIP is vm_exit, the segments and tables are the loaded ones, so an exit comes back here with
    // everything but the registers saved above as it was. 3. Guest memory is reached only through EPT tables that map
    // frames set aside for that guest.
    let outcome = unsafe { vm_enter(registers, u32::from(launched)) };
    match outcome {
        0 => Ok(()),
        1 => Err(VmFail::Invalid),
        _ => Err(VmFail::Valid(InstructionError(vmcs.read(fields::VM_INSTRUCTION_ERROR)))),
    }
}

const _: () = {
    assert!(core::mem::offset_of!(Registers, gpr) == 0);
    assert!(core::mem::offset_of!(Registers, cr2) == 128);
    assert!(core::mem::offset_of!(Registers, host_rsp) == 136);
};
