# The tiny guests: real mode, protected mode, long mode (which starts in real mode), and hostile ones.
# Each is loaded at guest-physical 8000h. What they find goes to 600h:
#   600h EBX, ECX, EDX of CPUID leaf 40000000h   60Ch faults handled     610h what the fault handler saw
#   618h what RDMSR returned                     620h mark of the mode   624h CR0 as the guest reads it
    .section .rodata.tiny_guests, "a"

    .macro guest name
    .balign 16
    .globl \name
\name:
    .endm
    .macro guest_end name
    .globl \name\()_end
\name\()_end:
    .endm

# ---------------------------------------------------------------- real mode: CS = 800h, IP = 0
    guest tiny_real
    .code16
    cli
    xorw %ax, %ax
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    movw %cs, %ax
    movw %ax, %ds
    movw $(real_fault - tiny_real), %es:0x18      # interrupt vector 6: invalid opcode
    movw %cs, %es:0x1a
    movw $(real_text - tiny_real), %si
    movw $0x3f8, %dx
    cld
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  movl $0x40000000, %eax
    cpuid
    movl %ebx, %es:0x600
    movl %ecx, %es:0x604
    movl %edx, %es:0x608
    movl $0x8b, %ecx                              # IA32_BIOS_SIGN_ID
    movl $0x1234abcd, %eax
    xorl %edx, %edx
    wrmsr
    xorl %eax, %eax
    rdmsr
    movl %eax, %es:0x618
    ud2
    movl %cr0, %eax
    movl %eax, %es:0x624
    movl $16, %es:0x620
    hlt
    jmp .
real_fault:
    incw %es:0x60c
    movw %sp, %bp
    movw (%bp), %ax                               # IP of the UD2
    movw %ax, %es:0x610
    addw $2, (%bp)
    iretw
real_text:
    .asciz "hello from real mode\n"
    guest_end tiny_real

# ---------------------------------------------------------------- protected mode: EIP = 8000h, flat, the host made it
    guest tiny_protected
    .code32
    lidtl protected_idtr - tiny_protected + 0x8000
    movl $(protected_text - tiny_protected + 0x8000), %esi
    movl $0x3f8, %edx
    cld
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  movl $0x40000000, %eax
    cpuid
    movl %ebx, 0x600
    movl %ecx, 0x604
    movl %edx, 0x608
    movl $0x8b, %ecx
    movl $0x1234abcd, %eax
    xorl %edx, %edx
    wrmsr
    xorl %eax, %eax
    rdmsr
    movl %eax, 0x618
    lgdtl protected_gdtr - tiny_protected + 0x8000
    movl $0x60, %eax                              # a selector beyond the table: #GP(60h)
    movl %eax, %fs
    movl %cr0, %eax
    movl %eax, 0x624
    movl $32, 0x620
    hlt
    jmp .
protected_fault:
    incl 0x60c
    popl 0x610                                    # the error code
    addl $2, (%esp)
    iretl
protected_text:
    .asciz "hello from protected mode\n"
    .balign 8
protected_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
protected_gdtr:
    .word 23
    .long protected_gdt - tiny_protected + 0x8000
    .balign 8
protected_idt:
    .fill 13, 8, 0
    .word protected_fault - tiny_protected + 0x8000, 8, 0x8e00, 0
protected_idtr:
    .word 14 * 8 - 1
    .long protected_idt - tiny_protected + 0x8000
    guest_end tiny_protected

# ---------------------------------------------------------------- long mode, from real mode by its own doing
    guest tiny_long
    .code16
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %ss
    movw $0x7000, %sp
    movw $0x1000, %ax
    movw %ax, %es
    movl $0x11003, %es:0x0000                     # PML4[0] -> 11000h
    movl $0x12003, %es:0x1000                     # PDPT[0] -> 12000h
    movl $0x00083, %es:0x2000                     # PD[0]: 2 MByte, identity
    movl $0x10000, %eax
    movl %eax, %cr3
    movl $0x20, %eax                              # PAE
    movl %eax, %cr4
    movl $0xc0000080, %ecx                        # EFER.LME
    rdmsr
    orl $0x100, %eax
    wrmsr
    lgdtl long_gdtr - tiny_long + 0x8000
    movl $0x80010031, %eax                        # PG, WP, NE, ET, PE at once
    movl %eax, %cr0
    .byte 0x66, 0xea                              # ljmpl $8, $long_64
    .long long_64 - tiny_long + 0x8000
    .word 8
    .code64
