//! The commands that look into a virtual machine, against one that is made up: page tables of each kind, some code.

use super::commands::{Effect, execute};
use super::system::{ExitRow, Guest, Host, Inspect, Order, VmState};
use super::walk::{End, Registers, Step, read_linear, walk};
use core::fmt::{self, Write};
use log::LevelFilter;
use proptest::prelude::*;
use replay::digest::Register;
use std::string::String;
use std::vec;
use std::vec::Vec;

/// Bytes of its memory.
const MEMORY: usize = 64 << 12;

struct Host0;

impl Host for Host0 {
    fn pmu(&mut self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn memory(&mut self, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "of the host")
    }
    fn pci(&mut self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn network(&mut self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn events(&mut self, _: usize, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn version(&mut self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn uptime(&mut self) -> (u64, u64) {
        (0, 0)
    }
    fn log_level(&mut self) -> LevelFilter {
        LevelFilter::Info
    }
    fn set_log_level(&mut self, _: LevelFilter) {}
    fn reboot(&mut self) {}
}

#[derive(Clone)]
struct Still {
    registers: Registers,
    memory: Vec<u8>,
    runs: bool,
}

impl Still {
    fn new(registers: &[(Register, u64)]) -> Self {
        let mut still = Self { registers: [0; Register::COUNT], memory: vec![0; MEMORY], runs: false };
        registers.iter().for_each(|(register, value)| still.registers[*register as usize] = *value);
        still
    }

    /// A processor in 64-bit mode, with these tables: address of an entry, entry.
    fn long(entries: &[(u64, u64)]) -> Self {
        let mut still = Self::new(&[
            (Register::Cr0, 1 << 31 | 1),
            (Register::Cr3, 0x1000),
            (Register::Cr4, 1 << 5),
            (Register::Efer, 0x500),
            (Register::CsAccess, 0xA09B),
        ]);
        entries.iter().for_each(|(at, entry)| still.put(*at, &entry.to_le_bytes()));
        still
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn walk(&mut self, linear: u64) -> (End, Vec<Step>) {
        let mut steps = Vec::new();
        let registers = self.registers;
        let end = walk(&registers, linear, &mut |at, bytes| self.physical(at, bytes), &mut |s| steps.push(s));
        (end, steps)
    }

    fn says(&mut self, line: &str) -> String {
        let mut out = String::new();
        assert_eq!(execute(line, &mut Host0, Some(self), &mut out), Ok(Effect::None));
        out
    }
}

impl Guest for Still {
    fn state(&self) -> VmState {
        VmState::Paused
    }
    fn describe(&self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn order(&mut self, _: Order) -> Result<(), &'static str> {
        Ok(())
    }
    fn exits(&self, _: &mut dyn FnMut(ExitRow)) {}
    fn console_input(&mut self, _: u8) -> bool {
        true
    }
    fn network(&mut self, _: &mut dyn Write) -> fmt::Result {
        Ok(())
    }
    fn inspect(&mut self) -> Option<&mut dyn Inspect> {
        if self.runs { None } else { Some(self) }
    }
}

impl Inspect for Still {
    fn registers(&mut self) -> Registers {
        self.registers
    }
    fn physical(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let memory = usize::try_from(address).ok().and_then(|at| self.memory.get(at..)?.get(..bytes.len()));
        memory.map(|memory| bytes.copy_from_slice(memory)).is_some()
    }
    fn entries(&mut self, around: usize, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "{around} entries")
    }
}

#[test]
fn walks_four_levels_and_large_pages() {
    let mut still = Still::long(&[
        (0x1000 + 8 * 0x1FF, 0x2003),
        (0x2000 + 8 * 0x1FE, 0x3003),
        (0x2000 + 8, 0x40000083),
        (0x3000 + 8 * 3, 0x4003),
        (0x3000 + 8 * 4, 0x80_0083 | 1 << 12),
        (0x4000 + 8 * 5, 0x8000_0000_0000_7063),
    ]);
    let linear = 0xFFFF_FF80_0000_0000 | 0x1FE << 30 | 3 << 21 | 5 << 12 | 0x123;
    let (end, steps) = still.walk(linear);
    assert_eq!(end, End::Page(0x7123, 4096));
    let names: Vec<_> = steps.iter().map(|step| (step.name, step.at, step.entry & 0xFFF)).collect();
    let expected = [
        ("PML4E", Some(0x1FF8), 3),
        ("PDPTE", Some(0x2FF0), 3),
        ("PDE", Some(0x3018), 3),
        ("PTE", Some(0x4028), 0x63),
    ];
    assert_eq!(names, expected);
    let two_megabytes = 0xFFFF_FF80_0000_0000 | 0x1FE << 30 | 4 << 21 | 0x1F_FFFF;
    assert_eq!(still.walk(two_megabytes).0, End::Page(0x9F_FFFF, 2 << 20), "PAT is no address bit");
    assert_eq!(still.walk(0xFFFF_FF80_4000_0001).0, End::Page(0x4000_0001, 1 << 30));
    assert_eq!(still.walk(linear ^ 1 << 12).0, End::NotPresent);
    assert_eq!(still.walk(1 << 47).0, End::NotCanonical);
    still.put(0x3000 + 8 * 3, &0x10_0000_0003_u64.to_le_bytes());
    assert_eq!(still.walk(linear).0, End::NoMemory);
    assert!(still.says(&std::format!("walk {linear:x}")).contains("lead to where there is no memory"));
}

#[test]
fn walks_the_other_modes() {
    let mut real = Still::new(&[]);
    assert_eq!(real.walk(0x1234).0, End::Page(0x1234, 4096));
    let mut pae =
        Still::new(&[(Register::Cr0, 1 << 31), (Register::Cr4, 1 << 5), (Register::Pdpte2, 0x1001)]);
    pae.put(0x1000 + 8, &0x2003_u64.to_le_bytes());
    pae.put(0x2000 + 16, &0x5003_u64.to_le_bytes());
    let (end, steps) = pae.walk(0x8020_2345);
    assert_eq!((end, steps.len(), steps[0].at), (End::Page(0x5345, 4096), 3, None));
    assert_eq!(pae.walk(0x4020_2345).0, End::NotPresent);
    let mut legacy =
        Still::new(&[(Register::Cr0, 1 << 31), (Register::Cr4, 1 << 4), (Register::Cr3, 0x1018)]);
    legacy.put(0x1000 + 4, &0x2003_u32.to_le_bytes());
    legacy.put(0x2000 + 8, &0x6003_u32.to_le_bytes());
    legacy.put(0x1000 + 8, &(0x0080_0083_u32 | 5 << 13).to_le_bytes());
    assert_eq!(legacy.walk(0x40_2345).0, End::Page(0x6345, 4096));
    assert_eq!(legacy.walk(0x80_2345).0, End::Page(5 << 32 | 0x80_2345, 4 << 20), "PSE-36");
    assert_eq!(legacy.walk(0x40_3345).0, End::NotPresent);
}

proptest! {
    #[test]
    fn what_is_read_is_what_is_mapped(
        frames in prop::collection::vec(prop::option::of(8_u64..64), 8),
        at in 0_u64..0x7000, length in 1_usize..0x1800
    ) {
        let mut still = Still::long(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003)]);
        for (index, byte) in still.memory.iter_mut().enumerate().skip(0x8000) {
            *byte = (index * 7 / 8) as u8;
        }
        for (page, frame) in frames.iter().enumerate() {
            if let Some(frame) = frame {
                still.put(0x4000 + 8 * page as u64, &(frame << 12 | 1).to_le_bytes());
            }
        }
        let length = length.min(0x8000 - at as usize);
        let expected: Vec<_> = (at..at + length as u64).map_while(|at| {
            frames[(at >> 12) as usize].map(|frame| still.memory[(frame << 12 | at & 0xFFF) as usize])
        }).collect();
        let (registers, mut bytes) = (still.registers, vec![0; length]);
        let bad = read_linear(&registers, at, &mut bytes, &mut |at, bytes| still.physical(at, bytes));
        let read = bad.map_or(length, |bad| (bad - at) as usize);
        // What is not mapped is told by the page that it is in.
        prop_assert_eq!(&bytes[..read], &expected[..]);
    }

    #[test]
    fn any_words_are_borne(
        command in 0_usize..5, arguments in "([0-9a-fx]{1,17}|[a-z0-9]{1,6}|rip|phys|virt| ){0,6}",
        registers in prop::collection::vec(any::<u64>(), Register::COUNT), seed: u64
    ) {
        let mut still = Still::new(&[]);
        still.registers.copy_from_slice(&registers);
        let mut state = seed;
        for word in still.memory.chunks_exact_mut(8) {
            state = replay::digest::hash::fold(state, 1);
            word.copy_from_slice(&(state & 0x8000_0000_0003_FFFF).to_le_bytes());
        }
        let said = still.says(&std::format!("{} {arguments}", ["regs", "mem", "walk", "disasm", "log"][command]));
        prop_assert!(said.lines().count() <= 100);
    }
}

#[test]
fn shows_memory_with_what_cannot_be_read() {
    let mut still =
        Still::long(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000 + 8, 0x5001)]);
    still.put(0x5FF0, b"Lockstep \x01\xFF 1234");
    let expected = "\
0000000000001ff0  4c 6f 63 6b 73 74 65 70  20 01 ff 20 31 32 33 34  Lockstep .. 1234
0000000000002000  -- -- -- --                                       
";
    assert_eq!(still.says("mem 1ff0 20"), expected);
    assert!(still.says("mem 0x5ff0 0x10 phys").contains("Lockstep .. 1234"));
    assert_eq!(
        still.says("mem 1ff8 3").trim_end(),
        "0000000000001ff8  20 01 ff                                           .."
    );
    still.registers[Register::Rsp as usize] = 0x1FF0;
    assert!(still.says("mem rsp 8").ends_with("  Lockstep\n"));
    assert_eq!(still.says("mem"), "of the host\n");
    for wrong in ["mem zebra", "mem 1000 many", "mem 1000 16 phys more", "mem phys"] {
        assert!(still.says(wrong).starts_with("usage: mem"), "{wrong}");
    }
}

