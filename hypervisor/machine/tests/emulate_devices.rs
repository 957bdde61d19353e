//! What devices, ports and the guest see of emulated instructions: the accesses themselves, their order and size, exceptions
//! by mode, REP in pieces.

mod emulate_model;

use emulate_model::*;
use machine::emulate::{Cause, Emulator, Exception, Outcome, Seg, gpr};
use proptest::prelude::*;

/// RAM is below, the device from here on for a page.
const DEVICE: u64 = 0xe000;
const CODE: u64 = 0x1000;
const STACK: u64 = 0x3000;
const DONE: Outcome = Outcome::Done { single_step: false };

fn bus() -> TestBus {
    TestBus { memory: vec![(0, vec![0; 0xe000])], device: DEVICE..DEVICE + 0x1000, ..TestBus::default() }
}

struct Machine {
    cpu: Registers,
    bus: TestBus,
    emulator: Emulator,
}

impl Machine {
    fn new(mut cpu: Registers, code: &[u8]) -> Self {
        let mut bus = bus();
        bus.poke(CODE, code);
        cpu.rip = CODE;
        cpu.gpr[gpr::RSP] = STACK;
        Self { cpu, bus, emulator: Emulator::new() }
    }

    fn long(code: &[u8]) -> Self {
        Self::new(Registers::long(0), code)
    }

    fn set(mut self, register: usize, value: u64) -> Self {
        self.cpu.gpr[register] = value;
        self
    }

    fn step(&mut self) -> Outcome {
        self.emulator.step(&mut self.cpu, &mut self.bus, Cause::Memory)
    }

    fn port_step(&mut self) -> Outcome {
        self.emulator.step(&mut self.cpu, &mut self.bus, Cause::Port)
    }
}

fn device_value(address: u64, length: usize) -> u64 {
    (0..length).rev().fold(0, |value, n| value << 8 | u64::from(device_byte(address + n as u64)))
}

fn fault(vector: u8, error: Option<u32>) -> Outcome {
    Outcome::Fault(Exception { vector, error, cr2: None })
}

#[test]
fn loads_have_the_width_of_the_operand() {
    // mov al / ax / eax / rax, [rbx]
    for (code, length) in
        [(&[0x8a, 0x03][..], 1), (&[0x66, 0x8b, 0x03], 2), (&[0x8b, 0x03], 4), (&[0x48, 0x8b, 0x03], 8)]
    {
        let old = 0x1122_3344_5566_7788;
        let mut m = Machine::long(code).set(gpr::RBX, DEVICE + 8).set(gpr::RAX, old);
        assert_eq!(m.step(), DONE);
        assert_eq!(m.bus.log, [Access::Read(DEVICE + 8, length)]);
        let read = device_value(DEVICE + 8, length);
        let expected = match length {
            1 => old & !0xff | read,
            2 => old & !0xffff | read,
            _ => read,
        };
        assert_eq!(m.cpu.gpr[gpr::RAX], expected, "{length} bytes");
        assert_eq!(m.cpu.rip, CODE + code.len() as u64);
    }
}

#[test]
fn a_read_modify_write_reads_once_and_writes_once() {
    // lock or dword [rbx+10h], 80h
    let mut m = Machine::long(&[0xf0, 0x81, 0x4b, 0x10, 0x80, 0, 0, 0]).set(gpr::RBX, DEVICE);
    assert_eq!(m.step(), DONE);
    let new = (device_value(DEVICE + 16, 4) | 0x80) as u32;
    let expected = [Access::Read(DEVICE + 16, 4), Access::Write(DEVICE + 16, new.to_le_bytes().to_vec())];
    assert_eq!(m.bus.log, expected);
}

