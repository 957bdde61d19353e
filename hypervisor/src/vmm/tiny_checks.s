# Small guests for checks of single exits. Each is loaded at guest-physical 8000h and leaves what it finds from 600h on.
# 60Ch counts the faults handled; the #GP handler goes on where EDI (RDI) says.
    .section .rodata.tiny_guests, "a"

    # GDT with flat code (8) and data (10h), IDT with handlers for #DB and #GP, of a protected-mode guest.
    .macro tables name
\name\()_gp:
    incl 0x60c
    addl $4, %esp
    movl %edi, (%esp)
    iretl
    .balign 8
\name\()_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
\name\()_gdtr:
    .word 23
    .long \name\()_gdt - \name + 0x8000
    .balign 8
\name\()_idt:
    .quad 0
    .word \name\()_db - \name + 0x8000, 8, 0x8e00, 0
    .fill 11, 8, 0
    .word \name\()_gp - \name + 0x8000, 8, 0x8e00, 0
\name\()_idtr:
    .word 14 * 8 - 1
    .long \name\()_idt - \name + 0x8000
    .endm
    .macro load_tables name
    lgdtl \name\()_gdtr - \name + 0x8000
    lidtl \name\()_idtr - \name + 0x8000
    .endm

    .code32
# ---------------------------------------------------------------- XSETBV: a bad value, a good one, and a YMM register
    guest check_xsetbv
    load_tables check_xsetbv
    movl %cr4, %eax
    orl $0x40200, %eax                            # OSXSAVE, OSFXSR
    movl %eax, %cr4
    xorl %ecx, %ecx
    xorl %edx, %edx
    xgetbv
    movl %eax, 0x600
    movl $5, %eax                                 # AVX without SSE: #GP
    movl $(1f - check_xsetbv + 0x8000), %edi
    xsetbv
1:  movl $7, %eax
    xorl %edx, %edx
    xsetbv
    xgetbv
    movl %eax, 0x604
    vmovdqu check_xsetbv_pattern - check_xsetbv + 0x8000, %ymm1
    hlt
    vmovdqu %ymm1, 0x620                          # once it runs again
    hlt
    jmp .
check_xsetbv_pattern:
    .quad 0x0101010101010101, 0x0202020202020202, 0x0303030303030303, 0x0404040404040404
check_xsetbv_db:
    iretl
    tables check_xsetbv
    guest_end check_xsetbv

# ---------------------------------------------------------------- CR4: a bit that the profile does not have
    guest check_cr4
    load_tables check_cr4
    movl %cr4, %eax
    orl $0x40000, %eax                            # OSXSAVE
    movl $(1f - check_cr4 + 0x8000), %edi
    movl %eax, %cr4
1:  movl %cr4, %eax
    movl %eax, 0x600
    orl $0x2000, %eax                             # VMXE, which the host has set
    movl $(2f - check_cr4 + 0x8000), %edi
    movl %eax, %cr4
2:  movl $0x88, %eax                              # PGE, DE
    movl %eax, %cr4
    movl %cr4, %eax
    movl %eax, 0x604
    hlt
    jmp .
check_cr4_db:
    iretl
    tables check_cr4
    guest_end check_cr4

# ---------------------------------------------------------------- debug registers: values, a breakpoint, general detect
    guest check_debug
    load_tables check_debug
    movl $0x11111111, %eax
    movl %eax, %dr0
    movl $0x44444444, %eax
    movl %eax, %dr3
    movl %dr0, %ebx
    movl %ebx, 0x600
    movl %dr3, %ebx
    movl %ebx, 0x604
    movl %dr6, %ebx
    movl %ebx, 0x608
    movl $(1f - check_debug + 0x8000), %eax
    movl %eax, %dr0
    movl $0x402, %eax                             # G0, execution
    movl %eax, %dr7
    movl %dr7, %ebx
    movl %ebx, 0x610
    nop