long_64:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq $0x7000, %rsp
    lidtq long_idtr - tiny_long + 0x8000
    movl $(long_text - tiny_long + 0x8000), %esi
    movl $0x3f8, %edx
    cld
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  movl $0x40000000, %eax
    cpuid
    movl %ebx, 0x600
    movl %ecx, 0x604
    movl %edx, 0x608
    movl $0x8b, %ecx
    movl $0x1234abcd, %eax
    xorl %edx, %edx
    wrmsr
    xorl %eax, %eax
    rdmsr
    movl %eax, 0x618
    movabsq $0x123456789a, %rbx
    movl (%rbx), %eax                             # not mapped: #PF
    movq %cr0, %rax
    movl %eax, 0x624
    movl $64, 0x620
    hlt
    jmp .
long_fault:
    incl 0x60c
    movq %cr2, %rax
    movq %rax, 0x610
    addq $2, 8(%rsp)
    addq $8, %rsp
    iretq
long_text:
    .asciz "hello from long mode\n"
    .balign 8
long_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
long_gdtr:
    .word 23
    .long long_gdt - tiny_long + 0x8000
    .balign 16
long_idt:
    .fill 28, 8, 0
    .word long_fault - tiny_long + 0x8000, 8, 0x8e00, 0
    .quad 0
long_idtr:
    .word 15 * 16 - 1
    .quad long_idt - tiny_long + 0x8000
    guest_end tiny_long

# ---------------------------------------------------------------- hostile guests, protected mode
    .code32
    guest hostile_triple_fault
    lidtl hostile_idtr - hostile_triple_fault + 0x8000
    ud2
    .balign 8
hostile_idtr:
    .word 0
    .long 0
    guest_end hostile_triple_fault

    guest hostile_wild_write
    movl $0x40000000, %edi
    movl $0x600dbad, (%edi)
    hlt
    guest_end hostile_wild_write

    guest hostile_endless
    jmp .
    guest_end hostile_endless

    guest hostile_vmxon                           # VMX is not for guests: #UD, and without a handler the end
    vmxon 0x600
    hlt
    guest_end hostile_vmxon

    guest hostile_unknown_msr                     # #GP, likewise
    movl $0xdeadbeef, %ecx
    rdmsr
    hlt
    guest_end hostile_unknown_msr

# ---------------------------------------------------------------- for checks of the loop itself, protected mode
    guest check_counting                          # counts at 600h until 604h is set
1:  incl 0x600
    cmpl $0, 0x604
    je 1b
    hlt
    guest_end check_counting

    guest check_write                             # writes a page that is write-protected at first
    movl $0x12345678, 0x9ff0
    movl 0x9ff0, %eax
    movl %eax, 0x600
    hlt
    guest_end check_write

    guest check_cpuid                             # CPUID as often as ESI says
1:  cpuid
    decl %esi
    jnz 1b
    hlt
    guest_end check_cpuid

    guest check_bitmaps                           # a port and a MSR that may be passed through
    xorl %eax, %eax
    outb %al, $0x80
    movl $0xc0000084, %ecx
    movl $0x200, %eax
    xorl %edx, %edx
    wrmsr
    xorl %eax, %eax
    rdmsr
    movl %eax, 0x600
    hlt
    guest_end check_bitmaps

    guest check_interrupt                         # takes vector 20h once it lets it
    lgdtl check_gdtr - check_interrupt + 0x8000
    lidtl check_idtr - check_interrupt + 0x8000
    nop
    nop
    sti
    nop
    movl 0x600, %eax
    movl %eax, 0x608
    hlt
    int $0x20                                     # the same vector by instruction
    movl 0x600, %eax
    movl %eax, 0x60c
    hlt
    jmp .
check_handler:
    incl 0x600
    iretl
    .balign 8
check_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
check_gdtr:
    .word 23
    .long check_gdt - check_interrupt + 0x8000
    .balign 8
check_idt:
    .fill 32, 8, 0
    .word check_handler - check_interrupt + 0x8000, 8, 0x8e00, 0
check_idtr:
    .word 33 * 8 - 1
    .long check_idt - check_interrupt + 0x8000
    guest_end check_interrupt

    .code64
    .text