#[test]
fn shows_instructions_of_each_width() {
    let mut still = Still::long(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)]);
    still.registers[Register::Rip as usize] = 0x8000;
    // mov rax,[rbx+8]; a jump to itself; what is none; rdtsc.
    still.put(0x8000, &[0x48, 0x8B, 0x43, 0x08, 0xEB, 0xFE, 0x06, 0x0F, 0x31]);
    let said = still.says("disasm rip 4");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "> 0000000000008000 488b4308             mov rax, [rbx+0x8]");
    assert!(lines[1].contains("ebfe") && lines[1].ends_with("0x8004"), "{}", lines[1]);
    assert!(lines[2].ends_with("(bad)") && lines[3].ends_with("rdtsc"), "{said}");
    still.registers[Register::CsAccess as usize] = 0x9B;
    assert!(still.says("disasm 8006 1").ends_with("push es\n"), "16-bit code");
    still.registers[Register::CsAccess as usize] = 0x409B;
    assert!(still.says("disasm 8000 2").contains("dec eax"), "32-bit code");
    assert!(still.says("disasm 40000000").contains("cannot be read"));
    assert!(still.says("disasm 1 2 3").starts_with("usage: disasm"));
}

#[test]
fn shows_every_register() {
    let mut still = Still::new(&[(Register::Rflags, 0x3202), (Register::GsBase, 0xFFFF_8880_0000_1234)]);
    let said = still.says("regs");
    for register in Register::ALL {
        let name = register.name();
        let listed = said.split_ascii_whitespace().any(|word| word == name);
        let hidden =
            ["-base", "-limit", "-access"].iter().any(|end| name.ends_with(end)) && !name.contains("dtr-");
        assert!(listed || hidden || name.starts_with("ldtr-"), "{name}");
    }
    assert!(said.contains("flags: IF IOPL=3") && said.contains("ffff888000001234"));
    assert!(said.lines().all(|line| line.len() <= 80), "{said}");
}

#[test]
fn says_where_a_replay_is_and_that_a_guest_that_runs_is_not_looked_at() {
    let mut still = Still::new(&[]);
    assert_eq!(still.says("log 5"), "5 entries\n");
    assert!(still.says("log").contains("* info"));
    assert!(still.says("log never").starts_with("usage: log"));
    still.runs = true;
    for line in ["regs", "mem 0", "walk 0", "disasm", "log 5"] {
        assert!(still.says(line).contains("vm pause first"), "{line}");
    }
    let mut out = String::new();
    assert_eq!(execute("regs", &mut Host0, None, &mut out), Ok(Effect::None));
    assert!(out.contains("no virtual machine"));
}