1:  incl 0x618
    movl $0x2400, %eax                            # GD
    movl %eax, %dr7
    movl %dr1, %eax
2:  hlt
    jmp .
check_debug_db:
    incl 0x62c
    cmpl $1, 0x62c
    jne 3f
    movl %dr6, %eax
    movl %eax, 0x614
    xorl %eax, %eax
    movl %eax, %dr6
    movl %eax, %dr7
    iretl
3:  movl %dr6, %eax                               # a delivered #DB has cleared GD
    movl %eax, 0x61c
    movl %dr7, %eax
    movl %eax, 0x620
    movl $(2b - check_debug + 0x8000), (%esp)
    iretl
    tables check_debug
    guest_end check_debug

# ---------------------------------------------------------------- single steps over an instruction that exits
    guest check_step
    load_tables check_step
    pushfl
    orl $0x100, (%esp)                            # TF
    popfl
    cpuid
    nop
    nop
    hlt
    jmp .
check_step_db:
    pushl %eax
    pushl %ecx
    movl 0x600, %ecx
    movl 8(%esp), %eax
    movl %eax, 0x610(, %ecx, 4)
    incl 0x600
    movl %dr6, %eax
    movl %eax, 0x604
    xorl %eax, %eax
    movl %eax, %dr6
    cmpl $3, 0x600
    jne 1f
    andl $~0x100, 16(%esp)
1:  popl %ecx
    popl %eax
    iretl
    tables check_step
    guest_end check_step

# ---------------------------------------------------------------- REP OUTSB
    guest check_strings
    cld
    movl $(1f - check_strings + 0x8000), %esi
    movl $12, %ecx
    movl $0x3f8, %edx
    rep outsb
    movl %ecx, 0x600
    movl %esi, 0x604
    hlt
    jmp .
1:  .ascii "string by IO"
    guest_end check_strings

# ---------------------------------------------------------------- PAE paging by a write of CR0 that exits
    guest check_pae
    load_tables check_pae
    movl $0x83, 0x10000                           # two 2-MByte pages, both at 0
    movl $0x83, 0x10008
    movl $0x20, %eax                              # PAE
    movl %eax, %cr4
    movl $(check_pae_bad - check_pae + 0x8000), %eax
    movl %eax, %cr3
    movl $(1f - check_pae + 0x8000), %edi
    movl $0x80000011, %eax                        # PG on, NE off: NE is the host's
    movl %eax, %cr0                               # a reserved bit: #GP
1:  movl %cr0, %eax
    movl %eax, 0x600
    movl $(check_pae_good - check_pae + 0x8000), %eax
    movl %eax, %cr3
    movl $0x80000011, %eax
    movl %eax, %cr0
    movl $0x5a5a5a5a, 0x604
    movl 0x200604, %eax
    movl %eax, 0x608
    movl %cr0, %eax
    movl %eax, 0x610
    hlt
    jmp .
    .balign 32
check_pae_bad:
    .quad 0x10003, 0, 0, 0
check_pae_good:
    .quad 0x10001, 0, 0, 0
check_pae_db:
    iretl
    tables check_pae
    guest_end check_pae

# ---------------------------------------------------------------- RDRAND, RDSEED
    guest check_random
    rdrand %eax
    setc 0x600
    movl %eax, 0x604
    rdseed %ecx
    setc 0x601
    movl %ecx, 0x608
    hlt
    jmp .
    guest_end check_random

# ---------------------------------------------------------------- RDTSC, RDTSCP with a TSC_AUX of the guest's
    guest check_time
    movl $0xc0000103, %ecx
    movl $0x77, %eax
    xorl %edx, %edx
    wrmsr
    rdtsc
    movl %eax, 0x600
    rdtscp
    movl %eax, 0x604
    movl %ecx, 0x608
    hlt
    jmp .
    guest_end check_time

    guest check_rdtsc                             # RDTSC as often as ESI says