#[test]
fn an_unaligned_access_of_a_device_comes_in_aligned_pieces() {
    // mov [rbx], rax
    let value = 0x8877_6655_4433_2211_u64;
    let mut m = Machine::long(&[0x48, 0x89, 0x03]).set(gpr::RBX, DEVICE + 3).set(gpr::RAX, value);
    assert_eq!(m.step(), DONE);
    let expected = [
        Access::Write(DEVICE + 3, vec![0x11]),
        Access::Write(DEVICE + 4, vec![0x22, 0x33, 0x44, 0x55]),
        Access::Write(DEVICE + 8, vec![0x66, 0x77]),
        Access::Write(DEVICE + 10, vec![0x88]),
    ];
    assert_eq!(m.bus.log, expected);
}

#[test]
fn an_operand_may_lie_half_in_memory_and_half_in_a_device() {
    let mut m = Machine::long(&[0x89, 0x03]).set(gpr::RBX, DEVICE - 2).set(gpr::RAX, 0x4433_2211);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.bus.peek(DEVICE - 2, 2), [0x11, 0x22]);
    assert_eq!(m.bus.log, [Access::Write(DEVICE, vec![0x33, 0x44])]);
}

#[test]
fn cmpxchg16b_wants_alignment() {
    // lock cmpxchg16b [rsi]
    let code = [0xf0, 0x48, 0x0f, 0xc7, 0x0e];
    let mut m = Machine::long(&code).set(gpr::RSI, 0x2008);
    assert_eq!(m.step(), fault(13, Some(0)));
    for equal in [true, false] {
        let mut m = Machine::long(&code).set(gpr::RSI, 0x2010).set(gpr::RAX, 7).set(gpr::RBX, 0x77);
        m = m.set(gpr::RDX, if equal { 9 } else { 8 }).set(gpr::RCX, 0x99);
        m.bus.poke(0x2010, &[7, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(m.step(), DONE);
        let memory = (m.bus.peek_u64(0x2010), m.bus.peek_u64(0x2018));
        assert_eq!(memory, if equal { (0x77, 0x99) } else { (7, 9) });
        assert_eq!(m.cpu.rflags & 1 << 6 != 0, equal, "ZF");
        assert_eq!((m.cpu.gpr[gpr::RAX], m.cpu.gpr[gpr::RDX]), (7, 9));
    }
}

#[test]
fn a_bit_offset_in_a_register_reaches_beyond_the_operand() {
    // bts dword [rbx], ecx
    let mut m = Machine::long(&[0x0f, 0xab, 0x0b]).set(gpr::RBX, DEVICE + 0x20).set(gpr::RCX, -33_i64 as u64);
    assert_eq!(m.step(), DONE);
    let old = device_value(DEVICE + 0x18, 4) as u32;
    let new = old | 1 << 31;
    let expected = [Access::Read(DEVICE + 0x18, 4), Access::Write(DEVICE + 0x18, new.to_le_bytes().to_vec())];
    assert_eq!(m.bus.log, expected);
    assert_eq!(m.cpu.rflags & 1, u64::from(old >> 31), "CF");
}

#[test]
fn push_and_pop_move_between_device_and_stack() {
    // push qword [rbx]; pop qword [rbx+8]
    let mut m = Machine::long(&[0xff, 0x33, 0x8f, 0x43, 0x08]).set(gpr::RBX, DEVICE);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.cpu.gpr[gpr::RSP], STACK - 8);
    assert_eq!(m.bus.peek_u64(STACK - 8), device_value(DEVICE, 8));
    assert_eq!(m.step(), DONE);
    assert_eq!(m.cpu.gpr[gpr::RSP], STACK);
    let value = device_value(DEVICE, 8).to_le_bytes().to_vec();
    assert_eq!(m.bus.log, [Access::Read(DEVICE, 8), Access::Write(DEVICE + 8, value)]);
    // pop qword [rsp]: the address is of the stack pointer already moved.
    let mut m = Machine::long(&[0x8f, 0x04, 0x24]);
    m.bus.poke(STACK, &[0x5a]);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.bus.peek(STACK + 8, 1), [0x5a]);
}

