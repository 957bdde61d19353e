//! The proof's guest programs, in assembly. Their counts are written down in `replay::proof::spec`, from these listings;
//! a change here is a change there.
//!
//! All run in 64-bit mode at [`CODE`], identity-mapped, with R8 = [`DATA`], RBX = the loop count and interrupts off, and
//! end in VMCALL. The image begins with a table of offsets: one per stub, then one per handler.

use core::arch::global_asm;
use replay::proof::Stub;

/// Guest-physical and guest-linear address of the image.
pub const CODE: u64 = 0x10000;
/// The data pages.
pub const DATA: u64 = 0x20000;

/// Stubs in the order of the image's table.
pub const ORDER: [Stub; 21] = [
    Stub::Nothing,
    Stub::Mixed,
    Stub::Taken,
    Stub::NotTaken,
    Stub::Pages,
    Stub::Interruptible,
    Stub::Window,
    Stub::RepMovs,
    Stub::RepMovsBackward,
    Stub::RepStos,
    Stub::RepCompare,
    Stub::RepEdges,
    Stub::SoftwareInterrupts,
    Stub::Syscall,
    Stub::FarTransfers,
    Stub::Faults,
    Stub::PageFaults,
    Stub::Emulated,
    Stub::Shadows,
    Stub::TrapFlag,
    Stub::Halt,
];
/// Vectors of the handlers in the image's table, which follow the stubs and [`Stub::DebugRegisters`].
pub const HANDLERS: [u8; 8] = [0, 1, 3, 6, 13, 14, 0x20, 0x40];