1:  rdtsc
    decl %esi
    jnz 1b
    hlt
    guest_end check_rdtsc

# ---------------------------------------------------------------- chaos: blocks of 64 bytes from 20000h on, made by the host
# 500h counts the blocks, 508h says how many there are. Each starts with the registers that are at 10000h + 32 * its
# number; whatever exception it ends with, the next one follows.
    guest check_chaos
    lgdtl check_chaos_gdtr - check_chaos + 0x8000
    lidtl check_chaos_idtr - check_chaos + 0x8000
check_chaos_next:
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl 0x500, %eax
    incl 0x500
    cmpl 0x508, %eax
    jae 1f
    movl %eax, %ebx
    shll $6, %ebx
    addl $0x20000, %ebx
    movl %ebx, 0x504
    shll $5, %eax
    addl $0x10000, %eax
    movl %eax, %esp
    popal
    movl $0x7000, %esp
    jmpl *0x504
1:  hlt
    .balign 8
check_chaos_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    .quad 0x0000810006000067                      # an available 16-bit TSS at 600h
check_chaos_gdtr:
    .word 31
    .long check_chaos_gdt - check_chaos + 0x8000
    .balign 8
check_chaos_idt:
    .rept 256
    .word check_chaos_next - check_chaos + 0x8000, 8, 0x8e00, 0
    .endr
check_chaos_idtr:
    .word 256 * 8 - 1
    .long check_chaos_idt - check_chaos + 0x8000
    guest_end check_chaos

# ---------------------------------------------------------------- CR8, 64-bit mode
    .code64
    guest check_cr8
    lgdtq check_cr8_gdtr - check_cr8 + 0x8000
    lidtq check_cr8_idtr - check_cr8 + 0x8000
    movl $9, %eax
    movq %rax, %cr8
    movq %cr8, %rbx
    movl %ebx, 0x600
    movl $16, %eax                                # no such priority: #GP
    movl $(1f - check_cr8 + 0x8000), %edi
    movq %rax, %cr8
1:  hlt
    jmp .
check_cr8_gp:
    incl 0x60c
    addq $8, %rsp
    movq %rdi, (%rsp)
    iretq
    .balign 8
check_cr8_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
check_cr8_gdtr:
    .word 23
    .quad check_cr8_gdt - check_cr8 + 0x8000
    .balign 16
check_cr8_idt:
    .fill 26, 8, 0
    .word check_cr8_gp - check_cr8 + 0x8000, 8, 0x8e00, 0
    .quad 0
check_cr8_idtr:
    .word 14 * 16 - 1
    .quad check_cr8_idt - check_cr8 + 0x8000
    guest_end check_cr8

# ---------------------------------------------------------------- chaos in 64-bit mode, as above
    guest check_chaos_long
    lgdtq check_chaos_long_gdtr - check_chaos_long + 0x8000
    lidtq check_chaos_long_idtr - check_chaos_long + 0x8000
check_chaos_long_next:
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl 0x500, %eax
    incl 0x500
    cmpl 0x508, %eax
    jae 1f
    movl %eax, %ebx
    shll $6, %ebx
    addl $0x20000, %ebx
    movq %rbx, 0x510
    shll $5, %eax
    leal 0x10000(%rax), %esp
    popq %rax
    popq %rcx
    popq %rdx
    popq %rbx
    movl $0x7000, %esp
    jmpq *0x510
1:  hlt
    .balign 8
check_chaos_long_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
check_chaos_long_gdtr:
    .word 23
    .quad check_chaos_long_gdt - check_chaos_long + 0x8000
    .balign 16
check_chaos_long_idt:
    .rept 256
    .word check_chaos_long_next - check_chaos_long + 0x8000, 8, 0x8e00, 0
    .quad 0
    .endr
check_chaos_long_idtr:
    .word 256 * 16 - 1
    .quad check_chaos_long_idt - check_chaos_long + 0x8000
    guest_end check_chaos_long

    .code64
    .text