#[test]
fn near_branches_through_memory_go_where_it_says() {
    // call [rbx]; ret 10h from there
    let mut m = Machine::long(&[0xff, 0x13]).set(gpr::RBX, 0x2000);
    m.bus.poke(0x2000, &0x5000_u64.to_le_bytes());
    m.bus.poke(0x5000, &[0xc2, 0x10, 0x00]);
    assert_eq!(m.step(), DONE);
    assert_eq!((m.cpu.rip, m.cpu.gpr[gpr::RSP]), (0x5000, STACK - 8));
    assert_eq!(m.bus.peek_u64(STACK - 8), CODE + 2);
    assert_eq!(m.step(), DONE);
    assert_eq!((m.cpu.rip, m.cpu.gpr[gpr::RSP]), (CODE + 2, STACK + 16));
    // A target that is not canonical: nothing is pushed.
    let mut m = Machine::long(&[0xff, 0x13]).set(gpr::RBX, 0x2000);
    m.bus.poke(0x2000, &(1_u64 << 47).to_le_bytes());
    let before = m.cpu.clone();
    assert_eq!(m.step(), fault(13, Some(0)));
    assert_eq!(m.cpu, before);
    assert_eq!(m.bus.writes, 0);
    // 32-bit and 16-bit code: jmp [ebx], jmp [bx] within and beyond the limit.
    for (cpu, target, outcome) in [
        (Registers::protected(0), 0x4567_u64, DONE),
        (Registers::real(), 0x4567, DONE),
        (limited(0x4000), 0x4567, fault(13, Some(0))),
    ] {
        let modrm = if cpu.cr0 & CR0_PE == 0 { 0x27 } else { 0x23 };
        let mut m = Machine::new(cpu, &[0xff, modrm]).set(gpr::RBX, 0x2000);
        m.bus.poke(0x2000, &target.to_le_bytes());
        assert_eq!(m.step(), outcome);
        assert_eq!(m.cpu.rip, if outcome == DONE { target } else { CODE });
    }
}

fn limited(limit: u32) -> Registers {
    let mut cpu = Registers::protected(0);
    cpu.segment_mut(Seg::Cs).limit = limit;
    cpu
}

#[test]
fn a_device_is_not_read_for_an_instruction_that_faults() {
    // movsd, its destination beyond the limit; push [ebx] with a full stack.
    let mut m = Machine::new(Registers::protected(0), &[0xa5]).set(gpr::RSI, DEVICE).set(gpr::RDI, 0x2000);
    m.cpu.segment_mut(Seg::Es).limit = 0x1fff;
    let before = m.cpu.clone();
    assert_eq!(m.step(), fault(13, Some(0)));
    assert_eq!((m.bus.log.len(), &m.cpu), (0, &before));
    let mut m = Machine::new(Registers::protected(0), &[0xff, 0x33]).set(gpr::RBX, DEVICE);
    m.cpu.segment_mut(Seg::Ss).limit = STACK as u32 - 5;
    let before = m.cpu.clone();
    assert_eq!(m.step(), fault(12, Some(0)));
    assert_eq!((m.bus.log.len(), &m.cpu), (0, &before));
}

#[test]
fn a_division_that_faults_changes_nothing() {
    // div dword [rbx]
    let mut m = Machine::long(&[0xf7, 0x33]).set(gpr::RBX, 0x2000).set(gpr::RDX, 5);
    m.bus.poke(0x2000, &[5]);
    let before = m.cpu.clone();
    assert_eq!(m.step(), Outcome::Fault(Exception { vector: 0, error: None, cr2: None }));
    assert_eq!(m.cpu, before);
    m.bus.poke(0x2000, &[6]);
    assert_eq!(m.step(), DONE);
    assert_eq!((m.cpu.gpr[gpr::RAX], m.cpu.gpr[gpr::RDX]), (0xd555_5555, 2));
}