global_asm!(
    r#"
    .pushsection .rodata.proof, "a"
    .balign 4096
    .global proof_image
    .global proof_image_end
proof_image:
    .irp name, nothing, mixed, taken, not_taken, pages, interruptible, window, rep_movs, rep_movs_backward, rep_stos, rep_compare, rep_edges, software_interrupts, syscall, far_transfers, faults, page_faults, emulated, shadows, trap_flag, halt, debug_registers
    .long proof_\name - proof_image
    .endr
    .irp name, skip2, debug, count, skip2, general, page, count, count
    .long proof_handler_\name - proof_image
    .endr
    # Where SYSCALL goes, and the far function.
    .long proof_system_call - proof_image

proof_nothing:
    vmcall

proof_mixed:
1:  add rax, rbx
    test bl, 1
    jz 2f
    inc rsi
2:  mov [r8], rax
    mov rdi, [r8]
    push rdi
    pop rdx
    dec rbx
    jnz 1b
    vmcall

proof_taken:
    xor eax, eax
    lea rdi, [rip + 1f]
    lea rsi, [rip + 9f]
1:  test eax, eax
    jz 2f
    nop
2:  dec rbx
    cmovz rdi, rsi
    jmp rdi
9:  vmcall

proof_not_taken:
    xor eax, eax
    lea rdi, [rip + 1f]
    lea rsi, [rip + 9f]
1:  test eax, eax
    jnz 9f
    dec rbx
    cmovz rdi, rsi
    jmp rdi
9:  vmcall

proof_pages:
1:  mov eax, ebx
    and eax, 15
    shl eax, 12
    add [r8 + rax], rbx
    push rbx
    pop rdx
    call proof_other_page
    dec rbx
    jnz 1b
    vmcall

proof_interruptible:
    sti
    nop
1:  lea rdx, [rbx + rbx]
    xor rax, rdx
    dec rbx
    jnz 1b
    vmcall

proof_window:
1:  cli
    add rax, rbx
    xor rax, rdx
    sti
    nop
    nop
    dec rbx
    jnz 1b
    vmcall

proof_rep_movs:
1:  lea rsi, [r8 + 0x1000 - 24]
    lea rdi, [r8 + 0x3000 - 40]
    lea rcx, [rbx - 1]
    rep movsb
    dec rbx
    jnz 1b
    vmcall

proof_rep_movs_backward:
    std
1:  lea rsi, [r8 + 0x1000 + 24]
    lea rdi, [r8 + 0x3000 + 40]
    lea rcx, [rbx - 1]
    rep movsb
    dec rbx
    jnz 1b
    cld
    vmcall

proof_rep_stos:
1:  lea rdi, [r8 + 0x1000 - 64]
    lea rcx, [rbx - 1]
    rep stosq
    dec rbx
    jnz 1b
    vmcall

proof_rep_compare:
    mov byte ptr [r8 + 0x1000 - 24 + 20], 1
    mov al, 1
1:  lea rsi, [r8 + 0x1000 - 24]
    lea rdi, [r8 + 0x3000 - 40]
    lea rcx, [rbx - 1]
    repe cmpsb
    lea rdi, [r8 + 0x1000 - 24]
    lea rcx, [rbx - 1]
    repne scasb
    dec rbx
    jnz 1b
    vmcall

proof_rep_edges:
1:  lea rsi, [r8 + 0x1000 - 8]
    lea rdi, [r8 + 0x3000 - 8]
    xor ecx, ecx
    rep movsb
    mov ecx, 1
    rep stosb
    xor ecx, ecx
    repe cmpsb
    mov ecx, 1
    rep lodsb
    dec rbx
    jnz 1b
    vmcall

proof_software_interrupts:
1:  int 0x40
    int3
    dec rbx
    jnz 1b
    vmcall

proof_syscall:
    mov r11d, 2
    lea rcx, [rip + 1f]
    sysretq
1:  syscall
    dec rbx
    jnz 1b
    vmcall
proof_system_call:
    inc r12
    sysretq

    # Far pointers of 16:32; the image lies below 4 GiB.
proof_far_transfers:
    lea rax, [rip + proof_far_function]
    mov [r8 + 0x40], eax
    mov word ptr [r8 + 0x44], 0x38
    lea rax, [rip + 3f]
    mov [r8 + 0x48], eax
    mov word ptr [r8 + 0x4c], 0x08
    lea r14, [rip + 2f]
    mov r13d, 0x38
1:  call fword ptr [r8 + 0x40]
    push r13
    push r14
    retfq
2:  jmp fword ptr [r8 + 0x48]
3:  dec rbx
    jnz 1b
    vmcall
proof_far_function:
    inc rdi
    .byte 0xCB          # RETF, 32-bit operands, as the call

proof_faults:
    xor ecx, ecx
    movabs r14, 0x8000000000000000
1:  ud2
    mov [r14], rax
    div ecx
    dec rbx
    jnz 1b
    vmcall

proof_page_faults:
    mov r15d, 0x1FF000
    mov r13d, 0x4FF8
1:  mov [r15], rbx
    and qword ptr [r13], -2
    invlpg [r15]
    dec rbx
    jnz 1b
    vmcall

proof_emulated:
    mov r12, rbx
1:  xor eax, eax
    cpuid
    out 0x80, al
    dec r12
    jnz 1b
    vmcall

proof_shadows:
    mov eax, ss
1:  sti
    nop
    cli
    mov ss, eax
    nop
    add rdx, rbx
    dec rbx
    jnz 1b
    vmcall

proof_trap_flag:
    pushfq
    or qword ptr [rsp], 0x100
    popfq
1:  dec rbx
    jnz 1b
    pushfq
    and qword ptr [rsp], -0x101
    popfq
    vmcall

proof_halt:
1:  sti
    hlt
    dec rbx
    jnz 1b
    vmcall

proof_debug_registers:
    lea rax, [rip + 2f]
    mov dr1, rax
    mov eax, 0x408      # G1, and the bit that is always one
    mov dr7, rax
1:  add rdx, rbx
2:  xor rdx, rax
    dec rbx
    jnz 1b
    xor eax, eax
    mov dr7, rax
    vmcall

proof_handler_count:
    inc qword ptr [r8 + 0xF00]
    iretq
proof_handler_debug:
    bts qword ptr [rsp + 16], 16
    iretq
proof_handler_skip2:
    add qword ptr [rsp], 2
    iretq
proof_handler_general:
    add rsp, 8
    add qword ptr [rsp], 3
    iretq
proof_handler_page:
    add rsp, 8
    or qword ptr [r13], 1
    iretq

    .balign 4096
proof_other_page:
    inc rdi
    ret
proof_image_end:
    .popsection
    "#
);
