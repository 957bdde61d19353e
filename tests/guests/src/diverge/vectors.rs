//! The state of FPU, SSE and AVX, kept by an interrupt's handler that uses them itself.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use super::{Leaf, Operands, storm, trail};
use crate::traps::Frame;
use crate::{cpu, exits};

breakable!(
    x87,
    "sub rsp, 16",
    "fninit",
    "fldpi",
    "fldl2e",
    "fldz",
    "2: mov [rsp], rcx",
    "fild qword ptr [rsp]",
    "fld1",
    "fdivrp st(1), st",
    "faddp st(1), st",
    "fld st(1)",
    "fsqrt",
    "faddp st(1), st",
    "dec rcx",
    "jnz 2b",
    "fstp tbyte ptr [rsp]",
    "mov rax, [rsp]",
    "movzx rbx, word ptr [rsp + 8]",
    "fstp st(0)",
    "fstp tbyte ptr [rsp]",
    "xor rax, [rsp]",
    "add rsp, 16"
);
breakable!(
    sse,
    "push 0x1f80",
    "xorps xmm7, xmm7",
    "xorps xmm6, xmm6",
    "2: cvtsi2sd xmm0, rcx",
    "sqrtsd xmm1, xmm0",
    "addsd xmm7, xmm1",
    "divsd xmm1, xmm7",
    "addpd xmm6, xmm1",
    "shufpd xmm6, xmm6, 1",
    "xor dword ptr [rsp], 0x2000",
    "ldmxcsr [rsp]",
    "dec rcx",
    "jnz 2b",
    "movq rax, xmm7",
    "movq rbx, xmm6",
    "mov dword ptr [rsp], 0x1f80",
    "ldmxcsr [rsp]",
    "pop rdx",
    "xor rdx, rdx"
);
breakable!(
    avx,
    "vxorps ymm7, ymm7, ymm7",
    "vxorps ymm6, ymm6, ymm6",
    "vxorps xmm0, xmm0, xmm0",
    "2: vcvtsi2sd xmm0, xmm0, rcx",
    "vinsertf128 ymm1, ymm0, xmm7, 1",
    "vsqrtpd ymm2, ymm1",
    "vaddpd ymm7, ymm7, ymm2",
    "vpermilpd ymm7, ymm7, 5",
    "vperm2f128 ymm6, ymm6, ymm7, 3",
    "vaddpd ymm7, ymm7, ymm6",
    "vmulpd ymm7, ymm7, ymm3",
    "vaddpd ymm3, ymm3, ymm2",
    "vdivpd ymm3, ymm2, ymm3",
    "dec rcx",
    "jnz 2b",
    "vextractf128 xmm0, ymm7, 1",
    "vmovq rax, xmm0",
    "vmovq rbx, xmm7",
    "vmovq rdx, xmm3",
    "vzeroall"
);

#[repr(C, align(64))]
struct Area(UnsafeCell<[u64; 128]>);
// SAFETY: only the handler uses it, with interrupts kept out.
unsafe impl Sync for Area {}
static AREA: Area = Area(UnsafeCell::new([0; 128]));

/// Saves everything at RDI, makes a mess of it, gives it back: as a kernel that changes tasks.
#[unsafe(naked)]
extern "C" fn use_all(_area: *mut u64) -> u64 {
    naked_asm!(
        "mov eax, 7",
        "xor edx, edx",
        "xsave [rdi]",
        "vmovq r8, xmm7",
        "fninit",
        "fldl2t",
        "fldl2t",
        "vzeroall",
        "vpcmpeqd xmm5, xmm5, xmm5",
        "vmovups xmm7, xmm5",
        "push 0x5f80",
        "ldmxcsr [rsp]",
        "add rsp, 8",
        "mov eax, 7",
        "xor edx, edx",
        "xrstor [rdi]",
        "mov rax, r8",
        "ret",
    )
}

fn hook(_: &mut Frame) {
    trail::add(use_all(AREA.0.get().cast()));
    // A word of the x87's state: its tag word and last instruction.
    // SAFETY: the area is the handler's, which this is.
    trail::add(unsafe { (*AREA.0.get())[0] } & 0xffff_ffff);
}

/// Sums of reciprocals and square roots, in each of the three.
pub fn all() -> u64 {
    const XSAVE: u64 = 1 << 9 | 1 << 10 | 1 << 18;
    exits::set_cr4(cpu::cr4() | XSAVE).expect("CR4");
    exits::xsetbv(7).expect("AVX");
    // SAFETY: no exception of the FPU is let out; CR0.MP alone would do.
    unsafe { asm!("fninit", options(nostack)) };
    storm::set_hook(Some(hook));
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        for leaf in [x87 as Leaf, sse, avx] {
            let mut io: Operands = [0, 0, 20_000 + round, 0, 0, 0, 0, 0, 0, 0];
            leaf(io.as_mut_ptr());
            result = io[..4].iter().fold(result, |hash, &word| trail::mix(hash, word));
        }
    }
    storm::set_hook(None);
    result
}