#[test]
fn strings_go_to_ports_and_come_from_them() {
    // rep outsb; rep insw
    let mut m = Machine::long(&[0xf3, 0x6e, 0xf3, 0x66, 0x6d]).set(gpr::RDX, 0x402).set(gpr::RCX, 3);
    m = m.set(gpr::RSI, 0x2000).set(gpr::RDI, 0x2100);
    m.bus.poke(0x2000, b"abc");
    assert_eq!(m.port_step(), DONE);
    let expected = [Access::Out(0x402, 1, 0x61), Access::Out(0x402, 1, 0x62), Access::Out(0x402, 1, 0x63)];
    assert_eq!(m.bus.log, expected);
    assert_eq!((m.cpu.gpr[gpr::RCX], m.cpu.gpr[gpr::RSI], m.cpu.rip), (0, 0x2003, CODE + 2));
    (m.cpu.gpr[gpr::RCX], m.cpu.rflags) = (2, m.cpu.rflags | 1 << 10);
    assert_eq!(m.port_step(), DONE);
    assert_eq!(m.bus.log[3..], [Access::In(0x402, 2), Access::In(0x402, 2)]);
    assert_eq!(m.cpu.gpr[gpr::RDI], 0x20fc, "backwards");
    let value = |n: u32| (0x8192_a3b4_u32.wrapping_mul(n) as u16).to_le_bytes();
    assert_eq!((m.bus.peek(0x2100, 2), m.bus.peek(0x20fe, 2)), (&value(4)[..], &value(5)[..]));
    // A source of a read-only string instruction may be overridden, the destination of INS not.
    let mut m = Machine::new(Registers::protected(0), &[0x64, 0x6e]).set(gpr::RSI, 0x10);
    m.cpu.segment_mut(Seg::Fs).base = 0x2000;
    m.bus.poke(0x2010, b"x");
    assert_eq!(m.port_step(), DONE);
    assert_eq!(m.bus.log, [Access::Out(0, 1, 0x78)]);
}

#[test]
fn ports_are_not_reached_without_a_port_exit_where_the_level_forbids() {
    for (iopl, cause, outcome) in
        [(0, Cause::Memory, fault(13, Some(0))), (3, Cause::Memory, DONE), (0, Cause::Port, DONE)]
    {
        let mut m = Machine::new(Registers::protected(3), &[0xec]);
        m.cpu.rflags |= iopl << 12;
        assert_eq!(m.emulator.step(&mut m.cpu, &mut m.bus, cause), outcome);
        assert_eq!(m.bus.log.len(), usize::from(outcome == DONE));
    }
}

#[test]
fn a_long_repetition_comes_in_parts() {
    // rep stosb to the device, 1000 times
    let mut m = Machine::long(&[0xf3, 0xaa]).set(gpr::RDI, DEVICE).set(gpr::RCX, 1000);
    m.cpu.rflags |= RF;
    assert_eq!(m.step(), Outcome::Continue { single_step: false });
    let done = m.bus.log.len() as u64;
    assert!((1..1000).contains(&done));
    let state = (m.cpu.gpr[gpr::RDI], m.cpu.gpr[gpr::RCX], m.cpu.rip, m.cpu.rflags & RF);
    assert_eq!(state, (DEVICE + done, 1000 - done, CODE, RF));
    while m.step() != DONE {}
    let state = (m.cpu.gpr[gpr::RDI], m.cpu.gpr[gpr::RCX], m.cpu.rip, m.cpu.rflags & RF);
    assert_eq!(state, (DEVICE + 1000, 0, CODE + 2, 0));
    assert_eq!(m.bus.log.len(), 1000);
}

#[test]
fn a_single_stepping_guest_traps_after_each_iteration() {
    let mut m = Machine::long(&[0xf3, 0xaa]).set(gpr::RDI, 0x2000).set(gpr::RCX, 3);
    m.cpu.rflags |= TF;
    assert_eq!(m.step(), Outcome::Continue { single_step: true });
    assert_eq!(m.step(), Outcome::Continue { single_step: true });
    assert_eq!(m.step(), Outcome::Done { single_step: true });
    assert_eq!(m.cpu.gpr[gpr::RCX], 0);
}

proptest! {
    /// A REP that is interrupted after every iteration ends as one that is not.
    #[test]
    fn an_interrupted_repetition_ends_the_same(
        opcode in prop::sample::select(vec![0xa4_u8, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6d, 0x6e, 0x6f]),
        prefixes in prop::sample::select(vec![&[0xf3][..], &[0xf2], &[0xf3, 0x66], &[0xf2, 0x67], &[0xf3, 0x48], &[0xf3, 0x67, 0x48]]),
        (source, destination, count) in (0x2000_u64..0xf000, 0x2000_u64..0xf000, 0_u64..40),
        (fill, flags, rax) in (any::<u8>(), any::<u64>(), any::<u64>()),
        same in any::<bool>(),
    ) {
        let code = [prefixes, &[opcode]].concat();
        let mut once = Machine::long(&code).set(gpr::RSI, source).set(gpr::RCX, count);
        once = once.set(gpr::RDI, if same { source } else { destination }).set(gpr::RAX, rax);
        once.bus.memory[0].1[0x2000..].fill(fill);
        once.bus.poke(0x2800, &rax.to_le_bytes());
        once.cpu.rflags |= flags & FLAGS;
        let mut pieces = Machine { cpu: once.cpu.clone(), bus: once.bus.clone(), emulator: Emulator::new() };
        pieces.cpu.rflags |= TF;
        let whole = once.port_step();
        let mut steps = 1;
        let piece = loop {
            match pieces.port_step() {
                Outcome::Continue { single_step } => prop_assert!(single_step),
                end => break end,
            }
            steps += 1;
        };
        prop_assert!(steps <= count.max(1));
        pieces.cpu.rflags &= !TF;
        if let Outcome::Done { .. } = whole {
            prop_assert_eq!(piece, Outcome::Done { single_step: true });
        } else {
            prop_assert_eq!(piece, whole);
        }
        prop_assert_eq!(pieces.cpu, once.cpu);
        prop_assert_eq!(pieces.bus.log, once.bus.log);
        prop_assert!(pieces.bus.memory == once.bus.memory);
    }
}

#[test]
fn real_mode_has_limits_and_no_error_codes() {
    // mov ax, [bx+si]; mov ax, [bp+di]
    let gp = fault(13, None);
    let ss = fault(12, None);
    for (code, base, index, outcome) in [
        (&[0x8b, 0x00][..], gpr::RBX, gpr::RSI, gp),
        (&[0x8b, 0x03], gpr::RBP, gpr::RDI, ss),
        (&[0x3e, 0x8b, 0x03], gpr::RBP, gpr::RDI, gp),
    ] {
        let mut m = Machine::new(Registers::real(), code).set(base, 0xff00).set(index, 0xff);
        assert_eq!(m.step(), outcome);
        // One more wraps to 0.
        m.cpu.gpr[index] += 1;
        m.bus.poke(0, &[0x34, 0x12]);
        assert_eq!(m.step(), DONE);
        assert_eq!(m.cpu.gpr[gpr::RAX], 0x1234);
    }
    // lodsw wraps its 16-bit pointer, upper bits of ESI stay.
    let mut m = Machine::new(Registers::real(), &[0xad]).set(gpr::RSI, 0x7_fffe);
    m.cpu.segment_mut(Seg::Ds).base = 0x1000_u64.wrapping_sub(0xfffe);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.cpu.gpr[gpr::RSI], 0x7_0000);
}

#[test]
fn segments_guard_protected_mode() {
    const UNUSABLE: u32 = 1 << 16;
    // mov [ebx], al
    let store = [0x88, 0x03];
    let load = [0x8a, 0x03];
    for (access, limit, address, code, fine) in [
        (0xc093, u32::MAX, 0x2000, store, true),
        (0xc093, 0x1fff, 0x2000, store, false),
        (0xc093, 0x2000, 0x2000, store, true),
        (0xc091, u32::MAX, 0x2000, store, false),
        (0xc091, u32::MAX, 0x2000, load, true),
        (0xc09b, u32::MAX, 0x2000, load, true),
        (0xc09b, u32::MAX, 0x2000, store, false),
        (0xc099, u32::MAX, 0x2000, load, false),
        // Expand-down: what is above the limit.
        (0xc097, 0x1fff, 0x2000, store, true),
        (0xc097, 0x2000, 0x2000, store, false),
        (0x0097, 0x1fff, 0x1_2000, store, false),
        (UNUSABLE, u32::MAX, 0x2000, load, false),
        (0xc013, u32::MAX, 0x2000, load, false),
    ] {
        let mut m = Machine::new(Registers::protected(0), &code).set(gpr::RBX, address);
        (m.cpu.segment_mut(Seg::Ds).access, m.cpu.segment_mut(Seg::Ds).limit) = (access, limit);
        let expected = if fine { DONE } else { fault(13, Some(0)) };
        assert_eq!(m.step(), expected, "{access:#x} {limit:#x} {address:#x} {code:02x?}");
    }
}

#[test]
fn addresses_that_are_not_canonical_fault_by_segment() {
    let far = 1 << 47;
    // mov al, [rbx]; [rbp]; fs:[rbx]; fs:[rbp]
    for (code, outcome) in [
        (&[0x8a, 0x03][..], fault(13, Some(0))),
        (&[0x8a, 0x45, 0], fault(12, Some(0))),
        (&[0x3e, 0x8a, 0x45, 0], fault(12, Some(0))),
        (&[0x36, 0x8a, 0x03], fault(13, Some(0))),
        (&[0x64, 0x8a, 0x45, 0], fault(13, Some(0))),
    ] {
        let mut m = Machine::long(code).set(gpr::RBX, far).set(gpr::RBP, far);
        assert_eq!(m.step(), outcome, "{code:02x?}");
    }
    // The last byte counts, and the base of FS may bring it back.
    let mut m = Machine::long(&[0x8b, 0x03]).set(gpr::RBX, far - 3);
    assert_eq!(m.step(), fault(13, Some(0)));
    let mut m = Machine::long(&[0x64, 0x8b, 0x03]).set(gpr::RBX, far);
    m.cpu.segment_mut(Seg::Fs).base = 0x2000_u64.wrapping_sub(far);
    assert_eq!(m.step(), DONE);
}

#[test]
fn alignment_is_checked_for_user_code_that_asks_for_it() {
    for (cpl, flags, address, outcome) in [
        (3, AC, 0x2002, fault(17, Some(0))),
        (3, AC, 0x2004, DONE),
        (3, 0, 0x2002, DONE),
        (0, AC, 0x2002, DONE),
    ] {
        let mut m = Machine::new(Registers::long(cpl), &[0x89, 0x03]).set(gpr::RBX, address);
        (m.cpu.cr0, m.cpu.rflags) = (m.cpu.cr0 | CR0_AM, 2 | flags);
        assert_eq!(m.step(), outcome, "{cpl} {flags:#x} {address:#x}");
    }
}

#[test]
fn what_is_no_instruction_or_not_emulated_is_shown() {
    // AVX, whose encoding is not built in: an instruction that the processor knows and this does not.
    let vmovups = [0xc5, 0xf8, 0x11, 0x03];
    let mut m = Machine::long(&vmovups);
    let Outcome::Undecodable(text) = m.step() else { panic!("vmovups") };
    assert_eq!((text.rip, &text.bytes[..4]), (CODE, &vmovups[..]));
    assert!(text.length >= 4);
    for (code, part) in [
        (&[0x0f, 0x11, 0x03][..], "vector"),
        (&[0xf2, 0x0f, 0x10, 0x03], "vector"),
        (&[0xdd, 0x03], "x87"),
        (&[0x0f, 0x00, 0x0b], "not expected"),
        (&[0x48, 0xff, 0x2b], "far branch"),
        (&[0x8e, 0x1b], "not general"),
        (&[0x0f, 0xa2], "without a memory operand"),
    ] {
        let mut m = Machine::long(code).set(gpr::RBX, DEVICE);
        let before = m.cpu.clone();
        let Outcome::Unsupported { what, text } = m.step() else { panic!("{code:02x?}") };
        assert!(what.contains(part), "{code:02x?}: {what}");
        assert_eq!((text.rip, &text.bytes[..code.len()]), (CODE, code));
        assert_eq!((m.bus.log.len(), &m.cpu), (0, &before));
    }
    // ud2; lock mov [rbx], eax
    for code in [&[0x0f, 0x0b][..], &[0xf0, 0x89, 0x03]] {
        assert_eq!(
            Machine::long(code).step(),
            Outcome::Fault(Exception { vector: 6, error: None, cr2: None })
        );
    }
}

#[test]
fn code_is_fetched_across_pages_and_within_its_segment() {
    // mov [rbx], eax over the end of a page
    let mut m = Machine::long(&[]).set(gpr::RBX, DEVICE);
    m.cpu.rip = 0x4fff;
    m.bus.poke(0x4fff, &[0x89, 0x03]);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.cpu.rip, 0x5001);
    // The same, the second page is not mapped (page tables at 8000h; only the first 2 MBytes' leaf table matters).
    let mut m = Machine::long(&[]).set(gpr::RBX, 0x2000);
    m.cpu.rip = 0x4fff;
    m.bus.poke(0x4fff, &[0x89, 0x03]);
    for (table, entry) in [(0x8000, 0x9007_u64), (0x9000, 0xa007), (0xa000, 0xb007)] {
        m.bus.poke(table, &entry.to_le_bytes());
    }
    m.bus.poke(0xb000 + 4 * 8, &0x4007_u64.to_le_bytes());
    (m.cpu.cr0, m.cpu.cr4, m.cpu.cr3) = (m.cpu.cr0 | CR0_PG, CR4_PAE, 0x8000);
    m.cpu.efer |= EFER_NXE;
    let missing = Exception { vector: 14, error: Some(0x10), cr2: Some(0x5000) };
    assert_eq!(m.step(), Outcome::Fault(missing));
    // A limit within the instruction.
    let mut m = Machine::new(limited(CODE as u32), &[0x89, 0x03]);
    assert_eq!(m.step(), fault(13, Some(0)));
    let mut m = Machine::new(limited(CODE as u32 + 1), &[0x89, 0x03]).set(gpr::RBX, 0x2000);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.step(), fault(13, Some(0)), "beyond it");
}

#[test]
fn decoded_instructions_are_found_again_unless_the_code_has_changed() {
    let mut m = Machine::long(&[0x89, 0x03]).set(gpr::RBX, DEVICE);
    for _ in 0..3 {
        m.cpu.rip = CODE;
        assert_eq!(m.step(), DONE);
    }
    let counters = m.emulator.counters();
    assert_eq!((counters.steps, counters.misses, counters.hits), (3, 1, 2));
    // mov ecx, [rbx] in its place; then the first bytes in 32-bit code, where they mean something else.
    m.bus.poke(CODE, &[0x8b, 0x0b]);
    m.cpu.rip = CODE;
    assert_eq!(m.step(), DONE);
    assert_eq!(m.cpu.gpr[gpr::RCX], device_value(DEVICE, 4));
    m.bus.poke(CODE, &[0x48, 0x89, 0x03]);
    for (cpu, rax) in [(Registers::long(0), 5), (Registers::protected(0), 4)] {
        m.cpu = Registers { rip: CODE, ..cpu };
        (m.cpu.gpr[gpr::RAX], m.cpu.gpr[gpr::RBX]) = (5, DEVICE);
        assert_eq!(m.step(), DONE);
        // 48h is DEC EAX outside 64-bit mode.
        assert_eq!(m.cpu.gpr[gpr::RAX], rax);
    }
}

#[test]
fn selectors_are_stored_and_cache_lines_are_only_checked() {
    // mov [rbx], ds: 16 bits, whatever the operand size.
    let mut m = Machine::long(&[0x48, 0x8c, 0x1b]).set(gpr::RBX, DEVICE);
    assert_eq!(m.step(), DONE);
    assert_eq!(m.bus.log, [Access::Write(DEVICE, vec![0x18, 0])]);
    // clflush [rbx]; prefetchw [rbx]
    for code in [&[0x0f, 0xae, 0x3b][..], &[0x0f, 0x0d, 0x0b]] {
        let mut m = Machine::long(code).set(gpr::RBX, DEVICE);
        assert_eq!(m.step(), DONE, "{code:02x?}");
        assert_eq!(m.bus.log, []);
    }
}

#[test]
fn absolute_addresses_are_as_wide_as_addresses() {
    let whole = [&[0xa1_u8][..], &(DEVICE + 4).to_le_bytes()].concat();
    // mov eax, [moffs64]; addr32; 32-bit code; addr16 there; 16-bit code (AX)
    for (cpu, code, length) in [
        (Registers::long(0), &whole[..], 4),
        (Registers::long(0), &[0x67, 0xa1, 4, 0xe0, 0, 0], 4),
        (Registers::protected(0), &[0xa1, 4, 0xe0, 0, 0], 4),
        (Registers::protected(0), &[0x67, 0xa1, 4, 0xe0], 4),
        (Registers::real(), &[0xa1, 4, 0xe0], 2),
    ] {
        let mut m = Machine::new(cpu, code);
        assert_eq!(m.step(), DONE, "{code:02x?}");
        assert_eq!(m.bus.log, [Access::Read(DEVICE + 4, length)]);
        assert_eq!(m.cpu.gpr[gpr::RAX], device_value(DEVICE + 4, length));
        assert_eq!(m.cpu.rip, CODE + code.len() as u64);
    }
    // mov [rip+...], eax
    let displacement = (DEVICE - CODE - 6) as u32;
    let mut m = Machine::long(&[&[0x89, 0x05][..], &displacement.to_le_bytes()].concat());
    assert_eq!(m.step(), DONE);
    assert_eq!(m.bus.log, [Access::Write(DEVICE, vec![0; 4])]);
}

#[test]
fn a_write_over_two_pages_is_whole_or_not_at_all() {
    const PRESENT: u64 = 7;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    let entry = |page: u64| 0xb000 + page * 8;
    for second_present in [true, false] {
        // mov [rbx], rax
        let mut m = Machine::long(&[0x48, 0x89, 0x03]).set(gpr::RBX, 0x4ffd).set(gpr::RAX, u64::MAX);
        for (table, next) in [(0x8000, 0x9000_u64), (0x9000, 0xa000), (0xa000, 0xb000)] {
            m.bus.poke(table, &(next | PRESENT).to_le_bytes());
        }
        for (page, physical) in [(1, 0x1000_u64), (4, 0x6000), (5, 0x2000)] {
            let present = if page == 5 && !second_present { 0 } else { PRESENT };
            m.bus.poke(entry(page), &(physical | present).to_le_bytes());
        }
        (m.cpu.cr0, m.cpu.cr4, m.cpu.cr3) = (m.cpu.cr0 | CR0_PG, CR4_PAE, 0x8000);
        let (before, outcome) = (m.cpu.clone(), m.step());
        let used = |page| m.bus.peek_u64(entry(page)) & (ACCESSED | DIRTY);
        if second_present {
            assert_eq!(outcome, DONE);
            assert_eq!(
                (m.bus.peek(0x6ffd, 3), m.bus.peek(0x2000, 6)),
                (&[0xff; 3][..], &[255, 255, 255, 255, 255, 0][..])
            );
            assert_eq!((used(4), used(5)), (ACCESSED | DIRTY, ACCESSED | DIRTY));
        } else {
            let missing = Exception { vector: 14, error: Some(2), cr2: Some(0x5000) };
            assert_eq!(outcome, Outcome::Fault(missing));
            assert_eq!((m.bus.peek(0x6ffd, 3), &m.cpu), (&[0; 3][..], &before));
            assert_eq!((used(4), used(5)), (ACCESSED, 0), "translated, but not written");
        }
    }
}
